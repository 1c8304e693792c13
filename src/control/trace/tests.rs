//! Traces of an appliance in memory, with real worker threads.

use super::{Ask, LeftOut, Told, TraceError, TracedPacket};
use crate::control::testbed::{Bed, RULES, wait};
use crate::control::{Client, ClientError, Request};
use crate::dataplane::trace::SESSIONS;
use std::io::{BufRead, BufReader, Write};
use std::ops::ControlFlow;
use std::os::unix::net::UnixStream;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

fn ask(words: &str) -> Ask {
    Ask {
        words: words.split_whitespace().map(str::to_owned).collect(),
        ..Ask::default()
    }
}

fn patient(told: &Receiver<Told>) -> Told {
    told.recv_timeout(Duration::from_secs(10)).unwrap()
}

fn packet(told: &Receiver<Told>) -> TracedPacket {
    match patient(told) {
        Told::Packet(packet) => *packet,
        other => panic!("{other:?}"),
    }
}

/// Runs `drive` while `ask` is being answered over the socket, with what is told.
fn traced(bed: &Bed, ask: Ask, drive: impl FnOnce(&Receiver<Told>)) {
    let mut client = Client::connect(&bed.socket()).unwrap();
    let ending = client.interrupter().unwrap();
    std::thread::scope(|scope| {
        let (sender, told) = channel();
        scope.spawn(move || {
            client
                .follow(&Request::Trace(ask), |it: Told, _| {
                    let _ = sender.send(it);
                    ControlFlow::Continue(())
                })
                .unwrap();
        });
        assert!(matches!(patient(&told), Told::Begun(_)));
        drive(&told);
        ending.shutdown(std::net::Shutdown::Both).unwrap();
    });
    wait(|| bed.appliance.traces.load(Relaxed) == 0);
}

#[test]
fn packets_are_told_rule_by_rule_until_the_client_is_gone() {
    let mut bed = Bed::new(2);
    bed.start_control();
    traced(&bed, ask("udp iif=wan dropped"), |told| {
        bed.send(1);
        bed.answer(7, 53, 1);
        let it = packet(told);
        assert_eq!(it.told.packet, "udp 10.9.0.1:53 > 10.0.0.7:4000, 34 bytes");
        let state = it.told.state.as_deref();
        assert_eq!(
            (it.told.iif.as_str(), state, it.policy),
            ("wan", Some("new"), 1)
        );
        let rules: Vec<_> = it
            .told
            .rules
            .iter()
            .map(|step| step.rule.as_str())
            .collect();
        assert_eq!(rules, ["known", "outbound", "policy"]);
        assert_eq!(it.told.rules[1].found.as_deref(), Some("iif is wan"));
        assert_eq!(it.told.rule.as_deref(), Some("forward/policy"));
        assert!(it.told.flow.is_none() && it.after.is_none());
        assert!(
            told.recv_timeout(Duration::from_millis(100)).is_err(),
            "nothing else is meant"
        );
    });
    // The workers have let go of it.
    bed.answer(8, 53, 1);
    assert_eq!(bed.appliance.drops()[10].count, 2);
}

#[test]
fn a_flow_is_told_before_and_after() {
    let mut bed = Bed::new(1);
    bed.start_control();
    traced(&bed, ask("addr=10.0.0.3"), |told| {
        bed.send(3);
        bed.answer(3, 53, 0);
        let (there, back) = (packet(told), packet(told));
        assert!(there.told.flow.is_none());
        assert!(!there.after.unwrap().seen_reply);
        assert!(!back.told.flow.unwrap().seen_reply);
        assert!(back.after.unwrap().seen_reply);
        assert_eq!(back.told.rule.as_deref(), Some("forward/known"));
        assert!(there.time_ns <= back.time_ns);
    });
}

#[test]
fn a_trace_ends_by_itself_and_says_what_it_left_out() {
    let bed = Bed::new(1);
    let mut all = Vec::new();
    let counted = Ask {
        count: 3,
        ..ask("")
    };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            wait(|| bed.appliance.traces.load(Relaxed) == 1);
            while bed.appliance.traces.load(Relaxed) == 1 {
                bed.send(1);
            }
        });
        let told = bed.appliance.trace(&counted, |told| {
            all.extend(told);
            ControlFlow::Continue(())
        });
        assert_eq!(told.unwrap(), 3);
    });
    assert_eq!(all.len(), 4, "{all:?}");

    let mut left = LeftOut::default();
    let timed = Ask {
        seconds: 2,
        sample: 10,
        rate: 5,
        ..ask("")
    };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            wait(|| bed.appliance.traces.load(Relaxed) == 1);
            for _ in 0..200 {
                bed.send(1);
            }
        });
        let mut packets = 0;
        let told = bed.appliance.trace(&timed, |told| {
            match told {
                Some(Told::LeftOut(now)) => left = now,
                Some(Told::Packet(_)) => packets += 1,
                _ => {}
            }
            ControlFlow::Continue(())
        });
        assert_eq!(told.unwrap(), packets);
        let sum = packets + left.not_sampled + left.over_rate + left.queue_full;
        // The first may have been sent before the trace began.
        assert!((190..=200).contains(&sum), "{sum}: {left:?}");
        assert!((1..=15).contains(&packets));
    });
    assert!(left.not_sampled >= 170, "{left:?}");
    assert_eq!(bed.appliance.traces.load(Relaxed), 0);
}

#[test]
fn a_reload_meanwhile_is_told_by_the_policy_that_judged() {
    let mut bed = Bed::new(1);
    bed.start_control();
    traced(&bed, ask("iif=wan"), |told| {
        bed.answer(1, 53, 0);
        let before = packet(told);
        assert_eq!((before.policy, before.told.rules.len()), (1, 3));
        let more = RULES.replace(
            "      - { name: outbound",
            "      - { name: extra, proto: tcp, action: drop }\n      - { name: outbound",
        );
        bed.write_policy(&more);
        bed.appliance.reload(None).unwrap();
        bed.answer(1, 53, 0);
        let after = packet(told);
        assert_eq!((after.policy, after.told.rules.len()), (2, 4));
        assert_eq!(after.told.rule.as_deref(), Some("forward/policy"));
    });
}

#[test]
fn frames_are_told_with_what_became_of_them() {
    let mut bed = Bed::new(1);
    bed.start_control();
    let frames = Ask {
        frames: true,
        snaplen: 40,
        ..ask("")
    };
    traced(&bed, frames, |told| {
        bed.answer(1, 53, 0);
        let Told::Frame(frame) = patient(told) else {
            panic!("a frame");
        };
        assert_eq!(frame.comment, "drop: policy, rule forward/policy, ct new");
        assert_eq!((frame.port, frame.leaving, frame.len), (1, false, 48));
        let bytes = frame.bytes().unwrap();
        assert_eq!((bytes.len(), &bytes[12..14]), (40, &[8, 0][..]));
    });
}

#[test]
fn what_cannot_be_is_refused() {
    let mut bed = Bed::new(1);
    bed.start_control();
    let mut client = Client::connect(&bed.socket()).unwrap();
    let request = Request::Trace(ask("iif=lam reason=nothing-such"));
    match client.follow(&request, |_: Told, _| ControlFlow::Continue(())) {
        Err(ClientError::Refused { message, .. }) => {
            assert!(message.contains("did you mean `lan`?"), "{message}");
            assert!(message.contains("unknown reason `nothing-such`; known are short-frame, "));
        }
        other => panic!("{other:?}"),
    }
    let long = Ask {
        snaplen: 10_000,
        ..ask("")
    };
    let error = bed.appliance.trace(&long, |_| ControlFlow::Continue(()));
    assert_eq!(
        error.unwrap_err().to_string(),
        "the snap length is more than 2048"
    );
    // As many as workers serve, and no more; those that are gone make room.
    let begin = |bed: &Bed| {
        let mut stream = UnixStream::connect(bed.socket()).unwrap();
        stream.write_all(b"{\"cmd\":\"trace\"}\n").unwrap();
        let mut line = String::new();
        BufReader::new(stream.try_clone().unwrap())
            .read_line(&mut line)
            .unwrap();
        (stream, line)
    };
    let running: Vec<_> = (0..SESSIONS).map(|_| begin(&bed)).collect();
    assert!(
        running.iter().all(|(_, line)| line.contains("begun")),
        "{running:?}"
    );
    assert!(begin(&bed).1.contains("4 traces and captures run already"));
    drop(running);
    wait(|| bed.appliance.traces.load(Relaxed) == 0);
    assert!(begin(&bed).1.contains("begun"));
}

#[test]
fn workers_that_do_not_begin_are_named() {
    let bed = Bed::without_workers(1);
    bed.appliance.shared().stop();
    let error = bed.appliance.trace(&ask(""), |_| ControlFlow::Continue(()));
    assert!(matches!(error, Err(TraceError::Worker(_))), "{error:?}");
    assert_eq!(bed.appliance.traces.load(Relaxed), 0);
}
