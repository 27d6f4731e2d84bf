//! Replies about workspaces as a whole.

use std::fmt::Write;

use super::reply::Reply;
use super::text::{longest_string, write_string};
use crate::error::SyncError;
use crate::rules::access::Role;
use crate::rules::op::Version;

/// Builds `{"workspaces":[...]}`, one at a time.
pub struct ListReply {
    out: Reply,
    items: usize,
}

impl ListReply {
    pub fn new() -> ListReply {
        let mut out = Reply::new();
        out.push_str("{\"workspaces\":[");
        ListReply { out, items: 0 }
    }

    /// `role` is `None` for a trusted caller, who has none.
    pub fn add(
        &mut self,
        workspace_id: &str,
        role: Option<Role>,
        head: Version,
    ) -> Result<(), SyncError> {
        // Names of keys, a role, a number.
        self.out.make_room(longest_string(workspace_id) + 100)?;
        if self.items > 0 {
            self.out.push(',');
        }
        self.items += 1;
        self.out.push_str("{\"workspaceId\":");
        write_string(&mut self.out, workspace_id);
        match role {
            Some(role) => {
                let _ = write!(self.out, ",\"role\":\"{}\"", role.as_str());
            }
            None => self.out.push_str(",\"role\":null"),
        }
        let _ = write!(self.out, ",\"serverVersion\":{}}}", head.get());
        Ok(())
    }

    pub fn finish(mut self) -> Reply {
        self.out.push_str("]}");
        self.out
    }
}

/// Builds `{"members":[...]}`, one at a time.
pub struct MembersReply {
    out: Reply,
    items: usize,
}

impl MembersReply {
    pub fn new() -> MembersReply {
        let mut out = Reply::new();
        out.push_str("{\"members\":[");
        MembersReply { out, items: 0 }
    }

    pub fn add(&mut self, user_id: &str, role: Role) -> Result<(), SyncError> {
        // Names of keys and a role.
        self.out.make_room(longest_string(user_id) + 100)?;
        if self.items > 0 {
            self.out.push(',');
        }
        self.items += 1;
        self.out.push_str("{\"userId\":");
        write_string(&mut self.out, user_id);
        let _ = write!(self.out, ",\"role\":\"{}\"}}", role.as_str());
        Ok(())
    }

    pub fn finish(mut self) -> Reply {
        self.out.push_str("]}");
        self.out
    }
}

/// The reply of sync_drop_workspace.
pub fn drop_reply(dropped: bool, rows_erased: usize, has_more: bool) -> Reply {
    let mut out = Reply::new();
    let _ = write!(
        out,
        "{{\"dropped\":{dropped},\"rowsErased\":{rows_erased},\"hasMore\":{has_more}}}"
    );
    out
}

/// The counters by name, as an object of numbers.
pub fn counters_reply(counters: impl Iterator<Item = (&'static str, u64)>) -> Reply {
    let mut out = Reply::new();
    let mut before = '{';
    for (name, value) in counters {
        let _ = write!(out, "{before}\"{name}\":{value}");
        before = ',';
    }
    out.push('}');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workspaces_are_listed_with_the_role_in_each() {
        let mut reply = ListReply::new();
        reply.add("a\"", Some(Role::Editor), Version::stored(7)).unwrap();
        reply.add("b", None, Version::ZERO).unwrap();
        assert_eq!(
            *reply.finish(),
            "{\"workspaces\":[{\"workspaceId\":\"a\\\"\",\"role\":\"editor\",\"serverVersion\":7},\
             {\"workspaceId\":\"b\",\"role\":null,\"serverVersion\":0}]}"
        );
        assert_eq!(*ListReply::new().finish(), "{\"workspaces\":[]}");
    }

    #[test]
    fn members_are_listed_with_their_roles() {
        let mut reply = MembersReply::new();
        reply.add("a\"", Role::Editor).unwrap();
        reply.add("b", Role::Owner).unwrap();
        assert_eq!(
            *reply.finish(),
            "{\"members\":[{\"userId\":\"a\\\"\",\"role\":\"editor\"},\
             {\"userId\":\"b\",\"role\":\"owner\"}]}"
        );
        assert_eq!(*MembersReply::new().finish(), "{\"members\":[]}");
    }

    #[test]
    fn what_a_drop_did() {
        let reply = drop_reply(true, 12, false);
        assert_eq!(*reply, "{\"dropped\":true,\"rowsErased\":12,\"hasMore\":false}");
    }
}
