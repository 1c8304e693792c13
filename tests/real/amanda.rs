//! Amanda: a backup by amdump inside of a client outside, with `bsd` authentication: the request
//! goes by UDP, and the answer names the ports of four TCP connections.

use crate::site::{Said, Site, ask, noise, ports};
use shardwall::cli::lab::{INSIDE, OUTSIDE, output};
use shardwall::conntrack::types::proto;
use std::fs;

const CONTROL: &str = "proto: udp, dport: 10080";
const HELPER: &str = "{ helper: amanda, proto: udp, dport: 10080 }";

/// Its programs know where their files are; here they see other ones in these places.
const OWN_FILES: &str = "
mount -t tmpfs tmpfs /run &&
mount --bind DIR/hosts /etc/hosts &&
mount --bind DIR/etc /etc/amanda &&
mount --bind DIR/amandahosts /etc/amandahosts &&
mount --bind DIR/logs /var/log/amanda &&
mount --bind DIR/state /var/lib/amanda &&
exec \"$@\"
";

fn write_files(site: &Site, file: &[u8]) {
    let write = |name: &str, text: &str| {
        let text = text.replace("DIR", &site.path(""));
        fs::write(site.path(name), text).unwrap();
    };
    for name in [
        "etc/test",
        "server/tapes/slot1",
        "logs",
        "state/gnutar-lists",
        "source",
    ] {
        fs::create_dir_all(site.path(name)).unwrap();
    }
    for name in ["info", "log", "index", "holding"] {
        fs::create_dir(site.path(&format!("server/{name}"))).unwrap();
    }
    write("etc/test/amanda.conf", include_str!("amanda/amanda.conf"));
    write("etc/test/disklist", "outside DIR/source tar\n");
    write("etc/amanda-client.conf", "");
    write("state/amandates", "");
    let (inner, outer) = (INSIDE.0, OUTSIDE.0);
    write(
        "hosts",
        &format!("127.0.0.1 localhost\n{inner} inside\n{outer} outside\n"),
    );
    write("amandahosts", "inside backup amdump\n");
    // Numbers: the service has its name in /etc/services only where that file is.
    let service = "dgram udp wait backup /usr/lib/amanda/amandad amandad -auth=bsd amdump";
    write("inetd.conf", &format!("10080 {service}\n"));
    write("own-files", OWN_FILES);
    fs::write(site.path("source/file"), file).unwrap();
    for name in ["etc", "server", "logs", "state", "source", "amandahosts"] {
        let chown = output(&["chown", "-R", "backup:backup", &site.path(name)]).unwrap();
        assert!(chown.status.success());
    }
    let chmod = output(&["chmod", "600", &site.path("amandahosts")]).unwrap();
    assert!(chmod.status.success());
}

fn dump(site: &Site) -> Said {
    let own_files = ["sh", &site.path("own-files")];
    let user = [
        "setpriv",
        "--reuid",
        "backup",
        "--regid",
        "backup",
        "--init-groups",
    ];
    let amdump = ["timeout", "40", "amdump", "test"];
    ask(&site.lab.lan, &[&own_files[..], &user, &amdump].concat())
}

/// Whether one of the server's logs says so.
fn logged(site: &Site, words: &str) -> bool {
    let grep = [
        "grep",
        "-rqF",
        words,
        &site.path("logs/server"),
        &site.path("server/log"),
    ];
    output(&grep).unwrap().status.success()
}

#[test]
fn amanda_backs_up_and_the_tape_has_it() {
    let Some(site) = Site::new("rm", CONTROL) else {
        return;
    };
    let file = noise(3 << 20);
    write_files(&site, &file);
    let serve = || {
        let inetd = ["inetd", "-i", &site.path("inetd.conf")];
        let inetd = site.serve(&[&["sh", &site.path("own-files")][..], &inetd].concat());
        site.await_udp(10080);
        inetd
    };
    // The one who connects in vain is to give up within seconds.
    let patience = ["sysctl", "-q", "-w", "net.ipv4.tcp_syn_retries=1"];
    assert_eq!(ask(&site.lab.lan, &patience).code, Some(0));

    let inetd = serve();
    // Without the helper, the client answers and its ports are closed.
    let said = dump(&site);
    assert_ne!(said.code, Some(0), "{said:?}");
    assert!(logged(&site, "could not connect DATA stream"), "{said:?}");
    let flows = site.flows();
    assert!(flows.iter().all(|flow| ports(flow).1 == 10080), "{flows:?}");

    // The client would wait for its connections a while longer, and take no other request.
    drop(inetd);
    site.lab.wan.end_all();
    let _inetd = serve();

    site.attach(&[HELPER]);
    let said = dump(&site);
    assert_eq!(said.code, Some(0), "{said:?} {}", site.server_log());
    // Data, messages, index and state, all to ports that one answer named.
    let (_, data) = site.families("amanda", 10080);
    assert_eq!(data.len(), 4, "{data:?}");
    assert!(
        data.iter()
            .all(|data| data.flow.proto == proto::TCP && data.flow.assured)
    );
    // A file on the tape is a head of 32 KiB and then what tar wrote.
    let restore = format!(
        "cat {}/server/tapes/slot1/00001.outside.* | tail -c +32769 | tar -xO ./file",
        site.path("")
    );
    let restored = output(&["sh", "-c", &restore]).unwrap();
    assert!(
        restored.stdout == file,
        "{}",
        String::from_utf8_lossy(&restored.stderr)
    );
    site.close();
}
