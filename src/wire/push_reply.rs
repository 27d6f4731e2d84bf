//! The reply to a push. Payloads go out byte for byte as they came in.

use std::fmt::Write;

use super::reply::{Reply, check_size};
use super::text::{write_string, write_uuid};
use crate::error::SyncError;
use crate::rules::op::{Revision, Timestamp, Version};
use crate::rules::refusal::{Refusal, RefusalCode};

/// The op that won a record, as told to the devices that lost to it.
#[derive(Clone, Debug)]
pub enum Winner<'a> {
    Put {
        version: Version,
        revision: Revision<'a>,
        payload: &'a str,
    },
    /// `deleted_at` is `None` for a grave.
    Delete {
        version: Version,
        revision: Revision<'a>,
        deleted_at: Option<Timestamp>,
    },
}

/// Builds `{"results":[...],"serverVersion":head}`, one item at a time.
pub struct PushReply {
    out: Reply,
    items: usize,
    pub tally: PushTally,
}

/// What became of the items.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PushTally {
    pub applied: usize,
    pub lost: usize,
    pub replayed: usize,
    pub invalid: usize,
    pub oversized: usize,
    pub conflicting: usize,
    pub unauthorized: usize,
}

impl PushReply {
    pub fn new() -> PushReply {
        let mut out = Reply::new();
        out.push_str("{\"results\":[");
        PushReply { out, items: 0, tally: PushTally::default() }
    }

    /// `winner` is told where the op is not (or no longer) the winner.
    pub fn stored(
        &mut self,
        op_id: Option<&str>,
        version: Version,
        applied: bool,
        replayed: bool,
        winner: Option<&Winner<'_>>,
    ) {
        *match (replayed, applied) {
            (true, _) => &mut self.tally.replayed,
            (false, true) => &mut self.tally.applied,
            (false, false) => &mut self.tally.lost,
        } += 1;
        self.begin(op_id);
        let _ = write!(
            self.out,
            ",\"success\":true,\"serverVersion\":{},\"applied\":{applied}",
            version.get()
        );
        if replayed {
            self.out.push_str(",\"replayed\":true");
        }
        if let Some(winner) = winner {
            self.winner(winner);
        }
        self.out.push('}');
    }

    pub fn refused(&mut self, op_id: Option<&str>, refusal: &Refusal) {
        *match refusal.code() {
            RefusalCode::Validation => &mut self.tally.invalid,
            RefusalCode::Oversized => &mut self.tally.oversized,
            RefusalCode::Conflict => &mut self.tally.conflicting,
            RefusalCode::Unauthorized => &mut self.tally.unauthorized,
        } += 1;
        self.begin(op_id);
        let _ = write!(
            self.out,
            ",\"success\":false,\"errorCode\":\"{}\",\"error\":",
            refusal.code().as_str()
        );
        write_string(&mut self.out, &refusal.to_string());
        self.out.push('}');
    }

    /// Is it still a value that Postgres can hold? Many losers to large winners
    /// make a reply much larger than their request.
    pub fn check_size(&self) -> Result<(), SyncError> {
        check_size(&self.out)
    }

    pub fn finish(mut self, head: Version) -> Reply {
        let _ = write!(self.out, "],\"serverVersion\":{}}}", head.get());
        self.out
    }

    fn begin(&mut self, op_id: Option<&str>) {
        if self.items > 0 {
            self.out.push(',');
        }
        self.items += 1;
        let _ = write!(self.out, "{{\"opId\":{}", op_id.unwrap_or("null"));
    }

    fn winner(&mut self, winner: &Winner<'_>) {
        match winner {
            Winner::Put { version, revision, payload } => {
                let _ = write!(
                    self.out,
                    ",\"winner\":{{\"kind\":\"put\",\"serverVersion\":{},\"payload\":{payload},",
                    version.get()
                );
                write_revision(&mut self.out, revision);
                let _ = write!(self.out, "}},\"payload\":{payload}");
            }
            Winner::Delete { version, revision, deleted_at } => {
                let _ = write!(
                    self.out,
                    ",\"winner\":{{\"kind\":\"delete\",\"serverVersion\":{},",
                    version.get()
                );
                write_revision(&mut self.out, revision);
                if let Some(deleted_at) = deleted_at {
                    let _ = write!(self.out, ",\"serverDeletedAt\":{}", epoch_seconds(*deleted_at));
                }
                self.out.push('}');
            }
        }
    }
}

pub fn write_revision(out: &mut String, revision: &Revision<'_>) {
    let _ = write!(out, "\"revision\":{{\"clock\":{},\"hlc\":", revision.clock);
    write_string(out, &revision.hlc);
    out.push_str(",\"opId\":\"");
    write_uuid(out, revision.op_id);
    out.push_str("\"}");
}

/// Whole seconds since 1970.
pub fn epoch_seconds(at: Timestamp) -> i64 {
    const FROM_1970_TO_2000: i64 = 946_684_800;
    at.div_euclid(1_000_000) + FROM_1970_TO_2000
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use uuid::Uuid;

    use super::*;

    fn revision() -> Revision<'static> {
        Revision { clock: 3, hlc: "h\"".into(), op_id: Uuid::from_u128(1) }
    }

    #[test]
    fn each_case_has_its_item() {
        let mut reply = PushReply::new();
        reply.stored(Some("\"A\""), Version::stored(1), true, false, None);
        let put = Winner::Put { version: Version::stored(9), revision: revision(), payload: "{ }" };
        reply.stored(Some("\"B\""), Version::stored(2), false, false, Some(&put));
        let delete = Winner::Delete {
            version: Version::stored(9),
            revision: revision(),
            deleted_at: Some(1_999_999),
        };
        reply.stored(Some("\"C\""), Version::stored(3), false, true, Some(&delete));
        reply.refused(None, &Refusal::Oversized { size: 2, max: 1 });
        let told = reply.finish(Version::stored(9));
        let revision = json!({"clock": 3, "hlc": "h\"", "opId": Uuid::from_u128(1).to_string()});
        assert_eq!(
            serde_json::from_str::<Value>(&told).unwrap(),
            json!({"results": [
                {"opId": "A", "success": true, "serverVersion": 1, "applied": true},
                {"opId": "B", "success": true, "serverVersion": 2, "applied": false, "payload": {},
                 "winner": {"kind": "put", "serverVersion": 9, "payload": {}, "revision": revision}},
                {"opId": "C", "success": true, "serverVersion": 3, "applied": false, "replayed": true,
                 "winner": {"kind": "delete", "serverVersion": 9, "revision": revision,
                            "serverDeletedAt": 946_684_801}},
                {"opId": null, "success": false, "errorCode": "OVERSIZED",
                 "error": "the payload has 2 bytes, more than sync_ext.max_payload_bytes (1)"},
            ], "serverVersion": 9})
        );
        assert!(told.contains("\"payload\":{ }"), "byte for byte");
    }

    #[test]
    fn a_grave_has_no_time() {
        let mut reply = PushReply::new();
        let grave =
            Winner::Delete { version: Version::stored(9), revision: revision(), deleted_at: None };
        reply.stored(Some("\"A\""), Version::stored(10), false, false, Some(&grave));
        assert!(!reply.finish(Version::stored(10)).contains("serverDeletedAt"));
    }

    #[test]
    fn a_reply_may_have_a_billion_bytes_and_no_more() {
        let with = |bytes| {
            let mut reply = PushReply::new();
            // Zeros that are never written take no memory.
            *reply.out = String::from_utf8(vec![0; bytes]).unwrap();
            reply
        };
        assert!(with(1_000_000_000).check_size().is_ok());
        let refused = with(1_000_000_001).check_size();
        assert!(matches!(refused, Err(SyncError::ReplyTooLarge { max: 1_000_000_000 })));
    }

    #[test]
    fn seconds_before_2000_round_down_too() {
        assert_eq!(epoch_seconds(0), 946_684_800);
        assert_eq!(epoch_seconds(-1), 946_684_799);
    }
}
