//! A digest of a workspace's state: sha256 over one line per record in
//! (tableName, pk) byte order, each the compact JSON array
//! `[tableName, pk, clock, hlc, opId, operation]` and a newline.

use std::collections::BTreeMap;

use anyhow::Result;
use postgres::{Client, GenericClient};
use serde::Serialize;
use sha2::{Digest, Sha256};

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Line(pub String, pub String, pub i64, pub String, pub String, pub String);

/// `lines` in the order of table and pk.
pub fn digest(lines: impl IntoIterator<Item = Line>) -> Result<String> {
    let mut hash = Sha256::new();
    for line in lines {
        hash.update(serde_json::to_string(&line)?);
        hash.update("\n");
    }
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// The server's state, graves included.
pub fn of_server(client: &mut Client, workspace_id: &str) -> Result<Vec<Line>> {
    let rows = client.query(
        "select r.table_name, r.pk, r.clock, r.hlc, r.op_id::text,
                case when r.deleted then 'delete' else 'put' end
           from sync_ext.record r join sync_ext.workspace w using (workspace_key)
          where w.workspace_id = $1 order by r.table_name, r.pk",
        &[&workspace_id],
    )?;
    Ok(rows
        .iter()
        .map(|row| Line(row.get(0), row.get(1), row.get(2), row.get(3), row.get(4), row.get(5)))
        .collect())
}

/// The part of a state that users see.
pub fn live(lines: Vec<Line>) -> Vec<Line> {
    lines.into_iter().filter(|line| line.5 == "put").collect()
}

/// The tables of the extension.
pub const TABLES: [&str; 8] = [
    "workspace",
    "synced_table",
    "change_log",
    "record",
    "device_cursor",
    "member",
    "dropped_workspace",
    "unpinned_workspace",
];

/// Everything that the extension stores in a database: a text for each of its tables.
pub fn tables(client: &mut impl GenericClient) -> Result<BTreeMap<&'static str, String>> {
    let mut tables = BTreeMap::new();
    for table in TABLES {
        let rows = client.query_one(
            &format!(
                "select coalesce(string_agg(t::text, '|' order by t::text), '')
                   from sync_ext.{table} t"
            ),
            &[],
        )?;
        tables.insert(table, rows.get(0));
    }
    Ok(tables)
}
