//! Which workspaces have changed, until somebody tells: in a fixed amount of memory,
//! because all processes of the server share it.

const PLACES: usize = 1024;
const BYTES: usize = 32 * 1024;
/// Before each name: its length and the head.
const FIXED: usize = 10;

/// The latest head of each workspace. If they no longer fit, only that everything may
/// have changed.
#[derive(Clone, Copy)]
pub struct Hints {
    is_all: bool,
    used: usize,
    count: usize,
    /// Where the hint begins, plus one; 0 where the place is free.
    places: [u16; PLACES],
    bytes: [u8; BYTES],
}

impl Default for Hints {
    fn default() -> Hints {
        Hints::new()
    }
}

impl Hints {
    pub const fn new() -> Hints {
        Hints { is_all: false, used: 0, count: 0, places: [0; PLACES], bytes: [0; BYTES] }
    }

    pub fn is_empty(&self) -> bool {
        !self.is_all && self.used == 0
    }

    /// Everything may have changed.
    pub fn add_all(&mut self) {
        self.clear();
        self.is_all = true;
    }

    /// A workspace has a new head. A later one is never replaced by an earlier one: who
    /// committed last need not be the last to tell.
    pub fn add(&mut self, workspace_id: &str, head: i64) {
        if self.is_all {
            return;
        }
        let name = workspace_id.as_bytes();
        let mut place = hash(name) % PLACES;
        while let Some(at) = usize::from(self.places[place]).checked_sub(1) {
            let (known, known_head) = read(&self.bytes[at..]).unwrap_or_default();
            if known == name {
                let latest = head.max(known_head);
                self.bytes[at + 2..at + FIXED].copy_from_slice(&latest.to_le_bytes());
                return;
            }
            place = (place + 1) % PLACES;
        }
        let (at, end) = (self.used, self.used + FIXED + name.len());
        // A quarter of the places stays free, so that searches are short.
        let is_full = end > BYTES || self.count + 1 > PLACES / 4 * 3;
        let (Ok(begin), Ok(length), false) =
            (u16::try_from(at + 1), u16::try_from(name.len()), is_full)
        else {
            self.add_all();
            return;
        };
        self.bytes[at..at + 2].copy_from_slice(&length.to_le_bytes());
        self.bytes[at + 2..at + FIXED].copy_from_slice(&head.to_le_bytes());
        self.bytes[at + FIXED..end].copy_from_slice(name);
        (self.used, self.count, self.places[place]) = (end, self.count + 1, begin);
    }

    /// Moves all hints to `taken`, which has room for them: memory is not allocated while
    /// others wait.
    pub fn take(&mut self, taken: &mut Taken) {
        taken.is_all = self.is_all;
        taken.bytes.clear();
        taken.bytes.extend_from_slice(&self.bytes[..self.used]);
        self.clear();
    }

    pub fn clear(&mut self) {
        (self.is_all, self.used, self.count) = (false, 0, 0);
        self.places.fill(0);
    }
}

/// Hints that were taken.
pub struct Taken {
    pub is_all: bool,
    bytes: Vec<u8>,
}

impl Default for Taken {
    fn default() -> Taken {
        Taken { is_all: false, bytes: Vec::with_capacity(BYTES) }
    }
}

impl Taken {
    pub fn is_empty(&self) -> bool {
        !self.is_all && self.bytes.is_empty()
    }

    /// Workspaces and heads, in the order in which the workspaces changed first.
    pub fn each(&self) -> impl Iterator<Item = (&str, i64)> {
        let mut rest = self.bytes.as_slice();
        std::iter::from_fn(move || {
            let (name, head) = read(rest)?;
            rest = &rest[FIXED + name.len()..];
            Some((std::str::from_utf8(name).unwrap_or_default(), head))
        })
    }
}

/// The hint at the beginning.
fn read(bytes: &[u8]) -> Option<(&[u8], i64)> {
    let (length, rest) = bytes.split_first_chunk::<2>()?;
    let (head, rest) = rest.split_first_chunk::<8>()?;
    let name = rest.get(..usize::from(u16::from_le_bytes(*length)))?;
    Some((name, i64::from_le_bytes(*head)))
}

/// FNV-1a.
fn hash(bytes: &[u8]) -> usize {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, step) as usize
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn taken(hints: &mut Hints) -> Option<BTreeMap<String, i64>> {
        let mut taken = Taken::default();
        hints.take(&mut taken);
        assert!(hints.is_empty());
        let each = taken.each().map(|(name, head)| (name.to_owned(), head));
        let all: Vec<_> = each.collect();
        let by_name: BTreeMap<_, _> = all.iter().cloned().collect();
        assert_eq!(all.len(), by_name.len(), "one hint for each workspace");
        (!taken.is_all).then_some(by_name)
    }

    proptest! {
        #[test]
        fn each_workspace_has_its_latest_head(
            told in vec(("[a-d]{0,3}", 0..9_i64), 0..200), again in vec(("[a-d]{1,2}", 0..9_i64), 0..9),
        ) {
            let mut hints = Hints::new();
            for told in [told, again] {
                let mut latest = BTreeMap::new();
                for (name, head) in told {
                    hints.add(&name, head);
                    let known = latest.entry(name).or_insert(head);
                    *known = head.max(*known);
                }
                prop_assert_eq!(hints.is_empty(), latest.is_empty());
                prop_assert_eq!(taken(&mut hints), Some(latest));
            }
        }
    }

    #[test]
    fn what_does_not_fit_may_be_anything() {
        // As many names as there are places for, and as many bytes.
        for (length, fits) in [(1, PLACES / 4 * 3), (256, BYTES / (FIXED + 256))] {
            let name = |n: usize| format!("{n:0length$}");
            let mut hints = Hints::new();
            (0..fits).for_each(|n| hints.add(&name(n), 1));
            hints.add(&name(0), 2);
            let all = taken(&mut hints).unwrap();
            assert_eq!((all.len(), all[&name(0)]), (fits, 2));

            (0..=fits).for_each(|n| hints.add(&name(n), 1));
            hints.add("more", 1);
            assert!(!hints.is_empty());
            assert_eq!(taken(&mut hints), None);
            hints.add("later", 1);
            assert_eq!(taken(&mut hints), Some(BTreeMap::from([("later".to_owned(), 1)])));
        }
    }

    #[test]
    fn after_a_start_it_may_be_anything() {
        let mut hints = Hints::new();
        hints.add("a", 1);
        hints.add_all();
        hints.add("b", 1);
        assert!(!hints.is_empty());
        assert_eq!(taken(&mut hints), None);
    }
}
