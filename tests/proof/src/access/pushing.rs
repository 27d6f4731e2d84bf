//! What the contract says of a push, and of an exchange.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::model::{Entry, Outcome, Owner, Record, Refusal, Server, Workspace, sees};
use super::op::{Item, Op, Told};
use super::reads::PullCall;
use super::step::{Name, Role};

/// Why an op is refused: its errorCode, and the error where that is one text.
#[derive(Clone, Copy, Debug)]
pub struct Code(&'static str, Option<&'static str>);

const INVALID: Code = Code("VALIDATION_ERROR", None);
const UNAUTHORIZED: Code =
    Code("UNAUTHORIZED", Some("the record is another user's, or the payload says so"));
const TWICE: Code =
    Code("CONFLICT", Some("opId stands more than once in this batch, with different content"));
const LOGGED: Code = Code("CONFLICT", Some("opId was pushed before with different content"));

#[derive(Clone)]
enum Fate {
    Refused(Code),
    Stored { version: i64, replayed: bool },
}

/// Whose a record is or becomes, and whether the payload is made to say so.
type Owned = Result<(Owner, bool), Code>;

impl Server {
    pub fn push(
        &mut self,
        user: Option<Name>,
        workspace: Name,
        items: &[Item],
        at: i64,
    ) -> Outcome {
        self.allow(user, workspace, Role::Editor)?;
        let tables = self.tables.clone();
        let is_new = !self.workspaces.contains_key(workspace);
        let mut state = match self.workspaces.remove(workspace) {
            Some(state) => state,
            None => self.new_workspace(),
        };
        let before = state.head;
        let mut fates: Vec<Fate> = Vec::new();
        for (place, item) in items.iter().enumerate() {
            let twins = || items.iter().filter(|other| other.op.op_id == item.op.op_id);
            let first = items.iter().position(|other| other.op.op_id == item.op.op_id);
            let fate = if twins().any(|other| !other.op.is_same(&item.op)) {
                Fate::Refused(TWICE)
            } else if let Some(first) = first.filter(|first| *first < place) {
                fates[first].clone()
            } else {
                let owner_field = tables.get(item.op.table).copied();
                state.take(user, item, owner_field, at)
            };
            fates.push(fate);
        }
        // The records whose winner's payload is told.
        let mut told = BTreeSet::new();
        let results: Vec<Value> = items
            .iter()
            .zip(&fates)
            .map(|(item, fate)| state.result(&item.op.op_id, fate, before, &mut told))
            .collect();
        let head = state.head;
        if !is_new || head > 0 {
            self.workspaces.insert(workspace, state);
        }
        Ok(json!({"results": results, "serverVersion": head}))
    }
}

/// Both halves of an exchange's reply.
pub struct Exchanged {
    pub push: Value,
    pub pull: Value,
    pub acknowledges: bool,
}

impl Server {
    pub fn exchange(
        &mut self,
        user: Option<Name>,
        device: Name,
        items: &[Item],
        call: &PullCall,
        at: i64,
    ) -> Result<Exchanged, Refusal> {
        let push = self.push(user, call.workspace, items, at)?;
        let (pull, _) = self.pull(user, call)?;
        let acknowledges = call.cursor > 0 && pull["requiresSnapshot"] == false;
        if acknowledges {
            self.acknowledge(user, call.workspace, device, call.cursor)?;
        }
        Ok(Exchanged { push, pull, acknowledges })
    }
}

impl Workspace {
    /// One op; `owner_field` is `None` if its table is not registered.
    fn take(
        &mut self,
        user: Option<Name>,
        item: &Item,
        owner_field: Option<Option<Name>>,
        at: i64,
    ) -> Fate {
        let op = &item.op;
        if let Some(version) = self.by_id.get(&op.op_id) {
            let entry = &self.log[version];
            return match sees(user, &entry.owner) && entry.is_of(op) {
                true => Fate::Stored { version: *version, replayed: true },
                false => Fate::Refused(LOGGED),
            };
        }
        let Some(owner_field) = owner_field else { return Fate::Refused(INVALID) };
        if op.told("id") != Told::Nothing {
            // Those that there are say something else than the pk.
            return Fate::Refused(INVALID);
        }
        let known = self.records.get(&op.key()).map(|record| &record.owner);
        match owned(user, op, owner_field, known) {
            Err(code) => Fate::Refused(code),
            Ok((owner, fill)) => {
                let filled = owner_field.filter(|_| fill);
                let version = self.append(item, owner, filled, at);
                Fate::Stored { version, replayed: false }
            }
        }
    }

    fn append(&mut self, item: &Item, owner: Owner, filled: Option<Name>, at: i64) -> i64 {
        let op = item.op.clone();
        self.head += 1;
        let version = self.head;
        let winner = self.records.get(&op.key());
        let applied = winner.is_none_or(|winner| op.revision() > winner.revision);
        let replaced = winner.filter(|_| applied);
        let supersedes = replaced.map(|winner| winner.version);
        let created = applied && !op.delete && replaced.is_none_or(|winner| winner.deleted);
        let newest = replaced.map(|winner| winner.revision.2.clone());
        let overwrote = newest.filter(|it| op.parent.as_ref().is_some_and(|seen| seen != it));
        if applied {
            let (revision, deleted) = (op.revision(), op.delete);
            let record = Record { version, revision, deleted, owner: owner.clone() };
            self.records.insert(op.key(), record);
        }
        self.by_id.insert(op.op_id.clone(), version);
        let payload = match (filled, &owner) {
            (Some(field), Some(owner)) => item.payload().map(|text| with(&text, field, owner)),
            _ => item.payload(),
        };
        let entry =
            Entry { op, payload, filled, owner, applied, supersedes, created, overwrote, at };
        self.log.insert(version, entry);
        version
    }

    fn result(
        &self,
        op_id: &str,
        fate: &Fate,
        before: i64,
        told: &mut BTreeSet<(String, String)>,
    ) -> Value {
        let (version, replayed) = match fate {
            Fate::Refused(Code(code, error)) => {
                let mut refused = json!({"opId": op_id, "success": false, "errorCode": code});
                if let Some(error) = error {
                    refused["error"] = json!(error);
                }
                return refused;
            }
            Fate::Stored { version, replayed } => (*version, *replayed),
        };
        let Entry { op, applied, created, overwrote, .. } = &self.log[&version];
        let key = op.key();
        let record = &self.records[&key];
        let applied = if replayed { record.version == version } else { *applied };
        let mut result =
            json!({"opId": op_id, "success": true, "serverVersion": version, "applied": applied});
        if replayed {
            result["replayed"] = json!(true);
        } else if *created {
            result["created"] = json!(true);
        }
        if let Some(overwrote) = overwrote {
            result["overwrote"] = json!(overwrote);
        }
        if applied {
            return result;
        }
        let mut winner = json!({"serverVersion": record.version, "revision": record.revision()});
        let entry = self.log.get(&record.version);
        if record.deleted {
            winner["kind"] = json!("delete");
            if record.version > before || entry.is_some() {
                winner["serverDeletedAt"] = json!(true);
            }
        } else {
            winner["kind"] = json!("put");
            if told.insert(key) {
                winner["payload"] = entry.map_or(Value::Null, Entry::payload_value);
            }
        }
        result["winner"] = winner;
        result
    }
}

/// The first accepted op of a record fixes whose it is.
fn owned(user: Option<Name>, op: &Op, field: Option<Name>, known: Option<&Owner>) -> Owned {
    let told = field.map(|field| op.told(field));
    let owner = match (known, user, &told) {
        (Some(None), ..) | (None, _, None) => return Ok((None, false)),
        (Some(Some(owner)), Some(user), _) if owner != user => return Err(UNAUTHORIZED),
        (Some(Some(owner)), ..) => owner.clone(),
        (None, Some(user), _) => user.to_owned(),
        (None, None, Some(Told::User(owner))) => owner.clone(),
        (None, None, _) => return Err(INVALID),
    };
    let fill = match told {
        _ if op.delete => false,
        None => false,
        Some(Told::Nothing) => true,
        Some(Told::User(told)) if told == owner => false,
        Some(_) => return Err(if user.is_some() { UNAUTHORIZED } else { INVALID }),
    };
    Ok((Some(owner), fill))
}

/// One member more, at the end.
fn with(object: &str, field: &str, owner: &str) -> String {
    let open = object.strip_suffix('}').unwrap_or(object);
    let comma = if open.trim_end().ends_with('{') { "" } else { "," };
    format!("{open}{comma}\"{field}\":\"{owner}\"}}")
}

impl Entry {
    /// Is it this op, as it was sent or with what was filled in?
    fn is_of(&self, op: &Op) -> bool {
        let sent = || {
            let mut members = op.members()?;
            if let (Some(field), Some(owner)) = (self.filled, &self.owner) {
                members.entry(field.to_owned()).or_insert(json!(owner));
            }
            Some(json!(members))
        };
        self.op.is_like(op) && sent() == self.payload.as_ref().map(|_| self.payload_value())
    }

    pub fn payload_value(&self) -> Value {
        let value = self.payload.as_deref().map(serde_json::from_str);
        value.transpose().ok().flatten().unwrap_or_default()
    }
}

impl Record {
    pub fn revision(&self) -> Value {
        let (clock, hlc, op_id) = &self.revision;
        json!({"clock": clock, "hlc": hlc, "opId": op_id})
    }
}
