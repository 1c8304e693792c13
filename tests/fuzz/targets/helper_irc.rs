//! The IRC helper, whatever is said to a server.
#![no_main]

mod talk;

const WORDS: &[&str] = &[
    "\r\n",
    "PING x\r\n",
    "PRIVMSG ",
    "NOTICE ",
    "bob",
    " :",
    "\x01DCC ",
    "SEND ",
    "CHAT ",
    "MOVE ",
    "TSEND ",
    "SCHAT ",
    "\"my notes\" ",
    "notes ",
    "167837697 ",
    "5000",
    "\x01",
    "PRIVMSG bob :\x01DCC SEND \"my notes\" 167837697 5000 1024\x01\r\n",
    "PRIVMSG bob :\x01DCC CHAT chat 167837697 5000\x01\r\n",
    "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
];

libfuzzer_sys::fuzz_target!(|input: &[u8]| talk::run("irc", WORDS, input));
