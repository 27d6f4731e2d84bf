//! Ops as devices of the simulation make them.

use serde_json::Value;
use sync_ext_harness::device::{Pending, Revision};

use super::step::TABLES;

/// One edit. The payload is kept as what it says, not as it is spelled: an op
/// that is sent again may be spelled otherwise.
#[derive(Clone, Debug)]
pub struct Op {
    pub table: &'static str,
    pub pk: String,
    pub delete: bool,
    /// What the payload says besides the pk; a delete has none.
    pub text: u64,
    pub revision: Revision,
    pub device_id: String,
    /// The newest entry as its author saw it, or "none"; an old client does not send it.
    pub parent: Option<String>,
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
        let id = Value::from(self.pk.as_str());
        (!self.delete).then(|| match spelling {
            Spelling::Compact => format!(r#"{{"id":{id},"text":"{}"}}"#, self.text),
            Spelling::Loose => format!(r#"{{ "text" : "{}",  "id" : {id} }}"#, self.text),
        })
    }

    pub fn json(&self, spelling: Spelling) -> String {
        let payload = self.payload(spelling).unwrap_or_else(|| "null".to_owned());
        let operation = if self.delete { "delete" } else { "put" };
        let Revision { clock, hlc, op_id } = &self.revision;
        let (pk, hlc) = (Value::from(self.pk.as_str()), Value::from(hlc.as_str()));
        let parent =
            self.parent.as_ref().map_or(String::new(), |seen| format!("\"parent\":\"{seen}\","));
        format!(
            r#"{{{parent}"tableName":"{}","operation":"{operation}","pk":{pk},"payload":{payload},"stamp":{{"deviceId":"{}","opId":"{op_id}","hlc":{hlc},"clock":{clock}}}}}"#,
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
            delete: false,
            text: 0,
            revision: Revision { clock, hlc, op_id },
            device_id: logged.device_id.clone(),
            parent: logged.parent.clone(),
        }
    }

    pub fn pending(&self) -> Pending {
        Pending {
            json: self.json(Spelling::Compact),
            table: self.table.to_owned(),
            pk: self.pk.clone(),
            revision: self.revision.clone(),
            told: None,
        }
    }
}

/// An element of a batch.
#[derive(Clone, Debug)]
pub enum Item {
    Op(Op, Spelling),
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
