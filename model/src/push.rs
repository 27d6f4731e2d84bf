//! Pushes and exchanges.

use std::collections::{BTreeSet, HashMap};

use serde_json::{Value, json};

use crate::json::{Members, compact, depth, is_number, is_same, name, text};
use crate::members::Role;
use crate::op::{Element, Op, read};
use crate::patch::{Turn, fields_json};
use crate::pull::{Pull, Pulled, ShownProof};
use crate::refusal::{Outcome, Refusal, named};
use crate::server::{Entry, Key, Owner, Record, Server, Settings, Table, Workspace, sees};

/// Why an op is refused: its errorCode, and the words where these are fixed.
#[derive(Clone, Copy, Debug)]
pub struct Code(&'static str, Option<&'static str>);

pub(crate) const INVALID: Code = Code("VALIDATION_ERROR", None);
pub(crate) const OVERSIZED: Code = Code("OVERSIZED", None);
pub(crate) const BASE_MISSING: Code = Code("BASE_MISSING", None);
pub(crate) const RECORD_CONFLICT: Code = Code("RECORD_CONFLICT", None);
pub(crate) const FIELD_CONFLICT: Code = Code("FIELD_CONFLICT", None);
const UNAUTHORIZED: Code =
    Code("UNAUTHORIZED", Some("the record is another user's, or the payload says so"));
const TWICE: Code =
    Code("CONFLICT", Some("opId stands more than once in this batch, with different content"));
const LOGGED: Code = Code("CONFLICT", Some("opId was pushed before with different content"));

#[derive(Clone, Copy)]
enum Fate {
    Refused(Code),
    Stored { version: i64, is_replay: bool },
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

/// Whose a record is or becomes, and whether the payload is made to say so.
type Owned = Result<(Owner, bool), Code>;

/// What a payload's member says about the owner.
enum Named {
    Absent,
    User(String),
    Nobody,
}

impl Server {
    pub fn push(&mut self, user: Option<&str>, workspace: &str, ops: &str, at: i64) -> Outcome {
        self.allow(user, workspace, Role::Editor)?;
        let elements = read(ops, self.settings.max_ops_per_push)?;
        let known = self.workspaces.remove(workspace);
        let is_new = known.is_none();
        let mut state = known.unwrap_or_else(|| self.new_workspace());
        let before = state.head;
        let mut fates: Vec<Fate> = Vec::new();
        let mut ops: Vec<Option<&Op>> = Vec::new();
        for place in places(&elements) {
            let (fate, op) = match place {
                Place::Refused(code) => (Fate::Refused(code), None),
                Place::Again(first) => (fates[first], ops[first]),
                Place::First(op) => (self.take(&mut state, user, workspace, op, at), Some(op)),
            };
            fates.push(fate);
            ops.push(op);
        }
        state.forget_superseded(before);
        state.changes += u64::from(state.head > before);
        let mut winners = Winners::default();
        let results: Vec<Value> = elements
            .iter()
            .zip(fates.into_iter().zip(ops))
            .map(|(element, (fate, op))| {
                let mut shown = |key: Key, record: &Record| {
                    state.shown_winner(key, record, before, &mut winners, &self.settings)
                };
                state.result(&element.op_id, fate, op, &mut shown)
            })
            .collect();
        let head = state.head;
        if !is_new || head > 0 {
            self.workspaces.insert(workspace.to_owned(), state);
        }
        Ok(json!({"results": results, "serverVersion": head}))
    }

    /// Does a trusted caller's push wait for, and take, the workspace's lock?
    pub fn takes_lock(&self, workspace: &str, ops: &str) -> bool {
        let elements = read(ops, usize::MAX).unwrap_or_default();
        let is_known = self.workspaces.contains_key(workspace);
        places(&elements).iter().any(|place| match place {
            Place::First(op) => {
                let turn = || Workspace::default().turn(op, usize::MAX);
                is_known || self.admit(workspace, op).is_ok() && turn().is_ok()
            }
            _ => false,
        })
    }

    /// One op of its opId.
    fn take(
        &self,
        state: &mut Workspace,
        user: Option<&str>,
        workspace: &str,
        op: &Op,
        at: i64,
    ) -> Fate {
        if let Some(version) = state.by_id.get(&op.revision.op_id) {
            let entry = &state.log[version];
            return match sees(user, &entry.owner) && entry.is_of(op) {
                true => Fate::Stored { version: *version, is_replay: true },
                false => Fate::Refused(LOGGED),
            };
        }
        let owned = self.admit(workspace, op).and_then(|table| {
            let field = table.owner_field.as_deref();
            let known = state.records.get(&op.key()).map(|record| &record.owner);
            owned(user, op, field, known).map(|(owner, fills)| (owner, field.filter(|_| fills)))
        });
        let turned =
            owned.and_then(|owned| Ok((owned, state.turn(op, self.settings.max_payload_bytes)?)));
        match turned {
            Err(code) => Fate::Refused(code),
            Ok(((owner, field), turn)) => {
                let version = state.append(op, turn, owner, field, at);
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
        match says(&table.pk_field, &op.pk) && says("workspace_id", workspace) {
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

fn is_same_op(one: &Op, other: &Op) -> bool {
    let is_same_payload = match (&one.payload, &other.payload) {
        (Some(one), Some(other)) => is_same(one, other),
        (one, other) => one == other,
    };
    one.is_like(other) && is_same_payload
}

/// Both halves of an exchange's reply.
pub struct Exchanged {
    pub push: Value,
    pub pull: Pulled,
    pub acknowledges: bool,
}

impl Server {
    pub fn exchange(
        &mut self,
        device: &str,
        ops: &str,
        pull: &Pull,
        (at, heard_at): (i64, i64),
    ) -> Result<Exchanged, Refusal> {
        named(device, 256, "invalid device_id")?;
        // What is wrong with the pull keeps the ops from being stored.
        self.pull(pull)?;
        let user = pull.user.as_deref();
        let push = self.push(user, &pull.workspace, ops, at)?;
        let pulled = self.pull(pull)?;
        let acknowledges = pull.cursor > 0 && matches!(pulled.proof, ShownProof::New(_));
        if acknowledges {
            self.acknowledge(user, &pull.workspace, device, pull.cursor, heard_at)?;
        }
        Ok(Exchanged { push, pull: pulled, acknowledges })
    }
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

    fn append(&mut self, op: &Op, turn: Turn, owner: Owner, field: Option<&str>, at: i64) -> i64 {
        self.head += 1;
        let version = self.head;
        let winner = self.records.get(&op.key());
        let applied = !matches!(turn, Turn::Loses);
        let replaced = winner.filter(|_| applied);
        let supersedes = replaced.map(|winner| winner.version);
        let is_put = !op.is_delete && op.base.is_none();
        let created = applied && is_put && replaced.is_none_or(|winner| winner.is_deleted);
        let newest = replaced.map(|winner| self.newest_id(winner).to_owned());
        let overwrote = newest.filter(|it| op.parent.as_ref().is_some_and(|seen| seen != it));
        if applied {
            let register = op.base.as_ref().unwrap_or(&op.revision);
            let (revision, is_deleted) = (register.clone(), op.is_delete);
            let record = Record { version, revision, is_deleted, owner: owner.clone() };
            self.records.insert(op.key(), record);
        }
        self.by_id.insert(op.revision.op_id.clone(), version);
        let mut op = op.clone();
        if let (Some(field), Some(owner), Some(payload)) = (field, &owner, &op.payload) {
            op.payload = Some(filled(payload, field, owner));
        }
        let filled = field.map(str::to_owned);
        let (merged, lost) = match turn {
            Turn::Merges { merged, lost } => (Some(merged), lost),
            Turn::Loses | Turn::Replaces => (None, Vec::new()),
        };
        let entry =
            Entry { op, merged, lost, filled, owner, applied, supersedes, created, overwrote, at };
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
            Fate::Stored { version, is_replay } => (version, is_replay),
        };
        let Entry { op, applied, lost, created, overwrote, .. } = &self.log[&version];
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

/// The first accepted op of a record fixes whose it is.
fn owned(user: Option<&str>, op: &Op, field: Option<&str>, known: Option<&Owner>) -> Owned {
    let said = field.map(|field| named_owner(op.payload.as_deref(), field));
    let owner = match (known, user, &said) {
        (Some(None), ..) | (None, _, None) => return Ok((None, false)),
        (Some(Some(owner)), Some(user), _) if owner != user => return Err(UNAUTHORIZED),
        (Some(Some(owner)), ..) => owner.clone(),
        (None, Some(user), _) => user.to_owned(),
        // It will be refused: there is nothing that it could patch.
        (None, None, _) if op.base.is_some() => return Ok((None, false)),
        (None, None, Some(Named::User(owner))) => owner.clone(),
        (None, None, _) => return Err(INVALID),
    };
    let fills = match said {
        _ if op.is_delete => false,
        None => false,
        Some(Named::Absent) => op.base.is_none(),
        Some(Named::User(said)) if said == owner => false,
        Some(_) => {
            return Err(if user.is_some() || op.base.is_some() { UNAUTHORIZED } else { INVALID });
        }
    };
    Ok((Some(owner), fills))
}

fn named_owner(payload: Option<&str>, field: &str) -> Named {
    let members = payload.and_then(Members::of).unwrap_or_default();
    match members.get(field) {
        None => Named::Absent,
        Some(raw) if is_number(raw) && raw.len() <= 256 => Named::User(raw.to_owned()),
        Some(raw) => name(raw, 256).map_or(Named::Nobody, Named::User),
    }
}

/// The object with the owner's field at the end, if it has no such field.
pub(crate) fn filled(object: &str, field: &str, owner: &str) -> String {
    if !matches!(named_owner(Some(object), field), Named::Absent) {
        return object.to_owned();
    }
    let open = object.strip_suffix('}').unwrap_or(object);
    let comma = if open.trim_end().ends_with('{') { "" } else { "," };
    format!("{open}{comma}{}:{}}}", json!(field), json!(owner))
}
