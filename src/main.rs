//! The `shardwall` binary.
fn main() {}
