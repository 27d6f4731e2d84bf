//! Ops as devices of the simulation make them.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use sync_ext_harness::device::{Pending, Revision};

use super::step::TABLES;

/// One edit. The payload is kept as what it says, not as it is spelled: an op
/// that is sent again may be spelled otherwise.
#[derive(Clone, Debug)]
pub struct Op {
    pub table: &'static str,
    pub pk: String,
    pub kind: Kind,
    /// Names and values, as JSON, of a put besides the pk; a delete has none.
    pub members: Members,
    pub revision: Revision,
    pub device_id: String,
    /// The newest entry as its author saw it, or "none"; an old client does not send it.
    pub parent: Option<String>,
    /// As JSON.
    pub expected: Option<String>,
}

pub type Members = BTreeMap<String, String>;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    Put,
    Delete,
    /// Of this put.
    Patch(Revision),
}

/// Two ways of writing the same JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spelling {
    Compact,
    Loose,
}

impl Op {
    /// The payload as sent, byte for byte; `None` for a delete.
    pub fn payload(&self, spelling: Spelling) -> Option<String> {
        let id = ("id".to_owned(), Value::from(self.pk.as_str()).to_string());
        let mut members: Vec<_> = self.members.clone().into_iter().collect();
        match self.kind {
            Kind::Put => members.insert(0, id),
            Kind::Patch(_) => {}
            Kind::Delete => return None,
        }
        let (colon, comma, end) = match spelling {
            Spelling::Compact => (":", ",", ""),
            Spelling::Loose => (" : ", ",  ", " "),
        };
        if spelling == Spelling::Loose {
            members.reverse();
        }
        let members: Vec<String> =
            members.iter().map(|(name, value)| format!("{}{colon}{value}", json!(name))).collect();
        Some(format!("{{{end}{}{end}}}", members.join(comma)))
    }

    pub fn json(&self, spelling: Spelling) -> String {
        let payload = self.payload(spelling).unwrap_or_else(|| "null".to_owned());
        let operation = match self.kind {
            Kind::Put => "put",
            Kind::Delete => "delete",
            Kind::Patch(_) => "patch",
        };
        let Revision { clock, hlc, op_id } = &self.revision;
        let (pk, hlc) = (Value::from(self.pk.as_str()), Value::from(hlc.as_str()));
        let mut more = String::new();
        if let Some(seen) = &self.parent {
            more += &format!("\"parent\":\"{seen}\",");
        }
        if let Kind::Patch(base) = &self.kind {
            more += &format!("\"base\":{},", revision_of(base).json());
        }
        if let Some(expected) = &self.expected {
            more += &format!("\"expected\":{expected},");
        }
        format!(
            r#"{{{more}"tableName":"{}","operation":"{operation}","pk":{pk},"payload":{payload},"stamp":{{"deviceId":"{}","opId":"{op_id}","hlc":{hlc},"clock":{clock}}}}}"#,
            self.table, self.device_id,
        )
    }

    /// Another op under the opId of one that the log holds.
    pub fn forged(logged: &sync_ext_model::Op) -> Op {
        let table = TABLES.into_iter().find(|table| *table == logged.table);
        let sync_ext_model::Revision { clock, hlc, op_id } = logged.revision.clone();
        Op {
            table: table.unwrap_or(TABLES[0]),
            pk: logged.pk.clone(),
            kind: Kind::Put,
            members: Members::from([("text".to_owned(), "0".to_owned())]),
            revision: Revision { clock, hlc, op_id },
            device_id: logged.device_id.clone(),
            parent: logged.parent.clone(),
            expected: None,
        }
    }

    pub fn pending(&self) -> Pending {
        Pending::of(self.json(Spelling::Compact)).expect("a well-formed op")
    }
}

/// An element of a batch.
#[derive(Clone, Debug)]
pub enum Item {
    Op(Box<Op>, Spelling),
    /// Not a well-formed op, with the opId that it has.
    Malformed {
        json: String,
        op_id: Option<String>,
    },
}

impl Item {
    pub fn json(&self) -> String {
        match self {
            Item::Op(op, spelling) => op.json(*spelling),
            Item::Malformed { json, .. } => json.clone(),
        }
    }

    pub fn op_id(&self) -> Option<&str> {
        match self {
            Item::Op(op, _) => Some(&op.revision.op_id),
            Item::Malformed { op_id, .. } => op_id.as_deref(),
        }
    }
}

/// A device's revision, as the model has it.
pub fn revision_of(revision: &Revision) -> sync_ext_model::Revision {
    let Revision { clock, hlc, op_id } = revision.clone();
    sync_ext_model::Revision { clock, hlc, op_id }
}
