//! New entries of `sync_ext.change_log`.

use std::borrow::Cow;

use super::server;
use super::values::Value;
use super::writer::Writer;
use sync_ext_core::rules::merge::Decision;
use sync_ext_core::rules::op::{Op, Timestamp};
use sync_ext_core::wire::pages::{Change, Telling};
use sync_ext_core::wire::revision::write_revision;
use sync_ext_core::wire::value::stable_digest;

/// An entry to be written.
pub struct NewEntry<'e> {
    pub op: &'e Op<'e>,
    pub decision: &'e Decision,
    pub owner: Option<&'e str>,
    /// The payload as stored: the op's, or with the owner filled in; for a patch that is
    /// the newest entry, the whole record.
    pub payload: Option<Cow<'e, str>>,
    /// What was pushed, if the payload is the image of a typed row instead.
    pub pushed: Option<&'e str>,
    /// The field that was filled in.
    pub filled_field: Option<&'e str>,
    /// Who holds which field, where a patch is the newest entry.
    pub fields: Option<String>,
}

impl NewEntry<'_> {
    fn base(&self) -> Option<String> {
        let mut base = String::new();
        write_revision(&mut base, self.op.base()?);
        Some(base)
    }

    fn patch(&self) -> Option<&str> {
        self.op.payload.filter(|_| self.op.patch.is_some())
    }

    /// Passes it to `write` in the form of a pull.
    pub fn change(&self, write: impl FnOnce(&Change<'_>, Telling<'_>)) {
        let Decision { version, applied, overwrote, ref scope, .. } = *self.decision;
        let left_scope = self.decision.left_scope();
        let telling = Telling::Op { scope: scope.as_deref(), left_scope };
        let base = self.base();
        let change = Change {
            version,
            applied,
            overwrote,
            table: &self.op.key.table,
            pk: &self.op.key.pk,
            operation: self.op.operation,
            revision: self.op.revision.clone(),
            device_id: &self.op.device_id,
            payload: self.payload.as_deref(),
            patch: self.patch(),
            base: base.as_deref(),
            fields: self.fields.as_deref(),
        };
        write(&change, telling);
    }
}

/// Appends entries to the log of one workspace.
pub struct LogWriter<'s> {
    workspace_key: i64,
    writer: Writer<'s>,
    created_at: Timestamp,
}

impl<'s> LogWriter<'s> {
    pub fn new(workspace_key: i64, writer: Writer<'s>, created_at: Timestamp) -> LogWriter<'s> {
        LogWriter { workspace_key, writer, created_at }
    }

    pub fn append(&mut self, entry: &NewEntry<'_>) {
        let NewEntry { op, decision, owner, filled_field, .. } = *entry;
        let base = entry.base();
        let digest =
            entry.pushed.and_then(|pushed| stable_digest(pushed, server::check_interrupts));
        self.writer.insert(&[
            Value::Int8(self.workspace_key),
            Value::Int8(decision.version.get()),
            Value::Text(&op.key.table),
            Value::Text(&op.key.pk),
            Value::Text(op.operation.as_str()),
            text_or_null(entry.payload.as_deref()),
            Value::Int8(op.revision.clock),
            Value::Text(&op.revision.hlc),
            Value::Text(&op.device_id),
            Value::Uuid(op.op_id()),
            Value::Bool(decision.applied),
            decision.supersedes.map_or(Value::Null, |version| Value::Int8(version.get())),
            Value::Time(self.created_at),
            Value::Text(owner.unwrap_or("")),
            Value::Text(filled_field.unwrap_or("")),
            decision.overwrote.map_or(Value::Null, Value::Uuid),
            text_or_null(base.as_deref()),
            text_or_null(entry.patch()),
            text_or_null(entry.fields.as_deref()),
            digest.map_or(Value::Null, Value::Uuid),
            text_or_null(decision.scope.as_deref()),
            text_or_null(decision.left_scope()),
        ]);
    }

    /// False if an opId was already in the log, see [`Duplicates::Report`].
    #[must_use]
    pub fn finish(self) -> bool {
        self.writer.finish()
    }
}

fn text_or_null(text: Option<&str>) -> Value<'_> {
    text.map_or(Value::Null, Value::Text)
}
