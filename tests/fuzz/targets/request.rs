//! Any bytes as a line of the API: never a panic, and a request that is read is the same when it is
//! written and read again. Its filters are tried on a flow and an expectation, and its words are read.
#![no_main]

use libfuzzer_sys::fuzz_target;
use shardwall::conntrack::record::{ExpectRecord, FlowRecord};
use shardwall::control::Request;
use shardwall::control::protocol::MAX_REQUEST;
use shardwall::pipeline::trace::Filter;
use shardwall::policy::{self, Compiled, PacketInWords, Policy};
use std::sync::LazyLock;

static POLICY: LazyLock<(Policy, Compiled)> = LazyLock::new(|| {
    let text = "version: 1\nports: { lan: { device: net_null0 }, wan: { device: net_null1 } }\n\
                bridge: [[lan, wan]]\nchains: { forward: { policy: drop, rules: [{ name: web, iif: lan, \
                proto: tcp, dport: 80, ct: new, action: accept }] } }\n";
    match policy::parse("fuzz.yaml", text) {
        Ok(checked) => {
            let compiled = policy::compile(&checked.model, 1, 1);
            (checked.model, compiled)
        }
        Err(errors) => panic!("{errors}"),
    }
});

static FLOWS: LazyLock<Vec<FlowRecord>> = LazyLock::new(|| {
    let ends = |src: &str, dst: &str, detail: &str| {
        format!("{{\"src\":\"{src}\",\"dst\":\"{dst}\",{detail}}}")
    };
    let flow = |proto: u8, original: String, reply: String, tcp: &str| {
        let text = format!(
            "{{\"proto\":{proto},\"original\":{original},\"reply\":{reply},\"timeout\":9,\"tcp_state\":{tcp},\
             \"sctp_state\":null,\"seen_reply\":true,\"assured\":false,\"mark\":1,\"zone\":0,\"shard\":0}}"
        );
        match serde_json::from_str(&text) {
            Ok(flow) => flow,
            Err(error) => panic!("{error} in {text}"),
        }
    };
    let ports = ("\"sport\":4000,\"dport\":80", "\"sport\":80,\"dport\":4000");
    let echo = ("\"type\":128,\"code\":0,\"id\":7", "\"type\":129,\"code\":0,\"id\":7");
    vec![
        flow(
            6,
            ends("10.0.0.1", "10.0.0.2", ports.0),
            ends("10.0.0.2", "10.0.0.1", ports.1),
            "\"ESTABLISHED\"",
        ),
        flow(58, ends("fd00::1", "fd00::2", echo.0), ends("fd00::2", "fd00::1", echo.1), "null"),
    ]
});

static EXPECTATION: LazyLock<ExpectRecord> = LazyLock::new(|| {
    let ends = "\"src\":\"10.0.0.2\",\"dst\":\"10.0.0.1\",\"sport\":0,\"dport\":4001";
    let text = format!(
        "{{\"proto\":6,\"expected\":{{{ends}}},\"any_src\":false,\"any_sport\":true,\
         \"master\":{{\"proto\":6,{ends}}},\"timeout\":300,\"helper\":\"ftp\",\"class\":0,\
         \"class_name\":\"data\",\"permanent\":false,\"inactive\":false,\"mark\":0,\"zone\":0,\"shard\":0}}"
    );
    match serde_json::from_str(&text) {
        Ok(expectation) => expectation,
        Err(error) => panic!("{error} in {text}"),
    }
});

fuzz_target!(|line: &[u8]| {
    if line.len() > MAX_REQUEST {
        return;
    }
    let Ok(request) = serde_json::from_slice::<Request>(line) else { return };
    let Ok(written) = serde_json::to_vec(&request) else { panic!("{request:?} cannot be written") };
    match serde_json::from_slice::<Request>(&written) {
        Ok(again) => assert_eq!(again, request),
        Err(error) => panic!("{error} in {}", String::from_utf8_lossy(&written)),
    }
    let (policy, compiled) = &*POLICY;
    match &request {
        Request::ConntrackList(listing)
        | Request::ConntrackGet(listing)
        | Request::ConntrackDelete(listing) => {
            let filter = &listing.filter;
            for flow in &*FLOWS {
                // What matches must not have been passed over by the quick look.
                if filter.matches(flow) {
                    assert!(filter.wants(flow.original.src.is_ipv6(), flow.proto));
                }
            }
            let _ = filter.tuple();
        }
        Request::ConntrackWatch(watch) => {
            let _ = FLOWS.iter().filter(|flow| watch.filter.matches(flow)).count();
        }
        Request::ExpectList(filter) | Request::ExpectDelete(filter) => {
            let matches = filter.matches(&EXPECTATION);
            assert!(matches || !filter.is_empty());
        }
        Request::Explain { words } => {
            if let Ok(mut packet) = PacketInWords::read(words, policy) {
                packet.when(policy, 1_700_000_000);
            }
        }
        Request::Trace(ask) => {
            let _ = Filter::read(&ask.words, policy, compiled);
        }
        _ => {}
    }
});
