//! Listings of made-up flows through the code that answers real ones.

use super::*;
use crate::conntrack::record::{Detail, Endpoints};
use crate::conntrack::types::TcpState;
use crate::control::Client;
use crate::control::protocol::Filter;
use crate::control::render::Style;
use crate::control::testbed::Folder;
use rustix::time::{ClockId, clock_gettime};
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// Flow number `number`, as most are.
fn flow(number: u32) -> FlowRecord {
    let ends = |src, dst, sport, dport| Endpoints {
        src: Ipv4Addr::from_bits(src).into(),
        dst: Ipv4Addr::from_bits(dst).into(),
        detail: Detail::Ports { sport, dport },
    };
    let (src, dst, port) = (
        0x0a01_0000 + (number >> 12),
        0x0a02_0304,
        number as u16 | 1024,
    );
    FlowRecord {
        proto: 6,
        original: ends(src, dst, port, 443),
        reply: ends(dst, src, 443, port),
        timeout: 431_999,
        tcp_state: Some(TcpState::Established),
        sctp_state: None,
        sctp_vtags: None,
        seen_reply: true,
        assured: true,
        expected: false,
        helper: None,
        master: None,
        counters: None,
        start_ms: None,
        stop_ms: None,
        mark: 0,
        zone: 0,
        shard: 0,
    }
}

/// Answers one listing with `count` made-up flows; how many were given when it ended.
fn serve_made_up(folder: &Folder, count: u32) -> std::thread::JoinHandle<u32> {
    let listener = std::os::unix::net::UnixListener::bind(folder.join("socket")).unwrap();
    std::thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        stream.set_nonblocking(true).unwrap();
        let given = Arc::new(AtomicU32::new(0));
        let counter = given.clone();
        let runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = { runtime }.enable_all().build().unwrap();
        runtime.block_on(async move {
            let mut stream = UnixStream::from_std(stream).unwrap();
            let (reader, mut writer) = stream.split();
            let mut reader = BufReader::new(reader);
            let mut line = String::new();
            reader.read_line(&mut line).await.unwrap();
            let Request::ConntrackList(listing) = serde_json::from_str(&line).unwrap() else {
                panic!("{line}");
            };
            let answer = move |answer: &mut Answer| {
                list(&listing, answer, |sink| {
                    let flows = (0..count).map(flow).inspect(|_| {
                        counter.fetch_add(1, Relaxed);
                    });
                    let _ = { flows }.try_for_each(sink);
                    Ok::<_, WorkerError>(())
                });
            };
            let _ = send(answer, &mut reader, &mut writer, false).await;
        });
        // Waits for the helper.
        drop(runtime);
        given.load(Relaxed)
    })
}

fn listing(filter: Filter) -> Request {
    let print = Some(Style::default());
    Request::ConntrackList(Listing { filter, print })
}

/// What `conntrack -L` of a large table costs beside the workers, daemon and client together.
#[test]
#[ignore = "measures"]
#[allow(clippy::print_stderr)]
fn listing_costs() {
    const FLOWS: u32 = 1_000_000;
    for round in 0..5 {
        let folder = Folder::new();
        let server = serve_made_up(&folder, FLOWS);
        let mut client = Client::connect(&folder.join("socket")).unwrap();
        let null = std::fs::File::create("/dev/null").unwrap();
        let mut out = io::BufWriter::new(null);
        let cpu = || {
            let time = clock_gettime(ClockId::ProcessCPUTime);
            time.tv_sec * 1_000_000_000 + time.tv_nsec
        };
        let (before, mut bytes) = (cpu(), 0);
        let done = client.text(&listing(Filter::default()), |piece| {
            bytes += piece.len();
            match io::Write::write_all(&mut out, piece) {
                Ok(()) => ControlFlow::Continue(()),
                Err(_) => ControlFlow::Break(()),
            }
        });
        assert_eq!(done.unwrap().unwrap().count, u64::from(FLOWS));
        let spent = cpu() - before;
        drop(client);
        server.join().unwrap();
        let each = spent / i64::from(FLOWS);
        eprintln!("round {round}: {each} ns of processor time a flow, {bytes} bytes");
    }
}

#[test]
fn a_listing_ends_when_its_client_is_gone() {
    const FLOWS: u32 = 50_000_000;
    // One that reads a little, and one that gets nothing at all.
    for proto in [None, Some(17)] {
        let folder = Folder::new();
        let server = serve_made_up(&folder, FLOWS);
        let mut client = Client::connect(&folder.join("socket")).unwrap();
        let filter = Filter {
            proto,
            ..Filter::default()
        };
        if proto.is_none() {
            let ended = client.text(&listing(filter), |_| ControlFlow::Break(()));
            assert_eq!(ended.unwrap(), None);
        } else {
            let connection = client.interrupter().unwrap();
            let mut line = serde_json::to_vec(&listing(filter)).unwrap();
            line.push(b'\n');
            io::Write::write_all(&mut &connection, &line).unwrap();
        }
        drop(client);
        assert!(server.join().unwrap() < FLOWS, "it went on to the end");
    }
}
