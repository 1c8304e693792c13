//! All benches, one after the other, into one folder: what they printed as JSON with a description of
//! the machine (`results.json`), tables (`results.md`), and pictures.
//!
//! `make bench` runs it; [`plan`] says what is run, and with what. Each bench lets its contestants take
//! turns, so that what else the machine does hurts all alike; what cannot run here (no root, no Open
//! vSwitch) is left out and named in the tables.
#![allow(clippy::print_stdout)] // a bench prints
#![allow(clippy::print_stderr)] // and says how far it is
#![allow(missing_docs)] // its modules are its own

mod chart;
mod figures;
mod machine;
mod pages;
mod plan;

use clap::Parser;
use plan::{STEPS, Step};
use serde_json::{Map, Value, json};
use shardwall::dataplane::clock::{Clock, unix_time};
use std::fs;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};

/// What goes wrong ends the run; there is nothing to recover.
type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

#[derive(Debug, Parser)]
#[command(about = "Runs all benches, and makes tables and pictures of what they found")]
struct Args {
    /// Everything, as long as it takes
    #[arg(long)]
    full: bool,
    /// Everything, but shortly: for a look, not for figures
    #[arg(long, conflicts_with = "full")]
    quick: bool,
    /// Only these steps, separated by commas
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Where the results go
    #[arg(long, default_value = "benches/results")]
    out: PathBuf,
    /// Only make tables and pictures of the `results.json` that is there
    #[arg(long)]
    draw: bool,
    /// What `cargo bench` adds
    #[arg(long, hide = true)]
    bench: bool,
}

fn cargo() -> Command {
    Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// So that no step waits for the compiler.
fn build() -> Outcome<()> {
    let benches = ["conntrack", "latency", "policy", "rig"];
    let mut command = cargo();
    command.args(["bench", "--locked", "--no-run"]);
    for bench in benches {
        command.args(["--bench", bench]);
    }
    if command.stdout(Stdio::null()).status()?.success() {
        Ok(())
    } else {
        Err("the benches do not build".into())
    }
}

/// Runs a step; what it printed, as JSON or as a line that says why there is none.
fn run(step: &Step, quick: bool) -> Outcome<Value> {
    let words: Vec<&str> = (if quick { step.quick } else { step.full })
        .split(' ')
        .collect();
    let output = cargo()
        .args(["bench", "--locked", "--quiet", "--bench", step.bench, "--"])
        .args(&words)
        .arg("--json")
        .stderr(Stdio::inherit())
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let found = text
        .lines()
        .find_map(|line| serde_json::from_str::<Value>(line).ok());
    let said = text.lines().rfind(|line| !line.starts_with('{'));
    let mut result = json!({
        "command": format!("cargo bench --bench {} -- {}", step.bench, words.join(" ")),
    });
    if found.is_none() || !output.status.success() {
        result["missing"] = said.unwrap_or("it failed").trim().into();
    }
    if let Some(found) = found {
        result["found"] = found;
    }
    Ok(result)
}

fn measure(args: &Args) -> Outcome<Value> {
    build()?;
    let clock = Clock::start();
    let before = machine::load();
    let mut results = Map::new();
    for step in STEPS {
        if !args.only.is_empty() && !args.only.iter().any(|name| name == step.name) {
            continue;
        }
        let start = clock.now().nanos();
        eprint!("{:<12} ", step.name);
        let mut result = run(step, args.quick)?;
        let seconds = (clock.now().nanos() - start) / 1_000_000_000;
        match result["missing"].as_str() {
            Some(why) => eprintln!("{seconds:>5} s  {why}"),
            None => eprintln!("{seconds:>5} s"),
        }
        result["seconds"] = seconds.into();
        results.insert(step.name.to_owned(), result);
    }
    Ok(json!({
        "time": unix_time() as u64,
        "quick": args.quick,
        "machine": machine::describe(),
        "load": { "before": before, "after": machine::load() },
        "steps": results,
    }))
}

fn work(args: &Args) -> Outcome<()> {
    let file = args.out.join("results.json");
    fs::create_dir_all(&args.out)?;
    let results = if args.draw {
        serde_json::from_str(&fs::read_to_string(&file)?)?
    } else {
        let mut results = measure(args)?;
        // A part that was measured again takes its place among the others.
        if !args.only.is_empty() && file.exists() {
            let mut old: Value = serde_json::from_str(&fs::read_to_string(&file)?)?;
            if let (Some(steps), Some(new)) =
                (old["steps"].as_object_mut(), results["steps"].as_object())
            {
                steps.extend(new.clone());
            }
            results["steps"] = old["steps"].take();
        }
        fs::write(&file, format!("{results:#}\n"))?;
        results
    };
    let page = pages::page(&results);
    fs::write(args.out.join("results.md"), &page)?;
    for (name, picture) in pages::pictures(&results) {
        fs::write(args.out.join(format!("{name}.svg")), picture)?;
    }
    print!("{page}");
    println!("\nwritten to {}", args.out.display());
    Ok(())
}

fn main() -> ExitCode {
    let args = Args::parse();
    if !(args.full || args.quick || args.draw) {
        println!("report: skipped, since neither --full nor --quick asks for it");
        return ExitCode::SUCCESS;
    }
    match work(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("report: {error}");
            ExitCode::FAILURE
        }
    }
}
