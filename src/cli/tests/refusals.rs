//! Command lines of `conntrack` and what becomes of them: the exit codes are those of conntrack(8) 1.4.7
//! (the golden test asks it), but where [`DIFFERENT`] says otherwise.

use super::{parse, run};
use crate::cli::args::{Command, ConntrackArgs};
use crate::control::testbed::Folder;
use std::process::ExitCode;

/// Lines that are not taken, and the exit code.
pub(super) const REFUSED: &[(&str, u8)] = &[
    ("-o xml", 2),
    ("-L -L", 2),
    ("-L -F", 2),
    ("-D -L", 2),
    ("-L foo", 2),
    ("-C foo", 2),
    ("-S foo", 2),
    ("-C dying", 2),
    ("-D dying", 2),
    ("-E unconfirmed", 2),
    ("-L -X", 2),
    ("-L --nonsense", 2),
    ("-L -s", 2),
    ("-L -s foo", 2),
    ("-L -s 10.0.0.1/33", 2),
    ("-L -s fd00::1 -f ipv4", 2),
    ("-L -s 10.0.0.1 -d fd00::2", 2),
    ("-L -r 10.0.0.0/8", 2),
    ("-L --mask-src 255.0.0.0", 2),
    ("-L --mask-dst 255.0.0.0", 2),
    ("-L -f foo", 2),
    ("-L -p foo", 2),
    ("-L -p 300", 2),
    ("-L -p tcp --state established", 2),
    ("-L -p tcp --state BOGUS", 2),
    ("-L -p tcp --icmp-type 8", 2),
    ("-L -p icmpv6 --icmp-type 128", 2),
    ("-L -p udp --state ESTABLISHED", 2),
    ("-L -p 89 --sport 5", 2),
    ("-L --state ESTABLISHED", 2),
    ("-L --sport 1000", 2),
    ("-L -p sctp --orig-vtag 1", 2),
    ("-L -i 5", 2),
    ("-L -l foo", 2),
    ("-L --label-add foo", 2),
    ("-L -n foo", 2),
    ("-L -j -n", 2),
    ("-D -j", 2),
    ("-L -b 5", 2),
    ("-L -e NEW", 2),
    ("-L -t 5", 2),
    ("-L --tuple-src 10.0.0.1", 2),
    ("-L -o bogus", 2),
    ("-L -o save,extended", 1),
    ("-L -o save,id", 1),
    ("-L -u bogus", 2),
    ("-L -u UNSET", 1),
    ("-L -u SRC_NAT", 1),
    ("-L expect -p tcp", 2),
    ("-L expect -w 0", 2),
    ("-L -z -p tcp", 2),
    ("-C -p tcp", 2),
    ("-C -f ipv4", 2),
    ("-C -o xml", 2),
    ("-S -p tcp", 2),
    ("-F -p tcp", 2),
    ("-F -w 0", 2),
    ("-F expect -f ipv4", 2),
    ("-E -u ASSURED", 2),
    ("-E -z", 2),
    ("-E -e OLD", 2),
    ("-E expect -e NEW", 2),
    ("-E expect -p tcp", 2),
    ("-G", 2),
    ("-G -p tcp", 2),
    ("-G -s 10.0.0.1 -d 10.0.0.2", 2),
    ("-G -s 10.0.0.1 -p tcp --sport 1 --dport 2", 2),
    ("-G -s 10.0.0.1 -d 10.0.0.2 -p tcp", 2),
    ("-G -s 10.0.0.1 -d 10.0.0.2 -p tcp --sport 1", 2),
    ("-G -s 10.0.0.1 -d 10.0.0.2 -p icmp", 2),
    ("-G -s 10.0.0.1 -d 10.0.0.2 -p icmp --icmp-id 7", 2),
    ("-G -s 10.0.0.1 -d 10.0.0.2 -p gre --srckey 7", 2),
    ("-G -s 10.0.0.0/8 -d 10.0.0.2 -p tcp --sport 1 --dport 2", 2),
    (
        "-G -s 10.0.0.1 -d 10.0.0.2 -p tcp --sport 1 --dport 2 -w 0",
        2,
    ),
    (
        "-G -s 10.0.0.1 -d 10.0.0.2 -p tcp --sport 1 --dport 2 -f ipv4",
        2,
    ),
    (
        "-G -r 10.0.0.2 -q 10.0.0.1 -p tcp --reply-port-src 80 --reply-port-dst 1000",
        1,
    ),
    ("-D -e NEW", 2),
    ("-D -b 5", 2),
    ("-D -z", 2),
    ("-D -l foo", 2),
    ("-D -c 5", 2),
    ("-D expect", 2),
    ("-G expect", 2),
    ("-I -p tcp", 2),
    ("-A", 2),
    ("-U expect", 2),
    ("-R /nonexistent", 2),
];

/// Lines that conntrack(8) takes, or refuses with another code: its own, ours, and why.
pub(super) const DIFFERENT: &[(&str, u8, u8, &str)] = &[
    ("-L -w x", 0, 2, "what is no number is 0 to the program"),
    ("-L -w 70000", 0, 2, "it wraps"),
    ("-L -m x", 0, 2, "it is 0"),
    ("-L -m 5/", 0, 2, "it is 0"),
    ("-L -p tcp --sport http", 0, 2, "it is 0"),
    ("-L -p tcp --sport 70000", 0, 2, "it wraps"),
    ("-L -p icmp --icmp-type x", 0, 2, "it is 0"),
    ("-L -s 10.0.0.1/", 0, 2, "no length is 0"),
    ("-L -s 10.1", 0, 2, "10.1 is 10.0.0.1 to inet_aton(3)"),
    ("-L -z", 0, 2, "counters only grow"),
    (
        "-L -c 5",
        0,
        2,
        "it lists all flows where the kernel has no security marks",
    ),
    ("-D -t 5", 1, 2, "nothing to choose by"),
    ("-D -u UNSET", 1, 1, "it ends all flows, if there are any"),
    ("-U", 1, 2, "nothing is updated"),
    (
        "-I -s 1.2.3.4 -d 1.2.3.5 -p udp --sport 5 --dport 6 -t 5",
        0,
        2,
        "nothing is made",
    ),
    ("-L -p tcp stray", 0, 2, "it overlooks stray words"),
    (
        "-L -p sctp --state BOGUS",
        139,
        2,
        "it dies of an unknown state",
    ),
];

/// Lines that are taken.
pub(super) const TAKEN: &[&str] = &[
    "-L",
    "--dump",
    "--dump conntrack",
    "-L exp",
    "-L conn -p tcp",
    "-L dying",
    "-L unconfirmed -p tcp",
    "-Lo extended",
    "-L -f ipv6 -p tcp -o extended",
    "-L --family ipv4 --protonum TCP --output extended",
    "-L --proto tcp",
    "-p 253 -L",
    "-L -p 0x59",
    "-L -p ospf",
    "-L -p 6 --sport 1000",
    "-L -p tcp --orig-port-src 1 --orig-port-dst 2 --reply-port-src 3 --reply-port-dst 4",
    "-L -p tcp --state LISTEN",
    "-L -p sctp --state SHUTDOWN_SENT",
    "-L -p icmp --icmp-type 8 --icmp-code 0 --icmp-id 7",
    "-L -p icmpv6 --icmpv6-type 128",
    "-L -p gre --srckey 0x10 --orig-key-dst 16 --reply-key-src 5 --reply-key-dst 6",
    "-L -s 10.0.0.0/8 --dst 10.0.0.1 --reply-src 1.2.3.4 -q 4.3.2.1",
    "-L --orig-src 10.0.0.0 --mask-src 255.0.0.0",
    "-L -s 10.0.0.1 -s 10.0.0.3",
    "-L -n",
    "-L -n 10.0.0.2",
    "-L -n 10.0.0.2:80 -g",
    "-L -j",
    "-L -m 0x10/0xff -w 7 --orig-zone 0 --reply-zone 0",
    "-L -u assured,SEEN,!EXPECTED",
    "-L -u UNREPLIED",
    "-L -o id,ktimestamp,timestamp,userspace",
    "-L -o save",
    "-L -o xml",
    "-L expect -f ipv6 -o timestamp",
    "-C",
    "-C conntrack",
    "--count",
    "--counter",
    "-C expect",
    "-S",
    "-S expect",
    "-F expect",
    "-F -f ipv4",
    "-F",
];

/// What `conntrack` says to a line, with nobody to ask.
fn said(line: &str) -> Option<String> {
    let folder = Folder::new();
    let line = format!("conntrack {line}");
    parse(&line).ok()?;
    Some(run(&line, folder.join("none")).2)
}

/// The exit code of a line.
pub(super) fn code(line: &str, socket: std::path::PathBuf) -> u8 {
    let line = format!("conntrack {line}");
    if let Err(code) = parse(&line) {
        return code as u8;
    }
    let (code, ..) = run(&line, socket);
    let known = (0..=2).find(|number| code == ExitCode::from(*number));
    known.expect("0, 1 or 2")
}

#[test]
fn what_is_refused_is_refused_before_anybody_is_asked() {
    let folder = Folder::new();
    let ours = DIFFERENT.iter().map(|(line, _, ours, _)| (*line, *ours));
    for (line, wanted) in REFUSED.iter().copied().chain(ours) {
        assert_eq!(code(line, folder.join("none")), wanted, "{line}");
        let said = said(line).unwrap_or_default();
        assert!(!said.contains("not running"), "{line}: {said}");
    }
}

#[test]
fn what_is_taken_is_asked_of_the_appliance() {
    for line in TAKEN {
        let said = said(line).unwrap_or_else(|| panic!("{line} is refused"));
        let empty = line.contains("dying") || line.contains("unconfirmed");
        let wanted = if empty {
            " 0 flow entries"
        } else {
            "not running"
        };
        assert!(said.contains(wanted), "{line}: {said}");
    }
}

#[test]
fn options_may_stand_anywhere_and_be_shortened() {
    for line in [
        "conntrack conntrack -L",
        "--format json conntrack -C",
        "conntrack -C --format json --socket /tmp/s",
        "conntrack --event --event-mask all -f ipv4",
        "conntrack -E -e NEW,UPDATES,DESTROY -p tcp -o timestamp,extended",
        "conntrack --del --orig-port-s 5",
    ] {
        let command = parse(line).map(|args| args.command);
        assert!(matches!(command, Ok(Command::Conntrack(_))), "{line}");
    }
}

#[test]
fn nothing_at_all_is_answered_with_help() {
    let folder = Folder::new();
    let (code, out, _) = run("conntrack", folder.join("none"));
    assert_eq!(code, ExitCode::SUCCESS);
    assert!(out.contains("--dump") && out.contains("Usage"), "{out}");
    let Ok(Command::Conntrack(args)) = parse("conntrack").map(|args| args.command) else {
        panic!("it is a command");
    };
    let ConntrackArgs { dump, table, .. } = *args;
    assert_eq!((dump, table), (0, None));
}

#[test]
fn reasons_are_given() {
    for (line, why) in [
        ("-U", "rules of the policy"),
        ("-L -l web", "no labels"),
        ("-L -z", "only grow"),
        ("-L -c 1", "security marks"),
        ("-L -p udp --state X", "only flows of -p tcp and -p sctp"),
        ("-G -s 1.2.3.4 -d 1.2.3.5 -p tcp", "`--sport' and `--dport'"),
    ] {
        let said = said(line).unwrap();
        assert!(said.contains(why), "{line}: {said}");
    }
}
