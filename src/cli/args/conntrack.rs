//! What `conntrack` and `expect` take: the options of conntrack(8) 1.4.7.
//!
//! Values of `conntrack` are words here. What they mean, and which command takes which, is not for a
//! grammar to say: [`crate::cli::conntrack`] reads them as the program does.

use super::{BUILD, protocol_number};
use crate::conntrack::event::Kind;
use crate::control::filter::{ExpectFilter, Net};
use crate::control::protocol;
use clap::ArgAction::Count;
use clap::{ArgGroup, Args, ValueEnum};

/// Options of `conntrack`.
#[derive(Clone, Debug, Default, Args)]
#[command(
    version = BUILD,
    infer_long_args = true,
    after_long_help = "Long options may be shortened. Exit codes are conntrack(8)'s: 0, 1 if something \
                       failed or nothing was found to get or delete, 2 for a command line that makes no \
                       sense."
)]
pub struct ConntrackArgs {
    /// List flows. -o says how; the options below, which ones.
    #[arg(short = 'L', long, action = Count, help_heading = "Commands")]
    pub dump: u8,
    /// Show one flow, whose original direction is given in full: -s, -d, -p and, as the protocol has
    /// them, both ports, both GRE keys, or ICMP type, code and id. Flows of zone 0 only.
    #[arg(short = 'G', long, action = Count, help_heading = "Commands")]
    pub get: u8,
    /// End flows, and print them: those that the options below mean, or all.
    #[arg(short = 'D', long, action = Count, help_heading = "Commands")]
    pub delete: u8,
    /// Print what happens to flows as it happens, until interrupted.
    #[arg(short = 'E', long, action = Count, help_heading = "Commands")]
    pub event: u8,
    /// End all flows, or those of one family (-f).
    #[arg(short = 'F', long, action = Count, help_heading = "Commands")]
    pub flush: u8,
    /// Print how many flows there are.
    #[arg(short = 'C', long, visible_alias = "counter", action = Count, help_heading = "Commands")]
    pub count: u8,
    /// Print each worker's counters.
    #[arg(short = 'S', long, action = Count, help_heading = "Commands")]
    pub stats: u8,
    /// Refused: flows begin with packets that policy accepts.
    #[arg(short = 'I', long, action = Count, help_heading = "Refused")]
    pub create: u8,
    /// Refused, as -I.
    #[arg(short = 'A', long, action = Count, help_heading = "Refused")]
    pub add: u8,
    /// Refused: what a flow is changes with its packets, its mark with the rules.
    #[arg(short = 'U', long, action = Count, help_heading = "Refused")]
    pub update: u8,
    /// Refused, as -I.
    #[arg(short = 'R', long, value_name = "FILE", help_heading = "Refused")]
    pub load_file: Option<String>,
    /// The table: conntrack (the default), expect, dying, unconfirmed; a beginning will do. The last two
    /// are always empty: a flow is in the table as long as it lives, and not before its first packet was
    /// accepted.
    #[arg(value_name = "TABLE")]
    pub table: Option<String>,

    /// From this address in the original direction; for -L, -D and -E also 10.0.0.0/8.
    #[arg(
        short = 's',
        long,
        visible_alias = "src",
        value_name = "ADDRESS",
        help_heading = "Which flows"
    )]
    pub orig_src: Vec<String>,
    /// To this address in the original direction, or these.
    #[arg(
        short = 'd',
        long,
        visible_alias = "dst",
        value_name = "ADDRESS",
        help_heading = "Which flows"
    )]
    pub orig_dst: Vec<String>,
    /// From this address in the reply direction.
    #[arg(
        short = 'r',
        long,
        value_name = "ADDRESS",
        help_heading = "Which flows"
    )]
    pub reply_src: Vec<String>,
    /// To this address in the reply direction.
    #[arg(
        short = 'q',
        long,
        value_name = "ADDRESS",
        help_heading = "Which flows"
    )]
    pub reply_dst: Vec<String>,
    /// Bits of the address of -s that count, as 255.255.0.0.
    #[arg(long, value_name = "MASK", help_heading = "Which flows")]
    pub mask_src: Vec<String>,
    /// Bits of the address of -d that count.
    #[arg(long, value_name = "MASK", help_heading = "Which flows")]
    pub mask_dst: Vec<String>,
    /// Of this protocol: tcp, udp, udplite, icmp, icmpv6, sctp, dccp, gre, a name of /etc/protocols, or
    /// a number up to 255.
    #[arg(short, long, value_name = "PROTO", help_heading = "Which flows")]
    pub protonum: Vec<String>,
    /// Of this address family: ipv4 or ipv6; both, if it is not said and no address says it.
    #[arg(short, long, value_name = "FAMILY", help_heading = "Which flows")]
    pub family: Vec<String>,
    /// With this status, all of a list: ASSURED, SEEN_REPLY, EXPECTED, FIXED_TIMEOUT, OFFLOAD; without
    /// it, with a ! before; or UNREPLIED. A beginning of a word will do.
    #[arg(
        short = 'u',
        long,
        value_name = "STATUS[,...]",
        help_heading = "Which flows"
    )]
    pub status: Vec<String>,
    /// With this mark, or one that is the same where MASK has ones.
    #[arg(short, long, value_name = "MARK[/MASK]", help_heading = "Which flows")]
    pub mark: Vec<String>,
    /// Of this zone.
    #[arg(short = 'w', long, value_name = "ZONE", help_heading = "Which flows")]
    pub zone: Vec<String>,
    /// Of this zone in the original direction only. No flow is in one but 0.
    #[arg(long, value_name = "ZONE", help_heading = "Which flows")]
    pub orig_zone: Vec<String>,
    /// Of this zone in the reply direction only, likewise.
    #[arg(long, value_name = "ZONE", help_heading = "Which flows")]
    pub reply_zone: Vec<String>,
    /// With this number, as -o id prints it; for -D.
    #[arg(short, long, value_name = "ID", help_heading = "Which flows")]
    pub id: Vec<String>,
    /// With a translated source (of this address and port). There is no NAT: no flow has one.
    #[arg(short = 'n', long, value_name = "ADDRESS[:PORT]", num_args = 0..=1, default_missing_value = "", help_heading = "Which flows")]
    pub src_nat: Vec<String>,
    /// With a translated destination, likewise.
    #[arg(short = 'g', long, value_name = "ADDRESS[:PORT]", num_args = 0..=1, default_missing_value = "", help_heading = "Which flows")]
    pub dst_nat: Vec<String>,
    /// With either, likewise.
    #[arg(short = 'j', long, value_name = "ADDRESS[:PORT]", num_args = 0..=1, default_missing_value = "", help_heading = "Which flows")]
    pub any_nat: Vec<String>,

    /// From this port in the original direction (-p tcp, udp, udplite, sctp, dccp).
    #[arg(
        long,
        visible_alias = "orig-port-src",
        value_name = "PORT",
        help_heading = "Which flows, by protocol"
    )]
    pub sport: Vec<String>,
    /// To this port in the original direction.
    #[arg(
        long,
        visible_alias = "orig-port-dst",
        value_name = "PORT",
        help_heading = "Which flows, by protocol"
    )]
    pub dport: Vec<String>,
    /// From this port in the reply direction.
    #[arg(long, value_name = "PORT", help_heading = "Which flows, by protocol")]
    pub reply_port_src: Vec<String>,
    /// To this port in the reply direction.
    #[arg(long, value_name = "PORT", help_heading = "Which flows, by protocol")]
    pub reply_port_dst: Vec<String>,
    /// In this state (-p tcp, sctp), by the name that listings have for it.
    #[arg(long, value_name = "STATE", help_heading = "Which flows, by protocol")]
    pub state: Vec<String>,
    /// Of this ICMP type (-p icmp).
    #[arg(long, value_name = "TYPE", help_heading = "Which flows, by protocol")]
    pub icmp_type: Vec<String>,
    /// Of this ICMP code.
    #[arg(long, value_name = "CODE", help_heading = "Which flows, by protocol")]
    pub icmp_code: Vec<String>,
    /// Of this ICMP identifier.
    #[arg(long, value_name = "ID", help_heading = "Which flows, by protocol")]
    pub icmp_id: Vec<String>,
    /// Of this ICMPv6 type (-p icmpv6).
    #[arg(long, value_name = "TYPE", help_heading = "Which flows, by protocol")]
    pub icmpv6_type: Vec<String>,
    /// Of this ICMPv6 code.
    #[arg(long, value_name = "CODE", help_heading = "Which flows, by protocol")]
    pub icmpv6_code: Vec<String>,
    /// Of this ICMPv6 identifier.
    #[arg(long, value_name = "ID", help_heading = "Which flows, by protocol")]
    pub icmpv6_id: Vec<String>,
    /// With this source key in the original direction (-p gre); decimal, or hexadecimal after 0x.
    #[arg(
        long,
        visible_alias = "orig-key-src",
        value_name = "KEY",
        help_heading = "Which flows, by protocol"
    )]
    pub srckey: Vec<String>,
    /// With this destination key in the original direction.
    #[arg(
        long,
        visible_alias = "orig-key-dst",
        value_name = "KEY",
        help_heading = "Which flows, by protocol"
    )]
    pub dstkey: Vec<String>,
    /// With this source key in the reply direction.
    #[arg(long, value_name = "KEY", help_heading = "Which flows, by protocol")]
    pub reply_key_src: Vec<String>,
    /// With this destination key in the reply direction.
    #[arg(long, value_name = "KEY", help_heading = "Which flows, by protocol")]
    pub reply_key_dst: Vec<String>,

    /// How to print, a list: extended (the address family in front), id (a number at the end),
    /// ktimestamp (when the flow began, by the local time), timestamp (events with their time), xml, save
    /// (as options of conntrack(8), alone), json; labels and userspace are taken and add nothing. A
    /// beginning of a word will do.
    #[arg(short, long, value_name = "TYPE[,...]", help_heading = "Output")]
    pub output: Vec<String>,
    /// Events of these kinds only: ALL, NEW, UPDATES, DESTROY (-E).
    #[arg(short = 'e', long, value_name = "KIND[,...]", help_heading = "Output")]
    pub event_mask: Vec<String>,
    /// Taken for those who are used to it (-E): there is no such buffer here.
    #[arg(short, long, value_name = "BYTES", help_heading = "Output")]
    pub buffer_size: Vec<String>,

    /// Refused: counters only grow.
    #[arg(short, long, action = Count, help_heading = "Refused")]
    pub zero: u8,
    /// Refused: timeouts are policy's, and nothing to choose flows by.
    #[arg(short, long, value_name = "TIMEOUT", help_heading = "Refused")]
    pub timeout: Vec<String>,
    /// Refused: flows have no security marks.
    #[arg(short = 'c', long, value_name = "SECMARK", help_heading = "Refused")]
    pub secmark: Vec<String>,
    /// Refused: flows have no labels.
    #[arg(short, long, value_name = "LABEL", help_heading = "Refused")]
    pub label: Vec<String>,
    /// Refused, as -l.
    #[arg(long, value_name = "LABEL", help_heading = "Refused")]
    pub label_add: Vec<String>,
    /// Refused, as -l.
    #[arg(long, value_name = "LABEL", num_args = 0..=1, default_missing_value = "", help_heading = "Refused")]
    pub label_del: Vec<String>,
    /// Refused: whom an expectation is for is an option of `shardwall expect`.
    #[arg(long, value_name = "ADDRESS", help_heading = "Refused")]
    pub tuple_src: Vec<String>,
    /// Refused, as --tuple-src.
    #[arg(long, value_name = "ADDRESS", help_heading = "Refused")]
    pub tuple_dst: Vec<String>,
    /// Refused: the tags of an association are nothing to choose it by.
    #[arg(long, value_name = "TAG", help_heading = "Refused")]
    pub orig_vtag: Vec<String>,
    /// Refused, as --orig-vtag.
    #[arg(long, value_name = "TAG", help_heading = "Refused")]
    pub reply_vtag: Vec<String>,
}

/// Options of `expect`. Addresses may have a length, as in 10.0.0.0/8.
#[derive(Clone, Debug, Args)]
#[command(version = BUILD, infer_long_args = true)]
#[command(group(ArgGroup::new("action").required(true).args(["dump", "get", "event", "count", "delete", "flush", "stats"])))]
#[command(group(ArgGroup::new("filter").multiple(true).conflicts_with_all(["count", "flush", "stats"]).args([
    "family", "protonum", "tuple_src", "tuple_dst", "tuple_port_dst", "orig_src", "orig_dst", "helper", "zone"
])))]
pub struct ExpectArgs {
    /// List expectations.
    #[arg(short = 'L', long)]
    pub dump: bool,
    /// Show one expectation: the first that the options below mean, of which --tuple-dst, -p and
    /// --tuple-port-dst are needed.
    #[arg(short = 'G', long, requires_all = ["tuple_dst", "protonum", "tuple_port_dst"])]
    pub get: bool,
    /// Print what happens to expectations as it happens, until interrupted.
    #[arg(short = 'E', long)]
    pub event: bool,
    /// End the expectations that the options below mean, one of which is needed, and print them.
    #[arg(short = 'D', long, requires = "filter")]
    pub delete: bool,
    /// Print how many expectations there are.
    #[arg(short = 'C', long, visible_alias = "counter")]
    pub count: bool,
    /// End all expectations.
    #[arg(short = 'F', long)]
    pub flush: bool,
    /// Print how many expectations each worker made, fulfilled and ended.
    #[arg(short = 'S', long)]
    pub stats: bool,
    /// Expectations of this address family only.
    #[arg(short, long, value_name = "FAMILY", value_enum)]
    pub family: Option<Family>,
    /// Of flows of this protocol only, by name or number.
    #[arg(short, long, value_name = "PROTO", value_parser = protocol_number)]
    pub protonum: Option<u8>,
    /// Of flows from these addresses only; 0.0.0.0 or :: where anybody may come.
    #[arg(long, value_name = "ADDRESS")]
    pub tuple_src: Option<Net>,
    /// Of flows to these addresses only.
    #[arg(long, value_name = "ADDRESS")]
    pub tuple_dst: Option<Net>,
    /// Of flows to this port only.
    #[arg(long, value_name = "PORT")]
    pub tuple_port_dst: Option<u16>,
    /// Announced by flows from these addresses only.
    #[arg(short = 's', long, visible_alias = "src", value_name = "ADDRESS")]
    pub orig_src: Option<Net>,
    /// Announced by flows to these addresses only.
    #[arg(short = 'd', long, visible_alias = "dst", value_name = "ADDRESS")]
    pub orig_dst: Option<Net>,
    /// Made by this helper only.
    #[arg(long, value_name = "NAME")]
    pub helper: Option<String>,
    /// Of this zone only.
    #[arg(short = 'w', long, value_name = "ZONE")]
    pub zone: Option<u16>,
    /// How to print expectations.
    #[arg(
        short,
        long,
        value_name = "TYPE",
        value_enum,
        value_delimiter = ',',
        conflicts_with_all = ["count", "flush", "stats"]
    )]
    pub output: Vec<ExpectOutput>,
}

impl ExpectArgs {
    /// Which expectations are meant.
    pub fn filter(&self) -> ExpectFilter {
        ExpectFilter {
            family: self.family.map(protocol::Family::from),
            proto: self.protonum,
            src: self.tuple_src,
            dst: self.tuple_dst,
            dport: self.tuple_port_dst,
            master_src: self.orig_src,
            master_dst: self.orig_dst,
            helper: self.helper.clone(),
            zone: self.zone,
        }
    }

    /// Which events to follow; the filter is for what they bring.
    pub fn watch(&self) -> protocol::Watch {
        protocol::Watch {
            kinds: vec![Kind::Expected, Kind::Unexpected],
            filter: protocol::Filter {
                family: self.family.map(protocol::Family::from),
                proto: self.protonum,
                ..protocol::Filter::default()
            },
        }
    }
}

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Family {
    /// IPv4.
    Ipv4,
    /// IPv6.
    Ipv6,
}

impl From<Family> for protocol::Family {
    fn from(family: Family) -> Self {
        match family {
            Family::Ipv4 => Self::Ipv4,
            Family::Ipv6 => Self::Ipv6,
        }
    }
}

/// Ways to print expectations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ExpectOutput {
    /// As ever: the program knows nothing more of an expectation.
    Extended,
    /// As JSON.
    Json,
    /// With the time in front, in seconds since 1970.
    Timestamp,
    /// As XML.
    Xml,
}
