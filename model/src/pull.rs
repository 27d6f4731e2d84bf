//! Pulls, and the proofs of a history.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::json::compact;
use crate::members::Role;
use crate::refusal::{Refusal, invalid};
use crate::scopes::{Following, Place, Scopes};
use crate::server::{Entry, Record, Server, Settings, Workspace, sees};

/// Which tables are read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter(Option<BTreeSet<String>>);

impl Filter {
    /// Those of the names; all if there are none.
    pub fn of<T: AsRef<str>>(names: &[T]) -> Filter {
        let names = names.iter().map(|name| name.as_ref().to_owned()).collect();
        Filter(Some(names).filter(|names: &BTreeSet<_>| !names.is_empty()))
    }

    /// As the argument says, which may hold NULLs.
    pub fn of_argument(tables: Option<&[Option<String>]>) -> Filter {
        let tables = tables.filter(|tables| !tables.is_empty());
        // Longer names are no table's.
        let names = |all: &[Option<String>]| {
            all.iter().flatten().filter(|it| it.len() <= 128).cloned().collect()
        };
        Filter(tables.map(names))
    }

    pub fn names(&self) -> Option<&BTreeSet<String>> {
        self.0.as_ref()
    }

    pub(crate) fn wants(&self, table: &str) -> bool {
        self.0.as_ref().is_none_or(|names| names.contains(table))
    }
}

/// What a proof stands for: an entry and when it was logged, and what its reader followed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Proof {
    pub workspace: String,
    pub head: i64,
    pub op_id: String,
    pub at: i64,
    pub following: Following,
}

/// What a caller asks for.
#[derive(Clone, Debug, Default)]
pub struct Pull {
    pub user: Option<String>,
    pub workspace: String,
    pub cursor: i64,
    pub limit: Option<i64>,
    pub filter: Filter,
    pub latest: bool,
    pub scopes: Option<Scopes>,
    /// The token, and what it stands for.
    pub proof: Option<(String, Proof)>,
}

/// The proof that a reply carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ShownProof {
    /// The one that was given, or none.
    AsGiven,
    New(Option<Proof>),
}

/// A reply without its proof, and that.
#[derive(Clone, Debug)]
pub struct Pulled {
    pub reply: Value,
    pub proof: ShownProof,
    /// How many entries were passed over for their owner.
    pub hidden: u64,
}

/// What the log holds where a proof points.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Held {
    Same,
    Other,
    Missing,
}

impl Workspace {
    pub(crate) fn proof(&self, workspace: &str, following: Following) -> Option<Proof> {
        let entry = self.log.get(&self.head)?;
        let (workspace, op_id) = (workspace.to_owned(), entry.op.revision.op_id.clone());
        Some(Proof { workspace, head: self.head, op_id, at: entry.at, following })
    }

    pub(crate) fn holds(&self, workspace: &str, proof: &Proof) -> Held {
        match self.log.get(&proof.head) {
            None => Held::Missing,
            Some(Entry { op, at, .. })
                if proof.workspace == workspace
                    && op.revision.op_id == proof.op_id
                    && *at == proof.at =>
            {
                Held::Same
            }
            Some(_) => Held::Other,
        }
    }

    /// Why a snapshot is needed, in the order of the contract.
    fn reason(&self, pull: &Pull, following: &Following) -> Option<&'static str> {
        let proof = pull.proof.as_ref().map(|(_, proof)| proof);
        let held = proof.map(|proof| (proof.head, self.holds(&pull.workspace, proof)));
        match held {
            Some((_, Held::Other)) => return Some("history_diverged"),
            Some((head, Held::Missing)) if head > self.gc_through => {
                return Some("history_diverged");
            }
            _ => {}
        }
        if pull.cursor > self.head {
            return Some("cursor_ahead");
        }
        let is_purged = matches!(held, Some((_, Held::Missing)));
        if is_purged || pull.cursor < self.horizon {
            return Some("cursor_expired");
        }
        proof.is_some_and(|proof| proof.following != *following).then_some("scopes_changed")
    }
}

impl Server {
    pub fn pull(&self, pull: &Pull) -> Result<Pulled, Refusal> {
        let user = pull.user.as_deref();
        self.allow(user, &pull.workspace, Role::Viewer)?;
        if pull.cursor < 0 {
            return Err(invalid("invalid cursor"));
        }
        let nothing = Workspace::default();
        let found = self.workspaces.get(&pull.workspace);
        let state = found.unwrap_or(&nothing);
        let scopes = pull.scopes.as_ref();
        let following = self.following(scopes, &pull.workspace);
        let reason = match found {
            Some(state) => state.reason(pull, &following),
            None => (pull.cursor > 0 || pull.proof.is_some()).then_some("unknown_workspace"),
        };
        let mut reply = json!({
            "changes": [], "nextCursor": pull.cursor, "hasMore": false,
            "serverVersion": state.head, "oldestRetainedVersion": state.horizon + 1,
            "requiresSnapshot": reason.is_some(),
        });
        if let Some(reason) = reason {
            reply["reason"] = json!(reason);
            return Ok(Pulled { reply, proof: ShownProof::AsGiven, hidden: 0 });
        }
        let mut page = Page::new(&self.settings, pull.limit.unwrap_or(100));
        let mut hidden = 0;
        reply["nextCursor"] = json!(state.head);
        for (version, entry) in state.log.range(pull.cursor + 1..) {
            let op = &entry.op;
            let place = self.place(scopes, entry);
            if !pull.filter.wants(&op.table) || place == Place::Outside {
                continue;
            }
            if pull.latest && !self.is_latest(pull, state, *version, place) {
                continue;
            }
            if !sees(user, &entry.owner) {
                hidden += 1;
                continue;
            }
            let change = match place {
                Place::Left => leave(*version, entry),
                _ => change(*version, entry, scopes.is_some()),
            };
            if !page.take(change) {
                reply["hasMore"] = json!(true);
                reply["nextCursor"] =
                    page.elements[page.elements.len() - 1]["serverVersion"].clone();
                break;
            }
        }
        reply["changes"] = json!(page.elements);
        let proof = ShownProof::New(state.proof(&pull.workspace, following));
        Ok(Pulled { reply, proof, hidden })
    }

    /// Does a pull of what is left of each record tell of this entry?
    fn is_latest(&self, pull: &Pull, state: &Workspace, version: i64, place: Place) -> bool {
        let entry = &state.log[&version];
        let key = entry.op.key();
        let record = &state.records[&key];
        let is_inside = || self.is_inside(pull.scopes.as_ref(), &key.0, &record.scope);
        match place {
            Place::Left => !is_inside(),
            _ => entry.applied && record.version == version,
        }
    }
}

/// A record has gone outside.
fn leave(version: i64, Entry { op, .. }: &Entry) -> Value {
    let mut leave = json!({"serverVersion": version, "tableName": op.table, "pk": op.pk,
        "op": "leave", "applied": true, "stamp": op.stamp()});
    if let Some(base) = &op.base {
        leave["base"] = base.json();
    }
    leave
}

fn change(version: i64, entry: &Entry, shows_scope: bool) -> Value {
    let Entry { op, applied, overwrote, .. } = entry;
    let mut change = json!({"serverVersion": version, "tableName": op.table, "pk": op.pk,
        "op": op.word(), "applied": applied, "stamp": op.stamp()});
    if let Some(base) = &op.base {
        change["base"] = base.json();
        change["patch"] = entry.written();
    }
    if let Some(scope) = entry.scope.as_ref().filter(|_| shows_scope) {
        change["scope"] = json!(scope);
    }
    if entry.record().is_some() {
        change["payload"] = entry.payload();
    }
    if let Some(merged) = &entry.merged {
        change["fields"] = merged.fields();
    }
    if let Some(overwrote) = overwrote {
        change["overwrote"] = json!(overwrote);
    }
    change
}

/// Elements of a reply: as many as the limit allows, ending before their bytes
/// pass the setting, but never without one.
pub(crate) struct Page {
    pub elements: Vec<Value>,
    limit: usize,
    bytes: usize,
    max_bytes: usize,
}

impl Page {
    pub(crate) fn new(settings: &Settings, limit: i64) -> Page {
        let limit = limit.clamp(1, settings.max_page_limit as i64) as usize;
        Page { elements: Vec::new(), limit, bytes: 0, max_bytes: settings.max_page_bytes }
    }

    /// False if the element has no room.
    pub(crate) fn take(&mut self, element: Value) -> bool {
        self.bytes += size(&element);
        let is_full = self.elements.len() == self.limit || self.bytes > self.max_bytes;
        if is_full && !self.elements.is_empty() {
            return false;
        }
        self.elements.push(element);
        true
    }
}

/// An element's bytes as the server writes it.
fn size(element: &Value) -> usize {
    let mut bare = element.clone();
    let mut texts = 0;
    if let Some(members) = bare.as_object_mut() {
        for key in ["payload", "patch"] {
            if let Some(raw) = members.remove(key).as_ref().and_then(Value::as_str) {
                texts += ",\"\":".len() + key.len() + raw.len();
            }
        }
        if let Some(at) = members.get_mut("serverDeletedAt") {
            // Seconds since 1970 have ten digits for some time.
            *at = json!(1_000_000_000);
        }
    }
    compact(&bare).len() + texts
}

impl Record {
    pub(crate) fn item(&self, (table, pk): &(String, String), entry: &Entry) -> Value {
        let mut item = json!({
            "kind": if self.is_deleted { "tombstone" } else { "row" }, "tableName": table, "pk": pk,
            "revision": self.revision.json(), "serverVersion": self.version,
        });
        match self.is_deleted {
            true => item["serverDeletedAt"] = json!(entry.at),
            false => item["payload"] = entry.payload(),
        }
        if let Some(merged) = &entry.merged {
            item["fields"] = merged.fields();
            item["opId"] = json!(entry.op.revision.op_id);
        }
        item
    }
}
