//! The values of the language: how each is written, with names from the checker's own tables.
//!
//! Life-cycle and concurrency: as `schema`.
#![allow(missing_debug_implementations, unreachable_pub)] // only their schemas are used

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::{Value, json};

use crate::conntrack::types::CtState;
use crate::helpers::INFOS;
use crate::policy::check::STATUS;
use crate::policy::model::{RejectWith, ReloadMode};
use crate::policy::names::{
    DSCP, ETHERTYPES, ICMP_TYPES, ICMPV6_TYPES, PROTOCOLS, TCP_FLAGS, names,
};

/// A number in decimal, or in hexadecimal after `0x`.
const NUMBER: &str = "(0x[0-9a-fA-F]+|[0-9]+)";
/// What the policy calls something.
const NAME: &str = "[A-Za-z0-9_.:-]{1,63}";
/// A length of time.
const SPAN: &str = "([0-9]+d)?([0-9]+h)?([0-9]+m)?([0-9]+s)?";
/// An address, a prefix or a range of addresses.
const ADDR: &str = "[0-9A-Fa-f:.]+(/[0-9]+| *- *[0-9A-Fa-f:.]+)?";

/// Anything that is not a collection: YAML takes some words for numbers or booleans.
fn scalar() -> Value {
    json!(["string", "number", "boolean"])
}

fn matching(pattern: &str) -> Value {
    json!({ "type": "string", "pattern": format!("^{pattern}$") })
}

/// A number of a range, also in quotes.
fn number(min: u64, max: u64) -> Value {
    json!({ "anyOf": [
        { "type": "integer", "minimum": min, "maximum": max },
        matching(NUMBER),
    ] })
}

fn any_of(forms: Vec<Value>) -> Value {
    json!({ "anyOf": forms })
}

fn words(of: &[&str]) -> Value {
    let mut all: Vec<_> = of.to_vec();
    let mut seen = std::collections::BTreeSet::new();
    all.retain(|word| seen.insert(*word));
    json!({ "enum": all })
}

/// A value, the same with `!` before it, or a list of values.
fn matches(one: Value, pattern: &str) -> Value {
    let element = any_of(vec![one, matching(pattern)]);
    any_of(vec![
        element.clone(),
        matching(&format!("! *({pattern})")),
        json!({ "type": "array", "items": element, "minItems": 1 }),
    ])
}

/// One of a few names, the same with `!` before it, or a list of names.
fn names_of(of: &[&str]) -> Value {
    matches(words(of), &format!("({})", of.join("|")))
}

/// A number, a range, a set, or a list of these.
fn numbers(max: u64) -> Value {
    let one = format!("{NUMBER}( *- *{NUMBER})?|\\${NAME}");
    let number = json!({ "type": "integer", "minimum": 0, "maximum": max });
    matches(number, &format!("({one})"))
}

fn collected<T>(table: &[(&'static str, T)]) -> Vec<&'static str> {
    names(table).collect()
}

/// Types with a schema of their own.
macro_rules! values {
    ($($(#[doc = $doc:literal])+ $name:ident, [$($example:expr),*] = $schema:expr;)+) => { $(
        $(#[doc = $doc])+
        pub struct $name;

        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                let text = [$($doc),+].map(str::trim).join(" ");
                let mut object = serde_json::Map::new();
                object.insert("description".into(), text.into());
                object.insert("examples".into(), json!([$($example),*]));
                if let Value::Object(rest) = $schema {
                    object.extend(rest);
                }
                object.into()
            }
        }
    )+ };
}

values! {
    /// The version of the language that the policy is written in.
    Version, [1] = json!({ "enum": [1, "1", "0x1"] });
    /// Yes or no.
    Switch, [true, false] = any_of(vec![
        json!({ "type": "boolean" }),
        json!({ "enum": ["true", "false", "yes", "no", "on", "off"] }),
    ]);
    /// `true` or `false`, which may stand in a list or behind `!` as other values may.
    Whether, [true, false, "!true"] = matches(any_of(vec![
        json!({ "type": "boolean" }),
        words(&["true", "false", "yes", "no", "on", "off"]),
    ]), "(true|false|yes|no|on|off)");
    /// What the policy calls something: up to 63 ASCII letters, digits, `-`, `_`, `.` and `:`.
    Name, ["web-in"] = json!({ "type": scalar(), "pattern": format!("^{NAME}$") });
    /// Any text on one line.
    Text, ["why it is there"] = json!({ "type": scalar() });
    /// A PCI address, or a DPDK virtual device with its arguments.
    Device, ["0000:03:00.0", "net_tap0,iface=sw-lan"] = json!({ "type": scalar() });
    /// A number from 1 to 128.
    SmallNumber, [2] = number(1, 128);
    /// A number from 68 to 16000.
    Mtu, [9000] = number(68, 16_000);
    /// Numbers of cores, each listed once.
    Cores, [json!([2, 4, 6])] = json!({
        "type": "array", "items": number(0, 1023), "minItems": 1, "maxItems": 128
    });
    /// `spin` polls on, `yield` lets others have the core first, and `auto` does that only where there
    /// are no more cores than workers. `sleep` saves power: it naps for 50 to 100 us at a time once
    /// nothing came for a while, and a packet that comes during a nap waits for its end.
    Idle, ["sleep"] = words(&["auto", "spin", "yield", "sleep"]);
    /// `auto` takes hugepages if there are any, `required` refuses to start without, `off` never takes
    /// them.
    Hugepages, ["auto"] = any_of(vec![
        words(&["auto", "required", "off"]),
        // what YAML 1.1 makes of `off`
        json!({ "const": false }),
    ]);
    /// `on` and `off`, or `auto`: only if the metrics' address is a loopback address. The page asks for no
    /// password and changes nothing; what is on it, anybody may read who reaches the address.
    StatusPage, ["auto"] = any_of(vec![
        words(&["auto", "on", "off"]),
        // what YAML 1.1 makes of `on` and `off`
        json!({ "type": "boolean" }),
    ]);
    /// An address and a port, or `off`.
    Listen, ["127.0.0.1:9477", "off"] = json!({ "type": ["string", "boolean"] });
    /// An absolute path of at most 107 bytes.
    SocketPath, ["/run/shardwall/control.sock"] = matching("/.*");
    /// `stderr`, `journal` (fields in systemd's journal), or the absolute path of a file for JSON lines.
    LogTo, ["stderr", "journal", "/var/log/shardwall.jsonl"] = any_of(vec![
        words(&["stderr", "journal"]),
        matching("/.*"),
    ]);
    /// A name of the IANA time zone database.
    TimeZone, ["Europe/Berlin", "UTC"] = json!({ "type": "string" });
    /// A number of buffers, from 1024.
    Mbufs, [65536] = number(1024, 1 << 28);
    /// Megabytes, from 32.
    Megabytes, [1024] = number(32, 1 << 20);
    /// A number of flows.
    Flows, [262144] = number(1, 1 << 28);
    /// A number of expectations.
    Expectations, [65536] = number(1, 1 << 24);
    /// A number from 0 to 255.
    Byte, [3] = number(0, 255);
    /// What a reload does to flows that are in the table: `keep` lets them live on, `rematch` judges
    /// each again at its next packet, `flush-affected` ends those at once that would not be let begin
    /// any more.
    Reload, ["keep", "rematch"] = words(&ReloadMode::ALL.map(ReloadMode::name));
    /// A zone: a number from 0 to 65535, or `vlan`, by which the id of the outermost VLAN tag is the zone
    /// (0 without a tag).
    BridgeZone, [7, "vlan"] = any_of(vec![words(&["vlan"]), number(0, 65535)]);
    /// EtherTypes that pass beside IP, by name or number; the list replaces the default, `[arp]`.
    EtherTypes, [json!(["arp", "lldp"])] = json!({
        "type": "array",
        "items": any_of(vec![words(&collected(ETHERTYPES)), number(0x600, 0xffff)]),
    });
    /// Addresses, prefixes and ranges of both families; or ports and ranges of ports; or ports of the
    /// policy (interfaces); and `$name` for all that another set has.
    Entries, [json!(["10.2.0.0/16", "fd02::/16", "10.9.0.1-10.9.0.7"]), json!([80, 443, "8000-8080"]), json!(["lan", "dmz"])]
        = any_of(vec![
            json!({ "type": scalar() }),
            json!({ "type": "array", "items": { "type": scalar() }, "minItems": 1 }),
        ]);
    /// A path, from the policy's own folder on, or a list of paths.
    Files, ["blocked.txt"] = any_of(vec![
        json!({ "type": scalar() }),
        json!({ "type": "array", "items": { "type": scalar() }, "minItems": 1 }),
    ]);
    /// A length of time, more than 0 and at most 24 days: seconds, or with units.
    Span, [30, "10m", "5d", "1h30m"] = any_of(vec![
        json!({ "type": "integer", "minimum": 1, "maximum": 24 * 86_400 }),
        matching(NUMBER),
        json!({ "type": "string", "pattern": format!("^{SPAN}$"), "minLength": 2 }),
    ]);
    /// The name of a helper.
    HelperName, ["ftp", "tftp"] = words(&INFOS.map(|info| info.name));
    /// Ports of the policy, or sets of them: one, a list (any of them), or one behind `!` (any other).
    Interfaces, ["lan", json!(["lan", "dmz"]), "!wan", "$inside"] = any_of(vec![
        json!({ "type": scalar(), "pattern": format!("^!? *\\$?{NAME}$") }),
        json!({ "type": "array", "minItems": 1, "items": {
            "type": scalar(), "pattern": format!("^\\$?{NAME}$"),
        } }),
    ]);
    /// `ipv4` or `ipv6`.
    Family, ["ipv4"] = names_of(&["ipv4", "ipv6"]);
    /// An address, a prefix, a range or a set; a list of these (any of them); or one behind `!` (any
    /// other). An address implies its family: a set without IPv6 addresses matches no IPv6 packet,
    /// negated or not.
    Addresses, ["10.2.0.0/16", json!(["10.0.0.1", "fd00::/8"]), "$servers", "!$servers"] = {
        let one = format!("({ADDR}|\\${NAME})");
        any_of(vec![
            matching(&format!("!? *{one}")),
            json!({ "type": "array", "items": matching(&one), "minItems": 1 }),
        ])
    };
    /// Names or numbers (0 to 255) of transport protocols: one, a list (any of them), or one behind `!`
    /// (any other).
    Protocols, ["tcp", json!(["tcp", "udp"]), "!icmp", 89] = {
        let names = collected(PROTOCOLS);
        let number = json!({ "type": "integer", "minimum": 0, "maximum": 255 });
        let pattern = format!("({}|{NUMBER})", names.join("|"));
        matches(any_of(vec![words(&names), number]), &pattern)
    };
    /// Ports from 0 to 65535: one, a range, a set; a list of these (any of them); or one behind `!` (any
    /// other).
    Ports, [22, "8000-8080", json!([80, 443, "$alt"]), "!$web"] = numbers(65535);
    /// Types of ICMP and ICMPv6 by name, or by number where `proto` says of which; with a code behind
    /// `/`. One, a list (any of them), or one behind `!` (any other of the versions that have it).
    IcmpTypes, ["echo-request", "destination-unreachable/4", json!(["echo-request", "time-exceeded"])] = {
        let names = [collected(ICMP_TYPES), collected(ICMPV6_TYPES)].concat();
        let number = json!({ "type": "integer", "minimum": 0, "maximum": 255 });
        let pattern = format!("({}|{NUMBER})(/{NUMBER})?", names.join("|"));
        matches(any_of(vec![words(&names), number]), &pattern)
    };
    /// `syn` is iptables' `--syn` (SYN set; ACK, RST and FIN clear), `"!syn"` its opposite;
    /// `"mask/value"` says which flags to look at and which of them must be set:
    /// `fin`, `syn`, `rst`, `psh`, `ack`, `urg`, `ecn`, `cwr`, with commas between them, or `none`.
    /// One, a list (any of them; each in quotes, for the commas), or one behind `!` (any other).
    TcpFlags, ["syn", "!syn", "syn,ack/syn,ack", json!(["syn", "fin,rst/none"])] = {
        let list = format!(" *(none|({0})( *, *({0}))*) *", collected(TCP_FLAGS).join("|"));
        let one = format!("(syn|{list}/{list})");
        any_of(vec![words(&["syn", "!syn"]), matches(words(&["syn"]), &one)])
    };
    /// What a packet is to its flow: `new` (it would start one), `established` (a flow that has seen
    /// replies), `related` (expected by a helper, or an ICMP error about a flow), `invalid`,
    /// `untracked`. One, a list (any of them), or one behind `!` (any other).
    States, ["new", json!(["established", "related"]), "!invalid"] = names_of(&CtState::ALL.map(CtState::name));
    /// `original` (as the packet that started the flow) or `reply`.
    Direction, ["original"] = names_of(&["original", "reply"]);
    /// Bytes of the whole IP datagram, as ports are written.
    Lengths, ["0-576", "!1500"] = numbers(65535);
    /// Differentiated services code points by name or number (0 to 63): one, a list, or one behind `!`.
    CodePoints, ["ef", json!(["cs1", "af11"]), 46] = {
        let names = collected(DSCP);
        let number = json!({ "type": "integer", "minimum": 0, "maximum": 63 });
        let pattern = format!("({}|{NUMBER})", names.join("|"));
        matches(any_of(vec![words(&names), number]), &pattern)
    };
    /// Ids of the outermost VLAN tag, 0 to 4094, as ports are written; a frame without a tag never
    /// matches.
    Vlans, [10, "100-199", "!1"] = numbers(4094);
    /// Zones from 0 to 65535, as ports are written.
    Zones, [7, "20-29", "!0"] = numbers(65535);
    /// A mark (32 bits), or mark and mask: one, a list (any of them), or one behind `!` (any other).
    Marks, [5, "0x10/0xf0", "!5"] = {
        let number = json!({ "type": "integer", "minimum": 0, "maximum": u32::MAX });
        matches(number, &format!("( *{NUMBER} *(/ *{NUMBER} *)?)"))
    };
    /// A mark to set; with a mask, its bits are cleared first and the others stay.
    Mark, [5, "0x10/0xff"] = any_of(vec![
        json!({ "type": "integer", "minimum": 0, "maximum": u32::MAX }),
        matching(&format!(" *{NUMBER} *(/ *{NUMBER} *)?")),
    ]);
    /// What is known of the flow after this packet: one, a list (any of them), or one behind `!` (none of
    /// it). `seen-reply`; `assured` (worth keeping when the table is full); `confirmed` (in the table,
    /// so not yet while its first packet is judged); `expected` (a helper expected it).
    Statuses, ["assured", json!(["assured", "expected"]), "!assured"] = names_of(&collected(&STATUS));
    /// Helpers that expected the flow: one, a list (any of them), or one behind `!` (any other, or none).
    HelperNames, ["ftp", json!(["ftp", "tftp"]), "!ftp"] = names_of(&INFOS.map(|info| info.name));
    /// A rate: packets in a unit of time, `burst` so many at once (5 if it does not say), and `per` what they
    /// are counted by: `source/24,64` and `destination/24,64` by network (of IPv4, of IPv6), `zone`, or
    /// `rule` (all together, which is the default).
    Rate, ["5/second", "5/second burst 10", "100/minute burst 20 per source"] = matching(&format!(
        " *{NUMBER}/(second|minute|hour|day)( +burst +{NUMBER}( +packets)?)?( +per +{PER})? *"
    ));
    /// A number of flows, with `over` before it for more than that, and `per` what they are counted by:
    /// `source/24,64` (the default is `source`, by address), `destination/24,64`, `zone` or `rule`.
    ConnLimit, [20, "over 100 per source/32,64", "1000 per zone"] = any_of(vec![
        json!({ "type": "integer", "minimum": 1, "maximum": 10_000_000 }),
        matching(&format!(" *(over +)?{NUMBER}( +per +{PER})? *")),
    ]);
    /// Days (`mon` to `sun`, ranges of them, which may go over the end of the week) before hours
    /// (`08:00-18:00`, which may go over midnight), in local time; a list of these is any of them.
    TimeText, ["mon-fri 08:00-18:00", "sat, sun", "22:00-06:00"] = any_of(vec![
        json!({ "type": "string" }),
        json!({ "type": "array", "items": { "type": "string" }, "minItems": 1 }),
    ]);
    /// Days of the week and ranges of them: one or a list.
    Days, ["mon-fri", json!(["mon", "wed"])] = any_of(vec![
        json!({ "type": "string" }),
        json!({ "type": "array", "items": { "type": "string" }, "minItems": 1 }),
    ]);
    /// Windows of a day, which may go over midnight: one or a list.
    Hours, ["08:00-18:00", json!(["08:00-12:00", "13:00-17:00"])] = any_of(vec![
        json!({ "type": "string" }),
        json!({ "type": "array", "items": { "type": "string" }, "minItems": 1 }),
    ]);
    /// A date, with a time of day or without, in local time.
    Date, ["2027-01-15", "2027-01-15 12:00"] = matching("[0-9]{4}-[0-9]{2}-[0-9]{2}([ T].*)?");
    /// At most 64 bytes of printable text.
    Prefix, ["ssh"] = json!({ "type": scalar(), "maxLength": 64 });
    /// Counts into the named counter; `true` makes a rule that only counts.
    Count, ["web", true] = json!({ "type": scalar(), "pattern": format!("^{NAME}$") });
    /// `drop` or `accept`.
    ChainPolicy, ["drop"] = words(&["drop", "accept"]);
    /// The name of a chain.
    ChainName, ["inbound"] = json!({ "type": scalar(), "pattern": format!("^{NAME}$") });
    /// `accept` lets the packet pass, `drop` throws it away, `reject` does and tells the sender (a TCP
    /// reset, or port unreachable), `return` goes back to where the chain was jumped from.
    Verdict, ["accept"] = words(&["accept", "drop", "reject", "return"]);
    /// How the sender is told; `tcp-reset` needs `proto: tcp`.
    RejectKind, ["admin-prohibited"] = {
        let also = ["port-unreachable", "prot-unreachable", "addr-unreachable", "no-route"];
        words(&[&RejectWith::ALL.map(RejectWith::name)[..], &also].concat())
    };
    /// `notrack` keeps the packet from being tracked, `accept` skips the raw rules behind.
    RawAction, ["notrack"] = words(&["notrack", "accept"]);
    /// `default`, the name of a profile, or how long flows at rest live.
    TimeoutName, ["patient", "1h", "default"] = json!({ "type": ["string", "integer"] });
}

/// What `limit` and `connlimit` count by.
const PER: &str = "((source|destination)(/[0-9]+( *, *[0-9]+)?)?|zone|rule)";
