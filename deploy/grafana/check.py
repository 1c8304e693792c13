#!/usr/bin/env python3
"""Holds the dashboards against Grafana's own schema: its types (npm's @grafana/schema), by the TypeScript
compiler. An unknown key, a missing one and a value of another type are errors.

Usage: check.py NODE_MODULES
"""

import json
import pathlib
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).parent
TYPES = "@grafana/schema/dist/types"
# Which panels the dashboards have, and the schema's names for what is their own.
KINDS = {"timeseries": "TimeSeries", "stat": "Stat", "heatmap": "Heatmap"}

# What an annotation takes beside that is the data source's to know.
OF_PROMETHEUS = ["expr", "titleFormat", "textFormat"]

# Enums of the schema take their values' text here, as JSON has it.
HEAD = """
type Plain<T> = T extends string ? `${T}` : T extends (infer I)[] ? Plain<I>[]
  : T extends object ? { [K in keyof T]: Plain<T[K]> } : T;
type Own<T> = Plain<Partial<T>>;
"""


def main():
    modules = pathlib.Path(sys.argv[1]).resolve()
    types = f"{modules}/{TYPES}"
    source = [f'import type {{ Dashboard, Panel, RowPanel }} from "{types}/raw/dashboard/x/types.gen";']
    for kind, name in KINDS.items():
        source.append(f'import type * as {name} from "{types}/raw/composable/{kind}/panelcfg/x/types.gen";')
    source.append(HEAD)
    constant = 0

    def check(kind, value, what):
        nonlocal constant
        constant += 1
        source.append(f"export const c{constant}: {kind} = {json.dumps(value)}; // {what}")

    for path in sorted(HERE.glob("shardwall-*.json")):
        dashboard = json.loads(path.read_text(encoding="utf-8"))
        for annotation in dashboard["annotations"]["list"]:
            for key in OF_PROMETHEUS:
                annotation.pop(key, None)
        check("Plain<Omit<Dashboard, 'panels'>>", {k: v for k, v in dashboard.items() if k != "panels"}, path.name)
        for panel in dashboard["panels"]:
            what = f"{path.name}: {panel['title']}"
            if panel["type"] == "row":
                check("Plain<RowPanel>", panel, what)
                continue
            name = KINDS[panel["type"]]
            check("Plain<Panel>", panel, what)
            check(f"Own<{name}.Options>", panel["options"], f"{what}: options")
            custom = panel["fieldConfig"]["defaults"].get("custom")
            if custom is not None:
                check(f"Own<{name}.FieldConfig>", custom, f"{what}: fieldConfig")
    with tempfile.TemporaryDirectory() as work:
        file = pathlib.Path(work) / "dashboards.ts"
        file.write_text("\n".join(source), encoding="utf-8")
        # The schema's own declarations are not ours to check.
        flags = ["--noEmit", "--strict", "--skipLibCheck", "--target", "es2022", "--moduleResolution", "bundler"]
        command = [modules / ".bin/tsc", *flags, "--module", "esnext", "--typeRoots", work, file]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = "\n".join(source).split("\n")
    for line in result.stdout.splitlines():
        place = line.partition("dashboards.ts(")[2].partition(",")[0]
        about = lines[int(place) - 1].rpartition("// ")[2] if place.isdigit() else ""
        print(f"{about}: {line.partition('): ')[2] or line}"[:600])
    if result.returncode:
        sys.exit(1)
    print(f"{constant} parts of the dashboards are as Grafana's schema has them")


if __name__ == "__main__":
    main()
