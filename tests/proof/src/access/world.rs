//! A real server and its model; and how each step of a history is played.

use std::collections::VecDeque;

use anyhow::{Result, ensure};
use postgres::Client;
use serde_json::{Value, json};
use sync_ext_cluster::cluster::Cluster;
use sync_ext_cluster::state;

use super::DATABASE;
use super::asking::Call;
use super::model::{Refusal, Server, no_user};
use super::reads::{Page, Proof, PullCall, SnapshotCall};
use super::secrets::Secrets;
use super::session::Session;
use super::step::{Action, Name, Step, Who};
use crate::tally::Tally;

pub struct World {
    pub admin: Client,
    pub trusted: Session,
    pub web: Session,
    pub model: Server,
    pub secrets: Secrets,
    /// The newest first.
    pub tokens: VecDeque<Page>,
    pub cursors: VecDeque<KeptCursor>,
    pub at: i64,
    pub tally: Tally,
}

/// What a pull of a workspace gave: cursor and proof.
pub type KeptCursor = (Name, i64, Option<KeptProof>);
/// As text, and what it stands for.
pub type KeptProof = (String, Proof);

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
            model: Server { elsewhere, ..Server::default() },
            secrets: Secrets::default(),
            tokens: VecDeque::new(),
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
            Action::Pull { workspace, cursor, limit, filter, latest } => {
                let (cursor, proof) = self.resolve(workspace, *cursor);
                let (text, proof) = proof.unzip();
                let (filter, limit) = (filter.clone(), *limit);
                let call = PullCall { workspace, cursor, limit, filter, latest: *latest, proof };
                self.pull(who, via, &call, text)
            }
            Action::Exchange { workspace, device, items, cursor, limit, filter, latest } => {
                let (cursor, proof) = self.resolve(workspace, *cursor);
                let (text, proof) = proof.unzip();
                let (filter, limit) = (filter.clone(), *limit);
                let call = PullCall { workspace, cursor, limit, filter, latest: *latest, proof };
                self.exchange(who, via, device, items, &call, text)
            }
            Action::Snapshot { workspace, limit, filter } => {
                let filter = filter.clone();
                let call = SnapshotCall { workspace, limit: *limit, filter, page: None };
                self.snapshot(who, via, &call)
            }
            Action::GoOn { token, with } => self.go_on(who, via, *token, *with),
            Action::Acknowledge { workspace, device, below_head } => {
                let head = self.model.workspaces.get(workspace).map_or(0, |state| state.head);
                // Far below is negative and not allowed.
                let version = if *below_head > 100 { -1 } else { (head - below_head).max(0) };
                let foretold = self.foretell(who, |model, user| {
                    model.acknowledge(user, workspace, device, version)
                });
                let sql = "select sync_update_cursor($1, $2, $3::text::bigint)::text";
                let call = Call::new(who, via, sql).about(workspace);
                self.compare(&call.with(Some(device)).with(Some(version)), foretold)
            }
            Action::Collect { workspace, keep, batch } => {
                self.collect(who, via, *workspace, self.at - keep, *batch)
            }
            Action::Create { workspace, owner } => {
                let foretold =
                    self.foretell(who, |model, user| model.create(user, workspace, owner));
                let sql = "select sync_create_workspace($1, $2)::text";
                let mut call = Call::new(who, via, sql).about(workspace).with(Some(owner));
                // A name that is free is not refused.
                call.has_twin = false;
                self.compare(&call, foretold)
            }
            Action::Drop { workspace, batch } => self.drop_workspace(who, via, workspace, *batch),
            Action::SetMember { workspace, user, role } => {
                let foretold = self.foretell(who, |model, caller| {
                    model.set_member(caller, workspace, user, *role)
                });
                let sql = "select sync_set_member($1, $2, $3)::text";
                let call = Call::new(who, via, sql).about(workspace);
                self.compare(&call.with(Some(user)).with(Some(role.word())), foretold)?;
                self.told_by_the_app(who, workspace, user, Some(*role))
            }
            Action::RemoveMember { workspace, user } => {
                let foretold = self
                    .foretell(who, |model, caller| model.remove_member(caller, workspace, user));
                let sql = "select sync_remove_member($1, $2)::text";
                let call = Call::new(who, via, sql).about(workspace).with(Some(user));
                self.compare(&call, foretold)?;
                self.told_by_the_app(who, workspace, user, None)
            }
            Action::List => {
                let foretold = self.foretell(who, |model, user| Ok(model.list(user)));
                self.compare(&Call::new(who, via, "select sync_list_workspaces()::text"), foretold)
            }
            Action::Look => self.look(who, via),
            Action::Status { workspace } => self.status(who, via, *workspace),
            Action::Explain { workspace, record } => self.explain(who, via, workspace, *record),
            Action::Register { table, owner_field } => {
                let foretold =
                    self.foretell(who, |model, user| model.register(user, table, *owner_field));
                let sql = "select sync_register_table($1, owner_field => $2)::text";
                let call = Call::new(who, via, sql).with(Some(table)).with(*owner_field);
                self.compare(&call, foretold)
            }
            Action::Unregister { table } => {
                let foretold = self.foretell(who, |model, user| model.unregister(user, table));
                let sql = "select sync_unregister_table($1)::text";
                self.compare(&Call::new(who, via, sql).with(Some(table)), foretold)
            }
            Action::Silence { workspace, device, days } => self.silence(workspace, device, *days),
        }?;
        if self.at % 20 == 0 { self.check_tables() } else { Ok(()) }
    }

    pub fn end(&mut self) -> Result<()> {
        self.check_tables()?;
        self.tally.add("names in what users were told", self.secrets.names_told);
        Ok(())
    }

    /// What the model says, unless a user is required and none is set.
    pub fn foretell<T>(
        &mut self,
        who: Who,
        says: impl FnOnce(&mut Server, Option<Name>) -> std::result::Result<T, Refusal>,
    ) -> std::result::Result<T, Refusal> {
        if who == Who::Nobody {
            return Err(no_user());
        }
        says(&mut self.model, who.user())
    }

    /// A call whose reply is what is foretold.
    fn compare(
        &mut self,
        call: &Call,
        foretold: std::result::Result<Value, Refusal>,
    ) -> Result<()> {
        if let (Some(reply), Ok(foretold)) = (self.ask(call, &foretold)?, foretold) {
            ensure!(reply == foretold, "replied {reply}\nforetold {foretold}");
        }
        Ok(())
    }
}

/// Leaves out what no model foretells: when a delete came, and the texts of errors
/// that differ.
pub fn normalize(value: &mut Value) {
    match value {
        Value::Object(members) => {
            if members.get("errorCode") == Some(&json!("VALIDATION_ERROR")) {
                members.remove("error");
            }
            if let Some(at) = members.get_mut("serverDeletedAt") {
                *at = json!(at.is_i64());
            }
            members.values_mut().for_each(normalize);
        }
        Value::Array(items) => items.iter_mut().for_each(normalize),
        _ => {}
    }
}
