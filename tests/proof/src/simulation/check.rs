//! What must hold of all rows at any time, and of everybody at the end.

use anyhow::{Context, Result, bail, ensure};

use super::model::{Entry, Record, Workspace};
use super::step::{End, Page, SESSIONS, TABLES};
use super::world::World;

/// Far more rounds than any outbox needs to empty.
const ROUNDS: usize = 30;

impl World<'_> {
    /// Every committed row is what the model says, and there are no others.
    pub fn check_tables(&mut self) -> Result<()> {
        let stored = self.stored()?;
        let names: Vec<&String> = stored.iter().map(|(name, _)| name).collect();
        let expected: Vec<&String> = self.model.workspaces.keys().collect();
        ensure!(names == expected, "workspaces {names:?} where {expected:?} are right");
        for (name, rows) in &stored {
            let state = &self.model.workspaces[name];
            ensure!(
                *rows == lines(state, self.beginning),
                difference(rows, &lines(state, self.beginning))
            );
            check_state(state).with_context(|| name.clone())?;
        }
        Ok(())
    }

    /// All rows of all workspaces, each as a line of text.
    fn stored(&mut self) -> Result<Vec<(String, Vec<String>)>> {
        let rows = self.admin.query(
            "select w.workspace_id, array[format('workspace %s %s %s', w.head, w.horizon, w.gc_through)]
               || array(select format('log %s %s %s %s %s %s %s %s %s %s %s %s %s', l.server_version, l.table_name,
                      l.pk, l.operation, l.payload, l.clock, l.hlc, l.device_id, l.op_id, l.applied, l.supersedes, l.overwrote,
                      extract(epoch from l.created_at)::bigint)
                    from sync_ext.change_log l where l.workspace_key = w.workspace_key order by l.server_version)
               || array(select format('record %s %s %s %s %s %s %s', r.table_name, r.pk, r.server_version,
                      r.clock, r.hlc, r.op_id, r.deleted)
                    from sync_ext.record r where r.workspace_key = w.workspace_key order by r.table_name, r.pk)
               || array(select format('device %s %s %s', d.device_id, d.last_seen_version,
                      extract(epoch from d.updated_at)::bigint)
                    from sync_ext.device_cursor d where d.workspace_key = w.workspace_key order by d.device_id)
               from sync_ext.workspace w order by w.workspace_id",
            &[],
        )?;
        Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
    }

    /// Faults end, all devices come online and drain; then all must agree.
    pub fn heal(&mut self) -> Result<()> {
        for (session, how) in (0..SESSIONS).map(|session| (session, End::Commit)) {
            self.play_end(session, how)?;
        }
        self.end_all()?;
        self.check_tables()?;
        for table in TABLES {
            self.register(table, true)?;
        }
        let mut round = 0;
        while !(0..self.peers.len()).all(|number| self.has_all(number)) {
            round += 1;
            ensure!(round < ROUNDS, "devices do not come to rest");
            self.now += 60;
            for number in 0..self.peers.len() {
                self.peers[number].offline_until = 0;
                self.drain(number)?;
            }
        }
        self.check_tables()?;
        (0..self.peers.len()).try_for_each(|number| self.check_device(number))?;
        self.check_winners()
    }

    fn drain(&mut self, number: usize) -> Result<()> {
        self.push(number, 0, &super::step::Push::plain())?;
        for _ in 0..ROUNDS * 100 {
            let before = self.peers[number].device.cursor;
            self.read(number, 0, Page { limit: 3, latest: false }, false)?;
            let device = &self.peers[number].device;
            if !device.snapshot_begun && device.cursor == before {
                return self.acknowledge(number, 0);
            }
        }
        bail!("a device never reaches the head")
    }

    fn has_all(&self, number: usize) -> bool {
        let peer = &self.peers[number];
        let head = self.model.workspaces.get(&peer.device.workspace).map_or(0, |w| w.head);
        peer.complete
            && !peer.device.snapshot_begun
            && peer.device.outbox.is_empty()
            && peer.device.cursor == head
    }

    /// A device has every live record of its tables as the server has it, and
    /// nothing that the server has otherwise.
    fn check_device(&self, number: usize) -> Result<()> {
        let device = &self.peers[number].device;
        let none = Workspace::default();
        let state = self.model.workspaces.get(&device.workspace).unwrap_or(&none);
        for (key, synced) in &device.synced {
            let record = state.records.get(key);
            let same = |r: &Record| r.revision == synced.revision && r.deleted == synced.deleted;
            ensure!(
                record.is_some_and(same),
                "{} has {key:?} {synced:?}, the server {record:?}",
                device.id
            );
        }
        for (key, record) in state.records.iter().filter(|(_, record)| !record.deleted) {
            if !device.tables.is_empty() && !device.tables.contains(&key.0) {
                continue;
            }
            let payload = state.log.get(&record.version).and_then(Entry::payload);
            let has = device.synced.get(key).and_then(|synced| synced.payload.clone());
            ensure!(has == payload, "{} has {key:?} {has:?}, the server {payload:?}", device.id);
        }
        Ok(())
    }

    /// By nothing but the ops that were accepted: versions are 1..head, and
    /// each record's state is its op of the highest revision.
    fn check_winners(&self) -> Result<()> {
        for (name, ops) in &self.accepted {
            let state = &self.model.workspaces[name];
            let contiguous = ops.keys().copied().eq(1..=state.head);
            ensure!(contiguous, "{name}: versions are not 1..{}", state.head);
            for (key, record) in &state.records {
                let of_record = ops.values().filter(|op| op.key() == *key);
                let winner = of_record.max_by(|a, b| a.revision.cmp(&b.revision));
                let winner = winner.map(|op| (&op.revision, op.delete));
                ensure!(
                    winner == Some((&record.revision, record.deleted)),
                    "{name} {key:?}: {record:?} where {winner:?} is right"
                );
            }
        }
        Ok(())
    }

    fn play_end(&mut self, session: usize, how: End) -> Result<()> {
        let action = super::step::Action::End { session, how };
        self.play(&super::step::Step { minutes: 1, action })
    }
}

/// What GC must never do, whatever the model thinks of it.
fn check_state(state: &Workspace) -> Result<()> {
    for (key, record) in &state.records {
        let kept = state.log.contains_key(&record.version);
        ensure!(kept || record.deleted, "{key:?} is live and has lost its payload");
        ensure!(kept || record.version <= state.horizon, "{key:?} is a grave above the horizon");
    }
    ensure!(state.head == 0 || state.log.contains_key(&state.head), "no entry at head");
    ensure!(state.horizon <= state.gc_through && state.gc_through < state.head.max(1), "counters");
    Ok(())
}

fn lines(state: &Workspace, beginning: i64) -> Vec<String> {
    let mut lines =
        vec![format!("workspace {} {} {}", state.head, state.horizon, state.gc_through)];
    for (version, Entry { op, applied, supersedes, overwrote, at, .. }) in &state.log {
        let payload = state.log[version].payload().unwrap_or_default();
        let supersedes = supersedes.map(|version| version.to_string()).unwrap_or_default();
        lines.push(format!(
            "log {version} {} {} {} {payload} {} {} {} {} {} {supersedes} {} {}",
            op.table,
            op.pk,
            if op.delete { "delete" } else { "put" },
            op.revision.clock,
            op.revision.hlc,
            op.device_id,
            op.revision.op_id,
            if *applied { "t" } else { "f" },
            overwrote.as_deref().unwrap_or_default(),
            beginning + at
        ));
    }
    for ((table, pk), Record { version, revision, deleted }) in &state.records {
        lines.push(format!(
            "record {table} {pk} {version} {} {} {} {}",
            revision.clock,
            revision.hlc,
            revision.op_id,
            if *deleted { "t" } else { "f" }
        ));
    }
    for (device, (cursor, at)) in &state.devices {
        lines.push(format!("device {device} {cursor} {}", beginning + at));
    }
    lines
}

fn difference(stored: &[String], expected: &[String]) -> String {
    let only = |these: &[String], those: &[String]| -> String {
        let lines: Vec<&str> =
            these.iter().filter(|line| !those.contains(line)).map(String::as_str).collect();
        lines.join("\n    ")
    };
    format!(
        "stored, but wrong:\n    {}\n  missing:\n    {}",
        only(stored, expected),
        only(expected, stored)
    )
}
