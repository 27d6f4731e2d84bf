//! The replies of checks and repairs, and where a repair goes on.

use serde::{Deserialize, Serialize};

use super::reply::Reply;
use super::text::write_string;
use crate::error::SyncError;
use crate::rules::repair::Kind;

/// The reply of `sync_check_table` under construction.
pub struct CheckReply {
    /// The listed differences, separated by commas.
    out: String,
    listed: usize,
    total: usize,
    max: usize,
}

/// What a check has found besides the differences.
#[derive(Clone, Copy, Debug)]
pub struct Checked<'a> {
    pub table: &'a str,
    pub rows: usize,
    pub records: usize,
    pub trigger: &'a str,
    pub columns_changed: bool,
}

impl CheckReply {
    /// It lists at most `max` differences.
    pub fn begin(max: usize) -> CheckReply {
        CheckReply { out: String::new(), listed: 0, total: 0, max }
    }

    /// Counts a difference, and lists it if there is room; `fields` are asked for only
    /// then.
    pub fn add(
        &mut self,
        workspace_id: &str,
        pk: &str,
        kind: Kind,
        fields: impl FnOnce() -> Vec<String>,
    ) -> Result<(), SyncError> {
        self.total += 1;
        if self.listed == self.max {
            return Ok(());
        }
        self.listed += 1;
        let fields = if kind == Kind::Different { fields() } else { Vec::new() };
        let listed = Listed { workspace_id, pk, kind: kind.as_str(), fields: &fields };
        // At worst each byte is an escape of six.
        let texts = fields.iter().map(|field| 6 * field.len() + 3).sum::<usize>();
        let bytes = 6 * (workspace_id.len() + pk.len()) + texts + 100;
        self.out.try_reserve(bytes).map_err(|_| SyncError::OutOfMemory)?;
        if !self.out.is_empty() {
            self.out.push(',');
        }
        listed.write(&mut self.out);
        Ok(())
    }

    pub fn finish(self, checked: &Checked<'_>) -> Result<Reply, SyncError> {
        let mut reply = Reply::empty();
        reply.make_room(self.out.len() + 6 * checked.table.len() + 300)?;
        reply.push_str("{\"table\":");
        write_string(&mut reply, checked.table);
        let numbers = [
            (",\"rows\":", checked.rows),
            (",\"records\":", checked.records),
            (",\"differencesTotal\":", self.total),
        ];
        for (name, number) in numbers {
            reply.push_str(name);
            reply.push_str(&number.to_string());
        }
        reply.push_str(",\"differences\":[");
        reply.push_str(&self.out);
        reply.push_str("],\"trigger\":");
        write_string(&mut reply, checked.trigger);
        reply.push_str(",\"columnsChanged\":");
        reply.push_str(if checked.columns_changed { "true}" } else { "false}" });
        Ok(reply)
    }
}

struct Listed<'a> {
    workspace_id: &'a str,
    pk: &'a str,
    kind: &'static str,
    fields: &'a [String],
}

impl Listed<'_> {
    fn write(&self, out: &mut String) {
        let members = [
            ("{\"workspaceId\":", self.workspace_id),
            (",\"pk\":", self.pk),
            (",\"kind\":", self.kind),
        ];
        for (name, value) in members {
            out.push_str(name);
            write_string(out, value);
        }
        if !self.fields.is_empty() {
            out.push_str(",\"fields\":[");
            for (place, field) in self.fields.iter().enumerate() {
                if place > 0 {
                    out.push(',');
                }
                write_string(out, field);
            }
            out.push(']');
        }
        out.push('}');
    }
}

/// Where the next batch of a backfill or a repair begins: after a row, then after a
/// record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", deny_unknown_fields)]
pub enum Position {
    Row { pk: String },
    Record { workspace_key: i64, pk: String },
}

impl Position {
    /// `None` if it is not one.
    pub fn read(json: &str) -> Option<Position> {
        serde_json::from_str(json).ok()
    }
}

/// The reply of a batch of a backfill or a repair.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BatchReply {
    pub read: usize,
    /// Differences that become ops when the transaction commits.
    pub captured: usize,
    /// `None` at the end.
    pub position: Option<Position>,
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHECKED: Checked<'static> =
        Checked { table: "a\"b", rows: 2, records: 1, trigger: "ok", columns_changed: false };

    #[test]
    fn a_check_lists_so_many_differences_and_counts_all() {
        let mut reply = CheckReply::begin(2);
        let fields = || vec!["title".to_owned(), "é\"".to_owned()];
        reply.add("w", "1", Kind::Different, fields).unwrap();
        reply.add("w", "2", Kind::MissingRow, || unreachable!("it has none")).unwrap();
        reply.add("w", "3", Kind::Different, || unreachable!("it is not listed")).unwrap();
        let expected = concat!(
            r#"{"table":"a\"b","rows":2,"records":1,"differencesTotal":3,"differences":["#,
            r#"{"workspaceId":"w","pk":"1","kind":"different","fields":["title","é\""]},"#,
            r#"{"workspaceId":"w","pk":"2","kind":"missing_row"}],"#,
            r#""trigger":"ok","columnsChanged":false}"#
        );
        assert_eq!(reply.finish(&CHECKED).unwrap().as_str(), expected);
    }

    #[test]
    fn a_position_comes_back_as_it_was_given() {
        let pk = "[\"1\",\"é\"]".to_owned();
        let record = Position::Record { workspace_key: 7, pk: pk.clone() };
        for position in [Position::Row { pk }, record] {
            let json = serde_json::to_string(&position).unwrap();
            assert_eq!(Position::read(&json), Some(position));
        }
        for other in ["null", "{}", r#"{"row":{}}"#, r#"{"row":{"pk":"a","x":1}}"#, "[1]"] {
            assert_eq!(Position::read(other), None, "{other}");
        }
    }
}
