//! The reply to a push. Payloads are returned byte for byte as they were received.

use std::fmt::Write;

use uuid::Uuid;

use super::reply::Reply;
use super::revision::write_revision;
use super::text::{longest_string, write_string, write_uuid};
use crate::error::SyncError;
use crate::rules::op::{Revision, Timestamp, Version};
use crate::rules::refusal::{Refusal, RefusalCode, RowRefusal};

/// A record at the end of a push, for devices whose op lost to it or was refused
/// because of it.
#[derive(Clone, Debug)]
pub enum Winner<'a> {
    Put {
        version: Version,
        revision: Revision<'a>,
        /// `None` if it was sent before, or would make the reply too large.
        payload: Option<&'a str>,
        /// Who holds which field, as JSON; sent along with the payload.
        fields: Option<&'a str>,
    },
    /// `deleted_at` is `None` for a grave.
    Delete { version: Version, revision: Revision<'a>, deleted_at: Option<Timestamp> },
}

impl Winner<'_> {
    fn longest(&self) -> usize {
        let (revision, texts) = match self {
            Winner::Put { revision, payload, fields, .. } => (revision, [*payload, *fields]),
            Winner::Delete { revision, .. } => (revision, [None, None]),
        };
        ROOM + longest_string(&revision.hlc)
            + texts.into_iter().flatten().map(str::len).sum::<usize>()
    }
}

/// The result of a stored op.
#[derive(Clone, Copy, Debug)]
pub struct Stored<'a> {
    pub version: Version,
    pub applied: bool,
    pub replayed: bool,
    pub created: bool,
    pub overwrote: Option<Uuid>,
    /// The fields that an applied patch did not win, or does not hold any more.
    pub lost: &'a [&'a str],
    /// The record, where it is not what the op says: the row made it so.
    pub payload: Option<&'a str>,
}

/// For the parts of bounded length: names of keys, numbers, UUIDs, the fixed text of a
/// refusal.
const ROOM: usize = 2048;

/// Builds `{"results":[...],"serverVersion":head}`, one item at a time.
pub struct PushReply {
    out: Reply,
    items: usize,
    pub tally: PushTally,
}

/// Counts the results.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PushTally {
    pub applied: usize,
    pub lost: usize,
    pub replayed: usize,
    pub invalid: usize,
    pub oversized: usize,
    pub conflicting: usize,
    pub unauthorized: usize,
    pub without_base: usize,
    pub record_conflicts: usize,
    pub field_conflicts: usize,
    pub constraints: usize,
    pub rejected: usize,
    pub read_only: usize,
}

impl PushReply {
    pub fn begin() -> PushReply {
        let mut out = Reply::empty();
        out.push_str("{\"results\":[");
        PushReply { out, items: 0, tally: PushTally::default() }
    }

    /// One item, without the array around it.
    pub fn begin_single() -> PushReply {
        PushReply { out: Reply::empty(), items: 0, tally: PushTally::default() }
    }

    pub fn finish_single(self) -> Reply {
        self.out
    }

    /// `winner` is sent if the op is not (or no longer) the winner.
    pub fn stored(
        &mut self,
        op_id: Option<&str>,
        stored: Stored<'_>,
        winner: Option<&Winner<'_>>,
    ) -> Result<(), SyncError> {
        let Stored { version, applied, replayed, created, overwrote, lost, payload } = stored;
        *match (replayed, applied) {
            (true, _) => &mut self.tally.replayed,
            (false, true) => &mut self.tally.applied,
            (false, false) => &mut self.tally.lost,
        } += 1;
        let lost_bytes: usize = lost.iter().map(|name| longest_string(name) + 1).sum();
        let payload_bytes = payload.map_or(0, str::len);
        self.begin_item(op_id, winner.map_or(0, Winner::longest) + lost_bytes + payload_bytes)?;
        let out = &mut self.out;
        let _ = write!(
            out,
            ",\"success\":true,\"serverVersion\":{},\"applied\":{applied}",
            version.get()
        );
        if created {
            out.push_str(",\"created\":true");
        }
        if replayed {
            out.push_str(",\"replayed\":true");
        }
        write_overwrote(out, overwrote);
        for (place, name) in lost.iter().enumerate() {
            out.push_str(if place == 0 { ",\"lost\":[" } else { "," });
            write_string(out, name);
        }
        if !lost.is_empty() {
            out.push(']');
        }
        if let Some(payload) = payload {
            let _ = write!(out, ",\"payload\":{payload}");
        }
        if let Some(winner) = winner {
            out.push_str(",\"winner\":");
            write_winner(out, winner);
        }
        out.push('}');
        Ok(())
    }

    /// `current` is the record that does not meet the op's condition, or that stays because
    /// the op is rejected.
    pub fn refused(
        &mut self,
        op_id: Option<&str>,
        refusal: &Refusal,
        current: Option<&Winner<'_>>,
    ) -> Result<(), SyncError> {
        *match refusal.code() {
            RefusalCode::Validation => &mut self.tally.invalid,
            RefusalCode::Oversized => &mut self.tally.oversized,
            RefusalCode::Conflict => &mut self.tally.conflicting,
            RefusalCode::Unauthorized => &mut self.tally.unauthorized,
            RefusalCode::BaseMissing => &mut self.tally.without_base,
            RefusalCode::RecordConflict => &mut self.tally.record_conflicts,
            RefusalCode::FieldConflict => &mut self.tally.field_conflicts,
            RefusalCode::Constraint => &mut self.tally.constraints,
            RefusalCode::Rejected => &mut self.tally.rejected,
            RefusalCode::ReadOnly => &mut self.tally.read_only,
        } += 1;
        let (code, error) = (refusal.code().as_str(), refusal.to_string());
        self.begin_item(op_id, longest_string(&error) + current.map_or(0, Winner::longest))?;
        let _ = write!(self.out, ",\"success\":false,\"errorCode\":\"{code}\",\"error\":");
        write_string(&mut self.out, &error);
        if let Some(row) = refusal.row() {
            write_row_refusal(&mut self.out, row);
        }
        if let Some(current) = current {
            let key = match refusal.code() {
                RefusalCode::RecordConflict | RefusalCode::FieldConflict => "current",
                _ => "winner",
            };
            let _ = write!(self.out, ",\"{key}\":");
            write_winner(&mut self.out, current);
        }
        self.out.push('}');
        Ok(())
    }

    pub fn finish(mut self, head: Version) -> Reply {
        let _ = write!(self.out, "],\"serverVersion\":{}}}", head.get());
        self.out
    }

    /// Begins an item with `more` bytes in addition to its opId and the parts that fit
    /// into [`ROOM`].
    fn begin_item(&mut self, op_id: Option<&str>, more: usize) -> Result<(), SyncError> {
        let op_id = op_id.unwrap_or("null");
        self.out.make_room(ROOM + op_id.len() + more)?;
        if self.items > 0 {
            self.out.push(',');
        }
        self.items += 1;
        let _ = write!(self.out, "{{\"opId\":{op_id}");
        Ok(())
    }
}

fn write_winner(out: &mut String, winner: &Winner<'_>) {
    match winner {
        Winner::Put { version, revision, payload, fields } => {
            let _ = write!(out, "{{\"kind\":\"put\",\"serverVersion\":{},", version.get());
            if let Some(payload) = payload {
                let _ = write!(out, "\"payload\":{payload},");
            }
            if let Some(fields) = fields {
                let _ = write!(out, "\"fields\":{fields},");
            }
            out.push_str("\"revision\":");
            write_revision(out, revision);
        }
        Winner::Delete { version, revision, deleted_at } => {
            let _ = write!(out, "{{\"kind\":\"delete\",\"serverVersion\":{},", version.get());
            out.push_str("\"revision\":");
            write_revision(out, revision);
            if let Some(deleted_at) = deleted_at {
                let _ = write!(out, ",\"serverDeletedAt\":{}", epoch_seconds(*deleted_at));
            }
        }
    }
    out.push('}');
}

fn write_row_refusal(out: &mut String, refusal: &RowRefusal) {
    let texts = [("sqlState", refusal.sqlstate()), ("constraint", refusal.constraint())];
    for (key, text) in texts {
        if let Some(text) = text {
            let _ = write!(out, ",\"{key}\":");
            write_string(out, text);
        }
    }
    if refusal.may_come() {
        out.push_str(",\"retry\":true");
    }
}

/// The opId of the edit that an op overwrote unseen, if any.
pub fn write_overwrote(out: &mut String, overwrote: Option<Uuid>) {
    if let Some(overwrote) = overwrote {
        out.push_str(",\"overwrote\":\"");
        write_uuid(out, overwrote);
        out.push('"');
    }
}

const SECONDS_FROM_1970_TO_2000: i64 = 946_684_800;

/// Whole seconds since 1970.
pub fn epoch_seconds(at: Timestamp) -> i64 {
    at.div_euclid(1_000_000) + SECONDS_FROM_1970_TO_2000
}

/// Whole milliseconds since 1970.
pub fn epoch_millis(at: Timestamp) -> i64 {
    at.div_euclid(1_000) + SECONDS_FROM_1970_TO_2000 * 1_000
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn revision() -> Revision<'static> {
        Revision { clock: 3, hlc: "h\"".into(), op_id: Uuid::from_u128(1) }
    }

    const LOST: Stored<'static> = Stored {
        version: Version::stored(2),
        applied: false,
        replayed: false,
        created: false,
        overwrote: None,
        lost: &[],
        payload: None,
    };

    #[test]
    fn each_case_has_its_item() {
        let mut reply = PushReply::begin();
        let version = Version::stored(1);
        let created = Stored { version, applied: true, created: true, ..LOST };
        reply.stored(Some("\"A\""), created, None).unwrap();
        let overwrote = Some(Uuid::from_u128(7));
        let updated = Stored { version, applied: true, overwrote, ..LOST };
        reply.stored(Some("\"A\""), updated, None).unwrap();
        let version = Version::stored(9);
        let put = |payload| Winner::Put { version, revision: revision(), payload, fields: None };
        reply.stored(Some("\"B\""), LOST, Some(&put(Some("{ }")))).unwrap();
        reply.stored(Some("\"B\""), LOST, Some(&put(None))).unwrap();
        let delete = Winner::Delete { version, revision: revision(), deleted_at: Some(1_999_999) };
        let replayed = Stored { version: Version::stored(3), replayed: true, overwrote, ..LOST };
        reply.stored(Some("\"C\""), replayed, Some(&delete)).unwrap();
        reply.refused(None, &Refusal::Oversized { size: 2, max: 1 }, None).unwrap();
        let text = reply.finish(version);
        let revision = json!({"clock": 3, "hlc": "h\"", "opId": Uuid::from_u128(1).to_string()});
        let seven = Uuid::from_u128(7).to_string();
        assert_eq!(
            serde_json::from_str::<Value>(&text).unwrap(),
            json!({"results": [
                {"opId": "A", "success": true, "serverVersion": 1, "applied": true, "created": true},
                {"opId": "A", "success": true, "serverVersion": 1, "applied": true,
                 "overwrote": seven},
                {"opId": "B", "success": true, "serverVersion": 2, "applied": false,
                 "winner": {"kind": "put", "serverVersion": 9, "payload": {}, "revision": revision}},
                {"opId": "B", "success": true, "serverVersion": 2, "applied": false,
                 "winner": {"kind": "put", "serverVersion": 9, "revision": revision}},
                {"opId": "C", "success": true, "serverVersion": 3, "applied": false, "replayed": true,
                 "overwrote": seven,
                 "winner": {"kind": "delete", "serverVersion": 9, "revision": revision,
                            "serverDeletedAt": 946_684_801}},
                {"opId": null, "success": false, "errorCode": "OVERSIZED",
                 "error": "the payload has 2 bytes, more than sync_ext.max_payload_bytes (1)"},
            ], "serverVersion": 9})
        );
        assert!(text.contains("\"payload\":{ }"), "byte for byte");
    }

    #[test]
    fn an_item_fits_into_the_room_that_is_made_for_it() {
        let long = "\u{1}".repeat(512);
        let revision = Revision { clock: i64::MAX, hlc: long.into(), op_id: Uuid::max() };
        let version = Version::stored(i64::MAX);
        let payload = format!("{{\"v\":\"{}\"}}", "x".repeat(5000));
        let (payload, fields) = (Some(&*payload), Some("{ }"));
        let put = Winner::Put { version, revision, payload, fields };
        let overwrote = Some(Uuid::max());
        let (name, names) = ("\u{1}".repeat(128), 30);
        let lost = &vec![&*name; names];
        let stored = Stored {
            version,
            applied: false,
            replayed: true,
            created: true,
            overwrote,
            lost,
            payload,
        };
        let op_id = format!("\"{}\"", "o".repeat(3000));
        let mut reply = PushReply::begin();
        reply.stored(Some(&op_id), stored, Some(&put)).unwrap();
        let more = names * (longest_string(&name) + 1) + payload.map_or(0, str::len);
        assert!(reply.out.len() <= ROOM + op_id.len() + put.longest() + more);

        let refusal = Refusal::Unregistered { table: "\u{1}".repeat(128) };
        let mut reply = PushReply::begin();
        reply.refused(Some(&op_id), &refusal, Some(&put)).unwrap();
        let longest_error = longest_string(&refusal.to_string());
        assert!(reply.out.len() <= ROOM + op_id.len() + longest_error + put.longest());
    }

    #[test]
    fn a_patch_has_the_fields_that_it_lost_and_a_failed_condition_the_record() {
        let mut reply = PushReply::begin();
        let lost = Stored { applied: true, lost: &["a\"", "b"], ..LOST };
        reply.stored(Some("\"A\""), lost, None).unwrap();
        let current = Winner::Put {
            version: Version::stored(9),
            revision: revision(),
            payload: Some("{ }"),
            fields: Some("{\"x\":1}"),
        };
        reply.refused(Some("\"B\""), &Refusal::FieldConflict, Some(&current)).unwrap();
        reply.refused(Some("\"C\""), &Refusal::BaseMissing, None).unwrap();
        let tally = reply.tally;
        assert_eq!((tally.applied, tally.field_conflicts, tally.without_base), (1, 1, 1));
        let revision = json!({"clock": 3, "hlc": "h\"", "opId": Uuid::from_u128(1).to_string()});
        assert_eq!(
            serde_json::from_str::<Value>(&reply.finish(Version::stored(9))).unwrap()["results"],
            json!([
                {"opId": "A", "success": true, "serverVersion": 2, "applied": true,
                 "lost": ["a\"", "b"]},
                {"opId": "B", "success": false, "errorCode": "FIELD_CONFLICT",
                 "error": "a field is not as expected",
                 "current": {"kind": "put", "serverVersion": 9, "payload": {}, "fields": {"x": 1},
                             "revision": revision}},
                {"opId": "C", "success": false, "errorCode": "BASE_MISSING",
                 "error": "the put that is patched is not stored here"},
            ])
        );
    }

    #[test]
    fn a_rejected_op_has_the_reason_and_the_winner() {
        let mut reply = PushReply::begin_single();
        let grave =
            Winner::Delete { version: Version::stored(9), revision: revision(), deleted_at: None };
        reply.refused(Some("\"A\""), &Refusal::rejected("\"no\""), Some(&grave)).unwrap();
        assert_eq!(reply.tally, PushTally { rejected: 1, ..PushTally::default() });
        let revision = json!({"clock": 3, "hlc": "h\"", "opId": Uuid::from_u128(1).to_string()});
        assert_eq!(
            serde_json::from_str::<Value>(&reply.finish_single()).unwrap(),
            json!({"opId": "A", "success": false, "errorCode": "REJECTED", "error": "\"no\"",
                   "winner": {"kind": "delete", "serverVersion": 9, "revision": revision}})
        );
    }

    #[test]
    fn a_grave_has_no_time() {
        let mut reply = PushReply::begin();
        let grave =
            Winner::Delete { version: Version::stored(9), revision: revision(), deleted_at: None };
        reply.stored(Some("\"A\""), LOST, Some(&grave)).unwrap();
        assert!(!reply.finish(Version::stored(10)).contains("serverDeletedAt"));
    }

    #[test]
    fn seconds_before_2000_round_down_too() {
        assert_eq!(epoch_seconds(0), 946_684_800);
        assert_eq!(epoch_seconds(-1), 946_684_799);
        assert_eq!((epoch_millis(1_999), epoch_millis(-1)), (946_684_800_001, 946_684_799_999));
    }
}
