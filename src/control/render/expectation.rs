//! An expectation as one line of `conntrack -L expect`.

use super::masks;
use super::pen::Pen;
use crate::conntrack::record::{Detail, Endpoints, ExpectRecord};

/// Writes it, without the newline.
pub(super) fn write(pen: &mut Pen<'_>, it: &ExpectRecord) {
    pen.number(it.timeout)
        .word(" proto=")
        .number(it.proto)
        .word(" ");
    tuple(pen, "", &it.expected);
    tuple(pen, "mask-", &masks(it));
    tuple(pen, "master-", &it.master.ends);
    pen.word(match (it.permanent, it.inactive) {
        (true, true) => "PERMANENT,INACTIVE ",
        (true, false) => "PERMANENT ",
        (false, true) => "INACTIVE ",
        (false, false) => "",
    });
    pen.word("class=").number(it.class);
    pen.word(" helper=").word(&it.helper);
}

/// Addresses, called by whose they are, and ports, which never are; a space behind all of them.
fn tuple(pen: &mut Pen<'_>, whose: &str, ends: &Endpoints) {
    pen.word(whose).word("src=").addr(ends.src).word(" ");
    pen.word(whose).word("dst=").addr(ends.dst).word(" ");
    if let Detail::Ports { sport, dport } = ends.detail {
        pen.word("sport=").number(sport);
        pen.word(" dport=").number(dport).word(" ");
    }
}
