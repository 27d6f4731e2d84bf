//! A small world of scopes, exhausted: a record that puts, deletes and patches move, in every
//! order of arrival, and every reader of it.
//!
//! A reader follows some scopes, and has what is right at some version. It reads a page of the
//! log as that was at some time, up to some version, and the rest at the end, after GC has come
//! to some version; each in full or the latest only. Unless it is below the horizon, it then
//! has the record if that is inside, and otherwise not.

use super::merge::{RecordState, apply, turn};
use super::model::{delete, op, patch};
use super::op::{Op, Operation, Version};
use super::retention::{Candidate, PurgedKind, horizon_without, purge};
use super::scope::{ScopeField, Told, is_latest, scope_after, told};

const SCOPES: [&str; 3] = ["", "a", "b"];

/// An op, and the scope that its payload names.
type Written = (Op<'static>, Option<&'static str>);

fn pool() -> Vec<Written> {
    let put = op(1, "r", 1);
    vec![
        (patch(4, &put, 4, &["x"]), Some("a")),
        (patch(5, &put, 5, &["x", "y"]), Some("b")),
        (put, Some("a")),
        (delete(2, "r", 2), None),
        (op(6, "r", 6), Some("b")),
        (delete(7, "r", 7), None),
        (op(8, "r", 8), None),
    ]
}

struct Entry {
    version: i64,
    operation: Operation,
    applied: bool,
    supersedes: Option<Version>,
    scope: Option<Box<str>>,
    left: Option<Box<str>>,
}

/// Log and record after each op.
struct World {
    log: Vec<Entry>,
    records: Vec<Option<RecordState<'static>>>,
}

impl World {
    fn of(order: &[&Written]) -> World {
        let mut world = World { log: Vec::new(), records: vec![None] };
        let mut record = None;
        for (op, scope) in order {
            // An op whose base is missing is not stored.
            let Ok(turn) = turn(op, record.as_ref()) else { continue };
            let said = scope.map_or(ScopeField::Absent, |scope| ScopeField::Named(scope.into()));
            let scope = scope_after(record.as_ref(), op, &turn, Some("x"), &said);
            let version = world.records.len() as i64;
            let decision = apply(&mut record, op, &turn, None, scope, Version::stored(version));
            world.log.push(Entry {
                version,
                operation: op.operation,
                applied: decision.applied,
                supersedes: decision.supersedes,
                left: decision.left_scope().map(Into::into),
                scope: decision.scope,
            });
            world.records.push(record.clone());
        }
        world
    }

    fn head(&self) -> usize {
        self.log.len()
    }

    /// What a reader of these scopes has to have at a version: the record's newest entry.
    fn right(&self, at: usize, list: u32) -> Option<i64> {
        let record = self.records[at].as_ref()?;
        let is_there = !record.deleted && contains(list, &record.scope);
        is_there.then_some(record.version.get())
    }

    /// What GC leaves when it has read so far, and the horizon.
    fn collected(&self, through: usize) -> (Vec<&Entry>, i64) {
        let (mut gone, mut horizon) = (Vec::new(), Version::ZERO);
        let newest = self.records[self.head()].as_ref().map(|record| record.version.get());
        for entry in &self.log[..through] {
            let Entry { operation, applied, supersedes, version, .. } = *entry;
            let candidate = Candidate { operation, applied, supersedes };
            let purged = purge(&candidate, newest == Some(version));
            if let Some(superseded) = purged.superseded {
                let left = self.log[superseded.get() as usize - 1].left.is_some();
                gone.push(superseded.get());
                horizon = horizon_without(horizon, superseded, left);
            }
            match purged.itself {
                None => {}
                Some(PurgedKind::Loser) => gone.push(version),
                Some(PurgedKind::Tombstone) => {
                    gone.push(version);
                    horizon = Version::stored(version);
                }
            }
        }
        (self.log.iter().filter(|entry| !gone.contains(&entry.version)).collect(), horizon.get())
    }

    /// Reads these entries of the log as it is at a time.
    fn read<'e>(
        &self,
        mut has: Option<i64>,
        entries: impl Iterator<Item = &'e Entry>,
        at: usize,
        (list, latest): (u32, bool),
    ) -> Option<i64> {
        let Some(record) = &self.records[at] else { return has };
        for entry in entries.filter(|entry| entry.applied) {
            let told = told(contains(list, &entry.scope), contains(list, &entry.left));
            let (is_newest, is_inside) =
                (record.version.get() == entry.version, contains(list, &record.scope));
            let told = told.filter(|told| !latest || is_latest(*told, is_newest, is_inside));
            if let Some(told) = told {
                let is_live = told == Told::Op && entry.operation != Operation::Delete;
                has = is_live.then_some(entry.version);
            }
        }
        has
    }

    /// All readers that read a page at `at`; returns how many there were, and how many of them
    /// were below the horizon.
    fn check(&self, at: usize) -> (u64, u64) {
        let (mut readers, mut expired) = (0, 0);
        let choices =
            (0..1 << SCOPES.len()).flat_map(|list| (0..4).map(move |modes| (list, modes)));
        for (list, modes) in choices {
            for from in 0..=at {
                for to in from..=at {
                    let page = self.log[from..to].iter();
                    let has = self.right(from, list);
                    let has = self.read(has, page, at, (list, modes & 1 == 1));
                    for through in 0..self.head() {
                        let (left, horizon) = self.collected(through);
                        readers += 1;
                        if (to as i64) < horizon {
                            expired += 1;
                            continue;
                        }
                        let rest = left.into_iter().filter(|entry| entry.version > to as i64);
                        let has = self.read(has, rest, self.head(), (list, modes & 2 == 2));
                        let right = self.right(self.head(), list);
                        assert_eq!(has, right, "list {list}, {from}..{to} of {at}, gc {through}");
                    }
                }
            }
        }
        (readers, expired)
    }
}

fn contains(list: u32, scope: &Option<Box<str>>) -> bool {
    let place = SCOPES.iter().position(|known| scope.as_deref() == Some(known));
    place.is_some_and(|place| list >> place & 1 == 1)
}

/// Calls `visit` with every sequence of so many of the ops.
fn sequences<'o>(
    pool: &'o [Written],
    count: usize,
    so_far: &mut Vec<&'o Written>,
    visit: &mut dyn FnMut(&[&'o Written]),
) {
    if so_far.len() == count {
        return visit(so_far);
    }
    for written in pool {
        if !so_far.iter().any(|(op, _)| op.revision == written.0.revision) {
            so_far.push(written);
            sequences(pool, count, so_far, visit);
            so_far.pop();
        }
    }
}

#[test]
fn every_reader_of_a_small_world_of_scopes_has_what_is_inside() {
    let size = std::env::var("SYNC_EXT_SMALL_WORLD").map_or(2, |size| size.parse().unwrap());
    let pool = pool();
    let (mut readers, mut expired) = (0, 0);
    for count in 1..=2 + size {
        sequences(&pool, count, &mut Vec::new(), &mut |order| {
            let world = World::of(order);
            for at in 0..=world.head() {
                let (some, too_late) = world.check(at);
                (readers, expired) = (readers + some, expired + too_late);
            }
        });
    }
    println!("{readers} readers, {expired} of them below the horizon");
    assert!(EXPECTED.contains(&(size, readers, expired)), "not all of them");
}

/// Readers by the size, so that none gets lost unnoticed.
const EXPECTED: [(usize, u64, u64); 3] =
    [(1, 342_400, 13_056), (2, 3_440_000, 124_512), (3, 22_486_400, 727_968)];
