//! Tables in the README that repeat the code are made from it. `UPDATE_DOCS=1 cargo test --test
//! docs` writes them; without it a stale one fails.

use shardwall::conntrack::helper::{Class, Refusal};
use shardwall::control::protocol::proto_name;
use shardwall::helpers::INFOS;
use shardwall::pipeline::DropReason;
use std::path::Path;

/// A table, between two markers with its name.
fn table(readme: &str, name: &str, table: &str) -> String {
    let begin = format!("<!-- {name}: generated, `UPDATE_DOCS=1 cargo test --test docs` -->\n");
    let end = format!("<!-- end of {name} -->");
    let (head, rest) = readme
        .split_once(&begin)
        .unwrap_or_else(|| panic!("the marker before the {name}"));
    let (_, tail) = rest
        .split_once(&end)
        .unwrap_or_else(|| panic!("the marker behind the {name}"));
    format!("{head}{begin}{table}{end}{tail}")
}

fn drop_reasons() -> String {
    let rows = DropReason::ALL.iter();
    let rows = rows.map(|reason| format!("| `{}` | {} |\n", reason.name(), reason.text()));
    "| reason | meaning |\n|---|---|\n".to_owned() + &rows.collect::<String>()
}

fn refusals() -> String {
    let rows = Refusal::ALL.iter();
    let rows = rows.map(|reason| format!("| `{}` | {} |\n", reason.name(), reason.text()));
    "| refused | because |\n|---|---|\n".to_owned() + &rows.collect::<String>()
}

fn helpers() -> String {
    let rows = INFOS.iter().map(|info| {
        let protos = info.protos.iter();
        let protos: Vec<_> = protos
            .map(|number| proto_name(*number).unwrap_or("unknown"))
            .collect();
        let families = if info.ipv6 { "IPv4, IPv6" } else { "IPv4" };
        let classes: Vec<_> = info.classes.iter().map(class).collect();
        let (protos, classes) = (protos.join(", "), classes.join("; "));
        format!("| `{}` | {protos} | {families} | {classes} |\n", info.name)
    });
    "| helper | listens to | of | expects, of one flow at a time |\n|---|---|---|---|\n".to_owned()
        + &rows.collect::<String>()
}

fn class(class: &Class) -> String {
    let (name, max, seconds) = (class.name, class.max, class.timeout.as_secs());
    format!("{name}: {max}, for {seconds} s")
}

#[test]
fn the_readme_has_every_drop_reason_helper_and_refusal() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let readme = std::fs::read_to_string(&path).unwrap();
    let want = table(&readme, "drop reasons", &drop_reasons());
    let want = table(&want, "refusals", &refusals());
    let want = table(&want, "helpers", &helpers());
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, want).unwrap();
    } else {
        assert!(
            readme == want,
            "README.md is stale: run UPDATE_DOCS=1 cargo test --test docs"
        );
    }
}

#[test]
fn the_policies_that_we_ship_are_valid() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let checked = shardwall::policy::load(&root.join("deploy/policy.example.yaml"))
        .unwrap_or_else(|errors| panic!("{errors}"));
    assert!(checked.warnings.is_empty(), "{}", checked.render_warnings());
    // The README's own example.
    let readme = std::fs::read_to_string(root.join("README.md")).unwrap();
    let (_, rest) = readme.split_once("```yaml\n").expect("an example");
    let (example, _) = rest.split_once("```").expect("its end");
    let checked =
        shardwall::policy::parse("README.md", example).unwrap_or_else(|errors| panic!("{errors}"));
    assert!(checked.warnings.is_empty(), "{}", checked.render_warnings());
}
