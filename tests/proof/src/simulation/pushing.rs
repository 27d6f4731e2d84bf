//! Pushes of the simulation, those of an exchange too.

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use sync_ext_model::refusal::unexpected;
use sync_ext_model::reply::{map_times, read};
use sync_ext_model::{Pull, Server, Workspace};

use super::exchanging::Exchanged;
use super::op::Item;
use super::session::{Answer, quote};
use super::step::{Level, Push};
use super::world::{DAY, Doing, Work, World};
use crate::common::rows::check_reply;

/// A push that was sent.
pub struct PushCall {
    pub device: usize,
    pub level: Level,
    pub lose: bool,
    pub at: i64,
    /// What its transaction sees, above READ COMMITTED.
    pub view: Option<Box<Server>>,
    /// What it pulls in the same call, by sync_exchange.
    pub pull: Option<Box<Pull>>,
    /// The opIds of its ops, where they have one, and the ops as JSON.
    pub sent: Vec<String>,
    ops: String,
    hold: bool,
}

/// What a call was answered.
pub struct Answered {
    pub push: String,
    /// And the rest of it, of an exchange.
    pub exchanged: Option<Exchanged>,
}

impl World<'_> {
    pub fn push(&mut self, device: usize, session: usize, push: &Push) -> Result<()> {
        if !self.is_online(device) {
            return Ok(());
        }
        let pull = self.pull_to_exchange(device, push.exchange).map(Box::new);
        // An open transaction that has read takes the push, if it is there.
        let session = match &self.doing[session] {
            Doing::Open(_, view) if pull.is_none() || self.may_read(device, view.as_deref()) => {
                Some(session)
            }
            _ => self.idle(session),
        };
        let Some(session) = session else { return Ok(()) };
        let (level, opened, view) = match &mut self.doing[session] {
            Doing::Open(level, view) => (*level, true, view.take()),
            _ => (push.level, false, None),
        };
        let view = match level {
            Level::ReadCommitted => None,
            _ => Some(view.unwrap_or_else(|| Box::new(self.model.clone()))),
        };
        let workspace = self.peers[device].device.workspace.clone();
        let log = self.model.workspaces.get(&workspace).map(|state| &state.log);
        let items = self.peers[device].batch(push, log);
        let sent = items.iter().map(|item| item.op_id().unwrap_or_default().to_owned()).collect();
        let ops: Vec<String> = items.iter().map(Item::json).collect();
        let ops = format!("[{}]", ops.join(","));
        let hold = push.hold || opened;
        let (lose, at) = (push.lose, self.now);
        let call = PushCall { device, level, lose, at, view, pull, sent, ops, hold };

        let takes_lock = self.pushed_to(&call).takes_lock(&workspace, &call.ops);
        let must_wait = takes_lock && self.must_wait(&workspace, &call);
        if must_wait && self.has_waiter(&workspace) {
            if opened {
                self.doing[session] = Doing::Open(level, call.view);
            }
            return Ok(());
        }
        self.tally.add("pushes", 1);
        self.tally.add("exchanges", u64::from(call.pull.is_some()));
        self.peers[device].busy = true;
        self.sessions[session].send(self.push_sql(&workspace, &call, opened))?;
        if must_wait {
            self.tally.add("pushes that waited for a lock", 1);
            self.sessions[session].until_blocked(&mut self.admin)?;
            self.doing[session] = Doing::Waiting { workspace, work: Work::Push(call) };
            return Ok(());
        }
        self.doing[session] = Doing::Nothing;
        let answer = self.sessions[session].answer(&mut self.admin)?;
        self.pushed(session, call, answer)
    }

    /// What is registered it reads as it is now, also in a transaction with an older view.
    fn pushed_to(&self, call: &PushCall) -> Server {
        let model = &self.model;
        let view = call.view.as_deref().unwrap_or(model);
        Server { tables: model.tables.clone(), ..view.clone() }
    }

    /// Has somebody the lock that this push needs? One that is too late already
    /// is refused at once, but where its view has no such workspace: whoever
    /// creates one waits for the row that is in its way, if that is changing.
    fn must_wait(&self, workspace: &str, call: &PushCall) -> bool {
        let now = self.model.workspaces.get(workspace).map(|w| w.changes);
        let is_new = |view: &Server| !view.workspaces.contains_key(workspace);
        self.doing.iter().any(|doing| match doing {
            Doing::Holding { workspace: held, after, .. } if held == workspace => {
                let is_changing = now != Some(after.changes);
                !self.is_stale(call) || is_changing && call.view.as_deref().is_some_and(is_new)
            }
            _ => false,
        })
    }

    /// Was the workspace changed since the push's transaction took its view?
    fn is_stale(&self, call: &PushCall) -> bool {
        let workspace = &self.peers[call.device].device.workspace;
        let changes = |server: &Server| server.workspaces.get(workspace).map(|w| w.changes);
        call.view.as_ref().is_some_and(|view| changes(view) != changes(&self.model))
    }

    /// The push, and in its transaction the turning back of the time when its
    /// ops were logged: nobody has a proof of them yet.
    fn push_sql(&self, workspace: &str, call: &PushCall, opened: bool) -> String {
        let ops = quote(&call.ops);
        let begin = match (opened, call.hold, call.level) {
            (true, ..) => String::new(),
            (_, false, Level::ReadCommitted) => String::new(),
            _ => format!("begin isolation level {};", call.level.sql()),
        };
        let end = match (call.hold, call.level) {
            (true, _) | (_, Level::ReadCommitted) => "",
            _ => "; commit",
        };
        let at = self.beginning + call.at;
        let turn_back = format!(
            "update sync_ext.change_log set created_at = to_timestamp({at})
              where created_at > now() - interval '{DAY} s';
             update sync_ext.workspace set unread_since = to_timestamp({at})
              where unread_since > now() - interval '{DAY} s'"
        );
        let calls = match &call.pull {
            None => {
                format!("select sync_push({}, {ops}::json)::text; {turn_back}", quote(workspace))
            }
            Some(pull) => self.exchange_sql(call, pull, &ops, &turn_back),
        };
        format!("{begin} {calls}{end}")
    }

    /// A push was answered, perhaps after it has waited.
    pub fn pushed(&mut self, session: usize, call: PushCall, answer: Answer) -> Result<()> {
        let workspace = self.peers[call.device].device.workspace.clone();
        let mut after = self.pushed_to(&call);
        let takes_lock = after.takes_lock(&workspace, &call.ops);
        let expected = after.push(None, &workspace, &call.ops, call.at);
        let expected = expected.map_err(unexpected)?;
        let exchange = match &call.pull {
            Some(pull) => Some(self.expect_exchange(&call, pull, &after)?),
            None => None,
        };
        let is_stale = self.is_stale(&call) && takes_lock
            || exchange.as_ref().is_some_and(|exchange| exchange.is_stale);
        let columns = match answer {
            Ok(columns) => columns,
            Err((Some(code), _)) if code == "40001" => {
                let may = is_stale || call.level == Level::Serializable;
                ensure!(may, "a push was 40001 without a concurrent one");
                self.tally.add("40001", 1);
                self.peers[call.device].busy = false;
                return self.command(session, "rollback".to_owned());
            }
            Err(error) => bail!("a push failed: {error:?}"),
        };
        ensure!(!is_stale, "a call above READ COMMITTED overlooked another one");

        let answered = match exchange {
            None => {
                Answered { push: columns.first().cloned().context("no reply")?, exchanged: None }
            }
            Some(expected) => self.check_exchange(&call, expected, &columns)?,
        };
        let mut push = read(&answered.push)?;
        self.map_times(&mut push);
        check_reply("a push", &push, &expected)?;
        self.count(&push);
        let state = after.workspaces.remove(&workspace).filter(|_| takes_lock);
        match (state, call.hold) {
            (Some(state), true) => {
                let after = Box::new(state);
                self.doing[session] = Doing::Holding { workspace, after, call, answered };
                Ok(())
            }
            (Some(state), false) => {
                self.committed(&workspace, state);
                self.deliver(&call, &answered)
            }
            (None, hold) => {
                if hold {
                    self.command(session, "commit".to_owned())?;
                }
                self.deliver(&call, &answered)
            }
        }
    }

    /// What a transaction did to a workspace is there for all.
    pub fn committed(&mut self, workspace: &str, mut after: Workspace) {
        let before = self.model.workspaces.remove(workspace).unwrap_or_default();
        // Acknowledging does not wait for a push.
        after.devices = before.devices;
        let accepted = self.accepted.entry(workspace.to_owned()).or_default();
        for (version, entry) in after.log.range(before.head + 1..) {
            self.tally.add("ops acknowledged", 1);
            self.tally.add("patches acknowledged", u64::from(entry.op.base.is_some()));
            self.tally.add("conditions met", u64::from(entry.op.expected.is_some()));
            accepted.insert(*version, entry.op.clone());
        }
        self.model.workspaces.insert(workspace.to_owned(), after);
    }

    /// The reply to what was committed, if it is not lost on the way.
    pub fn deliver(&mut self, call: &PushCall, answered: &Answered) -> Result<()> {
        if let Some(exchanged) = &answered.exchanged {
            self.exchange_committed(call, exchanged);
        }
        let peer = &mut self.peers[call.device];
        peer.busy = false;
        if call.lose {
            self.tally.add("replies lost", 1);
            return Ok(());
        }
        let (_, lost) = peer.device.push_answered(&call.sent, &answered.push)?;
        peer.make_again(&call.sent, lost, self.now);
        answered.exchanged.as_ref().map_or(Ok(()), |exchanged| self.exchanged(call, exchanged))
    }

    /// Epoch seconds as the simulation counts them.
    pub fn map_times(&self, reply: &mut Value) {
        map_times(
            reply,
            &mut |time| match time.as_f64().map(|time| time as i64 - self.beginning) {
                Some(at) if at <= self.now => json!(at),
                Some(_) => json!("now"),
                None => time.clone(),
            },
        );
    }

    fn count(&mut self, reply: &Value) {
        for result in reply["results"].as_array().into_iter().flatten() {
            let what = match (&result["success"], &result["replayed"], &result["applied"]) {
                (Value::Bool(false), ..) => "ops refused",
                (_, Value::Bool(true), _) => "replays",
                (.., Value::Bool(false)) => "conflicts lost",
                _ => "ops that won at their turn",
            };
            self.tally.add(what, 1);
            let lost = result["lost"].as_array().map_or(0, Vec::len);
            self.tally.add("fields lost by patches that won others", lost as u64);
            match result["errorCode"].as_str() {
                Some("BASE_MISSING") => self.tally.add("bases missing", 1),
                Some("RECORD_CONFLICT" | "FIELD_CONFLICT") => {
                    self.tally.add("conditions not met", 1);
                }
                _ => {}
            }
        }
    }
}
