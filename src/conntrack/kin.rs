//! What few flows have: a helper that listens to them, or a master that announced them. Beside the
//! entries, in memory that is touched for such flows only; the entry's status says that there is
//! something ([`status::HELPED`], [`status::EXPECTED`]).
//!
//! Life-cycle: a `Kin` begins when the flow enters the table and ends with it; its number is that
//! of the flow's list of expectations, too. Owned and used by one worker.

use super::entry::status;
use super::helper::{HelperId, Info, Permissions};
use super::tuple::Tuple;
use crate::base::slab::Slab;
use crate::wire::Addrs;
use crate::wire::inner::Ports;
use std::io;
use zerocopy::FromZeros;

/// What a flow begins with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seed {
    /// The helper that listens to it, and what it may do.
    pub helper: Option<(HelperId, Permissions)>,
    /// The flow that announced it, in its original direction, and the helper of that.
    pub master: Option<(Tuple, HelperId)>,
}

impl Seed {
    /// The bits of [`status`] that tell of it.
    pub fn status(&self) -> u8 {
        let helped = if self.helper.is_some() {
            status::HELPED
        } else {
            0
        };
        let expected = if self.master.is_some() {
            status::EXPECTED
        } else {
            0
        };
        helped | expected
    }
}

/// What is shown of a flow's kin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct About {
    /// Its helper's name.
    pub helper: Option<&'static str>,
    /// Its master.
    pub master: Option<Tuple>,
}

const LOOSE: u8 = 1;
const LOW_PORTS: u8 = 2;
const MASTER: u8 = 4;
const MASTER_V6: u8 = 8;

/// One flow's.
#[derive(Clone, Copy, Debug, FromZeros)]
#[repr(C)]
struct Kin {
    /// The master's addresses, source first; an IPv4 address is in the lower half.
    master: [[u64; 2]; 2],
    ports: [u16; 2],
    zone: u16,
    proto: u8,
    /// A helper's number, or 0.
    helper: u8,
    flags: u8,
    /// Nothing was heard yet.
    fresh: u8,
    /// Number of the helper that expected it, or 0.
    expecter: u8,
    reserved: u8,
    /// The next free one, as number + 1.
    next: u32,
}

/// The kin of one shard's flows.
#[derive(Debug)]
pub struct Kins {
    infos: &'static [&'static Info],
    /// By entry of either family, as number + 1.
    heads: [Slab<u32>; 2],
    kins: Slab<Kin>,
    /// First free one, as number + 1; those from `fresh` on were never used.
    free: u32,
    fresh: u32,
}

/// How many a shard needs whose tables have `capacity` entries each.
pub const fn room(capacity: u32) -> u32 {
    capacity.saturating_mul(2)
}

impl Kins {
    /// For tables of `capacity` entries.
    ///
    /// # Errors
    /// If the memory is not to be had.
    pub fn new(capacity: u32, infos: &'static [&'static Info]) -> io::Result<Self> {
        let entries = capacity as usize;
        Ok(Self {
            infos,
            heads: [Slab::new(entries)?, Slab::new(entries)?],
            kins: Slab::new(room(capacity) as usize)?,
            free: 0,
            fresh: 0,
        })
    }

    /// Notes that `entry` begins with `seed`; its number.
    #[cold]
    pub fn enter(&mut self, v6: bool, entry: u32, seed: &Seed) -> Option<u32> {
        let head = self.heads[usize::from(v6)].get_mut(entry as usize)?;
        let recycled = self.free != 0;
        let number = if recycled { self.free - 1 } else { self.fresh };
        let kin = self.kins.get_mut(number as usize)?;
        if recycled {
            self.free = kin.next;
        } else {
            self.fresh += 1;
        }
        *kin = Kin::of(seed);
        *head = number + 1;
        Some(number)
    }

    /// Forgets what `entry` had; its number.
    #[cold]
    pub fn leave(&mut self, v6: bool, entry: u32) -> Option<u32> {
        let head = self.heads[usize::from(v6)].get_mut(entry as usize)?;
        let number = std::mem::take(head).checked_sub(1)?;
        self.kins.get_mut(number as usize)?.next = self.free;
        self.free = number + 1;
        Some(number)
    }

    /// The number of what `entry` has.
    pub fn number(&self, v6: bool, entry: u32) -> Option<u32> {
        let head = self.heads[usize::from(v6)].get(entry as usize)?;
        head.checked_sub(1)
    }

    fn kin(&self, v6: bool, entry: u32) -> Option<&Kin> {
        self.kins.get(self.number(v6, entry)? as usize)
    }

    /// The helper of `entry`, and what it may do.
    pub fn helper(&self, v6: bool, entry: u32) -> Option<(HelperId, Permissions)> {
        self.kin(v6, entry)?.helper()
    }

    /// The helper that expected `entry`.
    pub fn expecter(&self, v6: bool, entry: u32) -> Option<HelperId> {
        HelperId::of_number(self.kin(v6, entry)?.expecter)
    }

    /// Whether this is the first time that anybody asks about number `number`.
    pub fn is_fresh(&mut self, number: u32) -> bool {
        let kin = self.kins.get_mut(number as usize);
        kin.is_some_and(|kin| std::mem::take(&mut kin.fresh) != 0)
    }

    /// What is shown of `entry`, whose status is `status`.
    #[inline]
    pub fn about(&self, v6: bool, entry: u32, status: u8) -> About {
        if status & (status::HELPED | status::EXPECTED) == 0 {
            return About::default();
        }
        self.kin(v6, entry)
            .map_or_else(About::default, |kin| About {
                helper: kin.helper().and_then(|(id, _)| self.name(id)),
                master: kin.master(),
            })
    }

    /// A helper's name.
    pub fn name(&self, id: HelperId) -> Option<&'static str> {
        self.infos.get(id.index()).map(|info| info.name)
    }
}

impl Kin {
    fn of(seed: &Seed) -> Self {
        let mut kin = Self::new_zeroed();
        kin.fresh = 1;
        if let Some((id, permissions)) = seed.helper {
            kin.helper = id.number();
            kin.flags |= u8::from(permissions.loose) * LOOSE;
            kin.flags |= u8::from(permissions.low_ports) * LOW_PORTS;
        }
        if let Some((master, expecter)) = seed.master {
            kin.expecter = expecter.number();
            let halves = |addr: u128| [(addr >> 64) as u64, addr as u64];
            kin.flags |= MASTER;
            kin.master = match master.addrs {
                Addrs::V4 { src, dst } => [halves(src.into()), halves(dst.into())],
                Addrs::V6 { src, dst } => {
                    kin.flags |= MASTER_V6;
                    [halves(src), halves(dst)]
                }
            };
            if let Ports::Ports { sport, dport } = master.ports {
                kin.ports = [sport, dport];
            }
            (kin.zone, kin.proto) = (master.zone, master.proto);
        }
        kin
    }

    fn helper(&self) -> Option<(HelperId, Permissions)> {
        let id = HelperId::of_number(self.helper)?;
        let permissions = Permissions {
            loose: self.flags & LOOSE != 0,
            low_ports: self.flags & LOW_PORTS != 0,
        };
        Some((id, permissions))
    }

    fn master(&self) -> Option<Tuple> {
        if self.flags & MASTER == 0 {
            return None;
        }
        let whole = |[high, low]: [u64; 2]| u128::from(high) << 64 | u128::from(low);
        let [src, dst] = self.master.map(whole);
        let addrs = if self.flags & MASTER_V6 != 0 {
            Addrs::V6 { src, dst }
        } else {
            Addrs::V4 {
                src: src as u32,
                dst: dst as u32,
            }
        };
        let [sport, dport] = self.ports;
        Some(Tuple {
            addrs,
            proto: self.proto,
            ports: Ports::Ports { sport, dport },
            zone: self.zone,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tuple(addrs: Addrs) -> Tuple {
        Tuple {
            addrs,
            proto: 6,
            ports: Ports::Ports {
                sport: 40_000,
                dport: 21,
            },
            zone: 7,
        }
    }

    #[test]
    fn kin_is_what_the_seed_was_and_numbers_are_used_again() {
        let mut kins = Kins::new(4, &[]).unwrap();
        let helper = HelperId::new(0).map(|id| {
            let permissions = Permissions {
                loose: true,
                low_ports: false,
            };
            (id, permissions)
        });
        let v4 = tuple(Addrs::V4 {
            src: 1,
            dst: u32::MAX,
        });
        let v6 = tuple(Addrs::V6 {
            src: u128::MAX - 5,
            dst: 1 << 100,
        });
        let ftp = HelperId::new(3).unwrap();
        for (master, is_v6) in [(None, false), (Some(v4), false), (Some(v6), true)] {
            let seed = Seed {
                helper,
                master: master.map(|master| (master, ftp)),
            };
            assert_eq!(kins.enter(is_v6, 3, &seed), Some(0));
            assert_eq!(kins.helper(is_v6, 3), helper);
            assert_eq!(kins.about(is_v6, 3, seed.status()).master, master);
            assert_eq!(kins.expecter(is_v6, 3), master.map(|_| ftp));
            assert_eq!(kins.about(is_v6, 3, 0), About::default());
            assert!(kins.is_fresh(0) && !kins.is_fresh(0));
            assert_eq!(kins.leave(is_v6, 3), Some(0));
            assert_eq!((kins.number(is_v6, 3), kins.leave(is_v6, 3)), (None, None));
        }
        let numbers: Vec<_> = (0..4)
            .flat_map(|entry| [false, true].map(|v6| (v6, entry)))
            .map(|(v6, entry)| kins.enter(v6, entry, &Seed::default()))
            .collect();
        let all: Vec<_> = (0..8).map(Some).collect();
        assert_eq!(numbers, all, "there is room for both families");
    }
}
