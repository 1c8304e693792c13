//! Protocol helpers with the programs that people use, through the real binary: two workers, tap
//! ports between two namespaces, and a policy that drops all but control connections and what is
//! established or RELATED. Every test first shows that data does not pass while no line attaches
//! the helper, though the control connection works; then it attaches it, under the same policy.
//!
//! `deploy/setup.sh test` installs the programs. Needs root, and more than a user namespace gives:
//! the servers change their user. Elsewhere the tests say so and do nothing.
#![cfg(feature = "dpdk")]

#[path = "../common/mod.rs"]
mod common;

mod amanda;
mod ftp;
mod irc;
mod sip;
mod site;
mod tftp;
