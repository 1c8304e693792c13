//! The gauges of TCP states, against what a walk through the table finds.

use super::*;

/// Numbers by chance (Knuth's MMIX generator), below `end`.
fn below(state: &mut u64, end: u32) -> u32 {
    *state = state
        .wrapping_mul(6_364_136_223_846_793_005)
        .wrapping_add(1_442_695_040_888_963_407);
    (*state >> 33) as u32 % end
}

#[test]
fn the_gauges_of_states_say_what_is_in_the_table() {
    let flags = [
        SYN,
        SYN | ACK,
        ACK,
        FIN | ACK,
        RST,
        RST | ACK,
        ACK | PSH,
        SYN,
        ACK,
    ];
    let mut seen = [0u32; TcpState::COUNT];
    for seed in 0..60 {
        let mut state = seed;
        let mut dice = |end| below(&mut state, end);
        let mut bench = Bench::with(Config {
            tcp_be_liberal: seed % 2 == 0,
            ..Config::default()
        });
        let (mut seq, mut ack) = (100u32, 900u32);
        for step in 0..400 {
            let bits = flags[dice(flags.len() as u32) as usize];
            let port = 1000 + dice(4) as u16;
            let client = dice(2) == 0;
            match dice(12) {
                0 => bench.wait(dice(150)),
                1 => {
                    bench.packet(&udp(V4, port, 53));
                }
                2 => {
                    let judged = bench.judge(&tcp_frame(port, client, ACK, seq, ack, b""));
                    if let Some(flow) = judged.flow.known() {
                        bench.shard.close(flow, bench.now, &bench.config);
                    }
                }
                3 if step % 7 == 0 => {
                    let (flows, _) = bench.shard.scan(Cursor::default(), 2);
                    bench.shard.remove(&flows);
                }
                _ => {
                    let (s, a) = if client { (seq, ack) } else { (ack, seq) };
                    bench.packet(&tcp_frame(port, client, bits, s, a, b""));
                    seq += u32::from(bits & (SYN | FIN) != 0 && client);
                    ack += u32::from(bits & (SYN | FIN) != 0 && !client);
                }
            }
            let mut found = [0u64; TcpState::COUNT];
            let mut cursor = Some(Cursor::default());
            while let Some(at) = cursor {
                let (flows, next) = bench.shard.scan(at, 1000);
                for flow in flows {
                    found[bench.shard.core(flow).tcp_state as usize] += 1;
                }
                cursor = next;
            }
            let gauges = bench.counters.tcp_states.each_ref().map(Counter::get);
            assert_eq!(gauges, found, "seed {seed}, step {step}");
            for (seen, found) in seen.iter_mut().zip(found) {
                *seen += u32::from(found > 0);
            }
        }
    }
    let all = seen.iter().all(|count| *count > 0);
    assert!(all, "every state was there: {seen:?}");
}
