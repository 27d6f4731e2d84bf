//! The op log as patches, through a workspace of its own.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use postgres::Client;
use serde::Deserialize;
use sync_ext_demo::oplog::{self, Push};
use sync_ext_demo::variant::{self, Fields, Record, State};
use sync_ext_harness::device::{Revision, call};

use crate::connect;
use crate::replay::{SEED, collect, progress_bar};

const WORKSPACE: &str = "patches";

#[derive(Default)]
struct Counts {
    ops: usize,
    patches: usize,
    /// Patches that won some of their fields.
    partly_lost: usize,
    /// Ops that won nothing.
    lost: usize,
    /// Patches that came before the put that they edit.
    early: usize,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Item {
    success: bool,
    error_code: Option<String>,
    applied: Option<bool>,
    #[serde(default)]
    lost: Vec<String>,
}

pub fn replay() -> Result<()> {
    let mut pushes = oplog::read()?;
    let patches = variant::patch(&mut pushes)?;
    oplog::shuffle_neighbours(&mut pushes, SEED);
    let mut client = connect("postgres")?;
    let allow = "select sync_register_table('files', patches => true)";
    client.batch_execute(allow)?;
    let mut counts = Counts { patches, ..Counts::default() };
    push_all(&mut client, &pushes, &mut counts)?;
    let (pulled, mut listed) = (by_pull(&mut client)?, by_snapshot(&mut client)?);
    print(&counts, [("state by pull", &pulled), ("  by snapshot", &listed)])?;
    // What GC leaves are the live records, whole.
    collect(&mut client, WORKSPACE)?;
    listed.retain(|_, record| record.payload.is_some());
    ensure!(by_snapshot(&mut client)? == listed, "GC has changed live records");
    Ok(())
}

/// As devices do that keep a patch whose base is missing, and send it again.
fn push_all(client: &mut Client, pushes: &[Push], counts: &mut Counts) -> Result<()> {
    let bar = progress_bar(pushes.len(), "as patches");
    let mut early: Vec<&str> = Vec::new();
    for push in pushes {
        let ops: Vec<&str> = push.ops.iter().map(|op| op.json.as_str()).collect();
        early.extend(send(client, &ops, counts)?);
        bar.inc(1);
    }
    bar.finish_and_clear();
    counts.early = early.len();
    ensure!(send(client, &early, counts)?.is_empty(), "a base is still missing");
    Ok(())
}

/// Returns what is to be sent again.
fn send<'o>(client: &mut Client, ops: &[&'o str], counts: &mut Counts) -> Result<Vec<&'o str>> {
    let mut early = Vec::new();
    let sql = "select (sync_push($1, $2::text::json) -> 'results')::text";
    for ops in ops.chunks(1000) {
        let results = call(client, sql, &[&WORKSPACE, &format!("[{}]", ops.join(","))])?;
        let results: Vec<Item> = serde_json::from_str(&results)?;
        for (op, item) in ops.iter().zip(results) {
            if item.error_code.as_deref() == Some("BASE_MISSING") {
                early.push(*op);
                continue;
            }
            ensure!(item.success, "refused: {op}");
            counts.ops += 1;
            counts.lost += usize::from(item.applied == Some(false));
            counts.partly_lost += usize::from(!item.lost.is_empty());
        }
    }
    Ok(early)
}

/// A change of a pull, or an item of a snapshot.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    table_name: String,
    pk: String,
    /// Of a change.
    base: Option<Revision>,
    stamp: Option<Revision>,
    /// Of an item.
    revision: Option<Revision>,
    payload: Option<Fields>,
    fields: Option<BTreeMap<String, Revision>>,
}

fn state(rows: Vec<Row>) -> Result<State> {
    let record = |row: Row| {
        let register = row.revision.or(row.base).or(row.stamp).context("a revision")?;
        let fields = row.fields.into_iter().flatten();
        let fields = fields.map(|(name, by)| (name, by.op_id)).collect();
        Ok(((row.table_name, row.pk), Record { register, payload: row.payload, fields }))
    };
    rows.into_iter().map(record).collect()
}

fn by_pull(client: &mut Client) -> Result<State> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Page {
        changes: Vec<Row>,
        next_cursor: i64,
        has_more: bool,
    }
    let (mut cursor, mut rows) = (0, Vec::new());
    loop {
        let sql = "select sync_pull($1, $2, 1000, latest => true)::text";
        let page: Page = serde_json::from_str(&call(client, sql, &[&WORKSPACE, &cursor])?)?;
        rows.extend(page.changes);
        cursor = page.next_cursor;
        if !page.has_more {
            return state(rows);
        }
    }
}

fn by_snapshot(client: &mut Client) -> Result<State> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Page {
        items: Vec<Row>,
        next_page_token: Option<String>,
    }
    let (mut token, mut rows): (Option<String>, _) = (None, Vec::new());
    loop {
        let sql = "select sync_snapshot($1, $2)::text";
        let page: Page = serde_json::from_str(&call(client, sql, &[&WORKSPACE, &token])?)?;
        rows.extend(page.items);
        token = page.next_page_token;
        if token.is_none() {
            return state(rows);
        }
    }
}

fn print(counts: &Counts, states: [(&str, &State); 2]) -> Result<()> {
    let row = |name: &str, value: &str| println!("{name:24} {value:>12}");
    println!("\nthe same, later puts of a file as patches");
    for (name, count) in [
        ("ops", counts.ops),
        ("  patches", counts.patches),
        ("  lost some fields", counts.partly_lost),
        ("  conflicts lost", counts.lost),
        ("  sent again, too early", counts.early),
    ] {
        row(name, &count.to_string());
    }
    let mut digests = Vec::new();
    for (name, state) in states {
        let digest = variant::digest(state)?;
        row(name, &digest[..12]);
        digests.push(digest);
    }
    println!("state known, as sha256   {}", variant::STATE_SHA256);
    for digest in digests {
        ensure!(digest == variant::STATE_SHA256, "a state is not the known one: {digest}");
    }
    Ok(())
}
