//! A real server and its model; and how each step of a history is played.

use std::collections::VecDeque;

use anyhow::Result;
use postgres::Client;
use serde_json::Value;
use sync_ext_harness::cluster::Cluster;
use sync_ext_harness::state;

use sync_ext_model::refusal::no_user;
use sync_ext_model::{Cutoffs, Filter, Proof, Refusal, Server, Snapshot};

use super::DATABASE;
use super::asking::Call;
use super::secrets::Secrets;
use super::session::Session;
use super::step::{Action, Name, Step, Via, Who};
use crate::common::rows::{self, check_reply};
use crate::common::tally::Tally;
use crate::common::tokens::Tokens;

/// What a step takes of the time of entries, in seconds.
pub const HOUR: i64 = 3600;
/// Entries are years old; heartbeats are negative numbers of days.
pub const CUTOFFS: Cutoffs = Cutoffs { entries: i64::MAX, heartbeats: -90, forgotten: -180 };

pub struct World {
    pub admin: Client,
    pub trusted: Session,
    pub web: Session,
    pub model: Server,
    pub secrets: Secrets,
    pub tokens: Tokens,
    /// Page tokens, the newest first.
    pub pages: VecDeque<String>,
    pub cursors: VecDeque<KeptCursor>,
    pub at: i64,
    pub tally: Tally,
}

/// What a pull of a workspace gave: cursor and proof.
pub type KeptCursor = (String, i64, Option<(String, Proof)>);

impl World {
    /// An empty server.
    pub fn new(cluster: &Cluster, elsewhere: bool) -> Result<World> {
        let mut admin = cluster.connect(DATABASE)?;
        admin.batch_execute(&format!(
            "truncate app.member, sync_ext.{} restart identity",
            state::TABLES.join(", sync_ext.")
        ))?;
        let members = match elsewhere {
            true => "set sync_ext.membership_function = 'app.role_of';",
            false => "",
        };
        let web = format!("{members} set sync_ext.require_user = on");
        Ok(World {
            admin,
            trusted: Session::connect(cluster, members)?,
            web: Session::connect(cluster, &web)?,
            model: Server { has_members_elsewhere: elsewhere, ..Server::default() },
            secrets: Secrets::default(),
            tokens: Tokens::default(),
            pages: VecDeque::new(),
            cursors: VecDeque::new(),
            at: 0,
            tally: Tally::default(),
        })
    }

    pub fn play(&mut self, step: &Step) -> Result<()> {
        self.at += 1;
        let Step { who, via, action } = step;
        let (who, via) = (*who, *via);
        match action {
            Action::Push { workspace, items } => self.push(who, via, workspace, items),
            Action::Pull(read) => {
                let pull = self.pull_of(who, read);
                self.pull(who, via, &pull)
            }
            Action::Exchange { device, items, read } => {
                let pull = self.pull_of(who, read);
                self.exchange(who, via, device, items, &pull)
            }
            Action::Snapshot { workspace, limit, filter } => {
                let (user, workspace) = (who.user().map(str::to_owned), (*workspace).to_owned());
                let (limit, filter) = (Some(*limit), Filter::of(filter));
                let snapshot = Snapshot { user, workspace, limit, filter, ..Snapshot::default() };
                self.snapshot(who, via, &snapshot, None)
            }
            Action::GoOn { token, with } => self.go_on(who, via, *token, *with),
            Action::Acknowledge { workspace, device, below_head } => {
                self.acknowledge(who, via, workspace, device, *below_head)
            }
            Action::Collect { workspace, keep, batch } => {
                self.collect(who, via, *workspace, self.at - keep, *batch)
            }
            Action::Drop { workspace, batch } => self.drop_workspace(who, via, workspace, *batch),
            Action::List => {
                let expected = self.expect(who, |model, user| Ok(model.list(user)));
                self.compare(&Call::new(who, via, "select sync_list_workspaces()::text"), expected)
            }
            Action::Look => self.look(who, via),
            Action::Status { workspace } => self.status(who, via, *workspace),
            Action::Explain { workspace, record } => self.explain(who, via, workspace, *record),
            Action::Silence { workspace, device, days } => self.silence(workspace, device, *days),
            governing => self.govern(who, via, governing),
        }?;
        if self.at % 20 == 0 { self.check_rows() } else { Ok(()) }
    }

    /// Workspaces, members and tables.
    fn govern(&mut self, who: Who, via: Via, action: &Action) -> Result<()> {
        match action {
            Action::Create { workspace, owner } => {
                let expected = self.expect(who, |model, user| model.create(user, workspace, owner));
                let sql = "select sync_create_workspace($1, $2)::text";
                let mut call = Call::new(who, via, sql).about(workspace).with(Some(owner));
                // A name that is free is not refused.
                call.has_twin = false;
                self.compare(&call, expected)
            }
            Action::SetMember { workspace, user, role } => {
                let expected = self.expect(who, |model, caller| {
                    model.set_member(caller, workspace, user, role.word())
                });
                let sql = "select sync_set_member($1, $2, $3)::text";
                let call = Call::new(who, via, sql).about(workspace);
                self.compare(&call.with(Some(user)).with(Some(role.word())), expected)?;
                self.by_the_app(who, workspace, user, Some(*role))
            }
            Action::RemoveMember { workspace, user } => {
                let expected =
                    self.expect(who, |model, caller| model.remove_member(caller, workspace, user));
                let sql = "select sync_remove_member($1, $2)::text";
                let call = Call::new(who, via, sql).about(workspace).with(Some(user));
                self.compare(&call, expected)?;
                self.by_the_app(who, workspace, user, None)
            }
            Action::Register { table, owner_field, patches } => {
                let expected = self.expect(who, |model, user| {
                    model.register(user, table, "id", *owner_field, *patches)
                });
                let sql = "select sync_register_table($1, owner_field => $2, patches => $3::text::boolean)::text";
                let call = Call::new(who, via, sql)
                    .with(Some(table))
                    .with(*owner_field)
                    .with(Some(*patches));
                self.compare(&call, expected)
            }
            Action::Unregister { table } => {
                let expected = self.expect(who, |model, user| model.unregister(user, table));
                let sql = "select sync_unregister_table($1)::text";
                self.compare(&Call::new(who, via, sql).with(Some(table)), expected)
            }
            _ => Ok(()),
        }
    }

    fn acknowledge(
        &mut self,
        who: Who,
        via: Via,
        workspace: Name,
        device: Name,
        below_head: i64,
    ) -> Result<()> {
        let head = self.model.head(workspace);
        // Far below is negative and not allowed.
        let version = if below_head > 100 { -1 } else { (head - below_head).max(0) };
        let expected =
            self.expect(who, |model, user| model.acknowledge(user, workspace, device, version, 0));
        let sql = "select sync_update_cursor($1, $2, $3::text::bigint)::text";
        let call = Call::new(who, via, sql).about(workspace);
        self.compare(&call.with(Some(device)).with(Some(version)), expected)
    }

    pub fn end(&mut self) -> Result<()> {
        self.check_rows()?;
        self.tally.add("names in what users were shown", self.secrets.names_shown);
        Ok(())
    }

    fn check_rows(&mut self) -> Result<()> {
        rows::check(&mut self.admin, &self.model, None)
    }

    /// What the model says, unless a user is required and none is set.
    pub fn expect<T>(
        &mut self,
        who: Who,
        says: impl FnOnce(&mut Server, Option<Name>) -> std::result::Result<T, Refusal>,
    ) -> std::result::Result<T, Refusal> {
        if who == Who::Nobody {
            return Err(no_user());
        }
        says(&mut self.model, who.user())
    }

    /// A call whose reply is what is expected.
    fn compare(
        &mut self,
        call: &Call,
        expected: std::result::Result<Value, Refusal>,
    ) -> Result<()> {
        if let (Some(reply), Ok(expected)) = (self.ask(call, &expected)?, expected) {
            check_reply(call.sql, &reply, &expected)?;
        }
        Ok(())
    }
}
