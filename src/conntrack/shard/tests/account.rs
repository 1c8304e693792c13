//! What each direction of a flow carried. The figures are those of Linux 6.18 for the same
//! packets, with `nf_conntrack_acct=1`.

use super::*;
use crate::conntrack::record::Carried;

fn counting() -> Bench {
    Bench::with(Config {
        accounting: true,
        ..Config::default()
    })
}

impl Bench {
    /// A segment between client and server, 40 bytes and its payload.
    fn segment(&mut self, from_client: bool, flags: u8, seq: u32, ack: u32, payload: &[u8]) {
        self.packet(&tcp_frame(1000, from_client, flags, seq, ack, payload));
    }

    /// Packets and bytes, original and reply.
    fn carried(&self) -> [(u64, u64); 2] {
        let counters = self.flow().unwrap().counters.unwrap();
        [counters.original, counters.reply].map(|Carried { packets, bytes }| (packets, bytes))
    }
}

#[test]
fn what_does_not_refresh_a_tcp_flow_is_not_counted_to_it() {
    let mut bench = counting();
    let (client, server) = (true, false);
    bench.segment(client, SYN, 100, 0, b"");
    bench.segment(client, SYN, 100, 0, b"");
    assert_eq!(bench.carried(), [(1, 40), (0, 0)], "a repeated SYN");
    bench.segment(server, SYN | ACK, 500, 101, b"");
    bench.segment(server, SYN | ACK, 500, 101, b"");
    bench.segment(client, ACK, 101, 501, b"");
    bench.segment(client, PSH | ACK, 101, 501, &[0; 10]);
    assert_eq!(bench.carried(), [(3, 130), (1, 40)], "a repeated SYN/ACK");
    bench.segment(client, PSH | ACK, 900_101, 501, &[0; 10]);
    bench.segment(server, SYN | ACK, 500, 101, b"");
    bench.segment(client, SYN, 9999, 0, b"");
    assert_eq!(bench.carried(), [(3, 130), (1, 40)], "INVALID, or ignored");
    bench.segment(server, FIN | ACK, 501, 111, b"");
    bench.segment(client, FIN | ACK, 111, 502, b"");
    bench.segment(server, ACK, 502, 112, b"");
    assert_eq!(bench.carried(), [(4, 170), (3, 120)]);
    bench.segment(client, SYN, 5_000_000, 0, b"");
    assert_eq!(bench.carried(), [(1, 40), (0, 0)], "opened anew");
}

#[test]
fn errors_about_a_flow_are_not_counted_and_what_policy_drops_is() {
    let mut bench = counting();
    let ports = |sport, dport| Segment::Udp { sport, dport };
    let query = frame(V4, ports(2000, 53), &[0; 10]);
    // The error quotes it.
    let mut quote = query[14..].to_vec();
    quote.truncate(28);
    let error = frame(
        V4.flip(),
        Segment::Icmp {
            ty: 3,
            code: 3,
            rest: 0,
        },
        &quote,
    );
    bench.packet(&query);
    assert_eq!(bench.packet(&error).state, CtState::Related);
    assert_eq!(bench.carried(), [(1, 38), (0, 0)]);
    bench.judge(&frame(V4.flip(), ports(53, 2000), &[0; 20]));
    assert_eq!(bench.carried(), [(1, 38), (1, 48)]);
    // Ethernet's padding is none of it.
    let mut padded = frame(V4, ports(2000, 53), &[0; 1]);
    padded.resize(60, 0);
    bench.packet(&padded);
    assert_eq!(bench.carried(), [(2, 67), (1, 48)]);
}

#[test]
fn nothing_is_counted_unless_it_is_asked_for() {
    let mut bench = Bench::new();
    let query = frame(
        V6,
        Segment::Udp {
            sport: 1,
            dport: 53,
        },
        b"",
    );
    bench.packet(&query);
    assert_eq!(bench.flow().unwrap().counters, None);
    // Switched on by a reload, it counts from then on.
    bench.config.accounting = true;
    bench.packet(&query);
    assert_eq!(bench.carried(), [(1, 48), (0, 0)]);
}
