//! TFTP: tftpd-hpa outside; tftp-hpa, and curl with options, inside. The server answers from a port
//! of its own.

use crate::site::{Site, ask, noise};
use shardwall::cli::lab::OUTSIDE;
use std::fs;
use std::path::Path;

const CONTROL: &str = "proto: udp, dport: 69";
const HELPER: &str = "{ helper: tftp, proto: udp, dport: 69 }";

#[test]
fn tftp_gets_and_puts() {
    let Some(site) = Site::new("rt", CONTROL) else {
        return;
    };
    let file = noise(300_000);
    let root = site.open_folder("root");
    fs::write(site.path("root/file"), &file).unwrap();
    let options = ["--secure", "--create", "--permissive", "--user", "nobody"];
    let listen = ["in.tftpd", "--foreground", "--address", ":69"];
    let _server = site.serve(&[&listen[..], &options, &[&root]].concat());
    site.await_udp(69);
    let lan = &site.lab.lan;
    let (from, to) = (site.path("root/file"), site.path("copy"));
    let tftp = |secs, host, words: &[&str]| {
        let client = ["timeout", secs, "tftp", "-m", "binary", host, "-c"];
        ask(lan, &[&client[..], words].concat())
    };

    // Without the helper, requests arrive: the server makes the file that it is to be given, and
    // asks for its first block in vain.
    let said = tftp("2", OUTSIDE.0, &["put", &from, "asked"]);
    assert_eq!(said.code, Some(124), "{said:?}");
    assert!(Path::new(&site.path("root/asked")).exists());
    let url = format!("tftp://{}/file", OUTSIDE.0);
    let said = ask(lan, &["curl", "-sS", "-m", "2", "-o", &to, &url]);
    assert_eq!(said.code, Some(28), "{said:?}");

    site.attach(&[HELPER]);
    for (n, host) in [OUTSIDE.0, OUTSIDE.1].into_iter().enumerate() {
        let name = format!("tftp{n}");
        let said = tftp("20", host, &["get", "file", &site.path(&name)]);
        assert_eq!(said.code, Some(0), "{host}: {said:?}");
        assert!(
            fs::read(site.path(&name)).unwrap() == file,
            "{name} differs"
        );
        let said = tftp("20", host, &["put", &from, &name]);
        assert_eq!(said.code, Some(0), "{host}: {said:?}");
        let stored = fs::read(site.path(&format!("root/{name}"))).unwrap();
        assert!(stored == file, "{name} differs");

        let name = format!("curl{n}");
        let host = if host.contains(':') {
            format!("[{host}]")
        } else {
            host.into()
        };
        let curl = ["curl", "-sS", "-m", "20", "--tftp-blksize", "1400"];
        let (to, url) = (site.path(&name), format!("tftp://{host}/file"));
        let said = ask(lan, &[&curl[..], &["-o", &to, &url]].concat());
        assert_eq!(said.code, Some(0), "{host}: {said:?}");
        assert!(fs::read(&to).unwrap() == file, "{name} differs");
        let url = format!("tftp://{host}/{name}");
        let said = ask(lan, &[&curl[..], &["-T", &from, &url]].concat());
        assert_eq!(said.code, Some(0), "{host}: {said:?}");
        let stored = fs::read(site.path(&format!("root/{name}"))).unwrap();
        assert!(stored == file, "{name} differs");
    }
    // A request and a transfer, eight times.
    let (control, data) = site.families("tftp", 69);
    assert_eq!((control.len(), data.len()), (8, 8), "{control:?} {data:?}");
    site.close();
}
