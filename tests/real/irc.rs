//! IRC: ngircd outside; inside a client that offers a file by DCC, and beside the server the one
//! that it is for. The offer passes the firewall on its way to the server, and the one who takes
//! it connects from outside.

use crate::site::{Site, inside, noise};
use shardwall::cli::lab::{INSIDE, Namespace, OUTSIDE};
use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

const CONTROL: &str = "proto: tcp, dport: 6667";
const HELPER: &str = "{ helper: irc, proto: tcp, dport: 6667 }";

const SETTINGS: &str = "
[Global]
Name = irc.test
Info = test
Ports = 6667
MotdPhrase = hello
ServerUID = irc
ServerGID = irc
[Options]
PAM = no
DNS = no
Ident = no
SyslogFacility = local1
";

const PATIENCE: Duration = Duration::from_secs(10);

/// Someone who talks to the server.
struct Client {
    lines: BufReader<TcpStream>,
}

impl Client {
    fn join(namespace: &Namespace, nick: &str) -> Self {
        let stream = inside(namespace, || TcpStream::connect((OUTSIDE.0, 6667)).unwrap());
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        let lines = BufReader::new(stream);
        let mut client = Self { lines };
        client.say(&[&format!("NICK {nick}\r\nUSER {nick} 0 * :{nick}\r\n")]);
        client.await_line(" 376 ");
        client
    }

    /// Sends a text in pieces, each in a segment of its own.
    fn say(&mut self, pieces: &[&str]) {
        for (n, piece) in pieces.iter().enumerate() {
            if n > 0 {
                thread::sleep(Duration::from_millis(50));
            }
            self.lines.get_mut().write_all(piece.as_bytes()).unwrap();
        }
    }

    /// Reads up to a line with `part` in it.
    fn await_line(&mut self, part: &str) -> String {
        let mut line = String::new();
        loop {
            line.clear();
            let read = self.lines.read_line(&mut line);
            assert!(
                read.is_ok_and(|bytes| bytes > 0),
                "no {part:?}, then: {line:?}"
            );
            if line.starts_with("PING") {
                let pong = line.replacen("PING", "PONG", 1);
                self.say(&[&pong]);
            } else if line.contains(part) {
                return line;
            }
        }
    }
}

/// Both clients, and where the inner one waits for who takes its offer.
struct Talk<'a> {
    site: &'a Site,
    alice: Client,
    bob: Client,
    door: TcpListener,
    file: &'a [u8],
}

impl<'a> Talk<'a> {
    fn new(site: &'a Site, file: &'a [u8]) -> Self {
        Self {
            site,
            alice: Client::join(&site.lab.lan, "alice"),
            bob: Client::join(&site.lab.wan, "bob"),
            door: inside(&site.lab.lan, || TcpListener::bind((INSIDE.0, 0)).unwrap()),
            file,
        }
    }

    /// Offers the file to bob in a DCC message of `kind`, cut behind each of the given parts; where
    /// he is told to connect to.
    fn offer(&mut self, kind: &str, cuts: &[&str]) -> SocketAddr {
        let address = u32::from(INSIDE.0.parse::<Ipv4Addr>().unwrap());
        let port = self.door.local_addr().unwrap().port();
        let bytes = self.file.len();
        let text = format!("PRIVMSG bob :\u{1}DCC {kind} {address} {port} {bytes}\u{1}\r\n");
        let mut pieces = vec![text.as_str()];
        for cut in cuts {
            let last = pieces.pop().unwrap();
            let (head, tail) = last.split_at(last.find(cut).unwrap() + cut.len());
            pieces.extend([head, tail]);
        }
        self.alice.say(&pieces);
        let line = self.bob.await_line("\u{1}DCC ");
        let mut words = line
            .split_once(&format!("DCC {kind} "))
            .unwrap()
            .1
            .split(' ');
        let address: u32 = words.next().unwrap().parse().unwrap();
        let port: u16 = words.next().unwrap().parse().unwrap();
        SocketAddr::from((Ipv4Addr::from(address), port))
    }

    /// Bob connects.
    fn take(&self, offer: SocketAddr, patience: Duration) -> io::Result<TcpStream> {
        inside(&self.site.lab.wan, || {
            TcpStream::connect_timeout(&offer, patience)
        })
    }

    /// Carries the file over a connection, and the count of its bytes back, as DCC SEND does.
    fn carry(&self, mut taker: TcpStream) {
        let (mut giver, _) = self.door.accept().unwrap();
        for end in [&taker, &giver] {
            end.set_read_timeout(Some(PATIENCE)).unwrap();
        }
        let mut got = vec![0; self.file.len()];
        thread::scope(|scope| {
            scope.spawn(|| giver.write_all(self.file).unwrap());
            taker.read_exact(&mut got).unwrap();
        });
        assert!(got == self.file, "the file differs");
        let count = (got.len() as u32).to_be_bytes();
        taker.write_all(&count).unwrap();
        let mut told = [0; 4];
        giver.read_exact(&mut told).unwrap();
        assert_eq!(told, count);
    }
}

#[test]
fn irc_dcc_passes_to_who_takes_the_offer() {
    let Some(site) = Site::new("ri", CONTROL) else {
        return;
    };
    fs::write(site.path("ngircd.conf"), SETTINGS).unwrap();
    let _server = site.serve(&["ngircd", "-n", "-f", &site.path("ngircd.conf")]);
    site.await_tcp(6667);
    let file = noise(1 << 20);

    // Without the helper, bob is told and cannot connect.
    let mut talk = Talk::new(&site, &file);
    let offer = talk.offer("SEND file", &[]);
    let taken = talk.take(offer, Duration::from_secs(1));
    assert_eq!(taken.unwrap_err().kind(), io::ErrorKind::TimedOut);
    drop(talk);

    site.attach(&[HELPER]);
    let mut talk = Talk::new(&site, &file);
    let whole = [
        "SEND file",
        "CHAT chat",
        "MOVE file",
        "TSEND file",
        "SCHAT chat",
    ];
    let whole = whole.map(|kind| (kind, &[][..]));
    // In three segments, cut in the command and in the address.
    let pieces = ("SEND file", &["PRIV", " 1728"][..]);
    for (kind, cuts) in whole.into_iter().chain([pieces]) {
        let offer = talk.offer(kind, cuts);
        let expected = site.expectations();
        let [it] = &expected[..] else {
            panic!("{kind} {cuts:?}: {expected:?}");
        };
        assert_eq!(
            (it.helper.as_ref(), it.expected.dst),
            ("irc", offer.ip()),
            "{it:?}"
        );
        let taken = talk.take(offer, PATIENCE);
        talk.carry(taken.unwrap_or_else(|error| panic!("{kind} {cuts:?}: {error}")));
        assert!(site.expectations().is_empty(), "one offer, one connection");
    }
    drop(talk);
    let (control, data) = site.families("irc", 6667);
    assert_eq!((control.len(), data.len()), (1, 6), "{control:?} {data:?}");
    site.close();
}
