//! Replies in pages: pull and snapshot.

use std::fmt::Write;

use uuid::Uuid;

use super::push_reply::{epoch_seconds, write_overwrote};
use super::reply::Reply;
use super::revision::{write_revision, write_stamp};
use super::text::{longest_string, write_string, write_uuid};
use crate::error::SyncError;
use crate::rules::history::{Progress, Reason};
use crate::rules::op::{Operation, Revision, Timestamp, Version};
use crate::wire::token::{ReadProof, write_proof};

/// The elements of one page as JSON, joined by commas, within the page's limit in
/// bytes. The reply is built around them in place, which avoids copying them again.
pub struct Page {
    json: Reply,
    bytes: usize,
    rows: usize,
    max_rows: usize,
    max_bytes: usize,
}

impl Page {
    /// `json` is the part of the reply before its elements.
    fn new(json: Reply, max_rows: usize, max_bytes: usize) -> Page {
        Page { json, bytes: 0, rows: 0, max_rows, max_bytes }
    }

    /// An empty page of changes.
    pub fn of_changes(max_rows: usize, max_bytes: usize) -> Page {
        let mut json = Reply::empty();
        json.push_str("{\"changes\":[");
        Page::new(json, max_rows, max_bytes)
    }

    /// An empty page of a snapshot.
    pub fn of_snapshot(
        workspace_id: &str,
        snapshot_id: Uuid,
        watermark: Version,
        max_rows: usize,
        max_bytes: usize,
    ) -> Page {
        let mut out = Reply::empty();
        out.push_str("{\"workspaceId\":");
        write_string(&mut out, workspace_id);
        let _ = write!(
            out,
            ",\"snapshotId\":\"{snapshot_id}\",\"highWatermark\":{},\"items\":[",
            watermark.get()
        );
        Page::new(out, max_rows, max_bytes)
    }

    pub fn is_full(&self) -> bool {
        self.rows == self.max_rows
    }

    /// Adds an element of at least `least` and at most `most` bytes, written by
    /// `write`, unless the page would exceed its limit. A first element always fits: a
    /// page must not be empty while there are more.
    pub fn add(
        &mut self,
        (least, most): (usize, usize),
        write: impl FnOnce(&mut String),
    ) -> Result<bool, SyncError> {
        if self.rows > 0 && self.bytes + least > self.max_bytes {
            return Ok(false);
        }
        self.json.make_room(most + ROOM)?;
        let before = self.json.len();
        if self.rows > 0 {
            self.json.push(',');
        }
        let start = self.json.len();
        write(&mut self.json);
        let bytes = self.bytes + self.json.len() - start;
        if self.rows > 0 && bytes > self.max_bytes {
            self.json.truncate(before);
            return Ok(false);
        }
        self.bytes = bytes;
        self.rows += 1;
        Ok(true)
    }
}

/// For commas, and for the part of the reply after its elements.
const ROOM: usize = 32 * 1024;

/// The minimal and maximal length of an element with these strings and JSON texts.
pub fn bounds(strings: &[&str], json: &[Option<&str>]) -> (usize, usize) {
    // For names of keys, numbers and UUIDs.
    const REST: usize = 1024;
    let json = json.iter().flatten().map(|json| json.len()).sum::<usize>();
    (json, strings.iter().map(|text| longest_string(text)).sum::<usize>() + json + REST)
}

/// What a change is to its reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Telling<'a> {
    /// Its op; where scopes are told, with that of the record, and to who follows none with
    /// the one that it left.
    Op { scope: Option<&'a str>, left_scope: Option<&'a str> },
    /// The record went outside.
    Leave,
}

impl Telling<'_> {
    pub const OP: Telling<'static> = Telling::Op { scope: None, left_scope: None };
}

/// An entry of the log as others see it. The last four are JSON texts.
pub struct Change<'a> {
    pub version: Version,
    pub applied: bool,
    pub overwrote: Option<Uuid>,
    pub table: &'a str,
    pub pk: &'a str,
    pub operation: Operation,
    pub revision: Revision<'a>,
    pub device_id: &'a str,
    /// What a put or delete wrote; after a patch, the whole record.
    pub payload: Option<&'a str>,
    /// What a patch wrote, to which put's record, and who then held which fields.
    pub patch: Option<&'a str>,
    pub base: Option<&'a str>,
    pub fields: Option<&'a str>,
}

impl Change<'_> {
    /// How long it is as JSON, at least and at most.
    pub fn bounds(&self, telling: Telling<'_>) -> (usize, usize) {
        let name = [self.table, self.pk, &self.revision.hlc, self.device_id];
        match telling {
            Telling::Leave => bounds(&name, &[self.base]),
            Telling::Op { scope, left_scope } => {
                let [table, pk, hlc, device_id] = name;
                let [scope, left] = [scope, left_scope].map(Option::unwrap_or_default);
                let strings = [table, pk, hlc, device_id, scope, left];
                bounds(&strings, &[self.payload, self.patch, self.base, self.fields])
            }
        }
    }

    pub fn write(&self, out: &mut String, telling: Telling<'_>) {
        let _ = write!(out, "{{\"serverVersion\":{},\"tableName\":", self.version.get());
        write_string(out, self.table);
        out.push_str(",\"pk\":");
        write_string(out, self.pk);
        let (operation, json) = match telling {
            Telling::Op { .. } => {
                (self.operation.as_str(), [self.base, self.patch, self.payload, self.fields])
            }
            Telling::Leave => ("leave", [self.base, None, None, None]),
        };
        let _ = write!(out, ",\"op\":\"{operation}\",\"applied\":{}", self.applied);
        if let Telling::Op { scope, left_scope } = telling {
            write_overwrote(out, self.overwrote);
            for (key, scope) in [(",\"scope\":", scope), (",\"leftScope\":", left_scope)] {
                if let Some(scope) = scope {
                    out.push_str(key);
                    write_string(out, scope);
                }
            }
        }
        for (key, json) in ["base", "patch", "payload", "fields"].into_iter().zip(json) {
            if let Some(json) = json {
                for part in [",\"", key, "\":", json] {
                    out.push_str(part);
                }
            }
        }
        out.push_str(",\"stamp\":");
        write_stamp(out, &self.revision, self.device_id);
        out.push('}');
    }
}

/// The part of a pull's reply besides its changes.
pub struct PullEnd<'a> {
    pub next_cursor: Version,
    pub has_more: bool,
    pub progress: Progress,
    pub reason: Option<Reason>,
    /// The token, if any.
    pub proof: Option<&'a str>,
}

pub fn pull_reply(changes: Page, end: &PullEnd<'_>) -> Reply {
    let mut out = changes.json;
    let _ = write!(
        out,
        "],\"nextCursor\":{},\"hasMore\":{},\"serverVersion\":{},\"oldestRetainedVersion\":{},\
         \"requiresSnapshot\":{}",
        end.next_cursor.get(),
        end.has_more,
        end.progress.head.get(),
        end.progress.oldest_retained(),
        end.reason.is_some(),
    );
    if let Some(reason) = end.reason {
        let _ = write!(out, ",\"reason\":\"{}\"", reason.as_str());
    }
    write_token(&mut out, "proof", end.proof);
    out.push('}');
    out
}

/// One record of a snapshot.
pub enum SnapshotItem<'a> {
    Row {
        payload: &'a str,
        /// The newest entry's op and who holds which field, as JSON, if patches hold any.
        fields: Option<(Uuid, &'a str)>,
    },
    Tombstone {
        deleted_at: Timestamp,
    },
}

pub fn write_snapshot_item(
    out: &mut String,
    (table, pk): (&str, &str),
    revision: &Revision<'_>,
    version: Version,
    scope: Option<&str>,
    item: &SnapshotItem<'_>,
) {
    let kind = match item {
        SnapshotItem::Row { .. } => "row",
        SnapshotItem::Tombstone { .. } => "tombstone",
    };
    let _ = write!(out, "{{\"kind\":\"{kind}\",\"tableName\":");
    write_string(out, table);
    out.push_str(",\"pk\":");
    write_string(out, pk);
    if let Some(scope) = scope {
        out.push_str(",\"scope\":");
        write_string(out, scope);
    }
    if let SnapshotItem::Row { payload, fields } = item {
        out.push_str(",\"payload\":");
        out.push_str(payload);
        if let Some((op_id, fields)) = fields {
            let _ = write!(out, ",\"fields\":{fields},\"opId\":\"");
            write_uuid(out, *op_id);
            out.push('"');
        }
    }
    out.push_str(",\"revision\":");
    write_revision(out, revision);
    let _ = write!(out, ",\"serverVersion\":{}", version.get());
    if let SnapshotItem::Tombstone { deleted_at } = item {
        let _ = write!(out, ",\"serverDeletedAt\":{}", epoch_seconds(*deleted_at));
    }
    out.push('}');
}

/// Ends a page of a snapshot.
pub fn snapshot_reply(
    items: Page,
    next_page_token: Option<&str>,
    proof: Option<&ReadProof>,
) -> Reply {
    let mut out = items.json;
    out.push(']');
    write_token(&mut out, "nextPageToken", next_page_token);
    write_token(&mut out, "proof", proof.map(write_proof).as_deref());
    out.push('}');
    out
}

fn write_token(out: &mut String, name: &str, token: Option<&str>) {
    let _ = write!(out, ",\"{name}\":");
    match token {
        Some(token) => write_string(out, token),
        None => out.push_str("null"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::rules::history::Proof;
    use crate::rules::model::{delete, op};
    use crate::rules::op::Op;

    fn add(page: &mut Page, json: &str) -> bool {
        page.add((0, json.len()), |out| out.push_str(json)).unwrap()
    }

    #[test]
    fn an_element_is_written_in_the_room_that_was_made_for_it() {
        let long = |length| "\u{1}".repeat(length);
        let mut op = op(u128::MAX, "a", i64::MAX);
        op.key = crate::rules::op::RecordKey { table: long(128).into(), pk: long(1024).into() };
        op.revision.hlc = long(512).into();
        op.device_id = long(256).into();
        let version = Version::stored(i64::MAX);
        let mut change = String::new();
        let long_patch = Change {
            overwrote: Some(Uuid::max()),
            patch: Some("{ }"),
            base: Some("{ }"),
            fields: Some("{  }"),
            ..change_of(&op, version, false)
        };
        long_patch.write(&mut change, Telling::OP);
        let texts = [&*op.key.table, &*op.key.pk, &*op.revision.hlc];
        let (least, most) = long_patch.bounds(Telling::OP);
        assert!(least <= change.len() && change.len() <= most, "{} in {most}", change.len());
        let mut item = String::new();
        let row = SnapshotItem::Row { payload: op.payload.unwrap(), fields: None };
        let name = (&*op.key.table, &*op.key.pk);
        write_snapshot_item(&mut item, name, &op.revision, version, None, &row);
        let (least, most) = bounds(&texts, &[op.payload]);
        assert!(least <= item.len() && item.len() <= most, "{} in {most}", item.len());
    }

    fn change_of<'a>(op: &'a Op<'a>, version: Version, applied: bool) -> Change<'a> {
        Change {
            version,
            applied,
            overwrote: None,
            table: &op.key.table,
            pk: &op.key.pk,
            operation: op.operation,
            revision: op.revision.clone(),
            device_id: &op.device_id,
            payload: op.payload,
            patch: None,
            base: None,
            fields: None,
        }
    }

    fn parsed(reply: &Reply) -> Value {
        serde_json::from_str(reply).unwrap()
    }

    #[test]
    fn a_page_ends_before_its_bytes_pass_the_limit_but_is_never_empty() {
        let mut page = Page::new(Reply::empty(), 10, 4);
        assert!(add(&mut page, "12345"), "the first always fits");
        assert!(!add(&mut page, "6"));
        assert_eq!(*page.json, "12345");

        let mut page = Page::new(Reply::empty(), 3, 4);
        assert!(add(&mut page, "12"));
        assert!(add(&mut page, "34"), "exactly the limit; commas do not count");
        assert!(!add(&mut page, "5"));
        assert_eq!(*page.json, "12,34");
        assert!(!page.is_full());
        assert!(!page.add((1, 1), |_| unreachable!("known to be too long")).unwrap());
        assert!(add(&mut page, ""));
        assert!(page.is_full());
    }

    #[test]
    fn a_change_without_a_payload_has_no_such_key() {
        let mut out = String::new();
        change_of(&delete(1, "a\"b", 2), Version::stored(1), false).write(&mut out, Telling::OP);
        assert_eq!(
            serde_json::from_str::<Value>(&out).unwrap(),
            json!({"serverVersion": 1, "tableName": "t", "pk": "a\"b", "op": "delete",
                   "applied": false, "stamp": {"clock": 2, "hlc": "h", "deviceId": "d",
                   "opId": Uuid::from_u128(1).to_string()}})
        );
    }

    #[test]
    fn a_pull_reply_has_a_reason_only_when_there_is_one() {
        let end = |reason| PullEnd {
            next_cursor: Version::stored(3),
            has_more: false,
            progress: Progress {
                head: Version::stored(9),
                horizon: Version::stored(4),
                ..Progress::default()
            },
            reason,
            proof: Some("p"),
        };
        let reply = |reason| parsed(&pull_reply(Page::of_changes(1, 1), &end(reason)));
        assert_eq!(
            reply(Some(Reason::CursorExpired)),
            json!({"changes": [], "nextCursor": 3, "hasMore": false, "serverVersion": 9,
                   "oldestRetainedVersion": 5, "requiresSnapshot": true,
                   "reason": "cursor_expired", "proof": "p"})
        );
        assert_eq!(reply(None).get("reason"), None);
    }

    #[test]
    fn a_change_says_whether_it_won_and_has_its_payload_as_pushed() {
        let mut op = op(1, "a", 2);
        op.payload = Some("{ }");
        let mut out = String::new();
        change_of(&op, Version::stored(7), true).write(&mut out, Telling::OP);
        assert!(out.contains("\"op\":\"put\",\"applied\":true,\"payload\":{ },"), "{out}");
        out.clear();
        let overwrote = Some(Uuid::from_u128(5));
        Change { overwrote, ..change_of(&op, Version::stored(7), true) }
            .write(&mut out, Telling::OP);
        assert_eq!(
            serde_json::from_str::<Value>(&out).unwrap()["overwrote"],
            Uuid::from_u128(5).to_string()
        );
    }

    #[test]
    fn a_snapshot_page_lists_rows_with_payloads_and_tombstones_with_times() {
        let mut page = Page::of_snapshot("w\"", Uuid::from_u128(5), Version::stored(8), 10, 1000);
        let row = SnapshotItem::Row { payload: "{ }", fields: None };
        let tombstone = SnapshotItem::Tombstone { deleted_at: 1_999_999 };
        for (item, id) in [(&row, 1), (&tombstone, 2)] {
            let revision = op(id, "a", 3).revision;
            let version = Version::stored(id as i64);
            let added = page.add((0, 1000), |out| {
                write_snapshot_item(out, ("t", "a\n"), &revision, version, None, item);
            });
            assert!(added.unwrap());
        }
        let proof = Proof { head: Version::stored(9), digest: Uuid::nil() };
        let proof = ReadProof { proof, following: None };
        let reply = snapshot_reply(page, Some("s"), Some(&proof));
        assert!(reply.contains("\"payload\":{ },"), "byte for byte");
        let revision =
            |id| json!({"clock": 3, "hlc": "h", "opId": Uuid::from_u128(id).to_string()});
        assert_eq!(
            parsed(&reply),
            json!({"workspaceId": "w\"", "snapshotId": Uuid::from_u128(5).to_string(),
                   "highWatermark": 8, "items": [
                {"kind": "row", "tableName": "t", "pk": "a\n", "payload": {},
                 "revision": revision(1), "serverVersion": 1},
                {"kind": "tombstone", "tableName": "t", "pk": "a\n",
                 "revision": revision(2), "serverVersion": 2, "serverDeletedAt": 946_684_801},
            ], "nextPageToken": "s", "proof": write_proof(&proof)})
        );
        let end = snapshot_reply(Page::of_changes(1, 1), None, None);
        assert_eq!(&**end, r#"{"changes":[],"nextPageToken":null,"proof":null}"#);
    }
}
