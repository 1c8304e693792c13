//! A real Prometheus that scrapes one appliance every second.

use serde_json::Value;
use shardwall::cli::lab::{Lab, Process, free_port, pause, start};
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};

/// What `$__rate_interval` and the rules' windows are, where a scrape comes every second.
pub(crate) const WINDOW: &str = "10s";

/// The server; it ends with its value.
#[derive(Debug)]
pub(crate) struct Prometheus {
    _process: Process,
    address: String,
}

fn program() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("target"),
        PathBuf::from,
    );
    let unpacked = target.join("tools/prometheus");
    if unpacked.exists() {
        return unpacked;
    }
    "prometheus".into()
}

/// A file of `deploy/prometheus`.
pub(crate) fn shipped(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("deploy/prometheus")
        .join(name);
    fs::read_to_string(path).unwrap()
}

impl Prometheus {
    /// Starts it with our configuration and rules, for the appliance of `lab` at `target`. If `hasty`,
    /// rules look back for [`WINDOW`] and alerts wait for nothing.
    pub(crate) fn start(lab: &Lab, target: &str, hasty: bool) -> Self {
        let dir = lab.dir.join("prometheus");
        fs::create_dir_all(&dir).unwrap();
        let config = shipped("prometheus.yml")
            .replace("127.0.0.1:9477", target)
            .replace(": 15s", ": 1s");
        fs::write(dir.join("prometheus.yml"), config).unwrap();
        for name in ["recording.yml", "alerts.yml"] {
            let mut rules = shipped(name);
            if hasty {
                let waits = |line: &&str| !line.trim_start().starts_with("for: ");
                rules = rules.lines().filter(waits).collect::<Vec<_>>().join("\n");
                let window = format!("[{WINDOW}]");
                rules = rules.replace("[5m]", &window).replace("[1m]", &window);
            }
            fs::write(dir.join(name), rules).unwrap();
        }
        let address = format!("127.0.0.1:{}", free_port());
        let (program, listen) = (program(), format!("--web.listen-address={address}"));
        let words = [
            &*program.to_string_lossy(),
            "--config.file=prometheus.yml",
            "--storage.tsdb.path=data",
            &listen,
            "--log.level=warn",
        ];
        let process = start(&words, &dir, &dir.join("log")).unwrap();
        let server = Self {
            _process: process,
            address,
        };
        for _ in 0..500 {
            if server
                .get("/-/ready")
                .is_some_and(|(status, _)| status == 200)
            {
                return server;
            }
            pause(20);
        }
        let log = fs::read_to_string(dir.join("log")).unwrap_or_default();
        panic!("Prometheus does not start (deploy/setup.sh test brings it): {log}");
    }

    /// What it answers to a GET: status and body.
    fn get(&self, path: &str) -> Option<(u16, String)> {
        let mut stream = TcpStream::connect(&self.address).ok()?;
        // HTTP/1.0: the body comes as it is, and ends with the connection.
        write!(stream, "GET {path} HTTP/1.0\r\n\r\n").ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        let (head, body) = text.split_once("\r\n\r\n")?;
        let status = head.split(' ').nth(1)?.parse().ok()?;
        Some((status, body.to_owned()))
    }

    /// What the API says, under `data`.
    pub(crate) fn ask(&self, path: &str) -> Result<Value, String> {
        let (_, body) = self.get(path).ok_or("no answer")?;
        let mut value: Value = serde_json::from_str(&body).map_err(|e| format!("{e}: {body}"))?;
        if value["status"] != "success" {
            return Err(value["error"].to_string());
        }
        Ok(value["data"].take())
    }

    /// The samples of a query, now.
    pub(crate) fn query(&self, query: &str) -> Result<Vec<Value>, String> {
        let path = format!("/api/v1/query?query={}", escaped(query));
        let data = self.ask(&path)?;
        match &data["result"] {
            // A number, or what there is.
            Value::Array(samples) if data["resultType"] != "scalar" => Ok(samples.clone()),
            other => Ok(vec![other.clone()]),
        }
    }

    /// The series of a query over the last `seconds`, a sample a second.
    pub(crate) fn range(&self, query: &str, seconds: u64) -> Result<Vec<Value>, String> {
        let now = self.query("time()")?[0][0].as_f64().unwrap_or_default();
        let (start, query) = (now - seconds as f64, escaped(query));
        let path = format!("/api/v1/query_range?query={query}&start={start}&end={now}&step=1");
        let data = self.ask(&path)?;
        Ok(data["result"].as_array().cloned().unwrap_or_default())
    }

    /// The alerts that fire.
    pub(crate) fn firing(&self) -> Vec<String> {
        let data = self.ask("/api/v1/alerts").unwrap_or_default();
        let alerts = data["alerts"].as_array().cloned().unwrap_or_default();
        let fires = alerts.iter().filter(|alert| alert["state"] == "firing");
        fires
            .filter_map(|alert| Some(alert["labels"]["alertname"].as_str()?.to_owned()))
            .collect()
    }
}

fn escaped(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'.' => out.push(byte as char),
            _ => out += &format!("%{byte:02X}"),
        }
    }
    out
}
