//! `import`: a rule set of nftables or iptables as a policy.

use super::args::ImportArgs;
use super::check::counted;
use super::output::{Failure, Output, Result};
use crate::policy::import::{Imported, Left, MAX_RULE_SET, import};
use serde_json::json;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::process::ExitCode;

/// Exit code for a file that cannot be read.
const UNREADABLE: u8 = 2;

pub(super) fn execute(args: &ImportArgs, out: &mut Output<'_>) -> ExitCode {
    let stdin = args.file == Path::new("-");
    let name = if stdin {
        "standard input".into()
    } else {
        args.file.display().to_string()
    };
    let text = if stdin {
        read(io::stdin())
    } else {
        File::open(&args.file).and_then(read)
    };
    match text {
        Ok(text) => {
            let imported = import(&name, &text, args.language.into(), args.hook.into());
            out.finish(|out| show(&name, &imported, out))
        }
        Err(error) => {
            let _ = writeln!(out.err, "shardwall: cannot read {name}: {error}");
            ExitCode::from(UNREADABLE)
        }
    }
}

fn read(from: impl Read) -> io::Result<String> {
    let mut bytes = Vec::new();
    from.take(MAX_RULE_SET as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > MAX_RULE_SET {
        let message = format!("larger than {} MiB", MAX_RULE_SET >> 20);
        return Err(io::Error::other(message));
    }
    String::from_utf8(bytes).map_err(|_| io::Error::other("not UTF-8 text"))
}

/// Prints the policy on standard output, what it lacks on standard error; as JSON, both on standard
/// output.
fn show(name: &str, imported: &Imported, out: &mut Output<'_>) -> Result {
    let Imported {
        policy,
        rules,
        left,
        notes,
    } = imported;
    if out.is_json() {
        out.json(&json!({ "policy": policy, "rules": rules, "left": left, "notes": notes }))?;
    } else {
        write!(out.out, "{policy}")?;
        out.out.flush()?;
        tell(name, imported, out)?;
    }
    if left.is_empty() {
        Ok(())
    } else {
        Err(Failure::Told)
    }
}

fn tell(name: &str, imported: &Imported, out: &mut Output<'_>) -> Result {
    let place = |one: &Left| match one.line {
        0 => format!("{name}: {}", one.text),
        line => format!("{name}:{line}: {}", one.text),
    };
    for note in &imported.notes {
        writeln!(out.err, "{}\n    note: {}", place(note), note.why)?;
    }
    for left in &imported.left {
        let effect = match left.effect {
            "stricter" => "; without it, less passes",
            "looser" => "; WITHOUT IT, MORE PASSES",
            "unclear" => "; WITHOUT IT, MORE MAY PASS",
            _ => "",
        };
        writeln!(
            out.err,
            "{}\n    not taken: {}{effect}",
            place(left),
            left.why
        )?;
    }
    let (rules, left) = (
        counted(imported.rules, "rule"),
        counted(imported.left.len(), "line"),
    );
    let widens = imported.left.iter().filter(|left| left.widens()).count();
    let loud = match widens {
        0 => String::new(),
        _ => {
            format!("; {widens} of them may make the policy MORE PERMISSIVE than the rule set was")
        }
    };
    writeln!(out.err, "imported {rules}; {left} not taken{loud}")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::args::{Args, Command, Format};
    use super::*;
    use clap::Parser;

    /// What `import` with these words prints on both streams, and its exit code.
    fn run(format: Format, words: &[&str]) -> (String, String, ExitCode) {
        let words = ["shardwall", "import"].iter().chain(words);
        let Command::Import(args) = Args::parse_from(words).command else {
            panic!("another command");
        };
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let code = execute(
            &args,
            &mut Output {
                format,
                out: &mut out,
                err: &mut err,
            },
        );
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (text(out), text(err), code)
    }

    fn sample(name: &str) -> String {
        format!("{}/tests/samples/import/{name}", env!("CARGO_MANIFEST_DIR"))
    }

    #[test]
    fn exit_codes_say_whether_everything_was_taken() {
        let code = |language, file: &str| run(Format::Text, &[language, file]).2;
        assert_eq!(
            code("iptables-save", &sample("tutorial.iptables")),
            ExitCode::SUCCESS
        );
        assert_eq!(
            code("iptables-save", &sample("host.iptables")),
            ExitCode::FAILURE
        );
        assert_eq!(code("nft", "/nonexistent"), ExitCode::from(2));
        assert_eq!(code("nft", "/"), ExitCode::from(2));
    }

    #[test]
    fn what_was_left_out_goes_to_standard_error_by_line() {
        let file = sample("host.iptables");
        let (policy, told, _) = run(Format::Text, &["iptables-save", &file, "--hook", "INPUT"]);
        assert!(crate::policy::parse("p", &policy).is_ok());
        let line = format!("{file}:32: -A INPUT -m set --match-set blocked src -j DROP\n");
        assert!(told.contains(&line), "{told}");
        assert!(told.contains("WITHOUT IT, MORE PASSES"), "{told}");
        assert!(
            told.contains("2 of them may make the policy MORE PERMISSIVE"),
            "{told}"
        );
        let (json, told, _) = run(Format::Json, &["iptables-save", &file, "--hook", "input"]);
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(json["policy"], policy);
        assert_eq!(json["left"].as_array().map(Vec::len), Some(6));
        assert_eq!(json["left"][3]["effect"], "looser");
        assert_eq!(told, "");
    }
}
