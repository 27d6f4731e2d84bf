//! The simulation's world: a real server, its model, devices and sessions; and
//! how each step of a history is played. Whatever the server does must be
//! what the model says.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};
use postgres::Client;
use sync_ext_harness::cluster::Cluster;
use sync_ext_harness::state;
use sync_ext_model::refusal::unexpected;
use sync_ext_model::{Op, Server, Settings, Workspace};

use super::peer::Peer;
use super::pushing::{Answered, PushCall};
use super::session::{Answer, Session, quote, quote_or_null};
use super::step::{
    Action, DEVICES, End, IN, Level, PKS, SESSIONS, Step, TABLES, WORKSPACES, scopes_of,
};
use crate::common::rows;
use crate::common::tally::Tally;
use crate::common::tokens::Tokens;

pub const DATABASE: &str = "simulation";
/// What the sessions set `sync_ext.max_page_bytes` to: a few elements.
pub const PAGE_BYTES: usize = 1024;
pub const DAY: i64 = 24 * 60 * 60;

pub struct World<'c> {
    pub cluster: &'c mut Cluster,
    pub admin: Client,
    pub sessions: Vec<Session>,
    pub doing: Vec<Doing>,
    pub peers: Vec<Peer>,
    /// What is committed.
    pub model: Server,
    /// All ops that were ever accepted, but for those that a restore lost.
    pub accepted: Accepted,
    pub backup: Option<(Server, Accepted)>,
    /// How often a scope field was set, restores or not.
    pub epochs: i64,
    pub tokens: Tokens,
    /// Seconds since the simulation's beginning, whole minutes.
    pub now: i64,
    /// When that was, in seconds since 1970: so long ago that the server's own
    /// clock is later than any time of the simulation.
    pub beginning: i64,
    pub tally: Tally,
}

/// Ops by workspace and version.
pub type Accepted = BTreeMap<String, BTreeMap<i64, Op>>;

/// What a session is in the middle of.
pub enum Doing {
    Nothing,
    /// A transaction that has only read, and what it sees; `None` at READ
    /// COMMITTED, where it sees what is committed.
    Open(Level, Option<Box<Server>>),
    /// A transaction that has pushed and holds the workspace's lock.
    Holding {
        workspace: String,
        after: Box<Workspace>,
        call: PushCall,
        answered: Answered,
    },
    /// It waits for the lock of this workspace.
    Waiting {
        workspace: String,
        work: Work,
    },
}

pub enum Work {
    Push(PushCall),
    Gc(super::collecting::GcCall),
}

pub fn workspace_name(number: usize) -> String {
    format!("workspace {}", number % WORKSPACES)
}

impl<'c> World<'c> {
    /// An empty server. `span` is how long the history lasts, in seconds.
    pub fn new(cluster: &'c mut Cluster, span: i64) -> Result<World<'c>> {
        let mut admin = cluster.connect(DATABASE)?;
        admin.batch_execute(&format!(
            "truncate sync_ext.{} restart identity",
            state::TABLES.join(", sync_ext.")
        ))?;
        let now: i64 = admin.query_one("select extract(epoch from now())::bigint", &[])?.get(0);
        let sessions = connect_all(cluster)?;
        let settings = Settings { max_page_bytes: PAGE_BYTES, ..Settings::default() };
        let mut world = World {
            cluster,
            admin,
            sessions,
            doing: (0..SESSIONS).map(|_| Doing::Nothing).collect(),
            peers: (0..DEVICES).map(|number| Peer::new(number, &workspace_name(number))).collect(),
            model: Server { settings, ..Server::default() },
            accepted: BTreeMap::new(),
            backup: None,
            epochs: 0,
            tokens: Tokens::default(),
            now: 0,
            // Three spans and more ago, or the device_ttl that makes a device
            // inactive would also forget devices.
            beginning: (now - 3 * span - 400 * DAY) / 60 * 60,
            tally: Tally::default(),
        };
        for (table, field) in TABLES.into_iter().zip([IN, IN, ""]) {
            world.register(table, true)?;
            if !field.is_empty() {
                world.set_scope_field(table, Some(field))?;
            }
        }
        Ok(world)
    }

    pub fn play(&mut self, step: &Step) -> Result<()> {
        self.now += step.minutes * 60;
        match &step.action {
            Action::Edit { device, table, pk, delete, text } => {
                let (table, pk) = (TABLES[table % TABLES.len()], PKS[pk % PKS.len()]);
                self.peers[*device].edit(table, pk, *delete, *text, self.now)
            }
            Action::Push { device, session, push } => self.push(*device, *session, push),
            Action::Begin { session, level } => self.begin(*session, *level),
            Action::End { session, how } => self.end(*session, *how),
            Action::Pull { device, session, page, lose } => {
                self.read(*device, *session, *page, *lose)
            }
            Action::Snapshot { device } => {
                self.peers[*device].start_snapshot();
                Ok(())
            }
            Action::Acknowledge { device, session } => self.acknowledge(*device, *session),
            Action::Gc { session, workspace, batch_size, silent } => {
                let workspace = workspace.map(workspace_name);
                self.gc(*session, workspace, *batch_size, *silent)
            }
            Action::KillServer => self.kill_server(),
            Action::Backup => self.take_backup(),
            Action::Restore => self.restore(),
            Action::Register { table, patches } => self.register(TABLES[*table], *patches),
            Action::Unregister { table } => self.unregister(TABLES[*table]),
            Action::SetScopeField { table, field } => self.set_scope_field(TABLES[*table], *field),
            Action::Offline { .. }
            | Action::Follow { .. }
            | Action::WrongClock { .. }
            | Action::Reinstall { .. }
            | Action::Filter { .. } => self.change_device(&step.action),
        }
    }

    fn change_device(&mut self, action: &Action) -> Result<()> {
        match action {
            Action::Offline { device, days } => {
                self.peers[*device].offline_until = self.now + days * DAY;
            }
            Action::WrongClock { device, days, jump } => {
                let peer = &mut self.peers[*device];
                (peer.skew, peer.jump) = (days * DAY, *jump);
            }
            Action::Reinstall { device, by_snapshot } if !self.peers[*device].busy => {
                self.tally.add("reinstalls", 1);
                self.peers[*device].reinstall();
                if *by_snapshot {
                    self.peers[*device].start_snapshot();
                }
            }
            Action::Follow { device, scopes } => {
                self.tally.add("lists asked for", 1);
                self.peers[*device].follow(scopes.map(scopes_of));
            }
            Action::Filter { device, tables } => {
                let chosen = TABLES.iter().enumerate().filter(|(at, _)| tables >> at & 1 == 1);
                let chosen = chosen.map(|(_, table)| (*table).to_owned()).collect();
                self.peers[*device].filter(chosen);
            }
            _ => {}
        }
        Ok(())
    }

    /// The first session from `session` on with nothing to do.
    pub fn idle(&self, session: usize) -> Option<usize> {
        (session..session + SESSIONS)
            .map(|number| number % SESSIONS)
            .find(|number| matches!(self.doing[*number], Doing::Nothing))
    }

    pub fn is_online(&self, device: usize) -> bool {
        !self.peers[device].busy && self.peers[device].offline_until <= self.now
    }

    pub fn is_locked(&self, workspace: &str) -> bool {
        self.doing.iter().any(
            |doing| matches!(doing, Doing::Holding { workspace: held, .. } if held == workspace),
        )
    }

    pub fn has_waiter(&self, workspace: &str) -> bool {
        self.doing.iter().any(|doing| matches!(doing, Doing::Waiting { workspace: wanted, .. } if wanted == workspace))
    }

    fn begin(&mut self, session: usize, level: Level) -> Result<()> {
        let Some(session) = self.idle(session) else { return Ok(()) };
        // Its first statement takes the snapshot.
        self.command(session, format!("begin isolation level {}; select 1", level.sql()))?;
        let view = (level != Level::ReadCommitted).then(|| Box::new(self.model.clone()));
        self.doing[session] = Doing::Open(level, view);
        Ok(())
    }

    /// Runs what waits for nobody.
    pub fn call(&mut self, session: usize, sql: String) -> Result<Answer> {
        self.sessions[session].send(sql)?;
        self.sessions[session].answer(&mut self.admin)
    }

    /// Runs what cannot fail.
    pub fn command(&mut self, session: usize, sql: String) -> Result<()> {
        let answer = self.call(session, sql.clone())?;
        ensure!(answer.is_ok(), "{sql}: {answer:?}");
        Ok(())
    }

    fn end(&mut self, session: usize, how: End) -> Result<()> {
        if how == End::Terminate {
            return self.terminate(session);
        }
        match std::mem::replace(&mut self.doing[session], Doing::Nothing) {
            Doing::Nothing => Ok(()),
            waiting @ Doing::Waiting { .. } => {
                self.doing[session] = waiting;
                Ok(())
            }
            Doing::Open(..) => self.command(session, "commit".to_owned()),
            Doing::Holding { workspace, after, call, answered } => {
                if how == End::Rollback {
                    self.tally.add("pushes rolled back", 1);
                    self.peers[call.device].busy = false;
                    self.command(session, "rollback".to_owned())?;
                } else {
                    self.commit(session, &workspace, *after, call, &answered, how)?;
                }
                self.release(&workspace)
            }
        }
    }

    fn commit(
        &mut self,
        session: usize,
        workspace: &str,
        after: Workspace,
        mut call: PushCall,
        answered: &Answered,
        how: End,
    ) -> Result<()> {
        let answer = self.call(session, "commit".to_owned())?;
        match answer {
            Ok(_) => {
                self.committed(workspace, after);
                call.lose |= how == End::CommitUnheard;
                self.deliver(&call, answered)
            }
            Err((Some(code), _)) if code == "40001" && call.level == Level::Serializable => {
                self.tally.add("40001", 1);
                self.peers[call.device].busy = false;
                Ok(())
            }
            Err(error) => anyhow::bail!("a commit failed: {error:?}"),
        }
    }

    /// The backend is ended from outside; what it was doing is undone.
    fn terminate(&mut self, session: usize) -> Result<()> {
        let doing = std::mem::replace(&mut self.doing[session], Doing::Nothing);
        let waiting = matches!(doing, Doing::Waiting { .. });
        if matches!(doing, Doing::Nothing) {
            return Ok(());
        }
        self.tally.add("backends terminated", 1);
        self.sessions[session].terminate(&mut self.admin)?;
        if waiting {
            let answer = self.sessions[session].answer(&mut self.admin)?;
            ensure!(answer.is_err(), "a terminated backend answered: {answer:?}");
        }
        self.sessions[session] = Session::connect(self.cluster, DATABASE)?;
        match doing {
            Doing::Holding { workspace, call, .. } => {
                self.peers[call.device].busy = false;
                self.release(&workspace)
            }
            Doing::Waiting { work: Work::Push(call), .. } => {
                self.peers[call.device].busy = false;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// The lock of the workspace is free: whoever waited goes on.
    pub fn release(&mut self, workspace: &str) -> Result<()> {
        let waiter = self.doing.iter().position(
            |doing| matches!(doing, Doing::Waiting { workspace: wanted, .. } if wanted == workspace),
        );
        let Some(session) = waiter else { return Ok(()) };
        let Doing::Waiting { work, .. } =
            std::mem::replace(&mut self.doing[session], Doing::Nothing)
        else {
            return Ok(());
        };
        let answer = self.sessions[session].answer(&mut self.admin)?;
        match work {
            Work::Push(call) => self.pushed(session, call, answer),
            Work::Gc(call) => self.collected(&call, answer),
        }
    }

    pub fn register(&mut self, table: &'static str, patches: bool) -> Result<()> {
        let sql = "select sync_register_table($1, patches => $2)";
        self.admin.execute(sql, &[&table, &patches])?;
        let outcome = self.model.register(None, table, "id", None, patches);
        ensure!(outcome.is_ok(), "{outcome:?}");
        Ok(())
    }

    /// Some have pushed and not committed.
    fn is_pushing(&self) -> bool {
        let is_busy =
            |doing: &Doing| matches!(doing, Doing::Holding { .. } | Doing::Waiting { .. });
        self.doing.iter().any(is_busy)
    }

    /// Where scopes are it may wait for those that have pushed: only when there are none.
    fn unregister(&mut self, table: &'static str) -> Result<()> {
        let known = self.model.tables.get(table);
        if self.is_pushing() && known.is_some_and(|known| known.scope_field.is_some()) {
            return Ok(());
        }
        let answer = self.admin.execute("select sync_unregister_table($1)", &[&table]);
        match (answer, self.model.unregister(None, table)) {
            (Ok(_), Ok(_)) => Ok(()),
            (Err(error), Err(refusal))
                if error.code().is_some_and(|it| it.code() == refusal.code) =>
            {
                self.tally.add("tables with scopes kept", 1);
                Ok(())
            }
            (answer, expected) => bail!("unregistered: {answer:?} where {expected:?} is right"),
        }
    }

    /// It waits for those that have pushed: only when there are none.
    fn set_scope_field(&mut self, table: &'static str, field: Option<&'static str>) -> Result<()> {
        if self.is_pushing() || !self.model.tables.contains_key(table) {
            return Ok(());
        }
        self.tally.add("scope fields set", 1);
        let field_or_null = quote_or_null(field);
        let sql = format!("call sync_set_scope_field({}, {field_or_null})", quote(table));
        self.admin.batch_execute(&sql)?;
        let before: Vec<i64> =
            self.model.workspaces.values().map(|state| state.scope_epoch).collect();
        self.model.set_scope_field(None, table, field).map_err(unexpected)?;
        // No epoch comes again, not after a restore either.
        self.epochs += 1;
        for (state, before) in self.model.workspaces.values_mut().zip(before) {
            if state.scope_epoch != before {
                state.scope_epoch = self.epochs;
            }
        }
        self.check_rows().context("after another scope field")
    }

    /// Every committed row is what the model says, and there are no others.
    pub fn check_rows(&mut self) -> Result<()> {
        rows::check(&mut self.admin, &self.model, Some(self.beginning))?;
        self.check_states()
    }

    /// All transactions are rolled back, those that wait too.
    pub fn end_all(&mut self) -> Result<()> {
        for how in [End::Rollback, End::Rollback] {
            for session in 0..SESSIONS {
                self.end(session, how)?;
            }
        }
        Ok(())
    }

    fn kill_server(&mut self) -> Result<()> {
        // Backends outlive their postmaster by a moment: one that waits might get
        // its lock, and commit, when the holder goes first.
        for session in 0..SESSIONS {
            if matches!(self.doing[session], Doing::Waiting { .. }) {
                self.terminate(session)?;
            }
        }
        self.tally.add("servers killed and restarted", 1);
        self.cluster.stop_server(sync_ext_harness::cluster::Stop::Kill)?;
        self.cluster.start_server().context("after a kill")?;
        self.admin = self.cluster.connect(DATABASE)?;
        self.sessions = connect_all(self.cluster)?;
        for doing in &mut self.doing {
            *doing = Doing::Nothing;
        }
        for peer in &mut self.peers {
            peer.busy = false;
        }
        self.check_rows().context("after a kill")
    }
}

pub fn connect_all(cluster: &Cluster) -> Result<Vec<Session>> {
    (0..SESSIONS).map(|_| Session::connect(cluster, DATABASE)).collect()
}
