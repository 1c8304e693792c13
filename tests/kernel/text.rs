//! What packets say: text with the conversation's own addresses in it, which differ from one time
//! that it is played to the next, but never in length.
//!
//! Between braces stands who is meant: `client`, `server`, or another host on the side of either,
//! `client2` and `server2`; with a comma behind, as FTP's PORT has addresses, with a `#`, as DCC has
//! them, with an `@`, as URIs have them. `{hi}` and `{lo}`, or `{hex}`, are the part of an address that is the conversation's own,
//! `{ip}` is 4 or 6, `{af}` the same in RFC 2428's numbers, 1 or 2, and `{length}` is the number of bytes behind the first empty line. In the notation the text stands
//! between quotation marks, with `\r`, `\n`, `\"`, `\\` and `\x01`.

use crate::frame::Place;
use shardwall::wire::Addrs;
use std::fmt::Write;
use std::net::IpAddr;

const NAMES: [(&str, usize, bool); 4] = [
    ("client", 0, false),
    ("server", 1, false),
    ("client2", 0, true),
    ("server2", 1, true),
];

/// A byte of a text, or a word in braces.
pub(crate) fn pieces(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let end = match rest.first()? {
            b'{' => rest.iter().position(|byte| *byte == b'}')? + 1,
            _ => 1,
        };
        let (piece, behind) = rest.split_at(end);
        rest = behind;
        Some(piece)
    })
}

/// The bytes of `text` at `place`.
pub(crate) fn render(text: &[u8], place: &Place) -> Vec<u8> {
    const LENGTH: &[u8] = b"{length}";
    let mut out = Vec::new();
    let mut length = None;
    for piece in pieces(text) {
        match piece {
            LENGTH => length = Some(out.len()),
            [b'{', name @ .., b'}'] => {
                let name = std::str::from_utf8(name).expect("a name");
                out.extend(word(name, place).into_bytes());
            }
            _ => out.extend(piece),
        }
    }
    if let Some(at) = length {
        let head = out.windows(4).position(|four| four == b"\r\n\r\n");
        let body = head.map_or(0, |head| out.len() - head - 4);
        out.splice(at..at, body.to_string().into_bytes());
    }
    out
}

/// How long `text` is, in such a family, wherever.
pub(crate) fn len(text: &[u8], v6: bool) -> u32 {
    render(text, &Place::anywhere(v6)).len() as u32
}

/// What a word in braces stands for.
fn word(name: &str, place: &Place) -> String {
    let own = |at: usize| match place.addrs(0) {
        Addrs::V4 { src, .. } => src.to_be_bytes()[at].to_string(),
        Addrs::V6 { .. } => panic!("IPv6 has no {{{name}}}"),
    };
    let v6 = matches!(place.addrs(0), Addrs::V6 { .. });
    let host = name.trim_end_matches([',', '#', '@']);
    match (name, NAMES.iter().find(|(name, ..)| *name == host)) {
        ("hi", _) => own(2),
        ("lo", _) => own(3),
        ("ip", _) => if v6 { "6" } else { "4" }.into(),
        ("af", _) => if v6 { "2" } else { "1" }.into(),
        ("hex", _) => match place.addrs(0).src() {
            IpAddr::V6(addr) => format!("{:x}", addr.segments()[7]),
            IpAddr::V4(_) => panic!("IPv4 has no {{hex}}"),
        },
        (_, Some((_, side, other))) => {
            let addr = place.host(place.label, *side, *other).src();
            match (addr, &name[host.len()..]) {
                (IpAddr::V6(addr), "@") => format!("[{addr}]"),
                (addr, "" | "@") => addr.to_string(),
                (IpAddr::V4(addr), ",") => addr.to_string().replace('.', ","),
                (IpAddr::V4(addr), "#") => addr.to_bits().to_string(),
                // There is no such form; something has to stand there.
                (IpAddr::V6(addr), "#") => addr.segments()[7].to_string(),
                _ => panic!("no address looks like {{{name}}}"),
            }
        }
        _ => panic!("nobody is called {{{name}}}"),
    }
}

/// The text between two quotation marks.
pub(crate) fn read(quoted: &str) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    let mut bytes = quoted.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'\\' {
            out.push(byte);
            continue;
        }
        out.push(match bytes.next()? {
            b'r' => b'\r',
            b'n' => b'\n',
            b'x' => {
                let digits = [bytes.next()?, bytes.next()?];
                u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?
            }
            other => other,
        });
    }
    Some(out)
}

/// The same, with quotation marks.
pub(crate) fn write(text: &[u8]) -> String {
    let mut out = String::from("\"");
    for byte in text {
        let _ = match byte {
            b'\r' => write!(out, "\\r"),
            b'\n' => write!(out, "\\n"),
            b'"' | b'\\' => write!(out, "\\{}", char::from(*byte)),
            b' '..=b'~' => write!(out, "{}", char::from(*byte)),
            _ => write!(out, "\\x{byte:02x}"),
        };
    }
    out + "\""
}
