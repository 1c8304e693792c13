//! The whole flow table, listed by another process while one core forwards without a pause.
//!
//! Who lists is `shardwall conntrack -L`, on the control side's core, its output thrown away. Every
//! listing must name all flows.

use crate::contest::{plain, start, stop};
use crate::machine::sleep;
use crate::stretch::{Figures, alternate};
use crate::{Outcome, Setup};
use std::io::Read;
use std::process::{Command, Stdio};
use std::time::Duration;

/// `count` listings, and what they did.
pub(crate) fn run(setup: &Setup<'_>, count: usize) -> Outcome<Figures> {
    let socket = setup.scratch.file("control.sock");
    let path = setup.scratch.file("policy.yaml");
    plain(setup, &path, &socket)?;
    let mut process = start(setup, &path, &socket)?;
    // Every flow is there once both captures came by once.
    sleep(Duration::from_secs(setup.warm_up))?;
    let (mut done, mut fewest) = (0, u64::MAX);
    let mut list = || -> Outcome<bool> {
        if done == count {
            return Ok(false);
        }
        done += 1;
        let mut child = Command::new("taskset")
            .args(["-c", &setup.control.to_string()])
            .arg(&setup.binary)
            .args(["conntrack", "-L", "--socket"])
            .arg(&socket)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let (mut lines, mut bytes) = (0, vec![0; 1 << 20]);
        if let Some(mut out) = child.stdout.take() {
            loop {
                let len = out.read(&mut bytes)?;
                if len == 0 {
                    break;
                }
                lines += bytes[..len].iter().filter(|byte| **byte == b'\n').count() as u64;
            }
        }
        if !child.wait()?.success() {
            return Err("`conntrack -L` failed".into());
        }
        fewest = fewest.min(lines);
        Ok(true)
    };
    let mut figures = alternate(setup, &process, &socket, &mut list)?;
    stop(&mut process)?;
    figures.what = format!("{done} listings of the whole table");
    figures.note(&format!("flows in each: at least {fewest}"));
    if fewest < u64::from(setup.captures.flows) {
        return Err(format!("{}some flows were not listed", figures.text()).into());
    }
    Ok(figures)
}
