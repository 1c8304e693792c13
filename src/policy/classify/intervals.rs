//! Which of the intervals that the whole range of a number is cut into holds a value.
//!
//! A sorted array of the intervals' first values, and over it a table that leads from a value's
//! leading bits to the few intervals which begin there; where values crowd, a table of their own.
//! Three dependent reads find one of 100,000 intervals that lie as addresses do, and bisection
//! bounds what a table cannot divide.
//!
//! Life-cycle: built once, then only read. Concurrency: immutable.

/// Intervals that a search may be left with.
const FEW: usize = 4;
/// Tables within tables; what they leave is bisected.
const DEPTH: u32 = 8;
/// [`Slot::len`] of a slot that leads to a table.
const TABLE: u32 = u32::MAX;

/// A number that can be divided into intervals.
pub(super) trait Number: Copy + Ord {
    const MIN: Self;
    /// The number after it, if there is one.
    fn next(self) -> Option<Self>;
    /// `(self - origin) >> shift`, for a value that is not below `origin`.
    fn bucket(self, origin: Self, shift: u8) -> usize;
    /// The least shift by which the distance from `origin` comes below `buckets`, a power of two.
    fn shift(self, origin: Self, buckets: usize) -> u8;
}

macro_rules! number {
    ($($int:ty)*) => {$(
        impl Number for $int {
            const MIN: Self = <$int>::MIN;

            fn next(self) -> Option<Self> {
                self.checked_add(1)
            }

            #[inline]
            fn bucket(self, origin: Self, shift: u8) -> usize {
                (self.wrapping_sub(origin) >> shift) as usize
            }

            fn shift(self, origin: Self, buckets: usize) -> u8 {
                let bits = <$int>::BITS - self.wrapping_sub(origin).leading_zeros();
                bits.saturating_sub(buckets.trailing_zeros()) as u8
            }
        }
    )*};
}

number!(u16 u32 u128);

/// The intervals.
#[derive(Debug)]
pub(super) struct Intervals<T> {
    /// First value of each; that of the first is the least there is.
    starts: Box<[T]>,
    tables: Box<[Table<T>]>,
    slots: Box<[Slot]>,
}

/// Divides the values from `origin` to `last` evenly.
#[derive(Clone, Copy, Debug)]
struct Table<T> {
    origin: T,
    last: T,
    shift: u8,
    slots: u32,
    /// The interval before `origin`, and that from `last` on.
    outside: [u32; 2],
}

/// So many intervals from `first` on, or a table.
#[derive(Clone, Copy, Debug)]
struct Slot {
    first: u32,
    len: u32,
}

impl<T: Number> Intervals<T> {
    /// The intervals that begin at the least value and at each of `starts`.
    pub(super) fn new(mut starts: Vec<T>) -> Self {
        starts.push(T::MIN);
        starts.sort_unstable();
        starts.dedup();
        let mut building = Building {
            starts: &starts,
            tables: Vec::new(),
            slots: Vec::new(),
        };
        building.table(0, starts.len(), 0);
        let (tables, slots) = (building.tables.into(), building.slots.into());
        Self {
            starts: starts.into(),
            tables,
            slots,
        }
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.starts.len()
    }

    /// Those that make up `low..=high`, which begins and ends where intervals do.
    pub(super) fn span(&self, low: T, high: T) -> std::ops::Range<usize> {
        let from = self.starts.partition_point(|start| *start < low);
        let end = self.starts.partition_point(|start| *start <= high);
        from..end
    }

    /// The one that holds `value`.
    #[inline]
    pub(super) fn find(&self, value: T) -> u32 {
        let mut at = 0;
        while let Some(table) = self.tables.get(at) {
            if value < table.origin {
                return table.outside[0];
            }
            if value >= table.last {
                return table.outside[1];
            }
            let slot = table.slots as usize + value.bucket(table.origin, table.shift);
            let Some(Slot { first, len }) = self.slots.get(slot).copied() else {
                break;
            };
            if len != TABLE {
                return self.among(first, len, value);
            }
            at = first as usize;
        }
        self.among(0, self.starts.len() as u32, value)
    }

    #[inline]
    fn among(&self, first: u32, len: u32, value: T) -> u32 {
        let inner = first as usize + 1..(first + len) as usize;
        let rest = self.starts.get(inner).unwrap_or_default();
        first + rest.partition_point(|start| *start <= value) as u32
    }

    /// Bytes that it occupies.
    pub(super) fn bytes(&self) -> usize {
        size_of_val(&*self.starts) + size_of_val(&*self.tables) + size_of_val(&*self.slots)
    }
}

struct Building<'a, T> {
    starts: &'a [T],
    tables: Vec<Table<T>>,
    slots: Vec<Slot>,
}

impl<T: Number> Building<'_, T> {
    /// A table over the intervals `from..end`, if there are enough of them.
    fn table(&mut self, from: usize, end: usize, depth: u32) -> Slot {
        let few = Slot {
            first: from as u32,
            len: (end - from) as u32,
        };
        if end - from <= FEW || depth == DEPTH {
            return few;
        }
        // the first begins before all that is looked for here, wherever that is
        let inner = &self.starts[from + 1..end];
        let (origin, last) = (inner[0], inner[inner.len() - 1]);
        let buckets = (inner.len() * 2).next_power_of_two();
        let shift = last.shift(origin, buckets);
        let first = self.slots.len();
        let count = last.bucket(origin, shift) + 1;
        self.slots.resize(first + count, few);
        let at = self.tables.len() as u32;
        self.tables.push(Table {
            origin,
            last,
            shift,
            slots: first as u32,
            outside: [from as u32, end as u32 - 1],
        });
        // of each bucket: the interval that reaches into it, and those that begin in it
        let mut next = from + 1;
        for bucket in 0..count {
            let begin = next;
            while next < end && self.starts[next].bucket(origin, shift) == bucket {
                next += 1;
            }
            let slot = self.table(begin - 1, next, depth + 1);
            self.slots[first + bucket] = slot;
        }
        Slot {
            first: at,
            len: TABLE,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn agrees<T: Number + std::fmt::Debug>(starts: &[T], probes: impl Iterator<Item = T>) {
        let all = Intervals::new(starts.to_vec());
        for probe in probes.chain(starts.iter().copied()) {
            let naive = all.starts.iter().rposition(|start| *start <= probe);
            assert_eq!(Some(all.find(probe) as usize), naive, "{probe:?}");
        }
    }

    #[test]
    fn crowds_far_apart_are_divided() {
        let crowd = |base: u32| (0..300).map(move |i| base + 16 * i);
        let starts: Vec<u32> = crowd(0x0a00_0000).chain(crowd(0xc0a8_0000)).collect();
        agrees(&starts, crowd(0x0a00_0007).chain([0, 1, u32::MAX]));
        let all = Intervals::new(starts);
        assert!(
            all.slots
                .iter()
                .all(|slot| slot.len == TABLE || slot.len as usize <= FEW)
        );
    }

    #[test]
    fn what_tables_cannot_divide_is_bisected() {
        let starts: Vec<u128> = (0..128).map(|bit| 1 << bit).collect();
        agrees(
            &starts,
            (0..128).map(|bit| (1 << bit) + 1).chain([0, u128::MAX]),
        );
    }

    proptest! {
        #[test]
        fn every_value_is_in_its_interval(
            starts in prop::collection::vec(prop_oneof![0u32..300, any::<u32>(), Just(u32::MAX)], 0..200),
            probes in prop::collection::vec(prop_oneof![0u32..300, any::<u32>()], 50),
        ) {
            agrees(&starts, probes.iter().copied());
            let wide = |v: &u32| u128::from(*v) << 90 | u128::from(*v % 7);
            let wides: Vec<u128> = starts.iter().map(wide).collect();
            agrees(&wides, probes.iter().map(wide));
            let narrow: Vec<u16> = starts.iter().map(|v| *v as u16).collect();
            agrees(&narrow, probes.iter().map(|v| *v as u16));
        }
    }
}
