//! The status page as a browser shows it. Needs root, or is re-run inside user namespaces where the
//! system allows that.
#![cfg(feature = "dpdk")]

mod common;

use common::{json, stop};
use serde_json::Value;
use shardwall::cli::lab::{
    Lab, OUTSIDE, as_root_of_a_namespace, free_port, is_root, output, pause,
};
use std::fs;
use std::path::Path;

const BINARY: &str = env!("CARGO_BIN_EXE_shardwall");
const BROWSERS: [&str; 3] = ["chromium-headless-shell", "chromium", "google-chrome"];

const RULES: &str = "
chains:
  forward:
    policy: drop
    rules:
      - { name: known, ct: [established, related], action: accept }
      - { name: ping, iif: lan, proto: icmp, ct: new, action: accept }
      - { name: web, iif: lan, proto: tcp, dport: 80, ct: new, action: accept }
";

/// What a browser says of the page at `url`, with these flags: its standard output, and its log.
fn browse(lab: &Lab, flags: &[&str], url: &str) -> (String, String) {
    let profile = format!("--user-data-dir={}", lab.dir.join("profile").display());
    for browser in BROWSERS {
        let words: [&[&str]; 4] = [
            &[
                browser,
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
            ],
            &[
                "--no-first-run",
                "--enable-logging=stderr",
                "--window-size=1000,1000",
                &profile,
            ],
            flags,
            &[url],
        ];
        if let Ok(out) = output(&words.concat()) {
            let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
            return (text(&out.stdout), text(&out.stderr));
        }
    }
    panic!("there is no browser (deploy/setup.sh test brings chromium-headless-shell)");
}

/// The text of the element `id`.
fn shown<'a>(dom: &'a str, id: &str) -> &'a str {
    let (_, rest) = dom.split_once(&format!("id=\"{id}\"")).expect(id);
    let (_, rest) = rest.split_once('>').expect(id);
    rest.split('<').next().unwrap_or_default()
}

#[test]
fn a_browser_shows_what_stats_says() {
    if !is_root() {
        let binary = std::env::current_exe().unwrap();
        let status = as_root_of_a_namespace(&[&binary.to_string_lossy(), "--nocapture"]).unwrap();
        assert!(status.success(), "run this test as root");
        return;
    }
    let metrics = format!("127.0.0.1:{}", free_port());
    let mut lab = Lab::new("sp", Path::new(BINARY)).unwrap();
    let policy = lab.head(2, &metrics, "") + RULES;
    lab.write_policy(&policy).unwrap();
    lab.start().unwrap();
    fs::write(lab.dir.join("index.html"), vec![b'x'; 100_000]).unwrap();
    let web = ["python3", "-m", "http.server", "80", "--bind", "::"];
    let _web = lab
        .wan
        .spawn(&web, &lab.dir, &lab.dir.join("web.log"))
        .unwrap();
    lab.await_port(&lab.wan, 80).unwrap();
    let url = format!("http://{}/", OUTSIDE.0);
    for _ in 0..12 {
        let got = lab
            .lan
            .output(&["curl", "-sS", "-m", "5", "-o", "/dev/null", &url])
            .unwrap();
        assert!(got.status.success());
        lab.lan
            .output(&["ping", "-c", "2", "-i", "0.1", OUTSIDE.0])
            .unwrap();
        let _ = lab
            .lan
            .output(&["bash", "-c", "echo x >/dev/udp/10.77.0.2/9"])
            .unwrap();
        pause(200);
    }
    let page = format!("http://{metrics}/");
    // Hosts say something by themselves now and then: what is compared must stand still meanwhile.
    let mut compared = None;
    for _ in 0..20 {
        let before = json(&lab, &["stats"]);
        // The page shows what was read within the last second.
        pause(1_500);
        let drops = json(&lab, &["drops"]);
        let (dom, log) = browse(&lab, &["--dump-dom"], &page);
        let after = json(&lab, &["stats"]);
        let same = ["packets", "conntrack"]
            .iter()
            .all(|part| before[part] == after[part]);
        if same {
            compared = Some((before, drops, dom, log));
            break;
        }
    }
    let (stats, drops, dom, log) = compared.expect("a quiet moment");
    assert!(!log.contains("Content Security Policy"), "{log}");
    let number = |value: &Value| value.as_u64().unwrap().to_string();
    for (id, value) in [
        ("entries", &stats["conntrack"]["entries"]),
        ("insert", &stats["conntrack"]["insert"]),
        ("forwarded", &stats["packets"]["forwarded"]),
        ("dropped", &stats["packets"]["dropped"]),
        ("generation", &stats["generation"]),
    ] {
        assert_eq!(shown(&dom, id), number(value), "{id}: {stats}");
    }
    assert!(stats["packets"]["dropped"].as_u64() >= Some(12));
    assert_eq!(shown(&dom, "health"), "ok");
    for row in drops.as_array().unwrap() {
        let count = number(&row["count"]);
        let cells = format!(
            "<td>{}</td><td class=\"number\">{count}</td>",
            row["reason"].as_str().unwrap()
        );
        assert_eq!(dom.contains(&cells), count != "0", "{row}");
    }
    for port in ["lan", "wan"] {
        assert!(dom.contains(&format!("<td>{port}</td>")), "{dom}");
    }
    // Something has moved, and is drawn.
    let lines: Vec<_> = dom.split("<polyline points=\"").skip(1).collect();
    assert!(lines.len() > 10, "{dom}");
    let moved = |line: &&&str| {
        let points = line.split('"').next().unwrap_or_default();
        let heights: std::collections::BTreeSet<_> = points
            .split(' ')
            .filter_map(|point| point.split(',').nth(1))
            .collect();
        heights.len() > 1
    };
    assert!(lines.iter().filter(moved).count() >= 5, "{dom}");

    let file = lab.dir.join("page.png");
    let (_, log) = browse(&lab, &[&format!("--screenshot={}", file.display())], &page);
    let picture = fs::read(&file).unwrap_or_else(|error| panic!("{error}: {log}"));
    assert!(
        picture.starts_with(b"\x89PNG") && picture.len() > 20_000,
        "{}",
        picture.len()
    );
    if let Some(folder) = std::env::var_os("PICTURES") {
        fs::create_dir_all(&folder).unwrap();
        fs::write(Path::new(&folder).join("status-page.png"), picture).unwrap();
    }
    stop(lab);
}
