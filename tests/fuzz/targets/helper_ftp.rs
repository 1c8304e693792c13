//! The FTP helper, whatever is said on a control connection.
#![no_main]

mod talk;

const WORDS: &[&str] = &[
    "\r\n",
    "USER a\r\n",
    "PORT ",
    "EPRT ",
    "PASV\r\n",
    "227 ",
    "229 ",
    "227-",
    "230-",
    "230 ",
    "10,1,0,1,",
    "10,2,0,1,",
    "4,1",
    "|1|10.1.0.1|",
    "|2|fd01::1|",
    "(|||",
    "2000|",
    "PORT 10,1,0,1,200,150\r\n",
    "227 Entering Passive Mode (10,2,0,1,200,150).\r\n",
    "EPRT |2|fd01::1|2000|\r\n",
    "229 Entering Extended Passive Mode (|||2000|)\r\n",
    "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
];

libfuzzer_sys::fuzz_target!(|input: &[u8]| talk::run("ftp", WORDS, input));
