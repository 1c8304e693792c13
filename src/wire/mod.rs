//! Packets as bytes: one protocol a file, and the one-pass parse that the packet path uses.
pub mod parsed;
pub use parsed::{Addrs, Fragment, L3, L4, Parsed};
