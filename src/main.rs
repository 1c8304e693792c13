//! The `shardwall` binary: [`shardwall::cli`] does it all.

fn main() -> std::process::ExitCode {
    shardwall::cli::main()
}
