//! The examples of policies in the documents are valid. What is no whole policy is completed by ports, sets
//! and a chain that examples refer to.

use shardwall::policy;
use std::fs;
use std::path::{Path, PathBuf};

/// What examples take for granted: sections, with their entries.
const GIVEN: &[(&str, &[&str])] = &[
    ("version: 1", &[]),
    (
        "ports:",
        &[
            "  lan: { device: net_null0 }",
            "  wan: { device: net_null1 }",
            "  wan2: { device: net_null2 }",
        ],
    ),
    ("bridge:", &["  - [lan, wan]"]),
    (
        "sets:",
        &[
            "  servers: [10.2.0.0/16, \"fd02::/16\"]",
            "  mailers: [10.1.1.1]",
            "  web: [80, 443]",
        ],
    ),
    (
        "chains:",
        &[
            "  guests: { rules: [{ action: drop }] }",
            "  forward: { policy: drop }",
        ],
    ),
];

/// The files that examples of sets name.
const FILES: &[(&str, &str)] = &[
    ("blocklist.txt", "192.0.2.1\n"),
    ("v4.txt", "198.51.100.0/24\n"),
    ("v6.txt", "2001:db8::/32\n"),
];

/// Whether an example is a policy by itself.
fn is_whole(example: &str) -> bool {
    example.starts_with("version:")
}

/// The example with all that it takes for granted.
fn whole(example: &str) -> String {
    if is_whole(example) {
        return example.to_owned();
    }
    let rules = "chains:\n  forward:\n    rules:\n";
    let mut text = match example.starts_with("      - {") {
        true => format!("{rules}{example}"),
        false => example.to_owned(),
    };
    for (section, entries) in GIVEN {
        let name = section.split(' ').next().unwrap();
        let mut lines: Vec<_> = text.lines().collect();
        let place = lines.iter().position(|line| line.starts_with(name));
        let place = place.unwrap_or_else(|| {
            lines.push(section);
            lines.len() - 1
        });
        for entry in *entries {
            let key = entry.split(':').next().unwrap();
            let own = lines[place + 1..]
                .iter()
                .take_while(|line| line.is_empty() || line.starts_with([' ', '#']));
            let lists = key.contains('[') && own.clone().count() > 0;
            if !lists && !own.clone().any(|line| line.starts_with(&format!("{key}:"))) {
                lines.insert(place + 1, entry);
            }
        }
        text = lines.join("\n") + "\n";
    }
    text
}

fn pages() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut pages = vec![root.join("README.md")];
    let docs = fs::read_dir(root.join("docs")).unwrap();
    pages.extend(docs.map(|entry| entry.unwrap().path()));
    pages
}

#[test]
fn the_examples_of_policies_are_valid() {
    let folder = std::env::temp_dir().join(format!("shardwall-docs-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    for (name, text) in FILES {
        fs::write(folder.join(name), text).unwrap();
    }
    let file = folder.join("policy.yaml");
    let (mut tried, mut wrong) = (0, Vec::new());
    for page in pages() {
        let text = fs::read_to_string(&page).unwrap();
        for part in text.split("```yaml\n").skip(1) {
            let (example, _) = part.split_once("```").unwrap();
            if example.contains("scrape_configs") {
                continue; // Prometheus'
            }
            tried += 1;
            fs::write(&file, whole(example)).unwrap();
            let page = page.display();
            match policy::load(&file) {
                Err(errors) => wrong.push(format!("{page}:\n{example}\n{errors}")),
                // What is shown as a whole is to be copied.
                Ok(checked) if is_whole(example) && !checked.warnings.is_empty() => {
                    wrong.push(format!("{page}:\n{example}\n{}", checked.render_warnings()));
                }
                Ok(_) => {}
            }
        }
    }
    fs::remove_dir_all(&folder).unwrap();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(tried >= 12, "only {tried} examples were found");
}
