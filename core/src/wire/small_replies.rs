//! Small replies, and lists of small elements.

use serde::{Serialize, Serializer};

use super::reply::Reply;
use super::text::longest_string;
use crate::error::SyncError;

/// The reply of sync_update_cursor.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CursorReply<'a> {
    pub device_id: &'a str,
    pub last_seen_version: i64,
    pub advanced: bool,
    pub server_version: i64,
    pub oldest_retained_version: i64,
}

/// The reply of sync_gc: totals over all its workspaces.
#[derive(Clone, Copy, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct GcReply {
    pub workspaces: usize,
    pub scanned: usize,
    pub changes_deleted: usize,
    pub tombstones_deleted: usize,
    pub devices_deleted: usize,
    pub has_more: bool,
}

/// The reply of sync_drop_workspace.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DropReply {
    pub dropped: bool,
    pub rows_erased: usize,
    pub has_more: bool,
}

/// One workspace of sync_list_workspaces.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ListedWorkspace<'a> {
    pub workspace_id: &'a str,
    /// `None` for a trusted caller.
    pub role: Option<&'a str>,
    pub server_version: i64,
}

/// One member of sync_list_members.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ListedMember<'a> {
    pub user_id: &'a str,
    pub role: &'a str,
}

/// The counters of sync_ext.counters, in this order.
#[derive(Clone, Debug)]
pub struct Numbers(pub Vec<(&'static str, u64)>);

impl Serialize for Numbers {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().copied())
    }
}

impl Reply {
    pub fn of(value: &impl Serialize) -> Reply {
        let mut reply = Reply::empty();
        push_json(&mut reply, value);
        reply
    }
}

/// Builds `{"NAME":[...]}`, one element at a time.
pub struct ListReply {
    out: Reply,
    has_elements: bool,
}

impl ListReply {
    pub fn begin(name: &str) -> ListReply {
        let mut out = Reply::empty();
        out.push_str("{\"");
        out.push_str(name);
        out.push_str("\":[");
        ListReply { out, has_elements: false }
    }

    /// `text` is the only text of the element that may be long.
    pub fn add(&mut self, text: &str, element: &impl Serialize) -> Result<(), SyncError> {
        // For names of keys, a role, a number.
        self.out.make_room(longest_string(text) + 200)?;
        if self.has_elements {
            self.out.push(',');
        }
        self.has_elements = true;
        push_json(&mut self.out, element);
        Ok(())
    }

    pub fn finish(mut self) -> Reply {
        self.out.push_str("]}");
        self.out
    }

    /// Ends a page; without a token it is the last one.
    pub fn finish_page(mut self, next_page_token: Option<&str>) -> Result<Reply, SyncError> {
        self.out.make_room(next_page_token.map_or(0, longest_string) + 30)?;
        self.out.push_str("],\"nextPageToken\":");
        push_json(&mut self.out, &next_page_token);
        self.out.push('}');
        Ok(self.out)
    }
}

fn push_json(out: &mut Reply, value: &impl Serialize) {
    // Texts, numbers and booleans: serializing cannot fail.
    out.push_str(&serde_json::to_string(value).unwrap_or_default());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_has_its_elements_in_order() {
        let mut reply = ListReply::begin("workspaces");
        let mut add = |workspace_id, role, server_version| {
            let element = ListedWorkspace { workspace_id, role, server_version };
            reply.add(workspace_id, &element).unwrap();
        };
        add("a\"", Some("editor"), 7);
        add("b", None, 0);
        assert_eq!(
            *reply.finish(),
            "{\"workspaces\":[{\"workspaceId\":\"a\\\"\",\"role\":\"editor\",\"serverVersion\":7},\
             {\"workspaceId\":\"b\",\"role\":null,\"serverVersion\":0}]}"
        );
        assert_eq!(*ListReply::begin("members").finish(), "{\"members\":[]}");
    }

    #[test]
    fn a_page_ends_with_the_token_of_the_next() {
        let page = |token| ListReply::begin("workspaces").finish_page(token).unwrap();
        assert_eq!(*page(Some("a\"")), "{\"workspaces\":[],\"nextPageToken\":\"a\\\"\"}");
        assert_eq!(*page(None), "{\"workspaces\":[],\"nextPageToken\":null}");
    }

    #[test]
    fn an_element_fits_into_the_room_that_is_made_for_it() {
        let workspace_id = &*"\u{1}".repeat(256);
        let mut reply = ListReply::begin("workspaces");
        let element =
            ListedWorkspace { workspace_id, role: Some("viewer"), server_version: i64::MAX };
        reply.add(workspace_id, &element).unwrap();
        let elements = reply.finish().len() - "{\"workspaces\":[]}".len();
        assert!(elements <= longest_string(workspace_id) + 200);
    }

    #[test]
    fn numbers_keep_their_order() {
        assert_eq!(*Reply::of(&Numbers(vec![("b", 1), ("a", 2)])), "{\"b\":1,\"a\":2}");
    }

    #[test]
    fn names_are_in_camel_case() {
        let reply = GcReply { scanned: 2, changes_deleted: 3, ..GcReply::default() };
        assert_eq!(
            *Reply::of(&reply),
            "{\"workspaces\":0,\"scanned\":2,\"changesDeleted\":3,\"tombstonesDeleted\":0,\
             \"devicesDeleted\":0,\"hasMore\":false}"
        );
    }
}
