//! `trace`, `capture` and `drops` against an appliance in memory.

use super::*;
use crate::cli::replay::replay;
use pcap_file::pcapng::blocks::enhanced_packet::EnhancedPacketOption;
use pcap_file::pcapng::blocks::interface_description::InterfaceDescriptionOption;
use pcap_file::pcapng::{Block, PcapNgReader};

/// Runs `line` while `drive` sends packets, once the workers look.
fn during(bed: &Bed, line: &str, drive: impl FnOnce() + Send) -> (ExitCode, String, String) {
    std::thread::scope(|scope| {
        scope.spawn(move || {
            wait(|| bed.appliance.traces() > 0);
            // Counted before the workers are told.
            std::thread::sleep(std::time::Duration::from_millis(200));
            drive();
        });
        run(line, bed.socket())
    })
}

#[test]
fn the_words_of_trace_and_capture_are_read() {
    for line in [
        "trace",
        "trace iif=wan tcp dport=80 dropped -c 5 --seconds 3 --sample 1/10 --rate 7",
        "trace --sample 3",
        "capture -w - --port wan --reason policy --dropped --snaplen 96 udp",
    ] {
        assert!(parse(line).is_ok(), "{line}");
    }
    for line in [
        "trace --sample 0",
        "trace --sample 1/0",
        "trace -c 0",
        "trace --rate 1000000",
        "capture --snaplen 4096",
    ] {
        assert!(parse(line).is_err(), "{line}");
    }
    let line = "capture --port wan --reason policy --dropped --snaplen 96 udp";
    let Command::Capture(args) = parse(line).unwrap().command else {
        panic!("capture");
    };
    let ask = args.ask();
    assert_eq!(ask.words, ["udp", "iif=wan", "reason=policy", "dropped"]);
    assert_eq!((ask.snaplen, ask.rate, ask.frames), (96, 10_000, true));
}

#[test]
fn a_trace_is_printed_as_explain_prints() {
    let mut bed = Bed::new(1);
    bed.start_control();
    let (code, out, err) = during(&bed, "trace iif=wan -c 2", || {
        bed.send(2);
        bed.answer(1, 53, 0);
        bed.answer(2, 53, 0);
    });
    assert_eq!(code, ExitCode::SUCCESS);
    assert_eq!(
        err,
        "shardwall: tracing; ^C ends it\nshardwall: 2 packets\n"
    );
    let (first, second) = out.rsplit_once("\n\n[").unwrap();
    assert!(
        first.starts_with('[') && first.contains("] worker 0, policy 1\n"),
        "{out}"
    );
    let told = first.split_once('\n').unwrap().1;
    assert_eq!(
        told,
        "packet   udp 10.9.0.1:53 > 10.0.0.1:4000, 34 bytes, wan → lan\n\
         state    new, original\n\
         \n\
         forward\n  \
           ✗ known     line 15     ct: [established, related] — ct is new\n  \
           ✗ outbound  line 16     iif: lan — iif is wan\n  \
           ✓ policy                drop\n\
         \n\
         verdict  drop by forward/policy (policy: A rule, or the policy of the chain, said drop.)"
    );
    assert!(
        second.contains("\nflow     udp") && second.contains("\nafter    udp"),
        "{out}"
    );
    assert!(second.contains("[UNREPLIED]"), "{out}");
    assert!(
        out.ends_with("\nverdict  accept by forward/known\n"),
        "{out}"
    );
}

#[test]
fn a_capture_is_pcapng_with_comments_and_can_be_replayed() {
    let mut bed = Bed::new(2);
    bed.start_control();
    let file = bed.folder.join("capture.pcapng");
    let line = format!("capture -w {} -c 3 udp", file.display());
    let (code, out, err) = during(&bed, &line, || {
        bed.send(1);
        bed.answer(1, 53, 0);
        bed.answer(9, 53, 0);
    });
    assert_eq!((code, out.as_str()), (ExitCode::SUCCESS, ""), "{err}");
    assert!(err.ends_with("\nshardwall: 3 packets\n"), "{err}");
    use std::os::unix::fs::PermissionsExt;
    let mode = fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    let bytes = fs::read(&file).unwrap();
    let mut reader = PcapNgReader::new(&bytes[..]).unwrap();
    let mut packets = Vec::new();
    let mut last = 0;
    while let Some(block) = reader.next_block() {
        let Block::EnhancedPacket(packet) = block.unwrap() else {
            continue;
        };
        let comment = packet.options.iter().find_map(|option| match option {
            EnhancedPacketOption::Comment(text) => Some(text.to_string()),
            _ => None,
        });
        let nanos = packet.timestamp.as_nanos() as u64;
        assert!(
            last <= nanos && nanos > 1_600_000_000_000_000_000,
            "{nanos}"
        );
        last = nanos;
        assert_eq!(packet.original_len as usize, packet.data.len());
        packets.push((packet.interface_id, comment.unwrap()));
    }
    let drop = "drop: policy, rule forward/policy, ct new".to_owned();
    assert_eq!(
        packets,
        [
            (0, "accept: rule forward/outbound, ct new".to_owned()),
            (1, "accept: rule forward/known, ct established".to_owned()),
            (1, drop),
        ]
    );
    let names: Vec<_> = reader
        .interfaces()
        .iter()
        .flat_map(|interface| &interface.options)
        .filter_map(|option| match option {
            InterfaceDescriptionOption::IfName(name) => Some(name.to_string()),
            _ => None,
        })
        .collect();
    assert_eq!(names, ["lan", "wan"]);

    // What the appliance said of them, replay says too.
    let mut out = Vec::new();
    let policy = bed.appliance.file().to_owned();
    replay(&policy, None, &file, Format::Json, &mut out).unwrap();
    let verdicts: Vec<_> = String::from_utf8(out)
        .unwrap()
        .lines()
        .map(|line| {
            let line: Value = serde_json::from_str(line).unwrap();
            let word = |key: &str| line[key].as_str().unwrap().to_owned();
            (word("port"), word("verdict"), word("rule"))
        })
        .collect();
    let want = |port: &str, verdict: &str, rule: &str| (port.into(), verdict.into(), rule.into());
    assert_eq!(
        verdicts,
        [
            want("lan", "accept", "forward/outbound"),
            want("wan", "accept", "forward/known"),
            want("wan", "drop", "forward/policy"),
        ]
    );
}

#[test]
fn a_capture_without_a_file_is_a_line_a_packet() {
    let mut bed = Bed::new(1);
    bed.start_control();
    let (_, out, _) = during(&bed, "capture --dropped -c 1", || {
        bed.send(1);
        bed.answer(9, 53, 0);
    });
    let line = "] in wan: udp 10.9.0.1:53 > 10.0.0.9:4000, 34 bytes; drop: policy, rule forward/policy, ct new\n";
    assert!(out.starts_with('[') && out.ends_with(line), "{out}");
    let (_, out, _) = during(&bed, "capture --dropped -c 1 --format json", || {
        bed.answer(9, 53, 0);
    });
    let frame: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&frame["port"], &frame["len"]), (&1.into(), &48.into()));
    let (code, out, err) = run("capture --port lam", bed.socket());
    assert_eq!((code, out.as_str()), (ExitCode::FAILURE, ""));
    assert!(
        err.contains("unknown port `lam`; did you mean `lan`?"),
        "{err}"
    );
}

#[test]
fn drops_show_the_last_of_each_reason() {
    let mut bed = Bed::new(1);
    bed.start_control();
    bed.answer(9, 53, 0);
    let (_, out, _) = run("drops", bed.socket());
    let (table, lasts) = out.split_once("\n\n").unwrap();
    assert!(table.starts_with("REASON "), "{out}");
    let policy = table
        .lines()
        .find(|line| line.starts_with("policy "))
        .unwrap();
    let cells: Vec<_> = policy.split_whitespace().take(3).collect();
    assert_eq!((cells[0], cells[1]), ("policy", "1"));
    let line = lasts.lines().nth(1).unwrap();
    assert!(line.starts_with("policy "), "{out}");
    let end = "wan   udp 10.9.0.1:53 > 10.0.0.9:4000, 34 bytes  new    forward/policy";
    assert!(line.ends_with(end), "{out}");
    let rows = json("drops", &bed);
    assert_eq!(rows[10]["last"]["rule"], "forward/policy");
    assert!(rows[0]["last"].is_null());
}
