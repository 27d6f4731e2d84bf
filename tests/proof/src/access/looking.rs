//! The views, and what operators ask.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::asking::Call;
use super::step::{Name, Via, Who};
use super::world::World;

const ALL_VIEWS: &str = "select json_build_object(
  'records', (select coalesce(json_agg(json_build_array(workspace_id, table_name, pk, payload,
      deleted, revision, server_version, updated_at is not null) order by workspace_id, table_name, pk), '[]')
      from sync_ext.current_record),
  'tombstones', (select coalesce(json_agg(json_build_array(workspace_id, table_name, pk,
      server_version, deleted_at is not null) order by workspace_id, table_name, pk), '[]')
      from sync_ext.tombstone),
  'conflicts', (select coalesce(json_agg(json_build_array(workspace_id, table_name, pk, decided_by,
      overwritten, loser_version, loser_operation, loser_payload, loser_device_id, loser_revision,
      winner_version, winner_operation, winner_payload, winner_device_id, winner_revision)
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
    /// Each row by itself is judged for secrecy: it tells of its workspace.
    pub fn look(&mut self, who: Who, via: Via) -> Result<()> {
        let foretold = self.foretell(who, |model, user| {
            let (records, tombstones) = model.views(user);
            let (workspaces, devices) = rows(&model.status(user, None)?);
            Ok(json!({"records": records, "tombstones": tombstones,
                "conflicts": model.conflicts(user), "workspaces": workspaces,
                "devices": devices, "counters": []}))
        });
        let call = Call::new(who, via, ALL_VIEWS);
        let reply = self.ask(&call, &foretold)?;
        self.tally.add("times that views were read", 1);
        let (Some(reply), Ok(foretold)) = (reply, foretold) else { return Ok(()) };
        let views = reply.as_object().context("no views")?.values();
        for row in views.filter_map(Value::as_array).flatten() {
            let workspace = self.model.workspaces.keys().find(|name| row[0] == **name);
            let workspace = workspace.with_context(|| format!("of no workspace: {row}"))?;
            if let Some(user) = who.user() {
                self.secrets.told(workspace, user, &row.to_string(), "")?;
            }
        }
        let shown = |view: &str| reply[view].as_array().map_or(0, Vec::len) as u64;
        self.tally.add("conflicts in the view", shown("conflicts"));
        ensure!(reply == foretold, "the views show {reply}\nforetold {foretold}");
        Ok(())
    }

    pub fn status(&mut self, who: Who, via: Via, workspace: Option<Name>) -> Result<()> {
        let foretold = self.foretell(who, |model, user| model.status(user, workspace));
        let mut call = Call::new(who, via, "select sync_status($1)::text");
        call = match workspace {
            Some(workspace) => call.about(workspace),
            None => call.with(None::<Name>),
        };
        let reply = self.ask(&call, &foretold)?;
        let (Some(mut reply), Ok(foretold)) = (reply, foretold) else { return Ok(()) };
        for status in reply["workspaces"].as_array_mut().into_iter().flatten() {
            without_measures(status)?;
            self.tally.add("workspaces whose status was told", 1);
        }
        ensure!(reply == foretold, "the status is {reply}\nforetold {foretold}");
        Ok(())
    }

    pub fn explain(&mut self, who: Who, via: Via, workspace: Name, record: usize) -> Result<()> {
        let records = self.model.workspaces.get(workspace).map(|state| &state.records);
        let key = records.and_then(|all| all.keys().nth(record % all.len().max(1)));
        let key = key.cloned().unwrap_or_else(|| ("notes".to_owned(), "none".to_owned()));
        let foretold = self.foretell(who, |model, user| model.explain(user, workspace, &key));
        let sql = "select sync_explain($1, $2, $3)::text";
        let call = Call::new(who, via, sql).about(workspace).with(Some(&key.0)).with(Some(&key.1));
        let reply = self.ask(&call, &foretold)?;
        let (Some(mut reply), Ok(foretold)) = (reply, foretold) else { return Ok(()) };
        let is_hidden = foretold["state"] == "unknown" && key.1 != "none";
        self.tally.add("hidden records not explained", u64::from(is_hidden));
        for op in reply["ops"].as_array_mut().into_iter().flatten() {
            self.tally.add("ops explained", 1);
            without(op, "createdAt", Value::is_string)?;
        }
        if reply["purge"].is_object() {
            without(&mut reply["purge"], "dueAt", Value::is_string)?;
        }
        ensure!(reply == foretold, "it is explained by {reply}\nforetold {foretold}");
        Ok(())
    }
}

/// A status as the rows of the two views tell it.
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

/// Leaves out bytes and ages, and which of the devices that hold GC back is told.
fn without_measures(status: &mut Value) -> Result<()> {
    let devices = status["devices"].clone();
    let holds = |id: &Value| {
        let mut devices = devices.as_array().into_iter().flatten();
        devices.any(|device| device["deviceId"] == *id && device["pinsGc"] == true)
    };
    if holds(&status["pinnedBy"]) {
        status["pinnedBy"] = json!("one of those");
    }
    without(status, "logBytes", Value::is_number)?;
    for device in status["devices"].as_array_mut().into_iter().flatten() {
        without(device, "heartbeatAgeSeconds", Value::is_number)?;
    }
    Ok(())
}

/// Takes out what nobody foretells but for its kind.
fn without(of: &mut Value, key: &str, is_right: fn(&Value) -> bool) -> Result<()> {
    let taken = of.as_object_mut().and_then(|of| of.remove(key));
    taken.filter(is_right).with_context(|| format!("{key} in {of}")).map(drop)
}
