//! The TFTP helper, whatever is sent on a control flow.
#![no_main]

mod talk;

const WORDS: &[&str] = &[
    "\0\x01",
    "\0\x02",
    "\0\x03",
    "\0\x05",
    "file\0octet\0",
    "blksize\x001428\0",
];

libfuzzer_sys::fuzz_target!(|input: &[u8]| talk::run("tftp", WORDS, input));
