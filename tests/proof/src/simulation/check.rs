//! What must hold of all rows at any time, and of everybody at the end.

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Map, Value};

use sync_ext_model::{Entry, Fields, Key, Op, Record, Scopes, Workspace};

use super::op::revision_of;
use super::step::{End, Page, SESSIONS, TABLES};
use super::world::World;

/// Far more rounds than any outbox needs to empty.
const ROUNDS: usize = 30;

impl World<'_> {
    pub fn check_states(&self) -> Result<()> {
        let mut states = self.model.workspaces.iter();
        states.try_for_each(|(name, state)| check_state(state).with_context(|| name.clone()))
    }

    /// Faults end, all devices come online and drain; then all must agree.
    pub fn heal(&mut self) -> Result<()> {
        for (session, how) in (0..SESSIONS).map(|session| (session, End::Commit)) {
            self.play_end(session, how)?;
        }
        self.end_all()?;
        self.check_rows()?;
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
        self.check_rows()?;
        (0..self.peers.len()).try_for_each(|number| self.check_device(number))?;
        for peer in &self.peers {
            self.tally.add("ops merged before they were sent", peer.squashed);
            self.tally.add("patches whose base was nowhere", peer.device.baseless);
        }
        self.check_scopes()?;
        self.check_winners()
    }

    /// A live record is in the scope that its payload names, whoever wrote it and whenever the
    /// field was chosen.
    fn check_scopes(&self) -> Result<()> {
        for state in self.model.workspaces.values() {
            for (key, record) in state.records.iter().filter(|(_, record)| !record.is_deleted) {
                let Some(field) = self.model.tables[&key.0].scope_field.as_deref() else {
                    continue;
                };
                let payload = state.winner(record).and_then(Entry::record).unwrap_or_default();
                let payload: Value = serde_json::from_str(payload)?;
                let scope = payload[field].as_str().unwrap_or_default();
                ensure!(
                    record.scope.as_deref() == Some(scope),
                    "{key:?} {payload} is in {:?}",
                    record.scope
                );
            }
        }
        Ok(())
    }

    fn drain(&mut self, number: usize) -> Result<()> {
        self.push(number, 0, &super::step::Push::plain())?;
        for _ in 0..ROUNDS * 100 {
            let before = self.peers[number].device.cursor;
            self.read(number, 0, Page { limit: 3, latest: false }, false)?;
            let device = &self.peers[number].device;
            let is_at_rest = !device.snapshot_begun && device.next_scopes.is_none();
            if is_at_rest && device.cursor == before {
                return self.acknowledge(number, 0);
            }
        }
        bail!("a device never reaches the head")
    }

    fn has_all(&self, number: usize) -> bool {
        let peer = &self.peers[number];
        let head = self.model.head(&peer.device.workspace);
        peer.complete
            && !peer.device.snapshot_begun
            && peer.device.next_scopes.is_none()
            && peer.device.outbox.is_empty()
            && peer.device.cursor == head
    }

    /// A device has every live record of its tables as the server has it, and
    /// nothing that the server has otherwise.
    fn check_device(&self, number: usize) -> Result<()> {
        let device = &self.peers[number].device;
        let none = Workspace::default();
        let state = self.model.workspaces.get(&device.workspace).unwrap_or(&none);
        let scopes = device.scopes.as_ref().map(Scopes::of);
        let is_inside = |key: &Key, record: &Record| {
            self.model.is_inside(scopes.as_ref(), &key.0, &record.scope)
        };
        for (key, synced) in &device.synced {
            let record = state.records.get(key);
            let is_inside = record.is_some_and(|record| is_inside(key, record));
            if synced.deleted && !is_inside {
                // Deleted when it had no scope, and its table no scope field: what it became
                // outside is not told, and is not live here.
                continue;
            }
            ensure!(
                is_inside,
                "{} has {key:?}, which is outside {scopes:?}: {record:?}",
                device.id
            );
            let revision = revision_of(&synced.revision);
            let fields: Fields =
                synced.fields.iter().map(|(name, by)| (name.clone(), revision_of(by))).collect();
            let same = |r: &Record| {
                (&r.revision, r.is_deleted, r.version)
                    == (&revision, synced.deleted, synced.version)
                    && state.fields(r) == fields
                    && (r.is_deleted || state.newest_id(r) == synced.newest)
            };
            ensure!(
                record.is_some_and(same),
                "{} has {key:?} {synced:?}, the server {record:?}",
                device.id
            );
        }
        for (key, record) in state.records.iter().filter(|(_, record)| !record.is_deleted) {
            let is_wanted = device.tables.is_empty() || device.tables.contains(&key.0);
            if !is_wanted || !is_inside(key, record) {
                continue;
            }
            let payload = state.winner(record).and_then(|entry| entry.record().map(str::to_owned));
            let has = device.synced.get(key).and_then(|synced| synced.payload.clone());
            ensure!(has == payload, "{} has {key:?} {has:?}, the server {payload:?}", device.id);
        }
        Ok(())
    }

    /// By nothing but the ops that were accepted: versions are 1..head, and
    /// each record's state is its put or delete of the highest revision with the
    /// highest of the patches of that.
    fn check_winners(&self) -> Result<()> {
        for (name, ops) in &self.accepted {
            let state = &self.model.workspaces[name];
            let contiguous = ops.keys().copied().eq(1..=state.head);
            ensure!(contiguous, "{name}: versions are not 1..{}", state.head);
            for (key, record) in &state.records {
                let of_record = || ops.values().filter(|op| op.key() == *key);
                let registers = of_record().filter(|op| op.base.is_none());
                let winner = registers.max_by(|a, b| a.revision.cmp(&b.revision));
                if let Some(register) = winner.filter(|winner| !winner.is_delete) {
                    check_fields(state, record, register, of_record())
                        .with_context(|| format!("{name} {key:?}"))?;
                }
                let winner = winner.map(|op| (&op.revision, op.is_delete));
                ensure!(
                    winner == Some((&record.revision, record.is_deleted)),
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

/// Each field of a live record is its highest patch's, of those of its register.
fn check_fields<'a>(
    state: &Workspace,
    record: &Record,
    register: &Op,
    ops: impl Iterator<Item = &'a Op>,
) -> Result<()> {
    let mut fields = Fields::new();
    let object = |json: Option<&str>| serde_json::from_str::<Map<String, Value>>(json?).ok();
    let mut payload = object(register.payload.as_deref()).context("no object")?;
    for op in ops.filter(|op| op.base.as_ref() == Some(&register.revision)) {
        for (name, value) in object(op.payload.as_deref()).context("no patch")? {
            if fields.get(&name).is_none_or(|by| *by < op.revision) {
                fields.insert(name.clone(), op.revision.clone());
                payload.insert(name, value);
            }
        }
    }
    ensure!(state.fields(record) == fields, "{record:?} where {fields:?} is right");
    let stored = object(state.winner(record).and_then(Entry::record));
    ensure!(stored.as_ref() == Some(&payload), "{stored:?} where {payload:?} is right");
    Ok(())
}

/// What GC must never do, whatever the model thinks of it.
fn check_state(state: &Workspace) -> Result<()> {
    for (key, record) in &state.records {
        let kept = state.log.contains_key(&record.version);
        ensure!(kept || record.is_deleted, "{key:?} is live and has lost its payload");
        ensure!(kept || record.version <= state.horizon, "{key:?} is a grave above the horizon");
    }
    ensure!(state.head == 0 || state.log.contains_key(&state.head), "no entry at head");
    ensure!(state.horizon <= state.gc_through && state.gc_through < state.head.max(1), "counters");
    Ok(())
}
