//! What the options of `conntrack` ask for: which command takes which, as the table of conntrack(8) 1.4.7
//! has it, and what is to be said to whoever asks for something else. Pure.

use super::{Refusal, words};
use crate::cli::args::ConntrackArgs;
use crate::conntrack::event::Kind;
use crate::conntrack::types::{SctpState, TcpState, proto};
use crate::control::filter::flows::{Ends, Filter};
use crate::control::filter::{ExpectFilter, Net};
use crate::control::protocol::Family;
use crate::control::render::Style;
use std::net::IpAddr;

type Result<T> = std::result::Result<T, Refusal>;

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Command {
    List,
    Get,
    Delete,
    Event,
    Flush,
    Count,
    Stats,
}

/// With what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Table {
    Flows,
    Expectations,
    /// Flows that are dead, or do not live yet: there are none.
    Nothing,
}

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) command: Command,
    pub(super) table: Table,
    /// Which flows.
    pub(super) filter: Filter,
    /// Which events; all, if none is named.
    pub(super) kinds: Vec<Kind>,
    pub(super) style: Style,
    pub(super) json: bool,
}

impl Asked {
    /// Which expectations.
    pub(super) fn expectations(&self) -> ExpectFilter {
        let Filter {
            family,
            proto,
            original,
            ..
        } = &self.filter;
        ExpectFilter {
            family: *family,
            proto: *proto,
            src: original.src,
            dst: original.dst,
            dport: original.dport,
            ..ExpectFilter::default()
        }
    }
}

/// Options that only some commands take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Opt {
    Src,
    Dst,
    ReplySrc,
    ReplyDst,
    MaskSrc,
    MaskDst,
    Proto,
    Family,
    Status,
    Mark,
    Zone,
    OrigZone,
    ReplyZone,
    Id,
    SrcNat,
    DstNat,
    AnyNat,
    Output,
    EventMask,
    BufferSize,
}

/// Which command takes which.
const TAKES: [(Command, Table, &[Opt]); 12] = {
    use Command::{Count, Delete, Event, Flush, Get, List, Stats};
    use Opt::*;
    use Table::{Expectations, Flows};
    const LIST: &[Opt] = &[
        Src, Dst, ReplySrc, ReplyDst, MaskSrc, MaskDst, Proto, Family, Status, Mark, Zone,
        OrigZone, ReplyZone, SrcNat, DstNat, AnyNat, Output,
    ];
    const EVENT: &[Opt] = &[
        Src, Dst, ReplySrc, ReplyDst, MaskSrc, MaskDst, Proto, Family, Mark, Zone, OrigZone,
        ReplyZone, SrcNat, DstNat, AnyNat, Output, EventMask, BufferSize,
    ];
    const DELETE: &[Opt] = &[
        Src, Dst, ReplySrc, ReplyDst, MaskSrc, MaskDst, Proto, Family, Status, Mark, Zone,
        OrigZone, ReplyZone, SrcNat, DstNat, Output, Id,
    ];
    [
        (List, Flows, LIST),
        (List, Table::Nothing, LIST),
        (
            Get,
            Flows,
            &[Src, Dst, ReplySrc, ReplyDst, Proto, Output, Id],
        ),
        (Delete, Flows, DELETE),
        (Event, Flows, EVENT),
        (Flush, Flows, &[Family]),
        (List, Expectations, &[Family, Output]),
        (Get, Expectations, &[Src, Dst, Proto]),
        (Delete, Expectations, &[Src, Dst, Proto]),
        (Event, Expectations, &[Output]),
        (Count, Flows, &[]),
        (Stats, Flows, &[]),
    ]
};

/// An option that is taken from nobody: whether it is there, and why not.
type Refused = (&'static str, fn(&ConntrackArgs) -> bool, &'static str);

/// All of them.
const REFUSED: [Refused; 13] = [
    ("-I", |args| args.create > 0, BEGIN),
    ("-A", |args| args.add > 0, BEGIN),
    ("-R", |args| args.load_file.is_some(), BEGIN),
    (
        "-U",
        |args| args.update > 0,
        "a flow changes with its packets, and its mark with the rules of the policy",
    ),
    (
        "-z",
        |args| args.zero > 0,
        "counters only grow; what is counted between two listings is the difference",
    ),
    (
        "-t",
        |args| !args.timeout.is_empty(),
        "timeouts are the policy's, and nothing to choose flows by",
    ),
    (
        "-c",
        |args| !args.secmark.is_empty(),
        "flows have no security marks",
    ),
    ("-l", |args| !args.label.is_empty(), LABELS),
    ("--label-add", |args| !args.label_add.is_empty(), LABELS),
    ("--label-del", |args| !args.label_del.is_empty(), LABELS),
    (
        "--tuple-src, --tuple-dst",
        |args| !args.tuple_src.is_empty() || !args.tuple_dst.is_empty(),
        "`shardwall expect` chooses expectations by them",
    ),
    ("--orig-vtag", |args| !args.orig_vtag.is_empty(), TAGS),
    ("--reply-vtag", |args| !args.reply_vtag.is_empty(), TAGS),
];
const BEGIN: &str = "flows begin with packets that the policy accepts";
const LABELS: &str = "flows have no labels; rules can give them a mark";
const TAGS: &str = "the tags of an association are nothing to choose it by";

/// Reads the options. `None` if there are none at all.
pub(super) fn read(args: &ConntrackArgs) -> Result<Option<Asked>> {
    if let Some((option, _, why)) = REFUSED.iter().find(|(_, given, _)| given(args)) {
        return Err(Refusal::usage(format!(
            "{option} cannot be had here: {why}"
        )));
    }
    let table = table(args.table.as_deref())?;
    let Some(command) = command(args)? else {
        let nothing = given(args).all(|(.., given)| !given) && args.table.is_none();
        return match nothing {
            true => Ok(None),
            false => Err(Refusal::usage(
                "say what to do: -L, -G, -D, -E, -F, -C or -S",
            )),
        };
    };
    if table == Table::Nothing && command != Command::List {
        let text = "can't do that command with tables `dying' and `unconfirmed'";
        return Err(Refusal::usage(text));
    }
    let row = TAKES.iter().find(|row| (row.0, row.1) == (command, table));
    let takes = row.map_or(&[][..], |row| row.2);
    let stray = given(args).find(|(option, _, given)| *given && !takes.contains(option));
    if let Some((_, name, _)) = stray {
        return Err(Refusal::usage(format!(
            "illegal option `{name}' with this command"
        )));
    }
    let one_way = [&args.src_nat, &args.dst_nat];
    if !args.any_nat.is_empty() && one_way.iter().any(|words| !words.is_empty()) {
        let text = "cannot specify `--src-nat' or `--dst-nat' with `--any-nat'";
        return Err(Refusal::usage(text));
    }
    let filter = filter(args)?;
    if matches!(
        (command, table),
        (Command::Get | Command::Delete, Table::Expectations)
    ) && (filter.original.src.is_none()
        || filter.original.dst.is_none()
        || filter.proto.is_none())
    {
        return Err(Refusal::usage(
            "you need to supply `--src', `--dst' and `--protonum'",
        ));
    }
    if (command, table) == (Command::Get, Table::Flows) {
        whole(&filter)?;
    }
    let (style, json) = words::output(&args.output)?;
    Ok(Some(Asked {
        command,
        table,
        filter,
        kinds: words::kinds(&args.event_mask)?,
        style,
        json,
    }))
}

fn command(args: &ConntrackArgs) -> Result<Option<Command>> {
    let all = [
        (args.dump, Command::List),
        (args.get, Command::Get),
        (args.delete, Command::Delete),
        (args.event, Command::Event),
        (args.flush, Command::Flush),
        (args.count, Command::Count),
        (args.stats, Command::Stats),
    ];
    let times: u32 = all.iter().map(|(times, _)| u32::from(*times)).sum();
    if times > 1 {
        return Err(Refusal::usage("invalid commands combination"));
    }
    let found = all.iter().find(|(times, _)| *times > 0);
    Ok(found.map(|(_, command)| *command))
}

/// A table by the beginning of its name.
fn table(word: Option<&str>) -> Result<Table> {
    let Some(word) = word else {
        return Ok(Table::Flows);
    };
    let all = [
        ("expect", Table::Expectations),
        ("conntrack", Table::Flows),
        ("dying", Table::Nothing),
        ("unconfirmed", Table::Nothing),
    ];
    let found = all.into_iter().find(|(name, _)| name.starts_with(word));
    let found = found.filter(|_| !word.is_empty());
    found
        .map(|(_, table)| table)
        .ok_or_else(|| Refusal::usage(format!("unknown type `{word}'")))
}

/// The options of [`Opt`], and whether they are there.
fn given(args: &ConntrackArgs) -> impl Iterator<Item = (Opt, &'static str, bool)> {
    let all: [(Opt, &'static str, &[String]); 20] = [
        (Opt::Src, "--src", &args.orig_src),
        (Opt::Dst, "--dst", &args.orig_dst),
        (Opt::ReplySrc, "--reply-src", &args.reply_src),
        (Opt::ReplyDst, "--reply-dst", &args.reply_dst),
        (Opt::MaskSrc, "--mask-src", &args.mask_src),
        (Opt::MaskDst, "--mask-dst", &args.mask_dst),
        (Opt::Proto, "--protonum", &args.protonum),
        (Opt::Family, "--family", &args.family),
        (Opt::Status, "--status", &args.status),
        (Opt::Mark, "--mark", &args.mark),
        (Opt::Zone, "--zone", &args.zone),
        (Opt::OrigZone, "--orig-zone", &args.orig_zone),
        (Opt::ReplyZone, "--reply-zone", &args.reply_zone),
        (Opt::Id, "--id", &args.id),
        (Opt::SrcNat, "--src-nat", &args.src_nat),
        (Opt::DstNat, "--dst-nat", &args.dst_nat),
        (Opt::AnyNat, "--any-nat", &args.any_nat),
        (Opt::Output, "--output", &args.output),
        (Opt::EventMask, "--event-mask", &args.event_mask),
        (Opt::BufferSize, "--buffer-size", &args.buffer_size),
    ];
    let all = all.map(|(option, name, words)| (option, name, !words.is_empty()));
    all.into_iter()
}

/// Which flows are meant. Of what is said twice the last counts.
fn filter(args: &ConntrackArgs) -> Result<Filter> {
    let mut family = None;
    for word in &args.family {
        same(
            &mut family,
            match word.as_str() {
                word if word.starts_with("ipv4") => Family::Ipv4,
                word if word.starts_with("ipv6") => Family::Ipv6,
                word => return Err(Refusal::usage(format!("`{word}' unsupported protocol"))),
            },
        )?;
    }
    let mut filter = Filter {
        original: Ends {
            src: masked(("--src", &args.orig_src), ("--mask-src", &args.mask_src))?,
            dst: masked(("--dst", &args.orig_dst), ("--mask-dst", &args.mask_dst))?,
            ..Ends::default()
        },
        reply: Ends {
            src: plain("--reply-src", &args.reply_src)?,
            dst: plain("--reply-dst", &args.reply_dst)?,
            ..Ends::default()
        },
        mark: last(&args.mark).map(words::mark).transpose()?,
        zone: number("--zone", &args.zone, u16::MAX)?,
        id: number("--id", &args.id, u32::MAX)?,
        ..Filter::default()
    };
    for zone in [
        ("--orig-zone", &args.orig_zone),
        ("--reply-zone", &args.reply_zone),
    ] {
        let zone = number(zone.0, zone.1, u16::MAX)?;
        // One that no flow is in stays.
        filter.one_way_zone = filter.one_way_zone.filter(|zone| *zone != 0).or(zone);
    }
    for list in &args.status {
        let (set, unset) = words::statuses(list)?;
        filter.status.extend(set);
        filter.status_not.extend(unset);
    }
    for list in [&args.src_nat, &args.dst_nat, &args.any_nat] {
        for word in list.iter().filter(|word| !word.is_empty()) {
            same(&mut family, family_of(words::nat(word)?))?;
        }
        filter.translated |= !list.is_empty();
    }
    let (original, reply) = (&filter.original, &filter.reply);
    for net in [original.src, original.dst, reply.src, reply.dst]
        .into_iter()
        .flatten()
    {
        same(&mut family, family_of(net.addr()))?;
    }
    filter.family = family;
    filter.proto = last(&args.protonum).map(words::protocol).transpose()?;
    by_protocol(args, &mut filter)?;
    Ok(filter)
}

fn family_of(addr: IpAddr) -> Family {
    match addr {
        IpAddr::V4(_) => Family::Ipv4,
        IpAddr::V6(_) => Family::Ipv6,
    }
}

/// There is one family only.
fn same(family: &mut Option<Family>, other: Family) -> Result<()> {
    match family.replace(other) {
        Some(family) if family != other => Err(Refusal::usage("mismatched address family")),
        _ => Ok(()),
    }
}

fn last(words: &[String]) -> Option<&str> {
    words.last().map(String::as_str)
}

fn number<T: TryFrom<u64> + Into<u64>>(
    option: &str,
    given: &[String],
    max: T,
) -> Result<Option<T>> {
    let number = last(given).map(|word| words::number(option, word, max.into()));
    Ok(number
        .transpose()?
        .and_then(|number| number.try_into().ok()))
}

/// An address with a length, or with a mask by an option of its own.
fn masked(addr: (&str, &[String]), mask: (&str, &[String])) -> Result<Option<Net>> {
    let net = last(addr.1).map(words::network).transpose()?;
    let Some(word) = last(mask.1) else {
        return Ok(net);
    };
    let bits = words::address(word)?;
    let Some(net) = net else {
        return Err(Refusal::usage(format!(
            "can't use {} without {}",
            mask.0, addr.0
        )));
    };
    let masked = Net::masked(net.addr(), bits);
    masked
        .map(Some)
        .ok_or_else(|| Refusal::usage("mismatched address family"))
}

/// An address without a length.
fn plain(option: &str, given: &[String]) -> Result<Option<Net>> {
    match last(given) {
        Some(word) if word.contains('/') => {
            let text = format!("CIDR notation unavailable for `{option}'");
            Err(Refusal::usage(text))
        }
        Some(word) => words::address(word).map(|addr| Some(Net::host(addr))),
        None => Ok(None),
    }
}

/// A field of a filter that is a port or takes its place, and the option for it.
type Field<'a> = (&'static str, &'a [String], fn(&mut Filter, u64));

/// What only some protocols have.
fn by_protocol(args: &ConntrackArgs, filter: &mut Filter) -> Result<()> {
    let ports: [Field<'_>; 4] = [
        ("--sport", &args.sport, |it, port| {
            it.original.sport = Some(port as u16)
        }),
        ("--dport", &args.dport, |it, port| {
            it.original.dport = Some(port as u16)
        }),
        ("--reply-port-src", &args.reply_port_src, |it, port| {
            it.reply.sport = Some(port as u16)
        }),
        ("--reply-port-dst", &args.reply_port_dst, |it, port| {
            it.reply.dport = Some(port as u16)
        }),
    ];
    let keys: [Field<'_>; 4] = [
        ("--srckey", &args.srckey, |it, key| {
            it.original.sport = Some(key as u16)
        }),
        ("--dstkey", &args.dstkey, |it, key| {
            it.original.dport = Some(key as u16)
        }),
        ("--reply-key-src", &args.reply_key_src, |it, key| {
            it.reply.sport = Some(key as u16)
        }),
        ("--reply-key-dst", &args.reply_key_dst, |it, key| {
            it.reply.dport = Some(key as u16)
        }),
    ];
    let icmp: [Field<'_>; 3] = [
        ("--icmp-type", &args.icmp_type, |it, ty| {
            it.original.icmp_type = Some(ty as u8)
        }),
        ("--icmp-code", &args.icmp_code, |it, code| {
            it.original.icmp_code = Some(code as u8)
        }),
        ("--icmp-id", &args.icmp_id, |it, id| {
            it.original.icmp_id = Some(id as u16)
        }),
    ];
    let icmpv6: [Field<'_>; 3] = [
        ("--icmpv6-type", &args.icmpv6_type, icmp[0].2),
        ("--icmpv6-code", &args.icmpv6_code, icmp[1].2),
        ("--icmpv6-id", &args.icmpv6_id, icmp[2].2),
    ];
    let number = filter.proto;
    let has = |protos: &[u8]| number.is_some_and(|number| protos.contains(&number));
    let ported = [
        proto::TCP,
        proto::UDP,
        proto::UDPLITE,
        proto::SCTP,
        proto::DCCP,
    ];
    let groups: [(&[Field<'_>], bool); 4] = [
        (&ports, has(&ported)),
        (&keys, has(&[proto::GRE])),
        (&icmp, has(&[proto::ICMP])),
        (&icmpv6, has(&[proto::ICMPV6])),
    ];
    for (fields, known) in groups {
        for (option, words, set) in fields {
            let Some(word) = last(words) else { continue };
            if !known {
                let text =
                    format!("unknown option `{option}': -p does not say a protocol that has it");
                return Err(Refusal::usage(text));
            }
            let value = match option {
                it if it.ends_with("key") || it.contains("-key-") => {
                    words::number(it, word, 65_535)?
                }
                it if it.ends_with("-type") || it.ends_with("-code") => {
                    words::decimal(it, word, 255)?
                }
                it => words::decimal(it, word, 65_535)?,
            };
            set(filter, value);
        }
    }
    let Some(word) = last(&args.state) else {
        return Ok(());
    };
    let unknown = |name: &str| Refusal::usage(format!("unknown {name} state `{word}'"));
    if has(&[proto::TCP]) {
        let state = TcpState::ALL.into_iter().find(|state| state.name() == word);
        // The program's other name for a simultaneous open.
        let state = state.or((word == "LISTEN").then_some(TcpState::SynSent2));
        filter.tcp_state = Some(state.ok_or_else(|| unknown("TCP"))?);
    } else if has(&[proto::SCTP]) {
        let state = SctpState::ALL
            .into_iter()
            .find(|state| state.name() == word);
        filter.sctp_state = Some(state.ok_or_else(|| unknown("SCTP"))?);
    } else {
        let text = "unknown option `--state': only flows of -p tcp and -p sctp have one";
        return Err(Refusal::usage(text));
    }
    Ok(())
}

/// Whether all is said that one flow is found by.
fn whole(filter: &Filter) -> Result<()> {
    if filter.proto.is_none() {
        return Err(Refusal::usage(
            "you need to supply the `--protonum' option for this command",
        ));
    }
    let Filter {
        original, reply, ..
    } = filter;
    let both = |ends: &Ends| ends.src.is_some() && ends.dst.is_some();
    for net in [original.src, original.dst].into_iter().flatten() {
        if net.only().is_none() {
            return Err(Refusal::usage(
                "illegal option `--mask-src' with this command",
            ));
        }
    }
    if !both(original) && both(reply) {
        let text = "a flow is found by its original direction: give --src and --dst";
        return Err(Refusal::failure(text));
    }
    if !both(original) {
        return Err(Refusal::usage("you have to specify `--src' and `--dst'"));
    }
    if filter.tuple().is_none() {
        let text = match filter.proto {
            Some(proto::GRE) => "you have to specify `--srckey' and `--dstkey'",
            Some(proto::ICMP) => "you need to supply `--icmp-type' and `--icmp-code'",
            Some(proto::ICMPV6) => "you need to supply `--icmpv6-type' and `--icmpv6-code'",
            _ => "you have to specify `--sport' and `--dport'",
        };
        return Err(Refusal::usage(text));
    }
    Ok(())
}
