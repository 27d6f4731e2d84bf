//! GC, backups and restores of the simulation.

use std::collections::BTreeSet;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use sync_ext_harness::state::TABLES;

use sync_ext_model::refusal::unexpected;
use sync_ext_model::{Cutoffs, Server};

use super::session::{Answer, quote_or_null};
use super::world::{DAY, Doing, Work, World};
use crate::common::rows::check_reply;

const RETENTION: i64 = 30 * DAY;
const DEVICE_TTL: i64 = 90 * DAY;

/// A call of sync_gc that was sent.
pub struct GcCall {
    /// `None` for all that nobody has locked.
    workspace: Option<String>,
    batch_size: i64,
    cutoffs: Cutoffs,
}

impl World<'_> {
    /// `silent`: with a device_ttl by which all devices have fallen silent and
    /// the older ones are forgotten.
    pub fn gc(
        &mut self,
        session: usize,
        workspace: Option<String>,
        batch_size: i64,
        silent: bool,
    ) -> Result<()> {
        let Some(session) = self.idle(session) else { return Ok(()) };
        // Half a minute off, as times are whole minutes and calls take a while.
        let at = self.now + 30;
        let cutoffs = Cutoffs {
            entries: at - RETENTION,
            heartbeats: if silent { i64::MAX } else { at - DEVICE_TTL },
            forgotten: if silent { at - 2 * DEVICE_TTL } else { i64::MIN },
        };
        let batch_size = if workspace.is_some() { batch_size } else { 10_000 };
        let call = GcCall { workspace, batch_size, cutoffs };
        let is_known = |name: &String| self.model.workspaces.contains_key(name);
        let locked = call.workspace.clone().filter(|name| is_known(name) && self.is_locked(name));
        if locked.as_ref().is_some_and(|name| self.has_waiter(name)) {
            return Ok(());
        }
        self.sessions[session].send(self.gc_sql(&call, silent))?;
        if let Some(workspace) = locked {
            self.tally.add("gc runs that waited for a lock", 1);
            self.sessions[session].until_blocked(&mut self.admin)?;
            self.doing[session] = Doing::Waiting { workspace, work: Work::Gc(call) };
            return Ok(());
        }
        let answer = self.sessions[session].answer(&mut self.admin)?;
        self.collected(&call, answer)
    }

    /// Settings and arguments that mean, by the server's clock, what the
    /// simulation means by its own.
    fn gc_sql(&self, call: &GcCall, silent: bool) -> String {
        let entries = self.beginning + call.cutoffs.entries;
        let heartbeats = self.beginning + self.now + 30 - DEVICE_TTL;
        let forgotten = self.beginning + self.now + 30 - 2 * DEVICE_TTL;
        let ttl = match silent {
            false => format!("extract(epoch from clock_timestamp()) - {heartbeats}"),
            true => format!("(extract(epoch from clock_timestamp()) - {forgotten}) / 2"),
        };
        // The first heartbeat of a device was turned back after GC may have looked for it.
        let turn_back = match (silent, &call.workspace) {
            (true, None) => {
                "update sync_ext.workspace w set devices_since = first
                   from (select workspace_key, min(updated_at) as first
                           from sync_ext.device_cursor group by workspace_key) d
                  where d.workspace_key = w.workspace_key and devices_since > first
                    and w.workspace_key in
                      (select workspace_key from sync_ext.workspace for update skip locked);"
            }
            _ => "",
        };
        format!(
            "set sync_ext.device_ttl to default;
             do $$ begin perform set_config('sync_ext.device_ttl', floor({ttl})::text, false); end $$;
             select pg_current_xact_id()::xid::text;
             {turn_back}
             select sync_gc({}, clock_timestamp() - to_timestamp({entries}), {})::text",
            quote_or_null(call.workspace.as_deref()),
            call.batch_size
        )
    }

    pub fn collected(&mut self, call: &GcCall, answer: Answer) -> Result<()> {
        let Ok(columns) = answer else { bail!("gc failed: {answer:?}") };
        let reply: Value = serde_json::from_str(columns.last().context("gc without a reply")?)?;
        let names = self.model.workspaces.keys();
        let locked = names.filter(|name| self.is_locked(name)).cloned().collect();
        let GcCall { workspace, batch_size, cutoffs } = call;
        for name in self.model.due(workspace.as_deref(), *cutoffs, &locked) {
            let state = &self.model.workspaces[&name];
            for peer in self.peers.iter_mut().filter(|peer| peer.device.workspace == name) {
                let known = state.devices.get(&(peer.device.id.clone(), String::new()));
                if !known.is_some_and(|known| state.is_active(known, *cutoffs)) {
                    (peer.exposed, peer.shielded) = (true, false);
                }
            }
        }
        let workspace = workspace.as_deref();
        let before = self.model.clone();
        let collected = self.model.collect(None, workspace, *cutoffs, *batch_size, &locked);
        let collected = collected.map_err(unexpected)?;
        check_reply("gc", &reply, &collected.reply())?;
        self.note_marks(&before, columns.first().context("gc without a transaction")?)?;
        self.tally.add("gc runs", 1);
        self.tally.add("entries purged", collected.changes as u64);
        self.tally.add("tombstones purged", collected.tombstones as u64);
        self.tally.add("devices forgotten", collected.devices as u64);
        self.check_rows().context("after gc")
    }

    /// Which rows of workspaces GC has changed because it has looked there, is not the model's
    /// to know.
    fn note_marks(&mut self, before: &Server, transaction: &str) -> Result<()> {
        let sql = "select workspace_id from sync_ext.workspace where xmin::text = $1";
        let rows = self.admin.query(sql, &[&transaction])?;
        let changed: BTreeSet<String> = rows.iter().map(|row| row.get(0)).collect();
        for (name, state) in &mut self.model.workspaces {
            let is_known = before.workspaces[name].changes != state.changes;
            ensure!(changed.contains(name) || !is_known, "GC has not saved how far it came");
            if changed.contains(name) && !is_known {
                state.changes += 1;
                self.tally.add("workspaces of which GC changed the marks alone", 1);
            }
        }
        Ok(())
    }

    /// Keeps a copy of all state, as a dump would.
    pub fn take_backup(&mut self) -> Result<()> {
        self.admin.batch_execute("drop schema if exists backup cascade; create schema backup")?;
        for table in TABLES {
            let sql = format!("create table backup.{table} as table sync_ext.{table}");
            self.admin.batch_execute(&sql)?;
        }
        self.backup = Some((self.model.clone(), self.accepted.clone()));
        Ok(())
    }

    /// Puts the copy back: what came after it is lost.
    pub fn restore(&mut self) -> Result<()> {
        let Some((model, accepted)) = self.backup.clone() else { return Ok(()) };
        self.end_all()?;
        self.tally.add("restores", 1);
        let mut sql = format!("begin; truncate sync_ext.{};", TABLES.join(", sync_ext."));
        for table in TABLES {
            sql += &format!(
                "insert into sync_ext.{table} overriding system value table backup.{table};"
            );
        }
        self.admin.batch_execute(&(sql + "commit"))?;
        (self.model, self.accepted) = (model, accepted);
        for peer in &mut self.peers {
            (peer.exposed, peer.shielded) = (true, false);
        }
        Ok(())
    }
}
