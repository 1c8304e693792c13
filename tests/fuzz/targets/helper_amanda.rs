//! The Amanda helper, whatever is sent on a control flow.
#![no_main]

mod talk;

const WORDS: &[&str] = &[
    "Amanda 3.5 REP HANDLE 000-00000000 SEQ 1\n",
    "CONNECT ",
    "DATA ",
    "MESG ",
    "INDEX ",
    "STATE ",
    "11234 ",
    "65535",
    "22 ",
    "\n",
    "CONNECT DATA 11234 MESG 11235 INDEX 11236\n",
];

libfuzzer_sys::fuzz_target!(|input: &[u8]| talk::run("amanda", WORDS, input));
