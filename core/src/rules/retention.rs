//! How far GC may read the log, and which entries it then purges.

use super::history::Progress;
use super::op::{Operation, Timestamp, Version};

/// The time limits of one GC call, in microseconds.
#[derive(Clone, Copy, Debug)]
pub struct Deadlines {
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

impl Deadlines {
    /// Entries up to then are old.
    pub fn old(&self) -> Timestamp {
        self.now.saturating_sub(self.retention)
    }

    /// Devices with a heartbeat up to then are silent.
    pub fn silent(&self) -> Timestamp {
        self.now.saturating_sub(self.device_ttl)
    }

    /// Devices with a heartbeat up to then are forgotten.
    pub fn forgotten(&self) -> Timestamp {
        self.now.saturating_sub(self.device_ttl.saturating_mul(2))
    }

    /// Young entries stay. If the clock was set back, entries look younger and GC
    /// waits; if it was set forward, devices may need a snapshot.
    pub fn is_young(&self, created_at: Timestamp) -> bool {
        created_at > self.old()
    }

    /// Only an active device holds GC back. A device below the horizon needs a snapshot
    /// in any case, so it does not.
    pub fn is_active(&self, device: Heartbeat, horizon: Version) -> bool {
        device.at > self.silent() && device.cursor >= horizon
    }

    /// Whether a device keeps GC from reading further.
    pub fn pins(&self, device: Heartbeat, progress: Progress) -> bool {
        self.is_active(device, progress.horizon) && device.cursor.get() <= progress.next_unread()
    }

    pub fn is_forgotten(&self, heartbeat: Timestamp) -> bool {
        heartbeat <= self.forgotten()
    }
}

/// The last version that GC may read, apart from the age of entries. It is below the
/// head and below the cursor of every active device, because proofs need the entries
/// there.
pub fn ceiling(
    progress: Progress,
    deadlines: &Deadlines,
    devices: impl IntoIterator<Item = Heartbeat>,
) -> Version {
    let lowest = devices
        .into_iter()
        .filter(|device| deadlines.is_active(*device, progress.horizon))
        .map(|device| device.cursor)
        .fold(progress.head, Version::min);
    Version::new(lowest.get() - 1).unwrap_or(Version::ZERO)
}

/// An entry that GC reads for the first and only time.
#[derive(Clone, Copy, Debug)]
pub struct Candidate {
    pub operation: Operation,
    pub applied: bool,
    pub supersedes: Option<Version>,
}

impl Candidate {
    /// Whether the decision depends on the record's winner.
    pub fn may_be_tombstone(&self) -> bool {
        self.applied && self.operation == Operation::Delete
    }
}

/// What to delete after an entry was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Purge {
    pub superseded: Option<Version>,
    pub itself: Option<PurgedKind>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PurgedKind {
    Loser,
    /// The row of the record stays as a grave, and the horizon rises to the entry.
    Tombstone,
}

/// `is_winner` matters only for a delete that won at its turn. A put or patch that won
/// stays until the entry that supersedes it is read, so a live record never loses its
/// payload.
pub fn purge(candidate: &Candidate, is_winner: bool) -> Purge {
    let itself = match (candidate.applied, candidate.operation) {
        (false, _) => Some(PurgedKind::Loser),
        (true, Operation::Delete) => is_winner.then_some(PurgedKind::Tombstone),
        (true, Operation::Put | Operation::Patch) => None,
    };
    Purge { superseded: candidate.supersedes, itself }
}

/// The horizon once a superseded entry is purged. If its record had left a scope with it, who
/// follows that scope and has not read so far would keep the record.
pub fn horizon_without(horizon: Version, superseded: Version, left_scope: bool) -> Version {
    if left_scope { horizon.max(superseded) } else { horizon }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600_000_000;
    const DEADLINES: Deadlines =
        Deadlines { now: 1000 * HOUR, retention: 10 * HOUR, device_ttl: 100 * HOUR };

    fn progress(head: i64, horizon: i64) -> Progress {
        Progress {
            head: Version::stored(head),
            horizon: Version::stored(horizon),
            gc_through: Version::ZERO,
        }
    }

    fn device(cursor: i64, hours_ago: i64) -> Heartbeat {
        Heartbeat { cursor: Version::stored(cursor), at: DEADLINES.now - hours_ago * HOUR }
    }

    #[test]
    fn the_entry_at_head_stays() {
        assert_eq!(ceiling(progress(7, 0), &DEADLINES, []).get(), 6);
        assert_eq!(ceiling(progress(0, 0), &DEADLINES, []).get(), 0);
    }

    #[test]
    fn the_lowest_active_cursor_and_what_follows_stays() {
        let devices = [device(5, 1), device(3, 99), device(7, 1)];
        assert_eq!(ceiling(progress(7, 0), &DEADLINES, devices).get(), 2);
        assert_eq!(ceiling(progress(7, 0), &DEADLINES, [device(0, 1)]).get(), 0);
    }

    #[test]
    fn silent_devices_and_those_below_the_horizon_hold_back_nothing() {
        let devices = [device(4, 100), device(2, 1), device(6, 1)];
        assert_eq!(ceiling(progress(9, 3), &DEADLINES, devices).get(), 5);
    }

    #[test]
    fn ages_end_exactly_at_their_span() {
        assert!(!DEADLINES.is_young(DEADLINES.now - 10 * HOUR));
        assert!(DEADLINES.is_young(DEADLINES.now - 10 * HOUR + 1));
        assert!(DEADLINES.is_forgotten(DEADLINES.now - 200 * HOUR));
        assert!(!DEADLINES.is_forgotten(DEADLINES.now - 200 * HOUR + 1));
    }

    #[test]
    fn spans_longer_than_time_itself_keep_everything() {
        let deadlines = Deadlines { retention: i64::MAX, device_ttl: i64::MAX, ..DEADLINES };
        assert!(deadlines.is_young(-DEADLINES.now));
        assert!(!deadlines.is_forgotten(-DEADLINES.now));
    }

    #[test]
    fn winners_of_live_records_are_never_purged() {
        let candidate = Candidate {
            operation: Operation::Put,
            applied: true,
            supersedes: Some(Version::stored(2)),
        };
        let purged = purge(&candidate, true);
        assert_eq!(purged, Purge { superseded: Some(Version::stored(2)), itself: None });
    }

    #[test]
    fn only_of_a_delete_that_won_the_winner_is_asked() {
        let may_be = |operation, applied| {
            Candidate { operation, applied, supersedes: None }.may_be_tombstone()
        };
        assert!(may_be(Operation::Delete, true));
        assert!(!may_be(Operation::Delete, false));
        assert!(!may_be(Operation::Put, true));
        assert!(!may_be(Operation::Put, false));
    }

    #[test]
    fn a_tombstone_goes_only_while_it_is_the_winner() {
        let candidate = Candidate { operation: Operation::Delete, applied: true, supersedes: None };
        assert_eq!(purge(&candidate, true).itself, Some(PurgedKind::Tombstone));
        assert_eq!(purge(&candidate, false).itself, None);
        let loser = Candidate { applied: false, ..candidate };
        let purged = purge(&loser, false);
        assert_eq!(purged.itself, Some(PurgedKind::Loser));
    }
}
