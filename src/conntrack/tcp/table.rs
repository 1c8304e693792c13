//! The TCP transition table (Linux 6.12 `tcp_conntracks`, as listed in its behaviour; RFC 9293
//! names the states of a host, these are the states that an observer can know).
//!
//! `TABLE[direction][class][state]` is the next state, or what to do instead. The side rules that
//! no table can express are in the parent module.

use crate::conntrack::types::{Dir, TcpState};
use crate::wire::tcp::flags;

/// What kind of segment it is, by the strongest flag: RST, then SYN, then FIN, then ACK.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Class {
    /// SYN without ACK.
    Syn = 0,
    /// SYN and ACK.
    SynAck,
    /// FIN.
    Fin,
    /// ACK alone.
    Ack,
    /// RST.
    Rst,
    /// None of these.
    None,
}

impl Class {
    /// The class of a segment with `bits`.
    #[inline]
    pub const fn of(bits: u8) -> Class {
        if bits & flags::RST != 0 {
            Class::Rst
        } else if bits & flags::SYN != 0 {
            if bits & flags::ACK != 0 {
                Class::SynAck
            } else {
                Class::Syn
            }
        } else if bits & flags::FIN != 0 {
            Class::Fin
        } else if bits & flags::ACK != 0 {
            Class::Ack
        } else {
            Class::None
        }
    }
}

/// What the table says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Go there.
    State(TcpState),
    /// The segment passes, the state stays: the tracker may be out of step with the hosts.
    Ignore,
    /// The segment is impossible here.
    Invalid,
}

/// Whether the combination of flags makes sense (PSH, ECE and CWR aside): SYN, SYN+ACK, RST,
/// RST+ACK, FIN+ACK, ACK; URG with SYN, FIN+ACK or ACK.
#[inline]
pub const fn legal(bits: u8) -> bool {
    const LEGAL: [u8; 9] = [
        flags::SYN,
        flags::SYN | flags::URG,
        flags::SYN | flags::ACK,
        flags::RST,
        flags::RST | flags::ACK,
        flags::FIN | flags::ACK,
        flags::FIN | flags::ACK | flags::URG,
        flags::ACK,
        flags::ACK | flags::URG,
    ];
    const SET: u64 = {
        let mut set = 0;
        let mut i = 0;
        while i < LEGAL.len() {
            set |= 1 << LEGAL[i];
            i += 1;
        }
        set
    };
    let bits = bits & !(flags::PSH | flags::ECE | flags::CWR);
    SET >> bits & 1 != 0
}

/// The next state.
#[inline]
pub const fn next(dir: Dir, class: Class, state: TcpState) -> Next {
    TABLE[dir as usize][class as usize][state as usize]
}

const SS: Next = Next::State(TcpState::SynSent);
const SR: Next = Next::State(TcpState::SynRecv);
const ES: Next = Next::State(TcpState::Established);
const FW: Next = Next::State(TcpState::FinWait);
const CW: Next = Next::State(TcpState::CloseWait);
const LA: Next = Next::State(TcpState::LastAck);
const TW: Next = Next::State(TcpState::TimeWait);
const CL: Next = Next::State(TcpState::Close);
const S2: Next = Next::State(TcpState::SynSent2);
#[allow(non_upper_case_globals)]
const ig: Next = Next::Ignore;
#[allow(non_upper_case_globals)]
const iv: Next = Next::Invalid;

#[rustfmt::skip]
static TABLE: [[[Next; TcpState::COUNT]; 6]; 2] = [
    [ // original
        //            NONE  SS  SR  ES  FW  CW  LA  TW  CL  S2
        /* syn     */ [SS, SS, ig, ig, ig, ig, ig, SS, SS, S2],
        //  A new SYN in a flow that the hosts may have lost is let through; the answer tells.
        //  In TIME_WAIT and CLOSE it reopens (RFC 1122 4.2.2.13).
        /* syn/ack */ [iv, iv, SR, iv, iv, iv, iv, iv, iv, SR],
        //  Only as the answer to a SYN from the other side: simultaneous open (RFC 9293 3.5).
        /* fin     */ [iv, iv, FW, FW, LA, LA, LA, TW, CL, iv],
        /* ack     */ [ES, iv, ES, ES, CW, CW, TW, TW, CL, iv],
        //  NONE: picked up mid-stream. SYN_SENT: nothing was offered that could be acknowledged.
        /* rst     */ [iv, CL, CL, CL, CL, CL, CL, CL, CL, CL],
        /* none    */ [iv, iv, iv, iv, iv, iv, iv, iv, iv, iv],
    ],
    [ // reply
        //            NONE  SS  SR  ES  FW  CW  LA  TW  CL  S2
        /* syn     */ [iv, S2, iv, iv, iv, iv, iv, SS, iv, S2],
        /* syn/ack */ [iv, SR, ig, ig, ig, ig, ig, ig, ig, SR],
        //  Repeated, or an answer to a SYN that was ignored.
        /* fin     */ [iv, iv, FW, FW, LA, LA, LA, TW, CL, iv],
        /* ack     */ [iv, ig, SR, ES, CW, CW, TW, TW, CL, ig],
        //  SYN_SENT: a challenge ACK (RFC 5961) of an old incarnation.
        /* rst     */ [iv, CL, CL, CL, CL, CL, CL, CL, CL, CL],
        /* none    */ [iv, iv, iv, iv, iv, iv, iv, iv, iv, iv],
    ],
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nine_flag_sets_of_64_are_legal() {
        let interesting = |bits: &u8| bits & (flags::PSH | flags::ECE | flags::CWR) == 0;
        assert_eq!(
            (0..64)
                .filter(interesting)
                .filter(|bits| legal(*bits))
                .count(),
            9
        );
        for extra in [flags::PSH, flags::ECE, flags::CWR] {
            assert!(legal(flags::SYN | extra));
            assert!(!legal(flags::SYN | flags::FIN | extra));
        }
        assert!(!legal(0));
        assert!(!legal(flags::FIN), "a FIN always acknowledges");
        assert!(!legal(flags::RST | flags::ACK | flags::URG));
    }

    #[test]
    fn the_strongest_flag_decides() {
        assert_eq!(Class::of(flags::RST | flags::SYN), Class::Rst);
        assert_eq!(Class::of(flags::SYN | flags::ACK), Class::SynAck);
        assert_eq!(Class::of(flags::FIN | flags::ACK), Class::Fin);
        assert_eq!(Class::of(flags::PSH | flags::ACK), Class::Ack);
        assert_eq!(Class::of(flags::PSH), Class::None);
    }
}
