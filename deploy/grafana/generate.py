#!/usr/bin/env python3
"""Writes the dashboards beside it, or with --check says which are not what it would write.

A panel is a line below; what Grafana needs around it is made here, once. uids stay as they are: links
and bookmarks go by them.
"""

import json
import pathlib
import sys

HERE = pathlib.Path(__file__).parent
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
INSTANCE = 'instance=~"$instance"'


def metric(name, labels=""):
    """A metric of the chosen instances."""
    return f"shardwall_{name}{{{INSTANCE}{', ' + labels if labels else ''}}}"


def rate(name, labels=""):
    return f"rate({metric(name, labels)}[$__rate_interval])"


def by(labels, expression):
    """Summed up, by instance and these labels."""
    return f"sum by ({', '.join(['instance', *labels.split()])}) ({expression})"


def top(expression):
    return f"topk(10, {expression})"


def used(entries, limit):
    return f"{by('', metric(entries))} / {by('', metric(limit))}"


def busy():
    part = by("worker", rate("worker_cycles_seconds_total", 'kind="busy"'))
    return f"{part} / {by('worker', rate('worker_cycles_seconds_total'))}"


def quantile(q):
    return f"histogram_quantile({q}, {by('worker le', rate('worker_loop_seconds_bucket'))})"


def steps(*pairs):
    return [{"color": color, "value": value} for value, color in pairs]


GREEN = steps((None, "green"))
SHARE = steps((None, "green"), (0.75, "orange"), (0.9, "red"))
GOOD_IS_1 = steps((None, "red"), (1, "green"))
BAD_IS_1 = steps((None, "green"), (1, "red"))


def target(at, expression, legend, instant):
    return {
        "refId": "ABCDEFGH"[at],
        "datasource": SOURCE,
        "expr": expression,
        "legendFormat": legend,
        "instant": instant,
        "range": not instant,
    }


def stat(title, about, unit, expression, legend="{{instance}}", thresholds=None, width=4, mappings=None, text="auto"):
    defaults = {"unit": unit, "thresholds": {"mode": "absolute", "steps": thresholds or GREEN}}
    if unit == "percentunit":
        defaults |= {"min": 0, "max": 1}
    if mappings:
        options = {value: {"text": said, "index": at} for at, (value, said) in enumerate(mappings)}
        defaults["mappings"] = [{"type": "value", "options": options}]
    return width, 4, {
        "type": "stat",
        "title": title,
        "description": about,
        "datasource": SOURCE,
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": {
            "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
            "colorMode": "value",
            "graphMode": "none",
            "textMode": text,
            "justifyMode": "auto",
            "orientation": "auto",
            "wideLayout": True,
            "showPercentChange": False,
            "percentChangeColorMode": "standard",
        },
        "targets": [target(0, expression, legend, True)],
    }


def lines(title, about, unit, *queries, width=12, height=8, stacked=False, limit=None):
    defaults = {
        "unit": unit,
        "min": 0,
        "color": {"mode": "palette-classic"},
        "custom": {
            "drawStyle": "line",
            "lineInterpolation": "linear",
            "lineWidth": 1,
            "fillOpacity": 30 if stacked else 8,
            "showPoints": "auto",
            "spanNulls": False,
            "stacking": {"mode": "normal" if stacked else "none", "group": "A"},
        },
    }
    if unit == "percentunit":
        defaults["max"] = 1
    if limit:
        defaults["custom"]["thresholdsStyle"] = {"mode": "dashed"}
        defaults["thresholds"] = {"mode": "absolute", "steps": steps((None, "green"), (limit, "red"))}
    return width, height, {
        "type": "timeseries",
        "title": title,
        "description": about,
        "datasource": SOURCE,
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": {
            "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []},
            "tooltip": {"mode": "multi", "sort": "desc"},
        },
        "targets": [target(at, expression, legend, False) for at, (legend, expression) in enumerate(queries)],
    }


def heat(title, about, expression, width=12, height=8):
    return width, height, {
        "type": "heatmap",
        "title": title,
        "description": about,
        "datasource": SOURCE,
        "fieldConfig": {"defaults": {}, "overrides": []},
        "options": {
            "calculate": False,
            "cellGap": 1,
            "color": {
                "mode": "scheme",
                "scheme": "Oranges",
                "fill": "dark-orange",
                "exponent": 0.5,
                "scale": "exponential",
                "steps": 64,
                "reverse": False,
            },
            "exemplars": {"color": "rgba(255,0,255,0.7)"},
            "filterValues": {"le": 1e-9},
            "legend": {"show": True},
            "rowsFrame": {"layout": "auto"},
            "showValue": "never",
            "tooltip": {"mode": "single", "yHistogram": False, "showColorScale": False},
            "yAxis": {"axisPlacement": "left", "reverse": False, "unit": "s"},
        },
        "targets": [target(0, expression, "{{le}}", False) | {"format": "heatmap"}],
    }


def row(title):
    return 24, 1, {"type": "row", "title": title, "collapsed": False, "panels": []}


YES = [("0", "failed"), ("1", "in force")]
LINK = [("-1", "unknown"), ("0", "down"), ("1", "up")]

DASHBOARDS = {
    "overview": ("Overview", "One or several boxes at a glance: flows, traffic, drops, load.", [
        stat("Boxes", "How many answer.", "none", f"count({metric('build_info')})", ""),
        stat("Flows", "Flows in the table.", "short", by("", metric("conntrack_entries"))),
        stat("Table used", "Flows, of the table's limit; an alert fires above 75 %.", "percentunit",
             used("conntrack_entries", "conntrack_entries_limit"), thresholds=SHARE),
        stat("Forwarded", "Packets handed to ports, a second.", "pps", by("", rate("forwarded_packets_total"))),
        stat("Dropped", "Packets dropped, for whatever reason, a second.", "pps", by("", rate("drop_packets_total"))),
        stat("Last reload", "Whether the last reload worked.", "none", metric("config_last_reload_successful"),
             thresholds=GOOD_IS_1, mappings=YES),
        lines("Traffic by port", "Bits taken from a port, and handed to it.", "bps",
              ("{{instance}} {{port}} in", by("port", rate("port_rx_bytes_total") + " * 8")),
              ("{{instance}} {{port}} out", by("port", rate("port_tx_bytes_total") + " * 8"))),
        lines("Packets by port", "Packets taken from a port, and handed to it.", "pps",
              ("{{instance}} {{port}} in", by("port", rate("port_rx_packets_total"))),
              ("{{instance}} {{port}} out", by("port", rate("port_tx_packets_total")))),
        lines("Where packets go", "What is taken is forwarded, dropped or given to the host.", "pps",
              ("{{instance}} received", by("", rate("received_packets_total"))),
              ("{{instance}} forwarded", by("", rate("forwarded_packets_total"))),
              ("{{instance}} dropped", by("", rate("drop_packets_total"))),
              ("{{instance}} generated", by("", rate("generated_packets_total")))),
        lines("Drops by reason", "The ten most frequent.", "pps",
              ("{{instance}} {{reason}}", top(by("reason", rate("drop_packets_total"))))),
        lines("Flows and limit", "Flows in the table, by protocol.", "short",
              ("{{instance}} {{proto}}", by("proto", metric("conntrack_entries"))),
              ("{{instance}} limit", by("", metric("conntrack_entries_limit")))),
        lines("Load of the workers", "Share of their time in which they did something.", "percentunit",
              ("{{instance}} {{worker}}", busy()), limit=0.9),
        row("Ports"),
        stat("Links", "Whether each port's link is up.", "none", metric("port_link_up"), "{{instance}} {{port}}",
             thresholds=steps((None, "orange"), (0, "red"), (1, "green")), width=12, mappings=LINK),
        stat("Link changes in an hour", "Changes of a port's link, in state or speed.", "short",
             by("port", f"increase({metric('port_link_changes_total')}[1h])"), "{{instance}} {{port}}",
             thresholds=BAD_IS_1, width=12),
        lines("Lost at the port", "Packets that found its queues full, or no buffer free.", "pps",
              ("{{instance}} {{port}} missed", by("port", rate("port_missed_packets_total"))),
              ("{{instance}} {{port}} no buffer", by("port", rate("port_no_buffer_total")))),
        lines("Errors at the port", "Packets that came damaged, or could not be sent.", "pps",
              ("{{instance}} {{port}} in", by("port", rate("port_rx_errors_total"))),
              ("{{instance}} {{port}} out", by("port", rate("port_tx_errors_total")))),
        row("The box"),
        stat("Version", "What runs.", "none", metric("build_info"), "{{version}}", text="name", width=6),
        stat("Up for", "Since the start.", "s", f"time() - {metric('start_time_seconds')}", width=6),
        stat("Policy in force for", "Since a reload worked last; the start counts.", "s",
             f"time() - {metric('config_last_reload_success_timestamp_seconds')}", width=6),
        stat("Workers", "How many there are.", "none", f"count by (instance) ({metric('worker_loops_total')})", width=6),
    ]),
    "conntrack": ("Connection tracking", "The table of flows: what is in it, what comes and goes, what finds no place.", [
        stat("Flows", "Flows in the table.", "short", by("", metric("conntrack_entries"))),
        stat("Table used", "Flows, of the table's limit.", "percentunit",
             used("conntrack_entries", "conntrack_entries_limit"), thresholds=SHARE),
        stat("New flows", "Flows entered, a second.", "cps", by("", rate("conntrack_insert_total"))),
        stat("INVALID", "Packets judged INVALID, a second.", "pps", by("", rate("conntrack_invalid_total"))),
        stat("Early drops", "Flows that ended for others, a second.", "cps",
             by("", rate("conntrack_early_drop_total")), thresholds=steps((None, "green"), (0.001, "red"))),
        stat("No place", "New flows that found none, a second.", "cps",
             by("", rate("conntrack_insert_failed_total") + " + " + rate("conntrack_drop_total")),
             thresholds=steps((None, "green"), (0.001, "red"))),
        lines("Flows by protocol", "Flows in the table.", "short",
              ("{{instance}} {{proto}}", by("proto", metric("conntrack_entries"))), stacked=True),
        lines("TCP flows by state", "The state of the connection, as conntrack(8) names it.", "short",
              ("{{instance}} {{state}}", by("state", metric("conntrack_tcp_entries"))), stacked=True),
        lines("Flows that come and go", "Entered, ended, and ended before their time.", "cps",
              ("{{instance}} begun", by("", rate("conntrack_insert_total"))),
              ("{{instance}} ended", by("", rate("conntrack_delete_total"))),
              ("{{instance}} ended early", by("", rate("conntrack_early_drop_total")))),
        lines("Lookups", "Packets that found a flow, or could start one.", "pps",
              ("{{instance}} found", by("", rate("conntrack_found_total"))),
              ("{{instance}} new", by("", rate("conntrack_new_total")))),
        lines("What is wrong", "INVALID packets, ICMP errors about nothing known.", "pps",
              ("{{instance}} INVALID", by("", rate("conntrack_invalid_total"))),
              ("{{instance}} ICMP error", by("", rate("conntrack_icmp_error_total")))),
        lines("What finds no place", "A full table, and a full part of its index.", "cps",
              ("{{instance}} table full", by("", rate("conntrack_drop_total"))),
              ("{{instance}} index full", by("", rate("conntrack_insert_failed_total")))),
        row("Fragments"),
        lines("Fragments held", "Those that wait for the rest of their datagram.", "short",
              ("{{instance}}", by("", metric("fragments_held")))),
        lines("Reassembly", "Datagrams put together, and given up.", "cps",
              ("{{instance}} {{result}}", by("result", rate("reassembly_datagrams_total")))),
        row("Events"),
        lines("Events", "Events made for those who watch, and lost.", "cps",
              ("{{instance}} made", by("", rate("conntrack_events_total"))),
              ("{{instance}} lost by {{queue}}", by("queue", rate("conntrack_events_lost_total")))),
        lines("Watchers", "Clients that watch.", "short", ("{{instance}}", metric("conntrack_event_watchers"))),
    ]),
    "policy": ("Policy", "Rules and what they match, drops, limits, reloads, log.", [
        stat("Generation", "Number of the policy in force.", "none", metric("config_generation")),
        stat("Last reload", "Whether it worked.", "none", metric("config_last_reload_successful"),
             thresholds=GOOD_IS_1, mappings=YES),
        stat("In force for", "Since a reload worked last; the start counts.", "s",
             f"time() - {metric('config_last_reload_success_timestamp_seconds')}"),
        stat("Reload took", "The last one, whatever came of it.", "s", metric("config_last_reload_duration_seconds")),
        stat("Grace", "How long the last reload waited until no worker went by the old policy.", "s",
             metric("config_last_grace_seconds")),
        stat("Rules", "Rules in force, chains' policies included.", "none", metric("policy_rules")),
        lines("Busiest rules", "The ten that match most packets.", "pps",
              ("{{instance}} {{rule}}", top(by("rule", rate("policy_hits_packets_total"))))),
        lines("Busiest rules by bytes", "The ten that match most bytes.", "Bps",
              ("{{instance}} {{rule}}", top(by("rule", rate("policy_hits_bytes_total"))))),
        lines("Drops by reason", "The ten most frequent.", "pps",
              ("{{instance}} {{reason}}", top(by("reason", rate("drop_packets_total"))))),
        lines("Named counters", "Packets of the rules that feed them.", "pps",
              ("{{instance}} {{counter}}", top(by("counter", rate("policy_counter_packets_total"))))),
        lines("Named counters by bytes", "Bytes of these packets.", "Bps",
              ("{{instance}} {{counter}}", top(by("counter", rate("policy_counter_bytes_total"))))),
        lines("Reloads", "In the last hour, by result.", "short",
              ("{{instance}} {{result}}", by("result", f"increase({metric('config_reloads_total')}[1h])"))),
        lines("Limits", "Share of the buckets of a limit for each address that are open.", "percentunit",
              ("{{instance}} {{rule}}", f"{metric('limit_buckets')} / {metric('limit_buckets_limit')}"), limit=0.75),
        row("Log"),
        lines("Log lines", "Written, suppressed by the rule's own limit, lost.", "cps",
              ("{{instance}} written", by("", rate("log_lines_total"))),
              ("{{instance}} suppressed", by("", rate("log_suppressed_total"))),
              ("{{instance}} lost by {{queue}}", by("queue", rate("log_lost_total"))), width=24),
    ]),
    "workers": ("Workers", "The cores that forward: load, loops, hand-over between them, RCU.", [
        lines("Load", "Share of its time in which a worker did something.", "percentunit",
              ("{{instance}} {{worker}}", busy()), limit=0.9),
        lines("Packets received", "What each worker took from ports.", "pps",
              ("{{instance}} {{worker}}", by("worker", rate("worker_received_packets_total")))),
        lines("Loops", "Loops a second, idle ones too: one that stands still is stuck.", "ops",
              ("{{instance}} {{worker}}", by("worker", rate("worker_loops_total")))),
        lines("Time of a loop", "What half, and 99 %, of the loops that did something did not exceed.", "s",
              ("{{instance}} {{worker}} p50", quantile(0.5)), ("{{instance}} {{worker}} p99", quantile(0.99))),
        heat("Loops by time", "All workers together.",
             f"sum by (le) (increase({metric('worker_loop_seconds_bucket')}[$__rate_interval]))"),
        lines("Longest loop", "Since the start.", "s",
              ("{{instance}} {{worker}}", metric("worker_loop_longest_seconds"))),
        lines("Flows", "Flows that each worker owns.", "short",
              ("{{instance}} {{worker}}", metric("worker_conntrack_entries"))),
        lines("Drops", "What each worker dropped, for whatever reason.", "pps",
              ("{{instance}} {{worker}}", by("worker", rate("worker_dropped_packets_total")))),
        row("Between workers"),
        lines("Handed over", "Packets that one worker received and another owns.", "pps",
              ("{{instance}} {{worker}} {{direction}}", by("worker direction", rate("worker_handoff_packets_total")))),
        lines("Why", "Why packets are handed over.", "pps",
              ("{{instance}} {{cause}}", by("cause", rate("worker_handoff_cause_packets_total")))),
        lines("Lost on the way", "Packets that found the ring full.", "pps",
              ("{{instance}} {{worker}}", by("worker", rate("worker_handoff_lost_packets_total")))),
        lines("Rings", "What waits in the rings to a worker, the most that ever did, and what one holds.", "short",
              ("{{instance}} {{worker}} waiting", metric("worker_ring_waiting_packets")),
              ("{{instance}} {{worker}} highest", metric("worker_ring_highest_packets")),
              ("{{instance}} holds", metric("worker_ring_limit_packets"))),
        lines("Buckets of flows", "How many each worker owns.", "short",
              ("{{instance}} {{worker}}", metric("worker_buckets")), width=8),
        lines("Packets of its buckets", "Whoever received them; not counted with one worker.", "short",
              ("{{instance}} {{worker}}", metric("worker_owned_packets")), width=8),
        lines("Policies behind", "Changes that a worker has still to see; 0 but for moments.", "short",
              ("{{instance}} {{worker}}", metric("worker_epochs_behind")), width=8),
        lines("Hash from the NIC", "Packets whose worker was read from the hash that the port told, and hashes that were wrong.",
              "pps", ("{{instance}} {{port}} used", by("port", rate("port_hash_used_packets_total"))),
              ("{{instance}} {{port}} wrong", by("port", rate("port_hash_wrong_total"))), width=24),
    ]),
    "helpers": ("Helpers", "What helpers read, expect and refuse.", [
        stat("Expectations", "Flows that are expected.", "short", metric("expectations"), width=6),
        stat("Table used", "Expectations, of the limit.", "percentunit", used("expectations", "expectations_limit"),
             thresholds=SHARE, width=6),
        stat("Messages", "Messages understood, a second.", "cps", by("", rate("helper_parsed_total")), width=6),
        stat("Refused", "Requests refused, a second.", "cps", by("", rate("helper_refused_total")), width=6),
        lines("Expectations and limit", "What is expected, and what may be.", "short",
              ("{{instance}}", metric("expectations")), ("{{instance}} limit", metric("expectations_limit"))),
        lines("Made and used", "Expectations made, and flows that fulfilled one.", "cps",
              ("{{instance}} {{helper}} made", by("helper", rate("helper_expected_total"))),
              ("{{instance}} {{helper}} used", by("helper", rate("helper_used_total")))),
        lines("Ended without a flow", "Their time was over, or who announced them ended.", "cps",
              ("{{instance}} {{helper}} expired", by("helper", rate("helper_expired_total"))),
              ("{{instance}} {{helper}} withdrawn", by("helper", rate("helper_withdrawn_total")))),
        lines("Messages understood", "By helper.", "cps",
              ("{{instance}} {{helper}}", by("helper", rate("helper_parsed_total")))),
        lines("Flows listened to", "Flows that a helper was attached to.", "cps",
              ("{{instance}} {{helper}}", by("helper", rate("helper_flows_total")))),
        lines("Refused", "The ten most frequent, by helper and reason.", "cps",
              ("{{instance}} {{helper}} {{reason}}", top(by("helper reason", rate("helper_refused_total"))))),
    ]),
}


def place(panels):
    """Panels in rows from left to right, numbered."""
    placed, x, y, below = [], 0, 0, 0
    for number, (width, height, panel) in enumerate(panels, 1):
        if x + width > 24:
            x, y = 0, below
        if panel["type"] == "row":
            x, y = 0, below
        placed.append({"id": number, **panel, "gridPos": {"x": x, "y": y, "w": width, "h": height}})
        x, below = x + width, max(below, y + height)
    return placed


def variables():
    query = "label_values(shardwall_build_info, instance)"
    return [
        {
            "name": "datasource",
            "label": "Data source",
            "type": "datasource",
            "query": "prometheus",
            "hide": 0,
            "includeAll": False,
            "multi": False,
            "options": [],
            "refresh": 1,
            "regex": "",
            "skipUrlSync": False,
        },
        {
            "name": "instance",
            "label": "Instance",
            "type": "query",
            "datasource": SOURCE,
            "query": {"qryType": 1, "query": query, "refId": "instance"},
            "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
            "hide": 0,
            "includeAll": True,
            "allValue": ".+",
            "multi": True,
            "options": [],
            "refresh": 2,
            "regex": "",
            "sort": 1,
            "skipUrlSync": False,
        },
    ]


def dashboard(name, title, about, panels):
    links = {
        "type": "dashboards",
        "title": "shardwall",
        "tags": ["shardwall"],
        "asDropdown": True,
        "includeVars": True,
        "keepTime": True,
        "targetBlank": False,
        "icon": "external link",
        "tooltip": "",
        "url": "",
    }
    reloads = {
        "name": "Policy reloads",
        "datasource": SOURCE,
        "enable": True,
        "hide": False,
        "iconColor": "blue",
        "expr": f"changes({metric('config_generation')}[$__interval]) > 0",
        "titleFormat": "policy reloaded",
        "textFormat": "{{instance}}",
    }
    return {
        "id": None,
        "uid": f"shardwall-{name}",
        "title": f"shardwall / {title}",
        "description": about,
        "tags": ["shardwall", "firewall"],
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "timezone": "browser",
        "time": {"from": "now-1h", "to": "now"},
        "timepicker": {},
        "fiscalYearStartMonth": 0,
        "weekStart": "",
        "links": [links],
        "annotations": {"list": [reloads]},
        "templating": {"list": variables()},
        "panels": place(panels),
    }


def main():
    stale = []
    for name, (title, about, panels) in DASHBOARDS.items():
        path = HERE / f"shardwall-{name}.json"
        text = json.dumps(dashboard(name, title, about, panels), indent=2) + "\n"
        if "--check" not in sys.argv:
            path.write_text(text, encoding="utf-8")
        elif not path.exists() or path.read_text(encoding="utf-8") != text:
            stale.append(path.name)
    if stale:
        sys.exit(f"stale, run deploy/grafana/generate.py: {', '.join(stale)}")


if __name__ == "__main__":
    main()
