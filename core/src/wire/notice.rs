//! The payload of the notification for one workspace and transaction.

use std::fmt::Write;

use super::pages::{Change, Telling};
use super::text::write_string;
use crate::rules::op::Version;

/// Postgres accepts a payload of at most 7,999 bytes.
const MAX_BYTES: usize = 7_500;

/// The changes of one or more pushes, while they may fit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Changes {
    /// The setting does not ask for changes.
    Unasked,
    /// JSON, joined by commas.
    Few(String),
    TooMany,
}

impl Changes {
    /// Adds an entry of the log.
    pub fn add(&mut self, change: &Change<'_>, telling: Telling<'_>) {
        let Changes::Few(json) = self else { return };
        if !json.is_empty() {
            json.push(',');
        }
        // Do not copy JSON that is too large.
        if json.len() + change.bounds(telling).0 <= MAX_BYTES {
            change.write(json, telling);
            if json.len() <= MAX_BYTES {
                return;
            }
        }
        *self = Changes::TooMany;
    }

    /// Adds the changes of a later push.
    pub fn append(&mut self, later: Changes) {
        match (&mut *self, later) {
            (Changes::Few(json), Changes::Few(more)) => {
                if !json.is_empty() && !more.is_empty() {
                    json.push(',');
                }
                json.push_str(&more);
                if json.len() > MAX_BYTES {
                    *self = Changes::TooMany;
                }
            }
            (Changes::TooMany, _) | (_, Changes::TooMany) => *self = Changes::TooMany,
            // The setting changed in between: if one push omits its changes, all are
            // omitted.
            _ => *self = Changes::Unasked,
        }
    }
}

/// Everything may have changed.
pub const EVERYTHING: &str = "{\"workspaceId\":null}";

/// `{"workspaceId","serverVersion"}`, with changes also `"changes"`: null if the whole
/// would be too large.
pub fn payload(workspace_id: &str, head: Version, changes: &Changes) -> String {
    let mut out = String::from("{\"workspaceId\":");
    write_string(&mut out, workspace_id);
    let _ = write!(out, ",\"serverVersion\":{}", head.get());
    match changes {
        Changes::Unasked => {}
        Changes::Few(json) if out.len() + json.len() + ",\"changes\":[]}".len() <= MAX_BYTES => {
            let _ = write!(out, ",\"changes\":[{json}]");
        }
        Changes::Few(_) | Changes::TooMany => out.push_str(",\"changes\":null"),
    }
    out.push('}');
    out
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::rules::op::{Operation, Revision};

    fn change(n: i64, payload: &str) -> Change<'_> {
        Change {
            version: Version::stored(n),
            applied: true,
            overwrote: None,
            table: "t",
            pk: "a",
            operation: Operation::Put,
            revision: Revision { clock: n, hlc: "h".into(), op_id: uuid::Uuid::nil() },
            device_id: "d",
            payload: Some(payload),
            patch: None,
            base: None,
            fields: None,
        }
    }

    fn few(count: i64) -> Changes {
        let mut changes = Changes::Few(String::new());
        for n in 1..=count {
            changes.add(&change(n, "{}"), Telling::OP);
        }
        changes
    }

    #[test]
    fn a_hint_has_the_head_alone() {
        let sent = payload("w\"", Version::stored(7), &Changes::Unasked);
        assert_eq!(sent, r#"{"workspaceId":"w\"","serverVersion":7}"#);
    }

    #[test]
    fn changes_are_those_of_a_pull() {
        let mut changes = few(1);
        changes.append(few(2));
        changes.append(few(0));
        let sent: Value =
            serde_json::from_str(&payload("w", Version::stored(2), &changes)).unwrap();
        let versions: Vec<_> =
            sent["changes"].as_array().unwrap().iter().map(|c| &c["serverVersion"]).collect();
        assert_eq!(versions, [1, 1, 2]);
        assert_eq!(sent["changes"][0]["stamp"]["deviceId"], "d");
    }

    #[test]
    fn what_is_too_large_is_null_counted_in_bytes() {
        let room = MAX_BYTES - payload("w", Version::stored(9), &few(0)).len();
        for (bytes, fits) in [(room, true), (room + 1, false)] {
            let changes = Changes::Few("é".repeat(bytes / 2) + &"1".repeat(bytes % 2));
            let sent = payload("w", Version::stored(9), &changes);
            assert_eq!(sent.ends_with("\"changes\":null}"), !fits, "{bytes}");
            assert!(sent.len() <= MAX_BYTES);
        }
        let mut changes = few(1);
        let large = format!("{{\"x\":\"{}\"}}", "é".repeat(3_700));
        changes.add(&change(2, &large), Telling::OP);
        assert_eq!(changes, Changes::TooMany);
        changes.append(few(1));
        assert_eq!(changes, Changes::TooMany);
        let sent: Value =
            serde_json::from_str(&payload("w", Version::stored(2), &changes)).unwrap();
        assert_eq!(sent, json!({"workspaceId": "w", "serverVersion": 2, "changes": null}));
        let mut many = few(60);
        assert_eq!(many, Changes::TooMany);
        many.append(Changes::Unasked);
        assert_eq!(many, Changes::TooMany);
        let longest = "\u{1}".repeat(256);
        assert!(payload(&longest, Version::stored(i64::MAX), &Changes::TooMany).len() < MAX_BYTES);
    }

    #[test]
    fn a_push_without_changes_leaves_a_hint() {
        let mut changes = few(1);
        changes.append(Changes::Unasked);
        assert_eq!(changes, Changes::Unasked);
    }
}
