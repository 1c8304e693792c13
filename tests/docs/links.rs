//! Links in the documents lead somewhere: every relative one names a file that is there, and a heading or an
//! anchor in it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// What is read: the README, and every page of these folders.
const FOLDERS: [&str; 2] = ["docs", "deploy"];

fn pages() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut pages = vec![root.join("README.md"), root.join("CHANGELOG.md")];
    for folder in FOLDERS {
        for entry in fs::read_dir(root.join(folder)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|end| end == "md") {
                pages.push(path);
            }
        }
    }
    pages
}

/// The lines of a page that are no code, with their numbers.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut code = false;
    text.lines().enumerate().filter_map(move |(at, line)| {
        let fence = line.trim_start().starts_with("```");
        code ^= fence;
        (!code && !fence).then_some((at + 1, line))
    })
}

/// A line without what stands between backquotes.
fn without_code(line: &str) -> String {
    line.split('`').step_by(2).collect()
}

/// Where the links of a line lead to.
fn targets(line: &str) -> Vec<String> {
    let mut found = Vec::new();
    for part in without_code(line).split("](").skip(1) {
        if let Some((target, _)) = part.split_once(')') {
            found.push(target.to_owned());
        }
    }
    found
}

/// The anchor that GitHub makes of a heading.
fn slug(heading: &str) -> String {
    let kept = heading
        .trim()
        .chars()
        .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.collect::<String>().to_lowercase().replace(' ', "-")
}

/// What can be linked to in a page: its headings, numbered where they repeat, and its `<a id="…">`.
fn anchors(text: &str) -> Vec<String> {
    let mut seen = BTreeMap::<String, usize>::new();
    let mut found = Vec::new();
    for (_, line) in prose(text) {
        let heading = line.trim_start_matches('#');
        if heading.len() < line.len() && heading.starts_with(' ') {
            let slug = slug(heading);
            let times = seen.entry(slug.clone()).or_default();
            found.push(match *times {
                0 => slug,
                times => format!("{slug}-{times}"),
            });
            *times += 1;
        }
        for part in line.split("<a id=\"").skip(1) {
            found.extend(part.split_once('"').map(|(id, _)| id.to_owned()));
        }
    }
    found
}

/// What is wrong with the links of a page.
fn broken(page: &Path, text: &str) -> Vec<String> {
    let folder = page.parent().unwrap();
    let mut wrong = Vec::new();
    for (line, text_of_line) in prose(text) {
        for target in targets(text_of_line) {
            if target.contains("://") {
                continue;
            }
            let (file, anchor) = target.split_once('#').unwrap_or((&target, ""));
            let file = if file.is_empty() {
                page.to_owned()
            } else {
                folder.join(file)
            };
            let told = format!("{}:{line}: {target}", page.display());
            if !file.exists() {
                wrong.push(format!("{told}: there is no such file"));
            } else if !anchor.is_empty() {
                let there = if file == page {
                    text.to_owned()
                } else {
                    fs::read_to_string(&file).unwrap_or_default()
                };
                if !anchors(&there).iter().any(|known| known == anchor) {
                    wrong.push(format!("{told}: there is no such heading"));
                }
            }
        }
    }
    wrong
}

#[test]
fn every_link_leads_somewhere() {
    let (mut links, mut wrong) = (0, Vec::new());
    for page in pages() {
        let text = fs::read_to_string(&page).unwrap();
        links += prose(&text)
            .map(|(_, line)| targets(line).len())
            .sum::<usize>();
        wrong.extend(broken(&page, &text));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(links > 200, "only {links} links were found");
}

#[test]
fn a_link_that_leads_nowhere_is_told() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let text = "# One `two`, three!\n## Same\n## Same\n<a id=\"here\"></a>\n\
                [a](#one-two-three) [b](#same-1) [c](#here) [d](Cargo.toml) [e](https://example.org/x)\n\
                `[no](link)`\n```\n[no](link)\n# no heading\n```\n\
                [f](#no-heading) [g](missing.md) [h](LICENSE#one)\n";
    let wrong = broken(&page, text);
    assert_eq!(wrong.len(), 3, "{wrong:?}");
    for (told, part) in wrong
        .iter()
        .zip(["#no-heading", "missing.md", "LICENSE#one"])
    {
        assert!(told.contains(&format!("README.md:11: {part}")), "{told}");
    }
}
