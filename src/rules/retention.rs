//! How far GC may read the log, and what it purges of what it has read.

use super::history::Progress;
use super::op::{Operation, Timestamp, Version};

/// The clock and the spans of one GC call, in microseconds.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    pub now: Timestamp,
    pub retention: i64,
    pub device_ttl: i64,
}

/// A device's acknowledged version and its last heartbeat.
#[derive(Clone, Copy, Debug)]
pub struct Heartbeat {
    pub cursor: Version,
    pub at: Timestamp,
}

impl Clock {
    /// Young entries stay. A clock that was set back makes entries look
    /// younger, so GC waits; one set forward makes devices snapshot.
    pub fn is_young(&self, created_at: Timestamp) -> bool {
        created_at > self.now.saturating_sub(self.retention)
    }

    /// Only an active device holds GC back. One below the horizon must
    /// snapshot whatever GC does, so it holds back nothing.
    pub fn is_active(&self, device: Heartbeat, horizon: Version) -> bool {
        device.at > self.now.saturating_sub(self.device_ttl) && device.cursor >= horizon
    }

    pub fn is_forgotten(&self, heartbeat: Timestamp) -> bool {
        heartbeat <= self.now.saturating_sub(self.device_ttl.saturating_mul(2))
    }
}

/// The last version that GC may read, but for the age of the entries: neither
/// the head nor an active device's cursor, whose entries proofs need, nor
/// anything after them.
pub fn ceiling(
    progress: Progress,
    clock: &Clock,
    devices: impl IntoIterator<Item = Heartbeat>,
) -> Version {
    let lowest = devices
        .into_iter()
        .filter(|device| clock.is_active(*device, progress.horizon))
        .map(|device| device.cursor)
        .fold(progress.head, Version::min);
    Version::new(lowest.get() - 1).unwrap_or(Version::ZERO)
}

/// An entry that GC reads for the first and only time.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    pub operation: Operation,
    pub applied: bool,
    pub supersedes: Option<Version>,
}

impl Entry {
    /// Does it depend on the record's winner what becomes of this entry?
    pub fn may_be_tombstone(&self) -> bool {
        self.applied && self.operation == Operation::Delete
    }
}

/// What goes when an entry has been read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Purge {
    pub superseded: Option<Version>,
    pub itself: Option<PurgedKind>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PurgedKind {
    Loser,
    /// The record row stays as a grave and the horizon rises to the entry.
    Tombstone,
}

/// `is_winner` counts only for a delete that won at its turn. A put that won
/// stays until an entry that supersedes it is read; so a live record never
/// loses its payload.
pub fn purge(entry: &Entry, is_winner: bool) -> Purge {
    let itself = match (entry.applied, entry.operation) {
        (false, _) => Some(PurgedKind::Loser),
        (true, Operation::Delete) => is_winner.then_some(PurgedKind::Tombstone),
        (true, Operation::Put) => None,
    };
    Purge { superseded: entry.supersedes, itself }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600_000_000;
    const CLOCK: Clock = Clock { now: 1000 * HOUR, retention: 10 * HOUR, device_ttl: 100 * HOUR };

    fn progress(head: i64, horizon: i64) -> Progress {
        Progress {
            head: Version::stored(head),
            horizon: Version::stored(horizon),
            gc_through: Version::ZERO,
        }
    }

    fn device(cursor: i64, hours_ago: i64) -> Heartbeat {
        Heartbeat { cursor: Version::stored(cursor), at: CLOCK.now - hours_ago * HOUR }
    }

    #[test]
    fn the_entry_at_head_stays() {
        assert_eq!(ceiling(progress(7, 0), &CLOCK, []).get(), 6);
        assert_eq!(ceiling(progress(0, 0), &CLOCK, []).get(), 0);
    }

    #[test]
    fn the_lowest_active_cursor_and_what_follows_stays() {
        let devices = [device(5, 1), device(3, 99), device(7, 1)];
        assert_eq!(ceiling(progress(7, 0), &CLOCK, devices).get(), 2);
        assert_eq!(ceiling(progress(7, 0), &CLOCK, [device(0, 1)]).get(), 0);
    }

    #[test]
    fn silent_devices_and_those_below_the_horizon_hold_back_nothing() {
        let devices = [device(4, 100), device(2, 1), device(6, 1)];
        assert_eq!(ceiling(progress(9, 3), &CLOCK, devices).get(), 5);
    }

    #[test]
    fn ages_end_exactly_at_their_span() {
        assert!(!CLOCK.is_young(CLOCK.now - 10 * HOUR));
        assert!(CLOCK.is_young(CLOCK.now - 10 * HOUR + 1));
        assert!(CLOCK.is_forgotten(CLOCK.now - 200 * HOUR));
        assert!(!CLOCK.is_forgotten(CLOCK.now - 200 * HOUR + 1));
    }

    #[test]
    fn spans_longer_than_time_itself_keep_everything() {
        let clock = Clock { retention: i64::MAX, device_ttl: i64::MAX, ..CLOCK };
        assert!(clock.is_young(-CLOCK.now));
        assert!(!clock.is_forgotten(-CLOCK.now));
    }

    #[test]
    fn winners_of_live_records_are_never_purged() {
        let entry = Entry {
            operation: Operation::Put,
            applied: true,
            supersedes: Some(Version::stored(2)),
        };
        let purged = purge(&entry, true);
        assert_eq!(purged, Purge { superseded: Some(Version::stored(2)), itself: None });
    }

    #[test]
    fn only_of_a_delete_that_won_the_winner_is_asked() {
        let may_be =
            |operation, applied| Entry { operation, applied, supersedes: None }.may_be_tombstone();
        assert!(may_be(Operation::Delete, true));
        assert!(!may_be(Operation::Delete, false));
        assert!(!may_be(Operation::Put, true));
        assert!(!may_be(Operation::Put, false));
    }

    #[test]
    fn a_tombstone_goes_only_while_it_is_the_winner() {
        let entry = Entry { operation: Operation::Delete, applied: true, supersedes: None };
        assert_eq!(purge(&entry, true).itself, Some(PurgedKind::Tombstone));
        assert_eq!(purge(&entry, false).itself, None);
        let loser = Entry { applied: false, ..entry };
        let purged = purge(&loser, false);
        assert_eq!(purged.itself, Some(PurgedKind::Loser));
    }
}
