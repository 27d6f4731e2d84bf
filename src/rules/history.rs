//! Has the server still the history that a device has seen?

use uuid::Uuid;

use super::op::{Timestamp, Version};

/// What a device keeps of the history that it read: the head, and a digest of
/// the entry there. A server that was restored, cloned or failed over with
/// loss has another entry at that version, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proof {
    pub head: Version,
    pub digest: Uuid,
}

impl Proof {
    /// The digest is a version 5 UUID (SHA-1, RFC 9562) in the namespace of
    /// the opId: the same op sent again after a restore was logged at another
    /// time, so it proves another history.
    pub fn of(workspace_id: &str, head: Version, op_id: Uuid, created_at: Timestamp) -> Proof {
        let mut name = created_at.to_be_bytes().to_vec();
        name.extend_from_slice(workspace_id.as_bytes());
        Proof { head, digest: Uuid::new_v5(&op_id, &name) }
    }
}

/// What the log holds where a proof points.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProofEntry {
    Same,
    Other,
    Missing,
}

/// How far a workspace has come; all zero for one that does not exist.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    pub head: Version,
    pub horizon: Version,
    pub gc_through: Version,
}

/// Where a puller stands.
#[derive(Clone, Copy, Debug)]
pub struct Claim {
    pub cursor: Version,
    /// The version its proof points at and what the log holds there.
    pub proof: Option<(Version, ProofEntry)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    UnknownWorkspace,
    HistoryDiverged,
    CursorAhead,
    CursorExpired,
}

impl Reason {
    pub const fn as_str(self) -> &'static str {
        match self {
            Reason::UnknownWorkspace => "unknown_workspace",
            Reason::HistoryDiverged => "history_diverged",
            Reason::CursorAhead => "cursor_ahead",
            Reason::CursorExpired => "cursor_expired",
        }
    }
}

/// What a pull may answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Serve,
    /// A standby that has not replayed what the puller has seen elsewhere.
    Lag,
    Snapshot(Reason),
}

/// The contract's checks in their order. `progress` is `None` for an unknown
/// workspace. Lag goes before all reasons: a standby cannot tell lost history
/// from history that it has yet to receive.
pub fn judge(progress: Option<Progress>, claim: Claim, on_standby: bool) -> Verdict {
    let Progress { head, horizon, gc_through } = progress.unwrap_or_default();
    let proof_version = claim.proof.map_or(Version::ZERO, |(version, _)| version);
    if on_standby && (progress.is_none() || claim.cursor > head || proof_version > head) {
        return Verdict::Lag;
    }
    if progress.is_none() && (claim.cursor > Version::ZERO || claim.proof.is_some()) {
        return Verdict::Snapshot(Reason::UnknownWorkspace);
    }
    let mut purged = false;
    match claim.proof {
        Some((_, ProofEntry::Other)) => return Verdict::Snapshot(Reason::HistoryDiverged),
        // GC never takes an entry that it has not read: beyond gc_through a
        // missing entry, one above head included, was lost, not purged.
        Some((version, ProofEntry::Missing)) if version > gc_through => {
            return Verdict::Snapshot(Reason::HistoryDiverged);
        }
        Some((_, ProofEntry::Missing)) => purged = true,
        Some((_, ProofEntry::Same)) | None => {}
    }
    if claim.cursor > head {
        return Verdict::Snapshot(Reason::CursorAhead);
    }
    if purged || claim.cursor < horizon {
        return Verdict::Snapshot(Reason::CursorExpired);
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

    fn claim(cursor: i64, proof: Option<(i64, ProofEntry)>) -> Claim {
        Claim {
            cursor: Version::stored(cursor),
            proof: proof.map(|(version, entry)| (Version::stored(version), entry)),
        }
    }

    #[test]
    fn the_reasons_come_in_the_order_of_the_contract() {
        use ProofEntry::*;
        use Reason::*;
        let cases = [
            (None, claim(0, None), Verdict::Serve),
            (None, claim(1, None), Verdict::Snapshot(UnknownWorkspace)),
            (None, claim(0, Some((3, Missing))), Verdict::Snapshot(UnknownWorkspace)),
            (at(9, 4, 6), claim(9, Some((9, Same))), Verdict::Serve),
            (at(9, 4, 6), claim(4, None), Verdict::Serve),
            (at(9, 4, 6), claim(3, None), Verdict::Snapshot(CursorExpired)),
            (at(9, 4, 6), claim(0, None), Verdict::Snapshot(CursorExpired)),
            (at(9, 4, 6), claim(10, None), Verdict::Snapshot(CursorAhead)),
            (at(9, 4, 6), claim(10, Some((5, Missing))), Verdict::Snapshot(CursorAhead)),
            (at(9, 4, 6), claim(10, Some((9, Other))), Verdict::Snapshot(HistoryDiverged)),
            (at(9, 4, 6), claim(3, Some((9, Other))), Verdict::Snapshot(HistoryDiverged)),
            (at(9, 4, 6), claim(6, Some((7, Missing))), Verdict::Snapshot(HistoryDiverged)),
            (at(9, 4, 6), claim(6, Some((10, Missing))), Verdict::Snapshot(HistoryDiverged)),
            (at(9, 4, 6), claim(6, Some((6, Missing))), Verdict::Snapshot(CursorExpired)),
            (at(9, 0, 0), claim(0, None), Verdict::Serve),
        ];
        for (progress, claim, expected) in cases {
            assert_eq!(judge(progress, claim, false), expected, "{progress:?} {claim:?}");
        }
    }

    #[test]
    fn on_a_standby_what_is_ahead_is_lag_before_any_reason() {
        use ProofEntry::*;
        for (progress, claim) in [
            (None, claim(0, None)),
            (None, claim(5, Some((5, Missing)))),
            (at(9, 4, 6), claim(10, None)),
            (at(9, 4, 6), claim(3, Some((10, Missing)))),
        ] {
            assert_eq!(judge(progress, claim, true), Verdict::Lag, "{progress:?} {claim:?}");
        }
        assert_eq!(
            judge(at(9, 4, 6), claim(9, Some((9, Other))), true),
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
