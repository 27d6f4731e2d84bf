//! Whether the server still has the history that a device has seen.

use uuid::Uuid;

use super::op::{Timestamp, Version};

/// Identifies the history that a device has read: the head, and a digest of the entry
/// there. A server that was restored, cloned or failed over with loss has another entry
/// at that version, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proof {
    pub head: Version,
    pub digest: Uuid,
}

impl Proof {
    /// The digest is a version 5 UUID (SHA-1, RFC 9562) in the namespace of the opId.
    /// It includes the time, because after a restore the same op can be logged again at
    /// the same version.
    pub fn of(workspace_id: &str, head: Version, op_id: Uuid, created_at: Timestamp) -> Proof {
        let mut name = created_at.to_be_bytes().to_vec();
        name.extend_from_slice(workspace_id.as_bytes());
        Proof { head, digest: Uuid::new_v5(&op_id, &name) }
    }
}

/// The scopes that a reader follows, and what they meant when it read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Following {
    /// A digest of the list.
    pub list: Uuid,
    /// Of the workspace.
    pub epoch: i64,
}

/// What the log contains at the version of a proof.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProofEntry {
    Same,
    Other,
    Missing,
}

/// The counters of a workspace; all zero for one that does not exist.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    pub head: Version,
    pub horizon: Version,
    pub gc_through: Version,
}

impl Progress {
    /// The lowest version from which the log has all changes.
    pub fn oldest_retained(self) -> i64 {
        self.horizon.get().saturating_add(1)
    }

    /// The version that GC reads next.
    pub fn next_unread(self) -> i64 {
        self.gc_through.get().saturating_add(1)
    }

    /// Whether there is an entry that GC may read; it never reads the one at the head.
    pub fn has_unread(self) -> bool {
        self.next_unread() < self.head.get()
    }
}

/// The position of a puller.
#[derive(Clone, Copy, Debug)]
pub struct Position {
    pub cursor: Version,
    /// The version of its proof, and what the log contains there.
    pub proof: Option<(Version, ProofEntry)>,
    /// Its proof is of other scopes than it asks for.
    pub has_other_scopes: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    UnknownWorkspace,
    HistoryDiverged,
    CursorAhead,
    CursorExpired,
    ScopesChanged,
}

impl Reason {
    pub const fn as_str(self) -> &'static str {
        match self {
            Reason::UnknownWorkspace => "unknown_workspace",
            Reason::HistoryDiverged => "history_diverged",
            Reason::CursorAhead => "cursor_ahead",
            Reason::CursorExpired => "cursor_expired",
            Reason::ScopesChanged => "scopes_changed",
        }
    }
}

/// How a pull is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Serve,
    /// A standby has not replayed what the puller has seen elsewhere.
    Lag,
    Snapshot(Reason),
}

/// The checks in the order of the contract. `progress` is `None` for an unknown
/// workspace. Lag comes before all reasons, because a standby cannot distinguish lost
/// history from history that it has not received yet.
pub fn judge(progress: Option<Progress>, position: Position, on_standby: bool) -> Verdict {
    let Progress { head, horizon, gc_through } = progress.unwrap_or_default();
    let proof_version = position.proof.map_or(Version::ZERO, |(version, _)| version);
    if on_standby && (progress.is_none() || position.cursor > head || proof_version > head) {
        return Verdict::Lag;
    }
    if progress.is_none() && (position.cursor > Version::ZERO || position.proof.is_some()) {
        return Verdict::Snapshot(Reason::UnknownWorkspace);
    }
    let mut purged = false;
    match position.proof {
        Some((_, ProofEntry::Other)) => return Verdict::Snapshot(Reason::HistoryDiverged),
        // GC never deletes an entry that it has not read. So beyond gc_through a
        // missing entry was lost, not purged; also one above the head.
        Some((version, ProofEntry::Missing)) if version > gc_through => {
            return Verdict::Snapshot(Reason::HistoryDiverged);
        }
        Some((_, ProofEntry::Missing)) => purged = true,
        Some((_, ProofEntry::Same)) | None => {}
    }
    if position.cursor > head {
        return Verdict::Snapshot(Reason::CursorAhead);
    }
    if purged || position.cursor < horizon {
        return Verdict::Snapshot(Reason::CursorExpired);
    }
    if position.has_other_scopes {
        return Verdict::Snapshot(Reason::ScopesChanged);
    }
    Verdict::Serve
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(head: i64, horizon: i64, gc_through: i64) -> Option<Progress> {
        Some(Progress {
            head: Version::stored(head),
            horizon: Version::stored(horizon),
            gc_through: Version::stored(gc_through),
        })
    }

    fn position(cursor: i64, proof: Option<(i64, ProofEntry)>) -> Position {
        Position {
            cursor: Version::stored(cursor),
            proof: proof.map(|(version, entry)| (Version::stored(version), entry)),
            has_other_scopes: false,
        }
    }

    #[test]
    fn the_reasons_come_in_the_order_of_the_contract() {
        use ProofEntry::*;
        use Reason::*;
        let cases = [
            (None, position(0, None), Verdict::Serve),
            (None, position(1, None), Verdict::Snapshot(UnknownWorkspace)),
            (None, position(0, Some((3, Missing))), Verdict::Snapshot(UnknownWorkspace)),
            (at(9, 4, 6), position(9, Some((9, Same))), Verdict::Serve),
            (at(9, 4, 6), position(4, None), Verdict::Serve),
            (at(9, 4, 6), position(3, None), Verdict::Snapshot(CursorExpired)),
            (at(9, 4, 6), position(0, None), Verdict::Snapshot(CursorExpired)),
            (at(9, 4, 6), position(10, None), Verdict::Snapshot(CursorAhead)),
            (at(9, 4, 6), position(10, Some((5, Missing))), Verdict::Snapshot(CursorAhead)),
            (at(9, 4, 6), position(10, Some((9, Other))), Verdict::Snapshot(HistoryDiverged)),
            (at(9, 4, 6), position(3, Some((9, Other))), Verdict::Snapshot(HistoryDiverged)),
            (at(9, 4, 6), position(6, Some((7, Missing))), Verdict::Snapshot(HistoryDiverged)),
            (at(9, 4, 6), position(6, Some((10, Missing))), Verdict::Snapshot(HistoryDiverged)),
            (at(9, 4, 6), position(6, Some((6, Missing))), Verdict::Snapshot(CursorExpired)),
            (at(9, 0, 0), position(0, None), Verdict::Serve),
        ];
        for (progress, position, expected) in cases {
            assert_eq!(judge(progress, position, false), expected, "{progress:?} {position:?}");
        }
    }

    #[test]
    fn other_scopes_are_the_last_reason() {
        use ProofEntry::*;
        use Reason::*;
        for (position, expected) in [
            (position(9, Some((9, Same))), ScopesChanged),
            (position(4, Some((9, Same))), ScopesChanged),
            (position(3, Some((9, Same))), CursorExpired),
            (position(10, Some((9, Same))), CursorAhead),
            (position(9, Some((9, Other))), HistoryDiverged),
        ] {
            let position = Position { has_other_scopes: true, ..position };
            assert_eq!(judge(at(9, 4, 6), position, false), Verdict::Snapshot(expected));
        }
        let position = Position { has_other_scopes: true, ..position(10, Some((10, Missing))) };
        assert_eq!(judge(at(9, 4, 6), position, true), Verdict::Lag);
    }

    #[test]
    fn on_a_standby_what_is_ahead_is_lag_before_any_reason() {
        use ProofEntry::*;
        for (progress, position) in [
            (None, position(0, None)),
            (None, position(5, Some((5, Missing)))),
            (at(9, 4, 6), position(10, None)),
            (at(9, 4, 6), position(3, Some((10, Missing)))),
        ] {
            assert_eq!(judge(progress, position, true), Verdict::Lag, "{progress:?} {position:?}");
        }
        assert_eq!(
            judge(at(9, 4, 6), position(9, Some((9, Other))), true),
            Verdict::Snapshot(Reason::HistoryDiverged)
        );
    }

    #[test]
    fn a_proof_depends_on_workspace_version_op_and_time() {
        let proof = Proof::of("w", Version::stored(5), Uuid::from_u128(1), 100);
        assert_eq!(proof, Proof::of("w", Version::stored(5), Uuid::from_u128(1), 100));
        assert_ne!(proof.digest, Proof::of("v", proof.head, Uuid::from_u128(1), 100).digest);
        assert_ne!(proof.digest, Proof::of("w", proof.head, Uuid::from_u128(2), 100).digest);
        assert_ne!(proof.digest, Proof::of("w", proof.head, Uuid::from_u128(1), 101).digest);
    }
}
