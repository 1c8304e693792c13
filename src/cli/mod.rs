//! The command line: one binary, every command, as text or as JSON.
//!
//! Life-cycle: one command a process. What a command prints goes through `output::Output`, so
//! that tests read it. Exit codes: 0 for success, 1 for failure, 2 for a wrong command line.

pub mod args;
mod conntrack;
pub mod logging;
pub mod table;
pub mod top;

mod capture;
mod check;
mod demo;
mod diff;
mod doctor;
mod drops;
mod events;
mod expect;
mod explain;
mod import;
pub mod lab;
pub mod manual;
mod output;
mod ports;
mod remote;
mod replay;
mod run;
mod schema;
#[cfg(test)]
mod tests;
mod trace;

use args::{Args, Command};
use clap::Parser;
use output::Output;
use std::process::ExitCode;

/// Reads the command line and does what it says.
pub fn main() -> ExitCode {
    dispatch(Args::parse())
}

fn dispatch(args: Args) -> ExitCode {
    let Args {
        format,
        socket,
        command,
    } = args;
    let print = |run: &dyn Fn(&mut Output<'_>) -> output::Result| Output::standard(format, run);
    match command {
        Command::Run(args) => run::execute(&args.config),
        Command::Replay(args) => {
            replay::execute(&args.config, args.port.as_deref(), &args.trace, format)
        }
        Command::Explain(args) => print(&|out| explain::execute(&args, &socket, out)),
        Command::Demo(args) => demo::execute(args.keep),
        Command::Manual(args) => print(&|out| manual::execute(&args, out)),
        Command::Doctor(args) => {
            Output::standard_code(format, |out| doctor::execute(&args, &socket, out))
        }
        Command::Check(args) => print(&|out| check::check(&args, out)),
        Command::Schema => print(&|out| schema::execute(out)),
        Command::Import(args) => Output::standard_code(format, |out| import::execute(&args, out)),
        Command::Diff(args) => print(&|out| diff::diff(&args, &socket, out)),
        Command::Reload(args) => print(&|out| remote::reload(&args, &socket, out)),
        Command::Conntrack(args) => print(&|out| conntrack::execute(&args, &socket, out)),
        Command::Expect(args) => print(&|out| expect::execute(&args, &socket, out)),
        Command::Stats => print(&|out| remote::stats(&socket, out)),
        Command::Drops => print(&|out| drops::execute(&socket, out)),
        Command::Trace(args) => print(&|out| trace::execute(&args, &socket, out)),
        Command::Capture(args) => print(&|out| capture::execute(&args, &socket, out)),
        Command::Rules => print(&|out| remote::rules(&socket, out)),
        Command::Ports(args) => print(&|out| ports::execute(&args, &socket, out)),
        Command::Workers => print(&|out| ports::workers(&socket, out)),
        Command::Top(args) => top::execute(&args, &socket, format),
    }
}
