//! `expect`: expectations as conntrack(8) 1.4.7 prints those of its table `expect`, byte for byte.
//!
//! The golden lines in the tests are what the real program printed for expectations of Linux 6.18.

use super::args::{ConntrackOutput, ExpectArgs};
use super::conntrack::{Address, Rows, program};
use super::events::{self, Events};
use super::output::{Output, Result};
use crate::conntrack::record::{Detail, Endpoints, ExpectRecord};
use crate::control::protocol::Shown;
use crate::control::{Client, Request};
use serde_json::json;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

/// An expectation as one line of `conntrack -L expect`, without the newline.
#[derive(Clone, Copy, Debug)]
pub struct ExpectLine<'a>(pub &'a ExpectRecord);

impl fmt::Display for ExpectLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let it = self.0;
        write!(f, "{} proto={} ", it.timeout, it.proto)?;
        tuple(f, "", &it.expected)?;
        let Endpoints { src, dst, .. } = it.expected;
        let counts = Endpoints {
            src: mask(src, !it.any_src),
            dst: mask(dst, true),
            detail: Detail::Ports {
                sport: if it.any_sport { 0 } else { u16::MAX },
                dport: u16::MAX,
            },
        };
        tuple(f, "mask-", &counts)?;
        tuple(f, "master-", &it.master.ends)?;
        match (it.permanent, it.inactive) {
            (true, true) => f.write_str("PERMANENT,INACTIVE ")?,
            (true, false) => f.write_str("PERMANENT ")?,
            (false, true) => f.write_str("INACTIVE ")?,
            (false, false) => {}
        }
        write!(f, "class={} helper={}", it.class, it.helper)
    }
}

/// The mask of an address like `addr` that counts, or does not.
fn mask(addr: IpAddr, counts: bool) -> IpAddr {
    match (addr, counts) {
        (IpAddr::V4(_), true) => Ipv4Addr::BROADCAST.into(),
        (IpAddr::V4(_), false) => Ipv4Addr::UNSPECIFIED.into(),
        (IpAddr::V6(_), true) => Ipv6Addr::from_bits(u128::MAX).into(),
        (IpAddr::V6(_), false) => Ipv6Addr::UNSPECIFIED.into(),
    }
}

/// Addresses, called by whose they are, and ports, which never are; a space behind all of them.
fn tuple(f: &mut fmt::Formatter<'_>, whose: &str, ends: &Endpoints) -> fmt::Result {
    let (src, dst) = (Address(ends.src), Address(ends.dst));
    write!(f, "{whose}src={src} {whose}dst={dst} ")?;
    match ends.detail {
        Detail::Ports { sport, dport } => write!(f, "sport={sport} dport={dport} "),
        _ => Ok(()),
    }
}

/// Does what the flags say.
pub(super) fn execute(args: &ExpectArgs, socket: &Path, out: &mut Output<'_>) -> Result {
    let mut client = Client::connect(socket)?;
    let json = out.is_json() || args.output.contains(&ConntrackOutput::Json);
    if args.count {
        let count = client.count(&Request::ExpectCount {})?;
        if json {
            return out.json(&json!({ "count": count }));
        }
        writeln!(out.out, "{count}")?;
        return Ok(());
    }
    if args.flush {
        let count = client.count(&Request::ExpectFlush {})?;
        if json {
            return out.json(&json!({ "flushed": count }));
        }
        let program = program();
        writeln!(out.err, "{program}: expectation table has been emptied.")?;
        return Ok(());
    }
    let filter = args.filter();
    if args.event {
        let wanted = |shown: &Shown| match shown {
            Shown::Expectation(it) => filter.matches(it),
            Shown::Flow(_) => false,
        };
        let events = Events {
            noun: "expectation",
            watch: args.watch(),
            wanted: &wanted,
            output: &args.output,
            json,
        };
        return events::execute(events, &mut client, out);
    }
    let (request, done) = match args.delete {
        true => (Request::ExpectDelete(filter), "deleted"),
        false => (Request::ExpectList(filter), "shown"),
    };
    let mut rows = Rows::new(json, out);
    client.rows(&request, |it: ExpectRecord| rows.add(&it, ExpectLine(&it)))?;
    let count = rows.end()?;
    if !json {
        let program = program();
        writeln!(out.err, "{program}: {count} expectations have been {done}.")?;
    }
    Ok(())
}
