//! The op log through one workspace: devices push it and pull each other's,
//! fresh ones catch up, the log is collected.

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::{Result, ensure};
use indicatif::{ProgressBar, ProgressStyle};
use postgres::Client;
use sync_ext_demo::oplog;
use sync_ext_harness::device::{Answered, Device, call};
use sync_ext_harness::state::{digest, of_server};

use crate::callers::Callers;
use crate::report::Report;

pub const SEED: u64 = 20_260_101;

/// A device and its connection.
struct Peer {
    device: Device,
    client: Client,
}

impl Peer {
    fn new(id: &str, workspace: &str, role: &str, callers: &mut Callers) -> Result<Peer> {
        let client = callers.admit(workspace, id, role)?;
        Ok(Peer { device: Device::new(id, workspace), client })
    }

    fn push(&mut self) -> Result<Answered> {
        self.device.push(&mut self.client)
    }

    fn pull(&mut self, latest: bool) -> Result<usize> {
        self.device.pull(&mut self.client, 1000, latest)
    }
}

pub fn replay(workspace: &str, mut callers: Callers) -> Result<Report> {
    let mut pushes = oplog::read()?;
    oplog::shuffle_neighbours(&mut pushes, SEED);
    let mut report = Report::default();
    let mut peers: BTreeMap<String, Peer> = BTreeMap::new();
    push_all(pushes, &mut peers, workspace, &mut callers, &mut report)?;
    converge(&mut peers)?;

    let mut puller = Peer::new("fresh-by-pull", workspace, "viewer", &mut callers)?;
    let mut lister = Peer::new("fresh-by-snapshot", workspace, "viewer", &mut callers)?;
    puller.pull(false)?;
    lister.device.snapshot(&mut lister.client, 500)?;
    lister.pull(false)?;
    report.by_pull = digest(puller.device.state())?;
    report.by_snapshot = digest(lister.device.state())?;
    for peer in peers.values_mut().chain([&mut puller, &mut lister]) {
        peer.device.acknowledge(&mut peer.client)?;
    }

    report.devices = peers.len();
    report.refused_calls = callers.refuse_others(workspace)?;

    let governor = &mut callers.governor;
    report.log_before = log_rows(governor, workspace)?;
    collect(governor, workspace)?;
    report.log_after = log_rows(governor, workspace)?;
    let row = governor.query_one(COUNTS, &[&workspace])?;
    (report.head, report.live, report.deleted) = (row.get(0), row.get(1), row.get(2));
    report.by_server = digest(of_server(governor, workspace)?)?;
    Ok(report)
}

const COUNTS: &str =
    "select head, count(*) filter (where not deleted), count(*) filter (where deleted)
    from sync_ext.workspace join sync_ext.record using (workspace_key)
    where workspace_id = $1 group by head";

fn log_rows(client: &mut Client, workspace: &str) -> Result<i64> {
    let sql =
        "select count(*) from sync_ext.change_log join sync_ext.workspace using (workspace_key)
        where workspace_id = $1";
    Ok(client.query_one(sql, &[&workspace])?.get(0))
}

/// Every push of the log through its device's own connection, every tenth
/// twice, as if its answer had been lost.
fn push_all(
    pushes: Vec<oplog::Push>,
    peers: &mut BTreeMap<String, Peer>,
    workspace: &str,
    callers: &mut Callers,
    report: &mut Report,
) -> Result<()> {
    let bar = progress_bar(pushes.len(), "pushes");
    for (number, push) in pushes.into_iter().enumerate() {
        let id = &push.device_id;
        if !peers.contains_key(id) {
            peers.insert(id.clone(), Peer::new(id, workspace, "editor", callers)?);
        }
        let Some(peer) = peers.get_mut(id) else { continue };
        peer.device.outbox.extend(push.ops);
        let unanswered = peer.device.outbox.clone();
        let begun = Instant::now();
        let answered = peer.push()?;
        report.time += begun.elapsed();
        report.count(answered);
        if number % 10 == 9 {
            peer.device.outbox = unanswered;
            let answered = peer.push()?;
            ensure!(answered.applied + answered.lost + answered.refused == 0, "not a replay");
            report.count(answered);
        }
        if number % 100 == 99 {
            peer.pull(true)?;
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(())
}

/// Every device pulls until its outbox is empty: the server has all it made.
fn converge(peers: &mut BTreeMap<String, Peer>) -> Result<()> {
    let bar = progress_bar(peers.len(), "devices pull");
    for peer in peers.values_mut() {
        peer.pull(true)?;
        let (id, left) = (&peer.device.id, peer.device.outbox.len());
        ensure!(left == 0, "{id} has {left} ops that the server does not");
        let state = digest(peer.device.state())?;
        ensure!(state == oplog::STATE_SHA256, "{id} has another state: {state}");
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(())
}

/// Lets 31 days pass for the log, then collects it.
pub fn collect(client: &mut Client, workspace: &str) -> Result<()> {
    client.execute(
        "update sync_ext.change_log set created_at = created_at - interval '31 days'
          where workspace_key = (
            select workspace_key from sync_ext.workspace where workspace_id = $1)",
        &[&workspace],
    )?;
    while call(client, "select sync_gc($1) ->> 'hasMore'", &[&workspace])? == "true" {}
    Ok(())
}

pub fn progress_bar(length: usize, what: &'static str) -> ProgressBar {
    let style = ProgressStyle::with_template("{msg:14} [{bar:40}] {pos}/{len}  {elapsed}")
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("=> ");
    ProgressBar::new(length as u64).with_style(style).with_message(what)
}
