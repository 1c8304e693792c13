//! The SIP helper, whatever is said in datagrams and on a connection.
#![no_main]

mod talk;

const WORDS: &[&str] = &[
    "\r\n",
    "INVITE sip:bob@10.2.0.1 SIP/2.0\r\n",
    "REGISTER sip:10.2.0.1 SIP/2.0\r\n",
    "ACK sip:10.2.0.1 SIP/2.0\r\n",
    "BYE sip:[fd02::1] SIP/2.0\r\n",
    "SIP/2.0 200 OK\r\n",
    "SIP/2.0 486 Busy\r\n",
    "CSeq: 1 INVITE\r\n",
    "CSeq: 1 REGISTER\r\n",
    "CSeq: 2 PRACK\r\n",
    "Contact: <sip:a@10.1.0.1:5070>",
    "m: <sip:[fd01::1]:5070;transport=tcp>",
    ";expires=60",
    "Expires: 60\r\n",
    ", ",
    "\r\n\t",
    "Content-Length: 0\r\n",
    "l: 20\r\n",
    "l: 200\r\n\r\n",
    "v=0\r\n",
    "c=IN IP4 10.1.0.1\r\n",
    "c=IN IP6 fd01::1\r\n",
    "c=IN IP4 10.2.0.1\r\n",
    "m=audio 6000 RTP/AVP 0\r\n",
    "m=video 6003 RTP/AVP 96\r\n",
    "m=image ",
    "sip:",
    "REGISTER sip:x SIP/2.0\r\nCSeq: 3 REGISTER\r\nm: <sip:10.1.0.1>;expires=9\r\nl: 0\r\n\r\n",
    "INVITE sip:x SIP/2.0\r\nCSeq: 4 INVITE\r\nl: 55\r\n\r\nv=0\r\nc=IN IP4 10.1.0.1\r\nm=audio 6000 RTP/AVP 0 8 99\r\n",
    "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
];

libfuzzer_sys::fuzz_target!(|input: &[u8]| talk::run("sip", WORDS, input));
