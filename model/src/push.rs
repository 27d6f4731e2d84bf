//! Pushes.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::mem;

use serde_json::{Value, json};

use crate::json::{Members, compact, depth, is_number, is_same, text};
use crate::members::Role;
use crate::op::{Element, Op, read};
use crate::own_tables::{NoRows, RowRefusal, Rows};
use crate::owners::{filled, owned};
use crate::patch::{Turn, fields_json};
use crate::refusal::Outcome;
use crate::scopes::said;
use crate::server::{Entry, Key, Owner, Record, Server, Settings, Table, Workspace, sees};

/// Why an op is refused: its errorCode, and the words where these are fixed.
#[derive(Clone, Copy, Debug)]
pub struct Code(&'static str, Option<&'static str>);

pub(crate) const INVALID: Code = Code("VALIDATION_ERROR", None);
pub(crate) const OVERSIZED: Code = Code("OVERSIZED", None);
pub(crate) const BASE_MISSING: Code = Code("BASE_MISSING", None);
pub(crate) const RECORD_CONFLICT: Code = Code("RECORD_CONFLICT", None);
pub(crate) const FIELD_CONFLICT: Code = Code("FIELD_CONFLICT", None);
pub(crate) const UNAUTHORIZED: Code =
    Code("UNAUTHORIZED", Some("the record is another user's, or the payload says so"));
const TWICE: Code =
    Code("CONFLICT", Some("opId stands more than once in this batch, with different content"));
const LOGGED: Code = Code("CONFLICT", Some("opId was pushed before with different content"));

#[derive(Clone)]
enum Fate {
    Refused(Code),
    /// By the row of an attached table.
    RefusedByRow(RowRefusal),
    Stored {
        version: i64,
        is_replay: bool,
    },
}

/// What an element of a batch is among the others.
enum Place<'a> {
    Refused(Code),
    First(&'a Op),
    /// The same op as the element at this place.
    Again(usize),
}

/// The payloads of winners that a reply shows, and their bytes.
#[derive(Default)]
struct Winners {
    shown: BTreeSet<Key>,
    bytes: usize,
}

impl Server {
    pub fn push(&mut self, user: Option<&str>, workspace: &str, ops: &str, at: i64) -> Outcome {
        self.push_to(&mut NoRows, user, workspace, |_| ops.to_owned(), at)
    }

    /// Pushes ops to typed rows too. `ops` makes them, given what is known under the lock.
    pub(crate) fn push_to(
        &mut self,
        rows: &mut dyn Rows,
        user: Option<&str>,
        workspace: &str,
        ops: impl Fn(&Workspace) -> String,
        at: i64,
    ) -> Outcome {
        self.allow(user, workspace, Role::Editor)?;
        let is_known = self.workspaces.contains_key(workspace);
        let elements = read(&ops(&Workspace::default()), self.settings.max_ops_per_push)?;
        let is_attached = |op: &Op| rows.is_attached(&op.table);
        let writes_rows = firsts(&elements).iter().any(|op| is_attached(op))
            && self.locks(rows, workspace, &elements);
        let known = self.workspaces.remove(workspace);
        let mut state = known.unwrap_or_else(|| self.new_workspace());
        if writes_rows {
            self.capture(rows, workspace, &mut state, at);
        }
        let elements = read(&ops(&state), self.settings.max_ops_per_push)?;
        let before = state.head;
        let mut refused = HashMap::new();
        let mut applied = BTreeMap::new();
        let (mut state, fates) = loop {
            let mut decided = if writes_rows { state.clone() } else { mem::take(&mut state) };
            let user = (user, workspace);
            let fates = self.decide(&mut decided, user, &elements, (rows, &refused), at);
            if decided.apply(rows, workspace, before, &mut applied, &mut refused) {
                break (decided, fates);
            }
        };
        state.forget_superseded(before);
        state.read_images(rows, workspace, applied.keys());
        state.changes += u64::from(state.head > before);
        let mut winners = Winners::default();
        let results: Vec<Value> = elements
            .iter()
            .zip(fates)
            .map(|(element, (fate, op))| {
                let mut shown = |key: Key, record: &Record| {
                    state.shown_winner(key, record, before, &mut winners, &self.settings)
                };
                state.result(&element.op_id, fate, op, &mut shown)
            })
            .collect();
        if writes_rows {
            self.capture(rows, workspace, &mut state, at);
        }
        let head = state.head;
        if is_known || head > 0 {
            self.workspaces.insert(workspace.to_owned(), state);
        }
        Ok(json!({"results": results, "serverVersion": head}))
    }

    /// Does a trusted caller's push wait for, and take, the workspace's lock?
    pub fn takes_lock(&self, workspace: &str, ops: &str) -> bool {
        self.locks(&NoRows, workspace, &read(ops, usize::MAX).unwrap_or_default())
    }

    /// An unknown workspace is locked if one of the ops can be accepted.
    fn locks(&self, rows: &dyn Rows, workspace: &str, elements: &[Element]) -> bool {
        let is_known = self.workspaces.contains_key(workspace);
        firsts(elements).into_iter().any(|op| {
            let turn = || Workspace::default().turn(op, usize::MAX);
            let admitted = || self.admit(workspace, op).is_ok() && rows.admit(op).is_none();
            is_known || admitted() && turn().is_ok()
        })
    }

    /// What becomes of each element, and the op that it stands for.
    fn decide<'e>(
        &self,
        state: &mut Workspace,
        user: (Option<&str>, &str),
        elements: &'e [Element],
        rows: (&dyn Rows, &HashMap<String, RowRefusal>),
        at: i64,
    ) -> Vec<(Fate, Option<&'e Op>)> {
        let mut fates: Vec<(Fate, Option<&Op>)> = Vec::new();
        for place in places(elements) {
            fates.push(match place {
                Place::Refused(code) => (Fate::Refused(code), None),
                Place::Again(first) => fates[first].clone(),
                Place::First(op) => (self.take(state, user, op, rows, at), Some(op)),
            });
        }
        fates
    }

    /// One op of its opId.
    fn take(
        &self,
        state: &mut Workspace,
        (user, workspace): (Option<&str>, &str),
        op: &Op,
        (rows, refused): (&dyn Rows, &HashMap<String, RowRefusal>),
        at: i64,
    ) -> Fate {
        if let Some(version) = state.by_id.get(&op.revision.op_id) {
            let entry = &state.log[version];
            return match sees(user, &entry.owner) && entry.is_of(op) {
                true => Fate::Stored { version: *version, is_replay: true },
                false => Fate::Refused(LOGGED),
            };
        }
        if let Some(refusal) = refused.get(&op.revision.op_id) {
            return Fate::RefusedByRow(refusal.clone());
        }
        if let (Ok(_), Some(refusal)) = (self.admit(workspace, op), rows.admit(op)) {
            return Fate::RefusedByRow(refusal);
        }
        let owned = self.admit(workspace, op).and_then(|table| {
            let field = table.owner_field.as_deref();
            let known = state.records.get(&op.key()).map(|record| &record.owner);
            owned(user, op, field, known)
                .map(|(owner, fills)| (table, owner, field.filter(|_| fills)))
        });
        let turned =
            owned.and_then(|owned| Ok((owned, state.turn(op, self.settings.max_payload_bytes)?)));
        match turned {
            Err(code) => Fate::Refused(code),
            Ok(((table, owner, field), turn)) => {
                let version = state.append(op, turn, table, (owner, field), at);
                Fate::Stored { version, is_replay: false }
            }
        }
    }

    /// The rules of today for an op that is new.
    fn admit(&self, workspace: &str, op: &Op) -> Result<&Table, Code> {
        let table = self.tables.get(&op.table).ok_or(INVALID)?;
        if op.base.is_some() && !table.patches {
            return Err(INVALID);
        }
        let Some(payload) = &op.payload else { return Ok(table) };
        let Settings { max_payload_bytes, max_payload_depth, .. } = self.settings;
        if payload.len() > max_payload_bytes || depth(payload) > max_payload_depth {
            return Err(OVERSIZED);
        }
        let members = Members::of(payload).unwrap_or_default();
        let says = |key: &str, value: &str| match members.get(key) {
            None => true,
            Some(raw) if raw.starts_with('"') => text(raw).as_deref() == Some(value),
            // An integer key needs no quotes.
            Some(raw) => is_number(raw) && raw == value,
        };
        let scope_field = table.scope_field.as_ref();
        let has_scope = scope_field.is_none_or(|field| said(payload, field).is_some());
        match says(&table.pk_field, &op.pk) && says("workspace_id", workspace) && has_scope {
            true => Ok(table),
            false => Err(INVALID),
        }
    }
}

/// The elements of a batch, of which those of one opId share a fate.
fn places(elements: &[Element]) -> Vec<Place<'_>> {
    let mut by_id: HashMap<&str, (usize, bool)> = HashMap::new();
    for (place, element) in elements.iter().enumerate() {
        let Some(op) = &element.op else { continue };
        let (first, differs) = by_id.entry(&op.revision.op_id).or_insert((place, false));
        *differs |= elements[*first].op.as_ref().is_none_or(|first| !is_same_op(first, op));
    }
    let place = |(place, element): (usize, &'_ Element)| match &element.op {
        None => (place, None),
        Some(op) => (place, Some(by_id[&*op.revision.op_id])),
    };
    let marks = elements.iter().enumerate().map(place);
    marks
        .zip(elements)
        .map(|((place, mark), element)| match (mark, &element.op) {
            (Some((_, true)), _) => Place::Refused(TWICE),
            (Some((first, _)), Some(op)) if first == place => Place::First(op),
            (Some((first, _)), _) => Place::Again(first),
            (None, _) => Place::Refused(INVALID),
        })
        .collect()
}

/// The ops of a batch, each once.
fn firsts(elements: &[Element]) -> Vec<&Op> {
    let first = |place| match place {
        Place::First(op) => Some(op),
        _ => None,
    };
    places(elements).into_iter().filter_map(first).collect()
}

fn is_same_op(one: &Op, other: &Op) -> bool {
    let is_same_payload = match (&one.payload, &other.payload) {
        (Some(one), Some(other)) => is_same(one, other),
        (one, other) => one == other,
    };
    one.is_like(other) && is_same_payload
}

impl Workspace {
    /// A patch that an op of the same call superseded does not keep the record.
    fn forget_superseded(&mut self, before: i64) {
        let Workspace { log, records, .. } = self;
        for (version, entry) in log.range_mut(before + 1..) {
            if records[&entry.op.key()].version != *version {
                entry.merged = None;
            }
        }
    }

    pub(crate) fn append(
        &mut self,
        op: &Op,
        turn: Turn,
        table: &Table,
        (owner, field): (Owner, Option<&str>),
        at: i64,
    ) -> i64 {
        self.head += 1;
        let version = self.head;
        let winner = self.records.get(&op.key());
        let applied = !matches!(turn, Turn::Loses);
        let replaced = winner.filter(|_| applied);
        let supersedes = replaced.map(|winner| winner.version);
        let is_put = !op.is_delete && op.base.is_none();
        let created = applied && is_put && replaced.is_none_or(|winner| winner.is_deleted);
        let newest = replaced.map(|winner| self.newest_id(winner).to_owned());
        let parent = op.parent.clone();
        let overwrote = newest.filter(|it| parent.as_ref().is_some_and(|seen| seen != it));
        let mut op = op.clone();
        if let (Some(field), Some(owner), Some(payload)) = (field, &owner, &op.payload) {
            op.payload = Some(filled(payload, field, owner));
        }
        let (merged, lost) = match turn {
            Turn::Merges { merged, lost } => (Some(merged), lost),
            Turn::Loses | Turn::Replaces => (None, Vec::new()),
        };
        let before = winner.and_then(|winner| winner.scope.clone());
        let payload = merged.as_ref().map(|merged| &merged.payload).or(op.payload.as_ref());
        let scope = match applied {
            true => table.scope_after(winner, op.is_delete, payload.map(String::as_str)),
            false => before.clone(),
        };
        let left_scope = before.filter(|before| scope.as_ref() != Some(before));
        if applied {
            let register = op.base.as_ref().unwrap_or(&op.revision);
            let (revision, is_deleted) = (register.clone(), op.is_delete);
            let (owner, scope) = (owner.clone(), scope.clone());
            let record = Record { version, revision, is_deleted, owner, scope };
            self.records.insert(op.key(), record);
        }
        self.by_id.insert(op.revision.op_id.clone(), version);
        let filled = field.map(str::to_owned);
        let entry = Entry {
            op,
            pushed: None,
            merged,
            lost,
            filled,
            owner,
            scope,
            left_scope,
            applied,
            supersedes,
            created,
            overwrote,
            at,
        };
        self.log.insert(version, entry);
        version
    }

    fn result(
        &self,
        op_id: &Value,
        fate: Fate,
        sent: Option<&Op>,
        shown: &mut impl FnMut(Key, &Record) -> Value,
    ) -> Value {
        let (version, is_replay) = match fate {
            Fate::Refused(Code(code, words)) => {
                let mut refused = json!({"opId": op_id, "success": false, "errorCode": code});
                if let Some(words) = words {
                    refused["error"] = json!(words);
                }
                let record = sent.and_then(|op| self.records.get_key_value(&op.key()));
                if let (Some((key, record)), "RECORD_CONFLICT" | "FIELD_CONFLICT") = (record, code)
                {
                    refused["current"] = shown(key.clone(), record);
                }
                return refused;
            }
            Fate::RefusedByRow(refusal) => {
                let mut refused = refusal.item(op_id);
                let record = sent.and_then(|op| self.records.get_key_value(&op.key()));
                if let Some((key, record)) = record {
                    refused["winner"] = shown(key.clone(), record);
                }
                return refused;
            }
            Fate::Stored { version, is_replay } => (version, is_replay),
        };
        let entry = &self.log[&version];
        let Entry { op, applied, lost, created, overwrote, .. } = entry;
        let key = op.key();
        let record = &self.records[&key];
        let not_held = sent.map_or(Vec::new(), |sent| self.not_held(sent, record));
        let (applied, lost) = match (is_replay, &op.base) {
            (false, _) => (*applied, lost),
            (true, None) => (op.revision == record.revision, lost),
            (true, Some(_)) => {
                (sent.is_some_and(|sent| not_held.len() < sent.fields().len()), &not_held)
            }
        };
        let mut result =
            json!({"opId": op_id, "success": true, "serverVersion": version, "applied": applied});
        if is_replay {
            result["replayed"] = json!(true);
        } else if *created {
            result["created"] = json!(true);
        }
        if let Some(overwrote) = overwrote {
            result["overwrote"] = json!(overwrote);
        }
        if let (false, Some(_)) = (is_replay, &entry.pushed) {
            result["payload"] = entry.payload();
        }
        match applied {
            true if lost.is_empty() => {}
            true => result["lost"] = json!(lost),
            false => result["winner"] = shown(key, record),
        }
        result
    }

    /// The record's winner as an op that is not it is answered.
    fn shown_winner(
        &self,
        key: Key,
        record: &Record,
        before: i64,
        winners: &mut Winners,
        settings: &Settings,
    ) -> Value {
        let mut winner =
            json!({"serverVersion": record.version, "revision": record.revision.json()});
        let entry = self.winner(record);
        if record.is_deleted {
            winner["kind"] = json!("delete");
            if let Some(entry) = entry {
                // No model knows the time of this very call.
                let is_new = record.version > before;
                winner["serverDeletedAt"] = if is_new { json!("now") } else { json!(entry.at) };
            }
            return winner;
        }
        winner["kind"] = json!("put");
        let payload = entry.and_then(Entry::record).unwrap_or_default();
        let fields = fields_json(&self.fields(record));
        let has_fields = fields != json!({});
        let size = payload.len() + if has_fields { compact(&fields).len() } else { 0 };
        if winners.shown.insert(key) && winners.bytes + size < settings.max_page_bytes {
            winners.bytes += size;
            winner["payload"] = json!(payload);
            if has_fields {
                winner["fields"] = fields;
            }
        }
        winner
    }
}
