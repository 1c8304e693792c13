//! Traces of one direction: what arrives where, and the lines that are read of it.

use super::*;
use crate::conntrack::helper::Permissions;
use crate::conntrack::tuple::Tuple;
use crate::conntrack::types::{Dir, proto};
use crate::wire::Addrs;
use crate::wire::inner::Ports;
use proptest::prelude::*;
use std::cell::RefCell;

/// A line as it was read: `text` and how long it was; `!` before one that was cut.
type Said = (String, usize);

thread_local! {
    static SAID: RefCell<Vec<Said>> = const { RefCell::new(Vec::new()) };
}

/// Notes each line. `body N` announces a body of N bytes.
fn note(_: &Context, memory: &mut Memory, line: &Line<'_>, _: &mut Heard) -> Next {
    let mark = if line.cut { "!" } else { "" };
    let text = format!("{mark}{}", line.text.escape_ascii());
    let rest = memory.overlay::<u32>();
    if *rest > 0 {
        assert!(line.len <= *rest as usize, "a body ends where it ends");
        *rest -= line.len as u32;
    } else if let Some(len) = text.strip_prefix("body ") {
        *rest = len.parse().unwrap_or(0);
    }
    SAID.with_borrow_mut(|said| said.push((text, line.len)));
    match *rest {
        0 => Next::Line,
        rest => Next::Body(rest),
    }
}

static EAGER: Lines = Lines {
    eager: true,
    read: note,
};
static LATE: Lines = Lines {
    eager: false,
    read: note,
};

const CONTEXT: Context = Context {
    original: Tuple {
        addrs: Addrs::V4 {
            src: 0x0a01_0001,
            dst: 0x0a02_0001,
        },
        proto: proto::TCP,
        ports: Ports::Ports {
            sport: 40_000,
            dport: 21,
        },
        zone: 0,
    },
    dir: Dir::Original,
    expected: false,
    permissions: Permissions {
        loose: false,
        low_ports: false,
    },
};

struct Bench {
    lines: &'static Lines,
    stream: Stream,
    memory: Memory,
    heard: Heard,
    origin: u32,
}

impl Bench {
    fn new(lines: &'static Lines, origin: u32) -> Self {
        SAID.take();
        Self {
            lines,
            stream: Stream::new_zeroed(),
            memory: Memory::new_zeroed(),
            heard: Heard::default(),
            origin,
        }
    }

    /// Feeds what lies `at` bytes behind the origin, and tells what was read.
    fn feed(&mut self, at: u32, payload: &[u8]) -> Vec<Said> {
        self.stream.feed(
            self.lines,
            &CONTEXT,
            &mut self.memory,
            self.origin.wrapping_add(at),
            payload,
            &mut self.heard,
        );
        SAID.take()
    }

    fn refused(&self, why: Refusal) -> u16 {
        self.heard.refusals(why)
    }
}

/// Feeds each step and compares the texts of what it reads.
fn trace(lines: &'static Lines, steps: &[(u32, &str, &[&str])]) -> Bench {
    // The numbers wrap in the middle of each trace.
    let mut bench = Bench::new(lines, u32::MAX - 9);
    for (number, (at, payload, expected)) in steps.iter().enumerate() {
        let said = bench.feed(*at, payload.as_bytes());
        let texts: Vec<&str> = said.iter().map(|(text, _)| text.as_str()).collect();
        assert_eq!(texts, *expected, "step {number}: {payload:?} at {at}");
    }
    bench
}

#[test]
fn lines_in_order() {
    let bench = trace(
        &EAGER,
        &[
            (0, "one\r\n", &["one"]),
            (5, "", &[]),
            (5, "two\nthree\r\n", &["two", "three"]),
            (16, "\r\n\n", &["", ""]),
            (19, "a\rb\r\n", &["a\\rb"]),
        ],
    );
    assert_eq!(bench.heard.refused, [0; Refusal::COUNT]);
}

#[test]
fn the_first_segment() {
    // Who is not eager waits for the first line's end.
    trace(
        &LATE,
        &[(0, "220 hello\r\n", &[]), (11, "230 in\r\n", &["230 in"])],
    );
    trace(
        &LATE,
        &[
            (0, "220 he", &[]),
            (6, "llo\r", &[]),
            (10, "\nUSER a\r\nPA", &["USER a"]),
            (21, "SS b\r\n", &["PASS b"]),
        ],
    );
    trace(&EAGER, &[(0, "220 hello\r\n", &["220 hello"])]);
}

#[test]
fn a_line_in_pieces() {
    let bench = trace(
        &EAGER,
        &[
            (0, "PO", &[]),
            (2, "RT 1,2", &[]),
            (8, ",3,4,5,6\r", &[]),
            (17, "\nNOOP\r\nQU", &["PORT 1,2,3,4,5,6", "NOOP"]),
            (26, "IT\r\n", &["QUIT"]),
        ],
    );
    assert_eq!(bench.heard.refused, [0; Refusal::COUNT]);
}

#[test]
fn what_comes_again_is_old() {
    trace(
        &EAGER,
        &[
            (0, "one\r\n", &["one"]),
            (0, "one\r\n", &[]),
            // Also with other contents, and with more behind it.
            (0, "two\r\n", &[]),
            (0, "TWO\r\nthree\r\n", &["three"]),
            (5, "three\r\nfo", &[]),
            (10, "XXfour\r\n", &["four"]),
        ],
    );
}

#[test]
fn what_comes_early_waits() {
    let bench = trace(
        &EAGER,
        &[
            (0, "one\r\n", &["one"]),
            (10, "three\r\n", &[]),
            (5, "two\r\n", &["two", "three"]),
            // From the back to the front, twice, and overlapping.
            (29, "6\r\n", &[]),
            (29, "6\r\n", &[]),
            (23, "five\r\n6\r\n", &[]),
            (22, "\nfi", &[]),
            (17, "fou", &[]),
            (17, "four\r", &["four", "five", "6"]),
            // A gap that is filled in part, and beyond its end.
            (42, "y\r\n", &[]),
            (32, "new l", &[]),
            (37, "ine, ey\r\nlast", &["new line, ey"]),
            (50, "!\r\n", &["last!"]),
        ],
    );
    assert_eq!(bench.heard.refused, [0; Refusal::COUNT]);
}

#[test]
fn what_comes_too_early_ends_the_waiting() {
    let long = "x".repeat(CARRY);
    let bench = trace(
        &EAGER,
        &[
            (0, "one\r\nbeg", &["one"]),
            // No room beside the three bytes: up to the line's end all is lost, then it goes on.
            (10, &format!("{long}\r\ntwo\r\nth"), &["two"]),
            (CARRY as u32 + 19, "ree\r\n", &["three"]),
            // What was missing is old now.
            (8, "in", &[]),
        ],
    );
    assert_eq!(bench.refused(Refusal::Gap), 1);
    // A hole between two early ones.
    let bench = trace(
        &EAGER,
        &[
            (0, "one\r\n", &["one"]),
            (20, "early\r\n", &[]),
            (10, "lost\r\n", &[]),
            (16, "so\r\n", &["so", "early"]),
        ],
    );
    assert_eq!(bench.refused(Refusal::Gap), 1);
}

#[test]
fn a_long_line() {
    let long = "x".repeat(3 * CARRY);
    // In one segment it is read as it is.
    let mut bench = Bench::new(&EAGER, 7);
    let said = bench.feed(0, format!("{long}\r\n").as_bytes());
    assert_eq!(said, [(long.clone(), long.len() + 2)]);
    assert_eq!(bench.refused(Refusal::TooLong), 0);
    // In pieces it is cut, once.
    let mut bench = Bench::new(&EAGER, 7);
    for at in 0..3 {
        assert_eq!(bench.feed(at * CARRY as u32, &long.as_bytes()[..CARRY]), []);
    }
    let said = bench.feed(3 * CARRY as u32, b"\r\nnext\r\n");
    let cut = format!("!{}", &long[..CARRY]);
    assert_eq!(said, [(cut, 3 * CARRY + 2), ("next".into(), 6)]);
    assert_eq!(bench.refused(Refusal::TooLong), 1);
    assert_eq!(bench.refused(Refusal::Gap), 0);
}

#[test]
fn the_longest_line_in_pieces() {
    let text = "x".repeat(CARRY - 2);
    let mut bench = Bench::new(&EAGER, 7);
    assert_eq!(bench.feed(0, text.as_bytes()), []);
    assert_eq!(bench.feed(CARRY as u32 - 2, b"\r"), []);
    assert_eq!(bench.feed(CARRY as u32 - 1, b"\n"), [(text, CARRY)]);
    assert_eq!(bench.refused(Refusal::TooLong), 0);
}

#[test]
fn a_body() {
    let whole = "body 12\r\nv=0\r\no=xyz\r\nnext\r\nbody 3\r\nab\nend\r\n";
    let expected = ["body 12", "v=0", "o=xyz", "next", "body 3", "ab", "end"];
    trace(&EAGER, &[(0, whole, &expected)]);
    // It ends in the middle of what would be a line.
    trace(
        &EAGER,
        &[
            (0, "body 6\r\nv=", &["body 6"]),
            (10, "0\r", &[]),
            (12, "\nxnext\r\n", &["v=0", "x", "next"]),
        ],
    );
    // Between CR and LF.
    trace(
        &EAGER,
        &[(0, "body 4\r\nv=0\r\n", &["body 4", "v=0\\r", ""])],
    );
}

/// Whatever place a host claims, it is heard again when it goes on from there.
#[test]
fn absurd_places() {
    for at in [ABSURD + 10, 1 << 31, ABSURD.wrapping_neg() - 10, 77_777] {
        let mut bench = trace(&EAGER, &[(0, "one\r\n", &["one"]), (9, "early", &[])]);
        assert_eq!(bench.feed(at, &[b'x'; CARRY + 1]), []);
        assert_eq!(bench.refused(Refusal::Gap), 1);
        let next = at + CARRY as u32 + 1;
        assert_eq!(bench.feed(next, b"\r\ntwo\r\n"), [("two".into(), 5)]);
    }
    // And if it never meant it, where it was.
    let mut bench = trace(&EAGER, &[(0, "one\r\n", &["one"])]);
    bench.feed(ABSURD + 10, b"x\r\n");
    assert_eq!(bench.feed(5, b"\r\ntwo\r\n"), [("two".into(), 5)]);
}

#[test]
fn who_drops_a_segment_reads_it_again() {
    let mut bench = trace(&EAGER, &[(0, "one\r\ntw", &["one"])]);
    let before = (bench.stream.clone(), bench.memory);
    assert_eq!(bench.feed(7, b"o\r\n"), [("two".into(), 5)]);
    (bench.stream, bench.memory) = before;
    assert_eq!(bench.feed(7, b"o\r\n"), [("two".into(), 5)]);
    assert_eq!(bench.feed(7, b"o\r\n"), []);
}

#[test]
fn it_is_small() {
    assert!(size_of::<Stream>() <= CARRY + 24);
}

/// Lines of a dialogue: short, and of bytes that make trouble.
fn dialogue() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![4 => Just(b'a'), 1 => Just(b'\r'), 1 => Just(b'\n'), 1 => any::<u8>()];
    let line = prop_oneof![
        4 => prop::collection::vec(byte, 0..30),
        1 => (0..30u8).prop_map(|len| format!("body {len}\r\n").into_bytes()),
    ];
    prop::collection::vec(line, 0..30).prop_map(|lines| lines.join(&b"\r\n"[..]))
}

/// The whole, read at once.
fn at_once(lines: &'static Lines, whole: &[u8]) -> Vec<Said> {
    Bench::new(lines, 0).feed(0, whole)
}

proptest! {
    /// However a stream is cut, its lines are the same.
    #[test]
    fn cuts_do_not_matter(
        whole in dialogue(),
        cuts in prop::collection::vec(1..60usize, 1..40),
        origin: u32,
        eager: bool,
    ) {
        let lines = if eager { &EAGER } else { &LATE };
        let expected = at_once(lines, &whole);
        let mut bench = Bench::new(lines, origin);
        let (mut said, mut at) = (Vec::new(), 0);
        for cut in cuts.iter().cycle() {
            let end = whole.len().min(at + cut);
            said.extend(bench.feed(at as u32, &whole[at..end]));
            at = end;
            if at == whole.len() {
                break;
            }
        }
        // A line of more than the carry holds is cut in pieces only.
        if bench.refused(Refusal::TooLong) == 0 {
            prop_assert_eq!(said, expected);
        }
        prop_assert_eq!(bench.refused(Refusal::Gap), 0);
    }

    /// Nor does it matter that segments come twice, or in another order, as long as the early ones
    /// join and there is room for them.
    #[test]
    fn order_does_not_matter(
        whole in dialogue(),
        cuts in prop::collection::vec((1..30usize, 0..5u8, any::<u8>()), 1..40),
        origin: u32,
    ) {
        let expected = at_once(&EAGER, &whole);
        let mut bench = Bench::new(&EAGER, origin);
        let (mut said, mut at) = (Vec::new(), 0);
        // The first one says where the stream begins.
        let mut first = true;
        for (cut, how, back) in cuts.iter().cycle() {
            let mid = whole.len().min(at + cut);
            let end = whole.len().min(mid + usize::from(*back) % 60);
            let old = at.saturating_sub(usize::from(*back));
            let order: &[(usize, usize)] = match if first { 0 } else { *how } {
                // In order; again, with what lies before it; swapped; backwards byte by byte in
                // three; the early one twice, the second time longer.
                0 => &[(at, mid), (mid, end)],
                1 => &[(at, mid), (old, mid), (old, end)],
                2 => &[(mid, end), (at, mid)],
                3 => &[((mid + end) / 2, end), (mid, (mid + end) / 2), (at, end)],
                _ => &[(mid, (mid + end) / 2), (mid, end), (mid, end), (at, mid), (at, mid)],
            };
            for (from, to) in order {
                said.extend(bench.feed(*from as u32, &whole[*from..*to]));
            }
            first = false;
            at = end;
            if at == whole.len() {
                break;
            }
        }
        if bench.refused(Refusal::TooLong) == 0 && bench.refused(Refusal::Gap) == 0 {
            prop_assert_eq!(said, expected);
        } else {
            // Only for want of room.
            let longest = whole.split(|byte| *byte == b'\n').map(<[u8]>::len).max();
            prop_assert!(longest > Some(CARRY - 100));
        }
    }

    /// Any bytes at any place: nothing panics, what is kept stays within its room, and no more
    /// is read than came.
    #[test]
    fn any_segments(
        segments in prop::collection::vec(
            (prop_oneof![3 => 0..600u32, 1 => any::<u32>()], prop::collection::vec(any::<u8>(), 0..300)),
            1..40,
        ),
        origin: u32,
        eager: bool,
    ) {
        let mut bench = Bench::new(if eager { &EAGER } else { &LATE }, origin);
        for (at, bytes) in segments {
            let before = bench.stream.len as usize + usize::from(bench.stream.stashed);
            let said: usize = bench.feed(at, &bytes).iter().map(|(_, len)| len).sum();
            let stream = &bench.stream;
            prop_assert!(usize::from(stream.kept) + usize::from(stream.stashed) <= CARRY);
            prop_assert!(u32::from(stream.kept) <= stream.len);
            prop_assert!(said + stream.len as usize <= before + bytes.len());
        }
    }
}
