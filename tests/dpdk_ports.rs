//! The ports on DPDK's virtual devices: no NIC, no hugepages, one process.
//!
//! DPDK starts once a process, so that this is one test with parts; each part opens its own ports
//! and must leave no buffer behind.
#![cfg(feature = "dpdk")]

use shardwall::dataplane::dpdk::{
    DpdkError, DpdkIo, Eal, EalOptions, Hugepages, Mbuf, PortSpec, Ports, mempool,
};
use shardwall::dataplane::io::{BURST, Batch, Frame, Io};
use shardwall::dataplane::rss::Kinds;
use shardwall::policy::PortId;
use std::fs;
use std::path::{Path, PathBuf};

const MBUFS: u32 = 4096;
const A: PortId = PortId(0);
const B: PortId = PortId(1);

/// Classic pcap, microseconds, Ethernet.
fn write_pcap(path: &Path, frames: &[Vec<u8>]) {
    let mut file = Vec::new();
    file.extend(0xa1b2_c3d4_u32.to_le_bytes());
    file.extend([2, 0, 4, 0]);
    file.extend([0; 8]);
    file.extend(65_535_u32.to_le_bytes());
    file.extend(1_u32.to_le_bytes());
    for (n, frame) in frames.iter().enumerate() {
        file.extend((n as u32).to_le_bytes());
        file.extend([0; 4]);
        file.extend((frame.len() as u32).to_le_bytes());
        file.extend((frame.len() as u32).to_le_bytes());
        file.extend(frame);
    }
    fs::write(path, file).expect("a capture to read");
}

fn read_pcap(path: &Path) -> Vec<Vec<u8>> {
    let file = fs::read(path).expect("the capture that was written");
    let mut rest = &file[24..];
    let mut frames = Vec::new();
    while rest.len() >= 16 {
        let len = u32::from_le_bytes([rest[8], rest[9], rest[10], rest[11]]) as usize;
        frames.push(rest[16..16 + len].to_vec());
        rest = &rest[16 + len..];
    }
    frames
}

/// Frames of many lengths, each telling its number.
fn frames(count: usize) -> Vec<Vec<u8>> {
    let frame = |n: usize| {
        let len = 60 + (n * 37) % 1440;
        (0..len)
            .map(|i| if i < 14 { 0x02 } else { (i * 31 + n * 7) as u8 })
            .collect()
    };
    (0..count).map(frame).collect()
}

fn folder() -> PathBuf {
    let path = std::env::temp_dir().join(format!("shardwall-ports-{}", std::process::id()));
    fs::create_dir_all(&path).expect("a folder for captures");
    path
}

fn open(eal: &Eal, devices: &[&str], workers: u16) -> Result<(Ports, Vec<DpdkIo>), DpdkError> {
    let specs: Vec<_> = (0..)
        .zip(devices)
        .map(|(n, d)| PortSpec::new(format!("p{n}"), *d))
        .collect();
    Ports::open(eal, &specs, workers, MBUFS)
}

fn refused(eal: &Eal, devices: &[&str], workers: u16) -> String {
    open(eal, devices, workers)
        .map(|_| ())
        .expect_err("must be refused")
        .to_string()
}

fn in_use(ports: &Ports) -> u32 {
    ports.pools().iter().map(mempool::Mempool::in_use).sum()
}

#[test]
fn ports_on_virtual_devices() {
    let affinity = || {
        fs::read_to_string("/proc/thread-self/status").map(|s| {
            s.lines()
                .find(|l| l.starts_with("Cpus_allowed_list"))
                .map(str::to_owned)
        })
    };
    let before = affinity().expect("this thread's affinity");
    let options = EalOptions {
        hugepages: Hugepages::Off,
        file_prefix: "shardwall-test".to_owned(),
        ..EalOptions::default()
    };
    let eal = Eal::init(&options.with_buffers(3 * MBUFS, mempool::DATA_ROOM, 1))
        .expect("DPDK starts without hugepages");
    assert!(!eal.hugepages());
    assert_eq!(
        affinity().expect("this thread's affinity"),
        before,
        "the caller stays unpinned"
    );
    assert!(matches!(
        Eal::init(&EalOptions::default()),
        Err(DpdkError::AlreadyStarted)
    ));

    let dir = folder();
    a_capture_comes_out_as_it_went_in(&eal, &dir);
    what_is_not_sent_stays_in_order(&eal);
    two_workers_have_a_queue_each(&eal);
    ports_are_told_how_to_spread(&eal);
    long_frames_pass_in_short_buffers(&eal, &dir);
    buffers_cross_threads(&eal);
    a_buffer_outlives_its_ports(&eal);
    refusals_name_the_port_and_the_device(&eal, &dir);
    fs::remove_dir_all(dir).expect("the folder goes");
}

fn a_capture_comes_out_as_it_went_in(eal: &Eal, dir: &Path) {
    let (from, to) = (dir.join("in.pcap"), dir.join("out.pcap"));
    let sent = frames(500);
    write_pcap(&from, &sent);
    let input = format!("net_pcap0,rx_pcap={}", from.display());
    let output = format!("net_pcap1,tx_pcap={}", to.display());
    let (ports, mut io) = open(eal, &[&input, &output], 1).expect("the captures open");
    assert_eq!((io.len(), io[0].ports()), (1, 2));
    assert_eq!(ports.info()[0].driver, "net_pcap");

    let mut worker = io.remove(0);
    let io = &mut worker;
    let mut batch = Batch::new();
    let mut seen = 0;
    loop {
        io.rx(A, &mut batch);
        if batch.is_empty() {
            break;
        }
        for frame in &batch {
            assert_eq!(frame.data(), sent[seen], "frame {seen}");
            assert_eq!((frame.frame_len(), frame.segments()), (sent[seen].len(), 1));
            seen += 1;
        }
        io.tx(B, &mut batch);
        assert!(batch.is_empty(), "a file takes all");
    }
    assert_eq!(seen, sent.len());
    assert_eq!(in_use(&ports), 0, "every buffer is back");
    assert_eq!(ports.stats(A).expect("counters").ipackets, 500);
    assert_eq!(ports.stats(B).expect("counters").opackets, 500);
    assert!(ports.link(A).expect("a link").up);
    assert!(ports.stats(PortId(2)).is_none());
    io.rx(PortId(9), &mut batch);
    assert!(batch.is_empty());

    // A frame of our own, and one that is changed on its way.
    let mut own = io.alloc(60).expect("a buffer");
    own.data_mut().fill(0xee);
    batch.push(own);
    io.tx(B, &mut batch);
    assert!(
        io.alloc(2048).is_some() && io.alloc(2049).is_none(),
        "a buffer holds 2048 bytes"
    );
    assert_eq!(in_use(&ports), 0, "every buffer is back");
    drop(ports);
    io.alloc(60)
        .expect("the worker still has the ports and their pool");
    drop(worker);
    // Closing wrote the file out.
    let mut expected = sent;
    expected.push(vec![0xee; 60]);
    assert_eq!(read_pcap(&to), expected);
}

fn what_is_not_sent_stays_in_order(eal: &Eal) {
    // A ring of one's own: what is sent comes back, until it is full.
    let (ports, mut io) = open(eal, &["net_ring0"], 1).expect("a ring opens");
    let io = &mut io[0];
    let mut stuck: Batch<Mbuf> = Batch::new();
    let mut sent = 0_u32;
    while stuck.is_empty() {
        let first = sent;
        for n in first..first + BURST as u32 {
            let mut frame = io.alloc(64).expect("a buffer");
            frame.data_mut()[..4].copy_from_slice(&n.to_be_bytes());
            stuck.push(frame);
        }
        io.tx(A, &mut stuck);
        sent += BURST as u32 - stuck.len() as u32;
        assert!(sent < MBUFS, "the ring never filled");
    }
    let number =
        |f: &Mbuf| u32::from_be_bytes([f.data()[0], f.data()[1], f.data()[2], f.data()[3]]);
    let left: Vec<u32> = stuck.iter().map(number).collect();
    assert_eq!(left, (sent..sent + left.len() as u32).collect::<Vec<_>>());
    assert_eq!(in_use(&ports), sent + left.len() as u32);

    let mut back: Batch<Mbuf> = Batch::new();
    // A batch that is not empty is appended to, up to its capacity.
    back.push(io.alloc(64).expect("a buffer"));
    io.rx(A, &mut back);
    assert_eq!(back.len(), BURST);
    assert_eq!(
        back[1..].iter().map(number).collect::<Vec<_>>(),
        (0..31).collect::<Vec<_>>()
    );
    io.rx(A, &mut back);
    assert_eq!(back.len(), BURST, "a full batch stays as it is");
    io.discard(&mut back);
    assert!(back.is_empty());
    io.tx(A, &mut stuck);
    assert!(stuck.is_empty(), "there is room now");
    let mut next = 31;
    loop {
        io.rx(A, &mut back);
        if back.is_empty() {
            break;
        }
        for frame in back.drain(..) {
            assert_eq!(number(&frame), next);
            next += 1;
        }
    }
    assert_eq!(next, sent + left.len() as u32);
    assert_eq!(in_use(&ports), 0, "every buffer is back");
}

fn two_workers_have_a_queue_each(eal: &Eal) {
    // A null device gives frames of 64 bytes without end, and swallows what it gets.
    let (ports, io) = open(eal, &["net_null0", "net_null1"], 2).expect("null devices open");
    assert_eq!(
        (ports.info()[0].rx_queues, ports.info()[0].tx_queues),
        (2, 2)
    );
    assert_eq!(
        (io[0].rx_queues(A), io[1].rx_queues(A)),
        (&[0][..], &[1][..])
    );
    std::thread::scope(|scope| {
        for mut io in io {
            scope.spawn(move || {
                let _known = eal.register_thread().expect("a worker's thread");
                let mut batch = Batch::new();
                for _ in 0..1000 {
                    io.rx(A, &mut batch);
                    assert_eq!(batch.len(), BURST);
                    io.tx(B, &mut batch);
                    assert!(batch.is_empty());
                }
            });
        }
    });
    assert_eq!(ports.stats(A).expect("counters").ipackets, 64_000);
    assert_eq!(ports.stats(B).expect("counters").opackets, 64_000);
    assert_eq!(in_use(&ports), 0, "every buffer is back");
    drop(ports);

    // More queues than workers: each is polled; more workers than queues: some poll none.
    let mut spec = PortSpec::new("lan", "net_null0");
    spec.rx_queues = Some(3);
    let (ports, mut io) = Ports::open(eal, &[spec], 2, MBUFS).expect("null devices open");
    assert_eq!(
        (io[0].rx_queues(A), io[1].rx_queues(A)),
        (&[0, 2][..], &[1][..])
    );
    let mut batch = Batch::new();
    io[0].rx(A, &mut batch);
    assert_eq!(batch.len(), BURST);
    drop(batch);
    assert_eq!(in_use(&ports), 0);
}

fn ports_are_told_how_to_spread(eal: &Eal) {
    // A null device keeps a key and a table of 128 entries, and gives both back.
    let (ports, io) = open(eal, &["net_null0", "net_null1"], 3).expect("null devices open");
    let rss = &ports.info()[0].rss;
    assert_eq!((rss.kinds, rss.table), (Kinds::ALL, 128), "{rss:?}");
    assert!(rss.words.contains("the key is read back"), "{rss:?}");
    assert_eq!(io[2].hashes(A), Kinds::ALL);
    assert_eq!(ports.steering().workers(), 3);
    let before = ports.steering().owners();
    assert!(
        before
            .iter()
            .enumerate()
            .all(|(at, owner)| usize::from(*owner) == at % 3)
    );
    // What the table says is read back with each change.
    let mut owners = before;
    owners[5] = 0;
    ports.spread(&owners);
    let xstats = ports.xstats(A);
    assert!(
        xstats.iter().any(|(name, _)| name == "rx_good_packets"),
        "{xstats:?}"
    );
    assert!(ports.xstats(PortId(2)).is_empty());
    // Two boots have two keys.
    let key = ports.steering().key();
    drop((ports, io));
    let drawn = || {
        let (ports, _io) = open(eal, &["net_null0"], 2).expect("a null device opens");
        ports.steering().key()
    };
    assert!((0..8).any(|_| drawn() != key));
    // With one queue there is nothing to spread, and a ring cannot.
    let (ports, io) = open(eal, &["net_null0"], 1).expect("a null device opens");
    assert_eq!(ports.info()[0].rss.words, "none: one receive queue");
    assert!(io[0].hashes(A).is_empty() && ports.info()[0].promiscuous);
    drop((ports, io));
    let (ports, io) = open(eal, &["net_ring0"], 2).expect("a ring opens");
    assert!(
        ports.info()[0].rss.words.starts_with("none: "),
        "{:?}",
        ports.info()[0].rss
    );
    drop((ports, io));
}

fn long_frames_pass_in_short_buffers(eal: &Eal, dir: &Path) {
    let (from, to) = (dir.join("long.pcap"), dir.join("long-out.pcap"));
    let sent: Vec<Vec<u8>> = (0..64_usize)
        .map(|n| {
            (0..9014 - n * 100)
                .map(|i| (i * 31 + n * 7) as u8)
                .collect()
        })
        .collect();
    write_pcap(&from, &sent);
    let devices = [
        format!("net_pcap0,rx_pcap={}", from.display()),
        format!("net_pcap1,tx_pcap={}", to.display()),
    ];
    let specs: Vec<_> = devices
        .iter()
        .enumerate()
        .map(|(n, device)| PortSpec {
            data_room: mempool::HEADROOM + 512,
            ..PortSpec::new(format!("p{n}"), device)
        })
        .collect();
    let (ports, mut io) = Ports::open(eal, &specs, 1, MBUFS).expect("the captures open");
    assert_eq!(ports.pools()[0].data_room(), mempool::HEADROOM + 512);
    let mut batch = Batch::new();
    let mut seen = 0;
    loop {
        io[0].rx(A, &mut batch);
        if batch.is_empty() {
            break;
        }
        for frame in &batch {
            let whole = &sent[seen];
            assert_eq!(frame.frame_len(), whole.len());
            // All but the first have no headroom.
            let behind = usize::from(mempool::HEADROOM) + 512;
            let segments = 1 + (whole.len() - 512).div_ceil(behind);
            assert_eq!(usize::from(frame.segments()), segments, "frame {seen}");
            assert_eq!(frame.data(), &whole[..512], "the first segment");
            seen += 1;
        }
        io[0].tx(B, &mut batch);
        assert!(batch.is_empty(), "a file takes all");
    }
    assert_eq!(seen, sent.len());
    assert_eq!(in_use(&ports), 0, "every buffer is back");
    drop((ports, io));
    assert!(read_pcap(&to) == sent);
    // A device that cannot chain has longer buffers.
    let mut spec = PortSpec::new("lan", "net_null0");
    spec.mtu = Some(9000);
    let (ports, io) = Ports::open(eal, &[spec], 1, 600).expect("a null device opens");
    assert!(ports.pools()[0].data_room() >= mempool::HEADROOM + 9014);
    drop((ports, io));
}

fn buffers_cross_threads(eal: &Eal) {
    let (ports, mut io) = open(eal, &["net_null0"], 1).expect("a null device opens");
    let (give, take) = std::sync::mpsc::sync_channel::<Mbuf>(64);
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let _known = eal.register_thread().expect("a thread");
            for frame in take {
                assert_eq!(frame.frame_len(), 64);
            }
        });
        let mut batch = Batch::new();
        for _ in 0..500 {
            io[0].rx(A, &mut batch);
            for frame in batch.drain(..) {
                give.send(frame).expect("the other thread lives");
            }
        }
        drop(give);
    });
    assert_eq!(in_use(&ports), 0, "every buffer is back");
}

fn a_buffer_outlives_its_ports(eal: &Eal) {
    let (ports, mut io) = open(eal, &["net_null0"], 1).expect("a null device opens");
    let mut frame = io[0].alloc(100).expect("a buffer");
    drop(ports);
    drop(io);
    frame.data_mut().fill(7);
    assert!(frame.data().iter().all(|&b| b == 7));
}

fn refusals_name_the_port_and_the_device(eal: &Eal, dir: &Path) {
    let text = refused(eal, &["net_null0", "net_nosuch0,iface=x"], 1);
    assert!(
        text.contains("`p1`") && text.contains("net_nosuch0,iface=x"),
        "{text}"
    );
    assert!(
        text.contains("no driver `net_nosuch`") && text.contains("librte-net-nosuch"),
        "{text}"
    );

    let missing = format!("net_pcap0,rx_pcap={}", dir.join("none.pcap").display());
    let text = refused(eal, &[&missing], 1);
    assert!(
        text.contains("none.pcap") && text.contains("exist"),
        "{text}"
    );

    let text = refused(eal, &["net_null0", "net_null0"], 1);
    assert!(text.contains("`p1`") && text.contains("`p0`"), "{text}");

    let text = refused(eal, &["fffe:ff:1f.7"], 1);
    assert!(text.contains("no PCI device of this address"), "{text}");

    let capture = dir.join("in.pcap");
    let one_queue = format!("net_pcap0,rx_pcap={}", capture.display());
    let text = refused(eal, &[&one_queue], 2);
    assert!(
        text.contains("system.workers") && text.contains("to 1"),
        "{text}"
    );

    let text = refused(eal, &["net_null0"], 0);
    assert!(text.contains("system.workers"), "{text}");

    let text = Ports::open(eal, &[PortSpec::new("lan", "net_null0")], 1, 10_000_000);
    let text = text
        .map(|_| ())
        .expect_err("there is no such memory")
        .to_string();
    assert!(text.contains("10000000 buffers"), "{text}");

    // Nothing of all that stays taken.
    open(eal, &["net_null0", "net_null1"], 2).expect("null devices open");
}
