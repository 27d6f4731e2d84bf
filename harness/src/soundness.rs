//! Checks tables and indexes with contrib's amcheck, where it is installed.

use anyhow::{Result, ensure};
use postgres::Client;

/// False where there is no amcheck.
pub fn is_checkable(client: &mut Client) -> Result<bool> {
    let sql = "select count(*) from pg_available_extensions where name = 'amcheck'";
    if client.query_one(sql, &[])?.get::<_, i64>(0) == 0 {
        println!("amcheck is not available here: tables and indexes are not checked");
        return Ok(false);
    }
    client.batch_execute("create extension if not exists amcheck")?;
    Ok(true)
}

/// Every index is in order and has every row; every row is complete.
pub fn check(client: &mut Client) -> Result<()> {
    client.execute(
        "select bt_index_check(i.indexrelid, true)
           from pg_index i join pg_class c on c.oid = i.indrelid
          where c.relnamespace = 'sync_ext'::regnamespace",
        &[],
    )?;
    let damaged = client.query(
        "select c.relname::text, v.msg from pg_class c, verify_heapam(c.oid) v
          where c.relnamespace = 'sync_ext'::regnamespace and c.relkind = 'r'",
        &[],
    )?;
    let damaged: Vec<(String, String)> =
        damaged.iter().map(|row| (row.get(0), row.get(1))).collect();
    ensure!(damaged.is_empty(), "{damaged:?}");
    Ok(())
}
