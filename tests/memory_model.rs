//! The page on the memory model names every model that loom checks, and none that is not there; and
//! the step that runs loom runs them all.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

const GATE: &str = "#[cfg(all(test, shardwall_loom))]\nmod model";

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The Rust files below a folder.
fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder of sources") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The names of the tests in a source.
fn tests(source: &str) -> impl Iterator<Item = &str> {
    let parts = source.split("#[test]").skip(1);
    parts.filter_map(|part| part.trim_start().strip_prefix("fn ")?.split('(').next())
}

/// The loom models, as the test runner names them.
fn models() -> BTreeSet<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    let mut models = BTreeSet::new();
    for file in files {
        let text = fs::read_to_string(&file).expect("a source");
        let Some((_, model)) = text.split_once(GATE) else {
            continue;
        };
        let module = file.strip_prefix(&root).expect("below src");
        let module = module.with_extension("");
        let names = module
            .components()
            .filter_map(|part| part.as_os_str().to_str());
        let module = names.collect::<Vec<_>>().join("::");
        let apart;
        let source = if model.starts_with(';') {
            apart =
                fs::read_to_string(file.with_extension("").join("model.rs")).expect("the models");
            &apart
        } else {
            model
        };
        let before = models.len();
        models.extend(tests(source).map(|name| format!("{module}::model::{name}")));
        assert!(models.len() > before, "{module} has a model without tests");
    }
    models
}

#[test]
fn the_page_names_every_model() {
    let page = read("src/memory-model.md");
    let quoted = page.split('`').skip(1).step_by(2);
    let named = quoted.filter(|word| word.contains("::model::"));
    let named: BTreeSet<_> = named.map(str::to_owned).collect();
    assert_eq!(named, models());
}

#[test]
fn loom_runs_every_model() {
    let checks = read("deploy/checks.sh");
    let (_, step) = checks.split_once("step_loom() {").expect("the step");
    let (step, _) = step.split_once("\n}").expect("its end");
    let (_, words) = step.split_once(" -- ").expect("what it runs");
    let words: Vec<_> = words
        .split_whitespace()
        .filter(|word| *word != "\\")
        .collect();
    for model in models() {
        let run = words.iter().any(|word| model.contains(word));
        assert!(run, "{model} is not run: {words:?}");
    }
}
