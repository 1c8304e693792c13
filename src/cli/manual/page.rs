//! What pages have beside options: files, exit codes, and the whole of shardwall-policy(5).

use super::MANUAL;
use super::reference::{Reference, WRITING};
use clap_mangen::roff::{Inline, Roff, bold, italic, roman};

/// Paths, and what is there.
const FILES: &[(&str, &str)] = &[
    (
        "/etc/shardwall/policy.yaml",
        "The policy that the service runs: see shardwall-policy(5).",
    ),
    (
        "/etc/default/shardwall",
        "Environment of the service: which policy, RUST_LOG, and options.",
    ),
    (
        "/run/shardwall/control.sock",
        "Where the running appliance answers. Only its user and root may ask.",
    ),
    (
        "/usr/share/doc/shardwall",
        "The README, the policy reference and example policies.",
    ),
];

/// What the environment says.
const ENVIRONMENT: &[(&str, &str)] = &[
    (
        "SHARDWALL_SOCKET",
        "The control socket, where `--socket` does not say it.",
    ),
    (
        "RUST_LOG",
        "What `run` logs: `error`, `warn`, `info` (the default) or `debug`.",
    ),
];

/// Signals that the appliance acts upon.
const SIGNALS: &[(&str, &str)] = &[
    (
        "SIGHUP",
        "Reads the policy again, as `shardwall reload` does, and opens the log file anew.",
    ),
    (
        "SIGTERM, SIGINT",
        "Takes no more packets, sends those that came, and ends with 0.",
    ),
];

/// Exit codes.
const EXIT: &[(&str, &str)] = &[
    ("0", "Done; for `doctor` and `check`: nothing failed."),
    ("1", "Failed, or refused; standard error says why."),
    (
        "2",
        "A wrong command line; for `run` also a policy that is not valid, for `replay` and `import` a file that \
         cannot be read.",
    ),
];

/// The end of a command's page; the main one's has more.
pub(super) fn ending(main: bool) -> String {
    let mut roff = Roff::new();
    list(&mut roff, "EXIT STATUS", EXIT);
    if main {
        list(&mut roff, "ENVIRONMENT", ENVIRONMENT);
        list(&mut roff, "SIGNALS", SIGNALS);
        list(&mut roff, "FILES", FILES);
    }
    roff.control("SH", ["SEE ALSO"]);
    let others: &[&str] = match main {
        true => &[
            "shardwall-policy(5)",
            "conntrack(8)",
            "nft(8)",
            "systemd.service(5)",
        ],
        false => &["shardwall(1)", "shardwall-policy(5)"],
    };
    roff.text([roman(others.join(", "))]);
    // Behind the title of `clap_mangen`, which has the preamble.
    roff.to_roff()
}

fn list(roff: &mut Roff, title: &str, rows: &[(&str, &str)]) {
    roff.control("SH", [title]);
    for (name, text) in rows {
        roff.control("TP", []);
        roff.text([bold(*name)]);
        roff.text(inlines(text));
    }
}

/// shardwall-policy(5).
pub(super) fn policy(reference: &Reference<'_>, date: &str) -> String {
    let mut roff = Roff::new();
    let source = concat!("shardwall ", env!("CARGO_PKG_VERSION"));
    roff.control("TH", ["shardwall-policy", "5", date, source, MANUAL]);
    roff.control("SH", ["NAME"]);
    roff.text([roman(
        "shardwall-policy - the policy language of shardwall(1)",
    )]);
    roff.control("SH", ["DESCRIPTION"]);
    roff.text(inlines(
        "A policy is one YAML file. `shardwall check` tells all that is wrong with one, and `shardwall schema` \
         prints the language for editors. Below is every mapping with its keys; what a key takes is explained \
         under VALUES.",
    ));
    roff.text(inlines(WRITING));
    for mapping in reference.mappings() {
        let title = match mapping.path {
            "" => "THE POLICY",
            path => path,
        };
        roff.control("SH", [title]);
        roff.text(inlines(mapping.meaning));
        for key in mapping.keys {
            roff.control("TP", []);
            let mut head = vec![bold(key.name), roman(": ")];
            head.extend(inlines(&key.takes).into_iter().map(slanted));
            roff.text(head);
            let mut text = inlines(key.meaning);
            match key.default.as_str() {
                "" => {}
                "required" => text.push(roman(" Required.")),
                default => {
                    text.push(roman(" Default: "));
                    text.extend(inlines(default));
                    text.push(roman("."));
                }
            }
            roff.text(text);
        }
    }
    roff.control("SH", ["VALUES"]);
    for kind in reference.kinds() {
        roff.control("TP", []);
        roff.text([italic(kind.title())]);
        let mut text = inlines(&kind.meaning);
        text.push(roman(" Written: "));
        text.extend(inlines(&kind.examples));
        text.push(roman("."));
        roff.text(text);
    }
    roff.control("SH", ["SEE ALSO"]);
    roff.text([roman(
        "shardwall(1), shardwall-check(1), shardwall-reload(1), nft(8)",
    )]);
    roff.render()
}

fn slanted(inline: Inline) -> Inline {
    match inline {
        Inline::Roman(text) => italic(text),
        other => other,
    }
}

/// The little of Markdown that descriptions have: `code` becomes bold, of a [link](#to) its text stays.
fn inlines(text: &str) -> Vec<Inline> {
    let mut plain = String::new();
    let mut rest = text;
    while let Some((head, tail)) = rest.split_once('[') {
        plain += head;
        let link = tail
            .split_once("](#")
            .filter(|(label, _)| !label.contains([']', '`']))
            .and_then(|(label, behind)| Some((label, behind.split_once(')')?.1)));
        match link {
            Some((label, behind)) => {
                plain += label;
                rest = behind;
            }
            None => {
                plain.push('[');
                rest = tail;
            }
        }
    }
    plain += rest;
    let parts = plain.split('`').enumerate();
    let parts = parts.filter(|(_, part)| !part.is_empty());
    parts
        .map(|(at, part)| match at % 2 {
            1 => bold(part),
            _ => roman(part),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_is_bold_and_links_are_their_text() {
        assert_eq!(
            inlines("names, each with [mapping](#port), or `[80, 443]`; [x]"),
            [
                roman("names, each with mapping, or "),
                bold("[80, 443]"),
                roman("; [x]")
            ]
        );
    }
}
