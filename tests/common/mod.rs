//! What the tests that run the real binary share.

use serde_json::Value;
use shardwall::cli::lab::Lab;
use std::fs;

/// What a command says as JSON.
pub(crate) fn json(lab: &Lab, words: &[&str]) -> Value {
    let out = lab
        .shardwall(&[&["--format", "json"], words].concat())
        .unwrap();
    assert!(
        out.status.success(),
        "{}",
        String::from_utf8_lossy(&out.stderr)
    );
    let text = String::from_utf8(out.stdout).unwrap();
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error} in {text}"))
}

/// Stops the appliance, and holds it to its balance: exactly what its last line says.
pub(crate) fn stop(mut lab: Lab) {
    assert!(lab.stop().expect("it ends").success());
    assert!(!lab.socket().exists(), "the socket is left behind");
    let log = fs::read_to_string(lab.log()).unwrap();
    let last = log
        .lines()
        .rfind(|line| line.contains("stopped"))
        .expect("a last word");
    let number = |name: &str| -> u64 {
        let (_, rest) = last.split_once(&format!("{name}=")).expect(last);
        rest.split(' ').next().unwrap().parse().expect(last)
    };
    let out = number("forwarded") + number("dropped") + number("punted") + number("held");
    assert_eq!(number("received"), out, "{last}");
    assert!(number("received") > 0);
}
