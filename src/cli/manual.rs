//! `manual`: writes the manual pages and the shells' completions, all from the one definition of the
//! command line, and shardwall-policy(5) from the schema. Packages are made with it; it is not for
//! everyday use, so help does not list it.

mod page;
mod reference;

pub use reference::Reference;

use super::args::{Args, ManualArgs};
use super::output::{Output, Result};
use crate::policy;
use clap::{Command, CommandFactory};
use clap_complete::{Shell, generate_to};
use clap_mangen::Man;
use std::fs;
use std::io;
use std::path::Path;

/// Shells that completions are written for.
const SHELLS: [Shell; 3] = [Shell::Bash, Shell::Zsh, Shell::Fish];
/// What the pages are part of.
const MANUAL: &str = "shardwall";

/// Writes them all, and says where.
pub(super) fn execute(args: &ManualArgs, out: &mut Output<'_>) -> Result {
    let (man, completions) = (args.folder.join("man"), args.folder.join("completions"));
    let told = |folder: &Path, error: io::Error| {
        let text = format!("{}: {error}", folder.display());
        io::Error::new(error.kind(), text)
    };
    pages(&man).map_err(|error| told(&man, error))?;
    complete(&completions).map_err(|error| told(&completions, error))?;
    writeln!(out.out, "{}\n{}", man.display(), completions.display())?;
    Ok(())
}

/// The command line, without what is hidden.
fn visible() -> Command {
    let all = Args::command();
    let commands = all.get_subcommands().filter(|sub| !sub.is_hide_set());
    Command::new("shardwall")
        .version(env!("CARGO_PKG_VERSION"))
        .about(all.get_about().cloned().unwrap_or_default())
        .args(all.get_arguments())
        .subcommands(commands)
}

/// The same as pages have it.
fn definition() -> Command {
    let mut command = visible().disable_help_subcommand(true);
    command.build();
    command
}

fn complete(folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    for shell in SHELLS {
        generate_to(shell, &mut visible(), "shardwall", folder)?;
    }
    Ok(())
}

fn pages(folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    let date = date();
    commands(&definition(), folder, &date)?;
    let schema = policy::schema();
    let page = page::policy(&Reference::new(&schema), &date);
    fs::write(folder.join("shardwall-policy.5"), page)
}

/// The page of a command, and those of its subcommands.
fn commands(command: &Command, folder: &Path, date: &str) -> io::Result<()> {
    for sub in command.get_subcommands() {
        commands(sub, folder, date)?;
    }
    let man = Man::new(command.clone())
        .date(date)
        .source(concat!("shardwall ", env!("CARGO_PKG_VERSION")))
        .manual(MANUAL);
    let mut text = Vec::new();
    man.render_title(&mut text)?;
    man.render_name_section(&mut text)?;
    man.render_synopsis_section(&mut text)?;
    man.render_description_section(&mut text)?;
    man.render_options_section(&mut text)?;
    if command.has_subcommands() {
        man.render_subcommands_section(&mut text)?;
    }
    text.extend(page::ending(command.get_name() == "shardwall").into_bytes());
    fs::write(folder.join(man.get_filename()), text)
}

/// Today, or the date that a reproducible build says.
fn date() -> String {
    let said = std::env::var("SOURCE_DATE_EPOCH").ok();
    let said = said.and_then(|seconds| seconds.parse().ok());
    let now = crate::dataplane::clock::unix_time() as i64;
    let time = jiff::Timestamp::from_second(said.unwrap_or(now)).unwrap_or_default();
    time.strftime("%Y-%m-%d").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::process::{Command as Program, Stdio};

    /// Every command, with its path.
    fn all(command: &Command, path: &str, found: &mut Vec<(String, Command)>) {
        let path = format!("{path} {}", command.get_name());
        for sub in command.get_subcommands() {
            all(sub, &path, found);
        }
        found.push((path, command.clone()));
    }

    #[test]
    fn every_command_option_and_value_has_its_help() {
        let mut found = Vec::new();
        all(&definition(), "", &mut found);
        let mut without = Vec::new();
        for (path, command) in &found {
            if command
                .get_about()
                .is_none_or(|about| about.to_string().is_empty())
            {
                without.push(path.clone());
            }
            for argument in command.get_arguments() {
                let (id, help) = (argument.get_id(), argument.get_help());
                if help.is_none_or(|help| help.to_string().is_empty()) {
                    without.push(format!("{path}: {id}"));
                }
                // Those of a switch are yes and no.
                let takes = argument.get_action().takes_values();
                for value in argument.get_possible_values().iter().filter(|_| takes) {
                    if value.get_help().is_none() && !value.is_hide_set() {
                        without.push(format!("{path}: {id}: {}", value.get_name()));
                    }
                }
            }
        }
        assert!(without.is_empty(), "no help: {without:#?}");
        assert!(found.len() > 15);
    }

    fn written() -> std::path::PathBuf {
        static NUMBER: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let name = format!("shardwall-manual-{}-{number}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        pages(&folder.join("man")).unwrap();
        complete(&folder.join("completions")).unwrap();
        folder
    }

    #[test]
    fn every_command_has_a_page_and_every_option_is_on_it() {
        let folder = written();
        let mut found = Vec::new();
        all(&definition(), "", &mut found);
        let mut pages = BTreeSet::from(["shardwall-policy.5".to_owned()]);
        for (path, command) in found {
            let file = format!("{}.1", path.trim().replace(' ', "-"));
            let text = fs::read_to_string(folder.join("man").join(&file)).unwrap();
            pages.insert(file);
            for argument in command.get_arguments().filter(|it| !it.is_hide_set()) {
                if let Some(long) = argument.get_long() {
                    let long = format!("\\-\\-{}", long.replace('-', "\\-"));
                    assert!(text.contains(&long), "{path}: {long}");
                }
            }
        }
        let there = fs::read_dir(folder.join("man")).unwrap();
        let there: BTreeSet<_> = there
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        assert_eq!(there, pages);
        let policy = fs::read_to_string(folder.join("man/shardwall-policy.5")).unwrap();
        for words in [
            "expect_max",
            "flush\\-affected",
            "icmp\\-port\\-unreachable",
            "forward",
        ] {
            assert!(policy.contains(words), "{words}");
        }
        assert!(!policy.contains("](#") && !policy.contains('`'), "{policy}");
        fs::remove_dir_all(folder).unwrap();
    }

    /// Runs a program on files; what it says, or `None` where it is not installed.
    fn says(program: &str, words: &[&str], file: &Path) -> Option<String> {
        let mut command = Program::new(program);
        let run = command.args(words).arg(file).stdin(Stdio::null()).output();
        let out = run.ok()?;
        let said = [out.stdout, out.stderr].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        assert!(out.status.code().is_some_and(|code| code < 3), "{said}");
        Some(said)
    }

    /// What their readers say of them, where these are installed.
    #[test]
    fn pages_and_completions_are_well_formed() {
        let folder = written();
        for entry in fs::read_dir(folder.join("man")).unwrap() {
            let page = entry.unwrap().path();
            let lint = says("mandoc", &["-Tlint", "-Wwarning"], &page).unwrap_or_default();
            // clap_mangen has blank lines where mandoc wants none.
            let blank = |line: &&str| !line.contains("WARNING: skipping paragraph macro");
            let lint: Vec<_> = lint.lines().filter(blank).collect();
            assert!(lint.is_empty(), "{}: {lint:#?}", page.display());
            let words = ["-ww", "-man", "-Tutf8", "-z"];
            let groff = says("groff", &words, &page).unwrap_or_default();
            assert_eq!(groff, "", "{}", page.display());
        }
        let mut found = Vec::new();
        all(&definition(), "", &mut found);
        for (shell, file) in [
            ("bash", "shardwall.bash"),
            ("zsh", "_shardwall"),
            ("fish", "shardwall.fish"),
        ] {
            let file = folder.join("completions").join(file);
            let text = fs::read_to_string(&file).unwrap();
            for (path, _) in &found {
                let name = path.rsplit(' ').next().unwrap();
                assert!(text.contains(name), "{shell}: {name}");
            }
            assert!(!text.contains("manual"), "{shell}: it is hidden");
            let said = says(shell, &["-n"], &file).unwrap_or_default();
            assert_eq!(said, "", "{shell}");
        }
        fs::remove_dir_all(folder).unwrap();
    }
}
