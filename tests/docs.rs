//! Tables in the README that repeat the code are made from it. `UPDATE_DOCS=1 cargo test --test
//! docs` writes them; without it a stale one fails.

use shardwall::pipeline::DropReason;
use std::path::Path;

const BEGIN: &str = "<!-- drop reasons: generated, `UPDATE_DOCS=1 cargo test --test docs` -->\n";
const END: &str = "<!-- end of drop reasons -->";

#[test]
fn the_readme_lists_every_drop_reason() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let readme = std::fs::read_to_string(&path).unwrap();
    let mut table = String::from("| reason | meaning |\n|---|---|\n");
    for reason in DropReason::ALL {
        table += &format!("| `{}` | {} |\n", reason.name(), reason.text());
    }
    let (head, rest) = readme
        .split_once(BEGIN)
        .expect("the marker before the table");
    let (_, tail) = rest.split_once(END).expect("the marker behind the table");
    let want = format!("{head}{BEGIN}{table}{END}{tail}");
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
