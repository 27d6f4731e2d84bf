//! Every row of the tables as a line of text, and the SQL that gives the same
//! lines of a real server.

use std::collections::HashSet;
use std::fmt::Display;

use crate::json::compact;
use crate::server::{Device, Entry, Record, Server, Workspace};

/// Entries of the workspace `$1`, NULL for all, above version `$2`. Times are
/// seconds since `$3`, which is NULL where nobody compares them.
pub const STORED_LOG: &str =
    "select format('%s log %s %s %s %s %s %s %s %s %s %s %s %s base <%s> patch <%s> fields <%s>
               owner <%s> filled <%s> scope %s %s at <%s>',
            w.workspace_id, l.server_version, l.table_name, l.pk, l.operation, l.payload, l.clock,
            l.hlc, l.device_id, l.op_id, l.applied, l.supersedes, l.overwrote, l.base, l.patch,
            l.fields, l.owner,
            l.filled_field, to_json(l.scope), to_json(l.left_scope),
            extract(epoch from l.created_at)::bigint - $3)
       from sync_ext.change_log l join sync_ext.workspace w using (workspace_key)
      where ($1::text is null or w.workspace_id = $1) and l.server_version > $2";

/// The other rows.
pub const STORED_REST: &str =
    "select format('%s workspace %s %s %s epoch %s', workspace_id, head, horizon,
            gc_through, scope_epoch > 0)
       from sync_ext.workspace
     union all select format('%s record %s %s %s %s %s %s %s owner <%s> scope %s', w.workspace_id,
            r.table_name, r.pk, r.server_version, r.clock, r.hlc, r.op_id, r.deleted, r.owner, to_json(r.scope))
       from sync_ext.record r join sync_ext.workspace w using (workspace_key)
     union all select format('%s device %s of <%s> %s at <%s>', w.workspace_id, d.device_id,
            d.user_id, d.last_seen_version, extract(epoch from d.updated_at)::bigint - $1)
       from sync_ext.device_cursor d join sync_ext.workspace w using (workspace_key)
     union all select format('%s member %s %s', workspace_id, user_id, role) from sync_ext.member
     union all select format('table %s %s <%s> %s scope %s', table_name, pk_field, owner_field,
            patches, to_json(scope_field))
       from sync_ext.synced_table";

fn flag(flag: bool) -> &'static str {
    if flag { "t" } else { "f" }
}

fn or_empty(value: Option<&impl Display>) -> String {
    value.map_or_else(String::new, ToString::to_string)
}

/// Tells an empty text from none.
fn json(text: &Option<String>) -> String {
    text.as_ref().map_or_else(String::new, |text| compact(&text.as_str().into()))
}

fn time(at: i64, has_times: bool) -> String {
    or_empty(Some(&at).filter(|_| has_times))
}

impl Server {
    /// In order, as [`STORED_LOG`] and [`STORED_REST`] give them of all
    /// workspaces.
    pub fn lines(&self, has_times: bool) -> Vec<String> {
        let mut lines = Vec::new();
        for (name, state) in &self.workspaces {
            let (head, horizon, through) = (state.head, state.horizon, state.gc_through);
            lines.push(format!(
                "{name} workspace {head} {horizon} {through} epoch {}",
                flag(state.scope_epoch > 0)
            ));
            lines.extend(state.log_lines(name, 0, has_times));
            for ((table, pk), record) in &state.records {
                let Record { version, revision, is_deleted, owner, scope } = record;
                lines.push(format!(
                    "{name} record {table} {pk} {version} {} {} {} {} owner <{}> scope {}",
                    revision.clock,
                    revision.hlc,
                    revision.op_id,
                    flag(*is_deleted),
                    or_empty(owner.as_ref()),
                    json(scope)
                ));
            }
            for ((device, user), Device { cursor, heard_at }) in &state.devices {
                let at = time(*heard_at, has_times);
                lines.push(format!("{name} device {device} of <{user}> {cursor} at <{at}>"));
            }
        }
        if !self.has_members_elsewhere {
            for ((name, user), role) in &self.members {
                lines.push(format!("{name} member {user} {}", role.word()));
            }
        }
        for (name, table) in &self.tables {
            let owner_field = or_empty(table.owner_field.as_ref());
            let patches = flag(table.patches);
            lines.push(format!(
                "table {name} {} <{owner_field}> {patches} scope {}",
                table.pk_field,
                json(&table.scope_field)
            ));
        }
        lines.sort_unstable();
        lines
    }
}

impl Workspace {
    /// The entries above a version, in their order.
    pub fn log_lines(
        &self,
        name: &str,
        above: i64,
        has_times: bool,
    ) -> impl Iterator<Item = String> {
        self.log.range(above + 1..).map(move |(version, entry)| {
            let Entry { op, filled, owner, applied, supersedes, overwrote, at, .. } = entry;
            let patch = op.payload.as_ref().filter(|_| op.base.is_some());
            let base = op.base.as_ref().map(|base| compact(&base.json()));
            let fields = entry.merged.as_ref().map(|merged| compact(&merged.fields()));
            format!(
                "{name} log {version} {} {} {} {} {} {} {} {} {} {} {} base <{}> patch <{}> fields <{}>
               owner <{}> filled <{}> scope {} {} at <{}>",
                op.table,
                op.pk,
                op.word(),
                or_empty(entry.record().as_ref()),
                op.revision.clock,
                op.revision.hlc,
                op.device_id,
                op.revision.op_id,
                flag(*applied),
                or_empty(supersedes.as_ref()),
                or_empty(overwrote.as_ref()),
                or_empty(base.as_ref()),
                or_empty(patch),
                or_empty(fields.as_ref()),
                or_empty(owner.as_ref()),
                or_empty(filled.as_ref()),
                json(&entry.scope),
                json(&entry.left_scope),
                time(*at, has_times)
            )
        })
    }
}

/// `None` if the lines are the same.
pub fn difference(stored: &[String], expected: &[String]) -> Option<String> {
    let only = |these: &[String], those: &[String]| {
        let those: HashSet<&String> = those.iter().collect();
        let lines: Vec<&str> =
            these.iter().filter(|line| !those.contains(line)).map(String::as_str).collect();
        lines.join("\n    ")
    };
    (stored != expected).then(|| {
        format!(
            "stored, but wrong:\n    {}\n  missing:\n    {}",
            only(stored, expected),
            only(expected, stored)
        )
    })
}
