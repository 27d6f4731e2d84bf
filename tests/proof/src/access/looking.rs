//! The views, and what operators ask.

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::asking::Call;
use super::step::{Name, Via, Who};
use super::world::{CUTOFFS, World};
use crate::common::measures;
use crate::common::rows::check_reply;

const ALL_VIEWS: &str = "select json_build_object(
  'records', (select coalesce(json_agg(json_build_array(workspace_id, table_name, pk, payload::text,
      deleted, revision, server_version, updated_at is not null, fields, scope) order by workspace_id, table_name, pk), '[]')
      from sync_ext.current_record),
  'tombstones', (select coalesce(json_agg(json_build_array(workspace_id, table_name, pk,
      server_version, deleted_at is not null) order by workspace_id, table_name, pk), '[]')
      from sync_ext.tombstone),
  'conflicts', (select coalesce(json_agg(json_build_array(workspace_id, table_name, pk, decided_by,
      overwritten, loser_version, loser_operation, loser_payload::text, loser_device_id, loser_revision,
      winner_version, winner_operation, winner_payload::text, winner_device_id, winner_revision,
      lost_fields)
      order by workspace_id, loser_version), '[]')
      from sync_ext.conflict),
  'workspaces', (select coalesce(json_agg(json_build_array(workspace_id, head, horizon + 1,
      gc_through, live_records, tombstones, graves, log_rows, garbage_waiting, pinned_at)
      order by workspace_id), '[]')
      from sync_ext.workspace_status),
  'devices', (select coalesce(json_agg(json_build_array(workspace_id, device_id,
      nullif(user_id, ''), last_seen_version, lag, active, pins_gc)
      order by workspace_id, device_id, user_id), '[]')
      from sync_ext.device_status),
  'counters', (select coalesce(json_agg(counter), '[]') from sync_ext.counter))::text";

/// What sync_status calls the columns of `workspace_status` and `device_status`.
const OF_WORKSPACE: [&str; 10] = [
    "workspaceId",
    "serverVersion",
    "oldestRetainedVersion",
    "gcThrough",
    "liveRecords",
    "tombstones",
    "graves",
    "logRows",
    "garbageWaiting",
    "pinnedAt",
];
const OF_DEVICE: [&str; 6] = ["deviceId", "userId", "lastSeenVersion", "lag", "active", "pinsGc"];

impl World {
    /// Each row by itself is judged for secrecy: it shows its workspace.
    pub fn look(&mut self, who: Who, via: Via) -> Result<()> {
        let expected = self.expect(who, |model, user| {
            let (records, tombstones) = model.records(user);
            let (workspaces, devices) = rows(&model.status(user, None, CUTOFFS)?);
            Ok(json!({"records": records, "tombstones": tombstones,
                "conflicts": model.conflicts(user), "workspaces": workspaces,
                "devices": devices, "counters": []}))
        });
        let call = Call::new(who, via, ALL_VIEWS);
        let reply = self.ask(&call, &expected)?;
        self.tally.add("times that views were read", 1);
        let (Some(reply), Ok(expected)) = (reply, expected) else { return Ok(()) };
        let views = reply.as_object().context("no views")?.values();
        for row in views.filter_map(Value::as_array).flatten() {
            let workspace = self.model.workspaces.keys().find(|name| row[0] == **name);
            let workspace = workspace.with_context(|| format!("of no workspace: {row}"))?;
            if let Some(user) = who.user() {
                self.secrets.shown(workspace, user, &row.to_string(), "")?;
            }
        }
        let shown = |view: &str| reply[view].as_array().map_or(0, Vec::len) as u64;
        self.tally.add("conflicts in the view", shown("conflicts"));
        check_reply("a question to the views", &reply, &expected)
    }

    pub fn status(&mut self, who: Who, via: Via, workspace: Option<Name>) -> Result<()> {
        let expected = self.expect(who, |model, user| model.status(user, workspace, CUTOFFS));
        let mut call = Call::new(who, via, "select sync_status($1)::text");
        call = match workspace {
            Some(workspace) => call.about(workspace),
            None => call.with(None::<Name>),
        };
        let reply = self.ask(&call, &expected)?;
        let (Some(mut reply), Ok(expected)) = (reply, expected) else { return Ok(()) };
        let shown = measures::take_from_status(&mut reply)?;
        self.tally.add("workspaces whose status was read", shown);
        check_reply("a question for the status", &reply, &expected)
    }

    pub fn explain(&mut self, who: Who, via: Via, workspace: Name, record: usize) -> Result<()> {
        let records = self.model.workspaces.get(workspace).map(|state| &state.records);
        let key = records.and_then(|all| all.keys().nth(record % all.len().max(1)));
        let key = key.cloned().unwrap_or_else(|| ("notes".to_owned(), "none".to_owned()));
        let expected =
            self.expect(who, |model, user| model.explain(user, workspace, &key, CUTOFFS));
        let sql = "select sync_explain($1, $2, $3)::text";
        let call = Call::new(who, via, sql).about(workspace).with(Some(&key.0)).with(Some(&key.1));
        let reply = self.ask(&call, &expected)?;
        let (Some(mut reply), Ok(expected)) = (reply, expected) else { return Ok(()) };
        let is_hidden = expected["state"] == "unknown" && key.1 != "none";
        self.tally.add("hidden records not explained", u64::from(is_hidden));
        self.tally.add("ops explained", measures::take_from_explained(&mut reply)?);
        check_reply("a question for a record", &reply, &expected)
    }
}

/// A status as the rows of the two views show it.
fn rows(status: &Value) -> (Vec<Value>, Vec<Value>) {
    let (mut workspaces, mut devices) = (Vec::new(), Vec::new());
    for status in status["workspaces"].as_array().into_iter().flatten() {
        workspaces.push(json!(OF_WORKSPACE.map(|key| &status[key])));
        for device in status["devices"].as_array().into_iter().flatten() {
            let of_device = OF_DEVICE.iter().map(|key| &device[key]);
            devices.push([&status["workspaceId"]].into_iter().chain(of_device).cloned().collect());
        }
    }
    (workspaces, devices)
}
