//! A device that follows a part of its workspace: its list of scopes, and how it goes over to
//! another one.

use std::collections::BTreeSet;

use super::{Device, Listed, Listing, Synced};
use crate::replies::Change;

/// The scopes that a device follows; `None` for the whole workspace.
pub type List = Option<BTreeSet<String>>;

/// A list of these scopes.
pub fn list(names: &[&str]) -> List {
    Some(names.iter().map(|name| (*name).to_owned()).collect())
}

impl Device {
    /// Asks for another list. It is that of the device once a snapshot is complete; one that
    /// has begun begins again.
    pub fn follow(&mut self, list: List) {
        self.next_scopes = Some(list).filter(|list| *list != self.scopes);
        if self.joins {
            (self.snapshot_begun, self.joins) = (false, false);
        }
    }

    /// The list of the next snapshot.
    pub fn wanted_scopes(&self) -> &List {
        self.next_scopes.as_ref().unwrap_or(&self.scopes)
    }

    /// The list as an argument.
    pub fn names_of(list: &List) -> Option<Vec<&str>> {
        list.as_ref().map(|list| list.iter().map(String::as_str).collect())
    }

    /// The device has read all changes of its list: from here it can go over to another one,
    /// and reads only what that adds. From and to the whole workspace it reads everything.
    pub(super) fn go_over(&mut self) {
        let Some(next) = &self.next_scopes else { return };
        self.snapshot_begun = true;
        self.joins = next.is_some() && self.scopes.is_some();
    }

    /// "snapshot expired": what was to be added to the device's state no longer fits, so that
    /// must be brought up to date first; a whole snapshot begins again at once.
    pub fn snapshot_expired(&mut self) {
        if self.joins {
            (self.snapshot_begun, self.joins) = (false, false);
        }
    }

    /// The last page of what the new list adds: list and proof change with it, the cursor
    /// does not, because changes of what the device had may be above it.
    pub(super) fn join(&mut self, listing: Listing, proof: Option<String>) -> Listed {
        if let Some(next) = self.next_scopes.take() {
            self.scopes = next;
        }
        let scopes = &self.scopes;
        let is_inside = |record: &Synced| match (&record.scope, scopes) {
            (Some(scope), Some(list)) => list.contains(scope),
            _ => true,
        };
        self.synced.retain(|_, record| is_inside(record));
        for (key, record) in listing.records {
            self.know_clocks(&key, &record.revision, &record.fields);
            self.take(key, record);
        }
        self.proof = proof;
        (self.snapshot_begun, self.joins) = (false, false);
        Listed::Joined
    }

    /// A change or row takes the place of what is older, and of a mark of its own version.
    pub(super) fn take(&mut self, key: (String, String), record: Synced) {
        let is_newer = self.synced.get(&key).is_none_or(|known| known.version < record.version);
        let is_marked = self.marks.get(&key).is_some_and(|mark| mark.version > record.version);
        if is_newer && !is_marked {
            self.marks.remove(&key);
            self.synced.insert(key, record);
        }
    }

    /// The record went outside. The mark that stays hides older ops of the outbox, and settles
    /// them, as a delete would; but the record is not known any more.
    pub(super) fn leave(&mut self, change: Change) {
        let key = (change.table_name, change.pk);
        let version = change.server_version;
        let is_newer = |known: Option<&Synced>| known.is_none_or(|known| known.version < version);
        if !is_newer(self.synced.get(&key)) || !is_newer(self.marks.get(&key)) {
            return;
        }
        self.synced.remove(&key);
        let mark = Synced {
            version,
            newest: String::new(),
            revision: change.base.unwrap_or(change.stamp),
            payload: None,
            deleted: true,
            fields: Default::default(),
            scope: None,
        };
        self.marks.insert(key, mark);
    }

    /// A mark may go when the outbox has no op of its record.
    pub(super) fn drop_marks(&mut self) {
        if !self.keeps_marks {
            let outbox = &self.outbox;
            let is_used = |(table, pk): &(String, String)| {
                outbox.iter().any(|op| (&op.table, &op.pk) == (table, pk))
            };
            self.marks.retain(|key, _| is_used(key));
        }
    }

    /// The ops that a push has answered, with the versions that it told.
    pub fn told(&self, sent: &[String]) -> Vec<(String, i64)> {
        let ours = self.outbox.iter().filter(|op| sent.contains(&op.revision.op_id));
        ours.filter_map(|op| Some((op.revision.op_id.clone(), op.told?))).collect()
    }

    /// An exchange's own pull has shown what it shows of these ops: whether they are inside or
    /// not, nothing more will come.
    pub fn settle(&mut self, told: &[(String, i64)]) {
        let cursor = self.cursor;
        let is_settled =
            |op_id: &String| told.iter().any(|(told, at)| told == op_id && *at <= cursor);
        self.outbox.retain(|op| !is_settled(&op.revision.op_id));
    }
}
