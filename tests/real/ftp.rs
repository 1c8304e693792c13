//! FTP: vsftpd outside, curl and lftp inside; every way to announce a data connection.

use crate::site::{Said, Site, ask, noise, ports};
use shardwall::cli::lab::{INSIDE, OUTSIDE, Process};
use std::fs;
use std::net::IpAddr;
use std::thread;

const CONTROL: &str = "proto: tcp, dport: 21";
const HELPER: &str = "{ helper: ftp, proto: tcp, dport: 21 }";

/// How a data connection is announced: the server's address, curl's words for it, and what curl
/// then sends.
type Mode = (&'static str, &'static [&'static str], &'static str);

const MODES: [Mode; 6] = [
    (OUTSIDE.0, &["--disable-epsv"], "PASV"),
    (OUTSIDE.0, &[], "EPSV"),
    (OUTSIDE.1, &[], "EPSV"),
    (
        OUTSIDE.0,
        &["--ftp-port", "-", "--disable-eprt"],
        "PORT 10,77,0,1,",
    ),
    (OUTSIDE.0, &["--ftp-port", "-"], "EPRT |1|10.77.0.1|"),
    (OUTSIDE.1, &["--ftp-port", "-"], "EPRT |2|fd77::1|"),
];

struct Server {
    _vsftpd: Process,
    site: Site,
    file: Vec<u8>,
}

fn server(kind: &str, bytes: usize) -> Option<Server> {
    let site = Site::new(kind, CONTROL)?;
    let file = noise(bytes);
    let root = site.path("root");
    fs::create_dir(&root).unwrap();
    fs::write(site.path("root/file"), &file).unwrap();
    site.open_folder("root/up");
    fs::create_dir(site.path("empty")).unwrap();
    let settings = format!(
        "listen=NO\nlisten_ipv6=YES\nbackground=NO\nlocal_enable=NO\n\
         anonymous_enable=YES\nno_anon_password=YES\nanon_root={root}\n\
         write_enable=YES\nanon_upload_enable=YES\nanon_umask=022\n\
         connect_from_port_20=YES\nisolate_network=NO\nsecure_chroot_dir={}\n",
        site.path("empty")
    );
    fs::write(site.path("vsftpd.conf"), settings).unwrap();
    let vsftpd = site.serve(&["vsftpd", &site.path("vsftpd.conf")]);
    site.await_tcp(21);
    Some(Server {
        _vsftpd: vsftpd,
        site,
        file,
    })
}

fn url(host: &str, path: &str) -> String {
    if host.contains(':') {
        format!("ftp://[{host}]/{path}")
    } else {
        format!("ftp://{host}/{path}")
    }
}

impl Server {
    /// Fetches the file, or stores it, under `name`; `secs` are all that it may take.
    fn curl(&self, (host, how, _): Mode, put: bool, name: &str, secs: &str) -> Said {
        let (from, to) = (self.site.path("root/file"), self.site.path(name));
        let (what, url) = if put {
            (["-T", &from], url(host, &format!("up/{name}")))
        } else {
            (["-o", &to], url(host, "file"))
        };
        let curl = [
            "curl",
            "-sS",
            "-v",
            "-w",
            "local port %{local_port}\n",
            "-m",
            secs,
        ];
        let words = [&curl[..], how, &what, &[&url]].concat();
        ask(&self.site.lab.lan, &words)
    }

    /// What arrived under `name` is the file.
    fn check(&self, put: bool, name: &str) {
        let at = if put {
            format!("root/up/{name}")
        } else {
            name.into()
        };
        let arrived = fs::read(self.site.path(&at)).unwrap();
        assert!(arrived == self.file, "{name} differs");
    }
}

#[test]
fn ftp_data_passes_in_every_mode() {
    let Some(server) = server("rf", 2 << 20) else {
        return;
    };
    // Without the helper: who is logged in gets nothing.
    thread::scope(|scope| {
        for mode in [MODES[0], MODES[2], MODES[3], MODES[5]] {
            let server = &server;
            scope.spawn(move || {
                let said = server.curl(mode, false, "nothing", "2");
                assert!(said.text.contains("< 230 "), "{mode:?}: {said:?}");
                assert!(said.text.contains(mode.2), "{mode:?}: {said:?}");
                assert_eq!(said.code, Some(28), "{mode:?}: {said:?}");
            });
        }
    });
    for flow in server.site.flows() {
        assert!(ports(&flow).1 == 21 && flow.helper.is_none(), "{flow:?}");
    }

    server.site.attach(&[HELPER]);
    for (n, mode) in MODES.into_iter().enumerate() {
        for put in [false, true] {
            let name = format!("curl{n}");
            let said = server.curl(mode, put, &name, "20");
            assert_eq!(said.code, Some(0), "{mode:?}: {said:?}");
            let announced = format!("> {}", mode.2);
            assert!(said.text.contains(&announced), "{mode:?}: {said:?}");
            server.check(put, &name);
        }
    }
    // lftp sends several commands in one segment.
    let home = format!("HOME={}", server.site.path(""));
    for (n, host) in [OUTSIDE.0, OUTSIDE.1].into_iter().enumerate() {
        for passive in ["on", "off"] {
            let name = format!("lftp{n}{passive}");
            let script = format!(
                "set net:timeout 5; set net:max-retries 1; set ftp:ssl-allow no;\
                 set ftp:sync-mode off; set ftp:passive-mode {passive}; set cmd:fail-exit yes;\
                 open {}; get file -o {}; put {} -o up/{name}",
                url(host, ""),
                server.site.path(&name),
                server.site.path("root/file"),
            );
            let lftp = [
                "env", &home, "timeout", "20", "lftp", "--norc", "-c", &script,
            ];
            let said = ask(&server.site.lab.lan, &lftp);
            assert_eq!(said.code, Some(0), "{host} passive {passive}: {said:?}");
            server.check(false, &name);
            server.check(true, &name);
        }
    }
    // A session for each word to curl, and one for each to lftp; a connection for each file.
    let (control, data) = server.site.families("ftp", 21);
    assert_eq!(control.len(), 12 + 4, "{control:?}");
    assert_eq!(data.len(), 12 + 8, "{data:?}");
    server.site.close();
}

/// The data connection that curl announced or was told of: whom it went to, and the port there.
fn data_connection(said: &str) -> Option<(IpAddr, u16)> {
    let inside = |host: &str| host.parse().ok();
    for line in said.lines() {
        // The one to the control connection's own port comes first, as "Trying".
        if let Some(rest) = line.strip_prefix("* Connecting to ") {
            let (host, rest) = rest.split_once(' ')?;
            return Some((inside(host)?, rest.rsplit(' ').next()?.parse().ok()?));
        }
        if let Some(rest) = line.strip_prefix("> EPRT |") {
            let mut fields = rest.trim_end().split('|').skip(1);
            return Some((inside(fields.next()?)?, fields.next()?.parse().ok()?));
        }
        if let Some(rest) = line.strip_prefix("> PORT ") {
            let mut numbers = rest.trim_end().split(',').skip(4);
            let mut byte = || numbers.next()?.parse::<u16>().ok();
            return Some((inside(INSIDE.0)?, byte()? << 8 | byte()?));
        }
    }
    None
}

/// The port of curl's own end of the control connection.
fn control_port(said: &str) -> Option<u16> {
    let (_, port) = said.split_once("local port ")?;
    port.lines().next()?.trim().parse().ok()
}

#[test]
fn fifty_ftp_transfers_pass_at_once() {
    let Some(server) = server("rg", 256 << 10) else {
        return;
    };
    server.site.attach(&[HELPER]);
    let said: Vec<Said> = thread::scope(|scope| {
        let started: Vec<_> = (0..50)
            .map(|n| {
                let server = &server;
                let fetch = move || server.curl(MODES[n % 6], n % 4 < 2, &format!("{n}"), "30");
                scope.spawn(fetch)
            })
            .collect();
        let ended = started.into_iter().map(|thread| thread.join().unwrap());
        ended.collect()
    });
    for (n, said) in said.iter().enumerate() {
        assert_eq!(said.code, Some(0), "{n}: {said:?}");
        server.check(n % 4 < 2, &format!("{n}"));
    }
    let (control, data) = server.site.families("ftp", 21);
    assert_eq!((control.len(), data.len()), (50, 50));
    let mut elsewhere = 0;
    for (n, said) in said.iter().enumerate() {
        // The flow that curl has the data of is the one that its control connection announced.
        let said = &said.text;
        let at = data_connection(said).unwrap_or_else(|| panic!("{n}: {said}"));
        let port = control_port(said).unwrap_or_else(|| panic!("{n}: {said}"));
        let mut theirs = data.iter().filter(|data| {
            (data.flow.original.dst, ports(&data.flow).1) == at && ports(&data.master).0 == port
        });
        let data = theirs
            .next()
            .unwrap_or_else(|| panic!("{at:?}, {port} in {data:?}"));
        elsewhere += usize::from(data.flow.shard != data.master.shard);
    }
    assert!(
        elsewhere > 0,
        "no data connection came to another shard than its control connection"
    );
    server.site.close();
}
