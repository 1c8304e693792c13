//! Which of the intervals that the whole range of a number is cut into holds a value.
//!
//! A sorted array of the intervals' first values, and over it a table that leads from a value's
//! leading bits to the few intervals which begin there; where values crowd, a table of their own.
//! Two dependent reads find one of 100,000 intervals that lie as addresses do (a slot, and the
//! intervals with what they lead to), and bisection bounds what a table cannot divide.
//!
//! Life-cycle: built once, then only read. Concurrency: immutable.

/// Intervals that a search may be left with.
const FEW: usize = 4;
/// Parts that a table has for each interval, at least.
const BUCKETS: usize = 1;
/// Tables within tables; what they leave is bisected.
const DEPTH: u32 = 8;

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

/// The intervals, and what each leads to.
#[derive(Debug)]
pub(super) struct Intervals<T> {
    /// That of the first begins at the least value there is. Behind the last come some that no slot
    /// leads to, so that a look at [`FEW`] never ends early.
    cells: Box<[Cell<T>]>,
    tables: Box<[Table<T>]>,
    /// Of each part of a table: the interval that reaches into it, of at most [`FEW`] there; or with
    /// [`TABLE`], a table.
    slots: Box<[u32]>,
}

/// Entries of a list: where they begin in their array, and how many they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) first: u32,
    pub(super) len: u32,
}

/// An interval: its first value, and where it leads.
#[derive(Clone, Copy, Debug)]
struct Cell<T> {
    start: T,
    list: Span,
}

/// Marks a slot that leads to a table.
const TABLE: u32 = 1 << 31;

/// Divides the values from `origin` to `last` evenly.
#[derive(Clone, Copy, Debug)]
struct Table<T> {
    origin: T,
    last: T,
    shift: u8,
    /// Its first slot; none if its intervals are bisected.
    slots: Option<u32>,
    /// The interval before `origin`, and that from `last` on.
    outside: [u32; 2],
}

impl<T: Number> Intervals<T> {
    /// The intervals that begin at the least value and at each of `starts`; they lead nowhere yet.
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
        let last = starts.last().copied();
        let spare = last.into_iter().cycle().take(FEW);
        let list = Span::default();
        Self {
            cells: starts
                .iter()
                .copied()
                .chain(spare)
                .map(|start| Cell { start, list })
                .collect(),
            tables,
            slots,
        }
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.cells.len() - FEW
    }

    /// Those that make up `low..=high`, which begins and ends where intervals do.
    pub(super) fn span(&self, low: T, high: T) -> std::ops::Range<usize> {
        let cells = &self.cells[..self.len()];
        let from = cells.partition_point(|cell| cell.start < low);
        let end = cells.partition_point(|cell| cell.start <= high);
        from..end
    }

    /// Has each interval lead to its list, in order.
    pub(super) fn lead(&mut self, lists: impl Iterator<Item = Span>) {
        for (cell, list) in self.cells.iter_mut().zip(lists) {
            cell.list = list;
        }
    }

    /// Where the interval leads that holds `value`.
    #[inline]
    pub(super) fn find(&self, value: T) -> Span {
        let mut at = 0;
        while let Some(table) = self.tables.get(at) {
            if value < table.origin {
                return self.list(table.outside[0]);
            }
            if value >= table.last {
                return self.list(table.outside[1]);
            }
            let Some(first) = table.slots else {
                return self.bisect(value);
            };
            let slot = first as usize + value.bucket(table.origin, table.shift);
            match self.slots.get(slot).copied() {
                Some(table) if table & TABLE != 0 => at = (table & !TABLE) as usize,
                Some(first) => return self.among(first as usize, value),
                None => break,
            }
        }
        self.bisect(value)
    }

    /// The list of the interval number `at`.
    #[inline]
    fn list(&self, at: u32) -> Span {
        self.cells
            .get(at as usize)
            .map(|cell| cell.list)
            .unwrap_or_default()
    }

    /// That of the interval which holds `value`, the one at `first` or one of the few behind it.
    /// What begins behind these few begins behind the value: there is nothing to branch on.
    #[inline]
    fn among(&self, first: usize, value: T) -> Span {
        let few = self
            .cells
            .get(first..)
            .and_then(|cells| cells.first_chunk::<FEW>());
        let Some([_, inner @ ..]) = few else {
            return Span::default();
        };
        let behind: usize = inner
            .iter()
            .map(|cell| usize::from(cell.start <= value))
            .sum();
        few.and_then(|few| few.get(behind))
            .map(|cell| cell.list)
            .unwrap_or_default()
    }

    #[cold]
    fn bisect(&self, value: T) -> Span {
        let cells = self.cells.get(..self.len()).unwrap_or_default();
        let behind = cells.partition_point(|cell| cell.start <= value);
        self.list((behind as u32).saturating_sub(1))
    }

    /// Bytes that it occupies.
    pub(super) fn bytes(&self) -> usize {
        size_of_val(&*self.cells) + size_of_val(&*self.tables) + size_of_val(&*self.slots)
    }
}

struct Building<'a, T> {
    starts: &'a [T],
    tables: Vec<Table<T>>,
    slots: Vec<u32>,
}

impl<T: Number> Building<'_, T> {
    /// A table over the intervals `from..end`, if there are enough of them; what leads to them.
    fn table(&mut self, from: usize, end: usize, depth: u32) -> u32 {
        if end - from <= FEW && depth > 0 {
            return from as u32;
        }
        let at = self.tables.len() as u32;
        // the first begins before all that is looked for here, wherever that is
        let inner = &self.starts[from + 1..end];
        let (Some(&origin), Some(&last)) = (inner.first(), inner.last()) else {
            return at | TABLE; // there is but one interval
        };
        let buckets = (inner.len() * BUCKETS).next_power_of_two();
        let shift = last.shift(origin, buckets);
        let first = self.slots.len();
        self.tables.push(Table {
            origin,
            last,
            shift,
            slots: (depth < DEPTH).then_some(first as u32),
            outside: [from as u32, end as u32 - 1],
        });
        if depth == DEPTH {
            return at | TABLE;
        }
        let count = last.bucket(origin, shift) + 1;
        self.slots.resize(first + count, 0);
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
        at | TABLE
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn agrees<T: Number + std::fmt::Debug>(starts: &[T], probes: impl Iterator<Item = T>) {
        let mut all = Intervals::new(starts.to_vec());
        all.lead((0..all.len() as u32).map(|first| Span { first, len: 1 }));
        let begins: Vec<T> = all.cells[..all.len()]
            .iter()
            .map(|cell| cell.start)
            .collect();
        for probe in probes.chain(starts.iter().copied()) {
            let naive = begins.iter().rposition(|start| *start <= probe);
            assert_eq!(Some(all.find(probe).first as usize), naive, "{probe:?}");
        }
    }

    #[test]
    fn crowds_far_apart_are_divided() {
        let crowd = |base: u32| (0..300).map(move |i| base + 16 * i);
        let starts: Vec<u32> = crowd(0x0a00_0000).chain(crowd(0xc0a8_0000)).collect();
        agrees(&starts, crowd(0x0a00_0007).chain([0, 1, u32::MAX]));
        let all = Intervals::new(starts);
        assert!(all.tables.len() > 1);
        assert!(all.tables.iter().all(|table| table.slots.is_some()));
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
