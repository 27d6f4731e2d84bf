//! Tables, records and devices, compared.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use postgres::Client;
use serde_json::Value;
use sync_ext_harness::attached::differences;
use sync_ext_harness::device::Device;

use super::WORKSPACES;
use super::phone::Phone;
use super::report::Report;

/// The live rows of a workspace, by table and key.
type State = BTreeMap<(String, String), Value>;

pub fn count(client: &mut Client, report: &mut Report) -> Result<()> {
    let sql = "select count(*) from sync_ext.change_log where device_id = '$server'";
    report.captured = client.query_one(sql, &[])?.get(0);
    let sql = "select value from sync_ext.counter where counter = 'pushes_yielded'";
    report.yielded = client.query_one(sql, &[])?.get(0);
    let sql = "select count(*) from sync_ext.current_record where not deleted";
    report.rows_at_end = client.query_one(sql, &[])?.get(0);
    Ok(())
}

pub fn compare(client: &mut Client, phones: &[Phone]) -> Result<()> {
    for table in ["lists", "todos", "comments"] {
        let sql = "select sync_check_table($1::text::regclass)::text";
        let reply: String = client.query_one(sql, &[&table])?.get(0);
        let reply: Value = serde_json::from_str(&reply)?;
        ensure!(reply["differencesTotal"] == 0, "sync_check_table of {table}: {reply}");
    }
    let sql = "select count(*) from sync_ext.record r
                 join sync_ext.change_log l using (workspace_key, server_version)
                where l.table_name = 'comments' and l.device_id <> '$server'
                  and not r.deleted and l.payload ->> 'hidden' = 'true'";
    let hidden: i64 = client.query_one(sql, &[])?.get(0);
    ensure!(hidden == 0, "devices have hidden {hidden} comments in spite of the policy");
    let found = differences(client);
    ensure!(found.is_empty(), "log and tables differ: {found:#?}");
    client.batch_execute("set timezone = 'UTC'")?;
    for workspace in WORKSPACES {
        let (tables, records) = (of_tables(client, workspace)?, of_records(client, workspace)?);
        ensure!(tables == records, "{workspace}: tables {tables:#?}, records {records:#?}");
        for device in phones.iter().map(|phone| &phone.device) {
            if device.workspace == workspace {
                let state = of_device(device)?;
                ensure!(state == tables, "{}: {state:#?}, tables {tables:#?}", device.id);
            }
        }
    }
    Ok(())
}

fn of_tables(client: &mut Client, workspace: &str) -> Result<State> {
    let sql = "
      select 'lists', id, (to_jsonb(t) - 'workspace_id')::text from lists t where workspace_id = $1
      union all
      select 'todos', id, (to_jsonb(t) - 'workspace_id')::text from todos t where workspace_id = $1
      union all
      select 'comments', id, (to_jsonb(t) - 'workspace_id')::text from comments t where workspace_id = $1";
    state(client, sql, workspace)
}

fn of_records(client: &mut Client, workspace: &str) -> Result<State> {
    let sql = "select table_name, pk, payload::text from sync_ext.current_record
                where workspace_id = $1 and not deleted";
    state(client, sql, workspace)
}

fn state(client: &mut Client, sql: &str, workspace: &str) -> Result<State> {
    let rows = client.query(sql, &[&workspace])?;
    let record = |row: &postgres::Row| {
        let payload: String = row.get(2);
        Ok(((row.get(0), row.get(1)), serde_json::from_str(&payload)?))
    };
    rows.iter().map(record).collect()
}

fn of_device(device: &Device) -> Result<State> {
    let live = device.synced.iter().filter(|(_, record)| !record.deleted);
    let payload =
        |payload: &Option<String>| serde_json::from_str(payload.as_deref().unwrap_or("null"));
    live.map(|(key, record)| Ok((key.clone(), payload(&record.payload)?))).collect()
}
