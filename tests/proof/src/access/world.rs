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
use super::op::{DIARY, Item, json_of};
use super::reads::{Page, Proof, PullCall, SnapshotCall, without_tokens};
use super::secrets::Secrets;
use super::session::Session;
use super::step::{Action, Cursor, Filter, GoOn, Name, Step, Via, WORKSPACES, Who};
use crate::tally::Tally;

/// Tokens and cursors that are remembered.
const KEPT: usize = 12;

pub struct World {
    pub admin: Client,
    pub trusted: Session,
    pub web: Session,
    pub model: Server,
    pub secrets: Secrets,
    /// The newest first.
    tokens: VecDeque<Page>,
    cursors: VecDeque<KeptCursor>,
    pub at: i64,
    pub tally: Tally,
}

/// What a pull of a workspace gave: cursor and proof.
type KeptCursor = (Name, i64, Option<KeptProof>);
/// As text, and what it stands for.
type KeptProof = (String, Proof);

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

    fn push(&mut self, who: Who, via: Via, workspace: Name, items: &[Item]) -> Result<()> {
        let at = self.at;
        let foretold = self.foretell(who, |model, user| model.push(user, workspace, items, at));
        let mut call = Call::new(who, via, "select sync_push($1, $2::text::json)::text")
            .about(workspace)
            .with(Some(json_of(items)));
        call.after = Some(format!("select app.pushed_at({at})"));
        let reply = self.ask(&call, &foretold)?;
        self.tally.add("pushes", 1);
        self.tally.add("pushes of 8 ops and more", u64::from(items.len() >= 8));
        let (Some(mut reply), Ok(foretold)) = (reply, foretold) else { return Ok(()) };
        for (item, result) in
            items.iter().zip(reply["results"].as_array_mut().into_iter().flatten())
        {
            self.tally.add("ops", 1);
            self.tally.add(fate(result), 1);
            if result["success"] == true {
                self.secrets.accepted(workspace, who.user(), &item.op)?;
                let is_private = item.op.table == DIARY && who.user().is_some();
                self.tally.add("ops of diaries accepted from users", u64::from(is_private));
            }
            normalize(result);
        }
        ensure!(reply == foretold, "a push was answered {reply}\nforetold {foretold}");
        Ok(())
    }

    fn resolve(&self, workspace: Name, cursor: Cursor) -> (i64, Option<KeptProof>) {
        match cursor {
            Cursor::At(version) => (version, None),
            Cursor::Kept { back, with_proof } => {
                let of_this = |kept: &&KeptCursor| kept.0 == workspace;
                let kept = self.cursors.iter().filter(of_this).nth(back);
                let proof = kept.and_then(|(.., proof)| proof.clone());
                (kept.map_or(0, |(_, cursor, _)| *cursor), proof.filter(|_| with_proof))
            }
        }
    }

    fn pull(&mut self, who: Who, via: Via, pull: &PullCall, proof: Option<String>) -> Result<()> {
        let PullCall { workspace, cursor, limit, filter, latest, .. } = pull;
        let foretold = self.foretell(who, |model, user| model.pull(user, pull));
        let sql = "select sync_pull($1, $2::text::bigint, $3::text::int, $4::text::text[],
                                    $5::text::boolean, $6)::text";
        let call = Call::new(who, via, sql)
            .about(workspace)
            .with(Some(cursor))
            .with(Some(limit))
            .with(array(filter))
            .with(Some(latest))
            .with(proof.clone());
        let reply = self.ask(&call, &foretold)?;
        self.tally.add("pulls", 1);
        let (Some(mut reply), Ok((foretold, hidden))) = (reply, foretold) else { return Ok(()) };
        self.tally.add("hidden entries passed over", hidden);
        let given = reply["proof"].as_str().map(str::to_owned);
        if reply["requiresSnapshot"] == true {
            ensure!(given == proof, "a proof is handed back as given: {reply}");
        } else {
            let next = reply["nextCursor"].as_i64().unwrap_or_default();
            let of = self.model.workspaces.get(workspace);
            let proof = given.zip(of.map(|of| Proof { of: of.number, version: of.head }));
            self.cursors.push_front((workspace, next, proof));
            self.cursors.truncate(3 * KEPT);
        }
        without_tokens(&mut reply);
        ensure!(reply == foretold, "a pull was answered {reply}\nforetold {foretold}");
        Ok(())
    }

    fn snapshot(&mut self, who: Who, via: Via, snapshot: &SnapshotCall) -> Result<()> {
        let SnapshotCall { workspace, limit, filter, page } = snapshot;
        let foretold = self.foretell(who, |model, user| model.snapshot(user, snapshot));
        let sql = "select sync_snapshot($1, $2, $3::text::int, $4::text::text[])::text";
        let mut call = Call::new(who, via, sql)
            .about(workspace)
            .with(page.as_ref().map(|page| &page.text))
            .with(Some(limit))
            .with(array(filter));
        // A token names its workspace.
        call.has_twin = page.is_none();
        let reply = self.ask(&call, &foretold)?;
        self.tally.add("pages of snapshots", 1);
        let (Some(mut reply), Ok(listed)) = (reply, foretold) else { return Ok(()) };
        self.tally.add("hidden records passed over", listed.hidden);
        let text = reply["nextPageToken"].as_str().map(str::to_owned);
        normalize(&mut reply);
        without_tokens(&mut reply);
        let foretold = &listed.reply;
        ensure!(reply == *foretold, "a snapshot was answered {reply}\nforetold {foretold}");
        let of = self.model.workspaces.get(workspace);
        if let (Some(text), Some(after), Some(of)) = (text, listed.next, of) {
            let proof = Proof { of: of.number, version: of.head };
            let (user, watermark, filter) = (who.user(), listed.watermark, filter.clone());
            self.tokens.push_front(Page { text, workspace, user, filter, watermark, proof, after });
            self.tokens.truncate(KEPT);
        }
        Ok(())
    }

    fn go_on(&mut self, who: Who, via: Via, token: usize, with: GoOn) -> Result<()> {
        let Some(page) = self.tokens.get(token).cloned() else { return Ok(()) };
        let holder = page.user.map_or(Who::Trusted, Who::User);
        let who = if with == GoOn::Handed { who } else { holder };
        let (mut workspace, mut filter) = (page.workspace, page.filter.clone());
        if with == GoOn::OtherWorkspace {
            let place = WORKSPACES.iter().position(|name| *name == workspace).unwrap_or(0);
            workspace = WORKSPACES[(place + 1) % WORKSPACES.len()];
        }
        if with == GoOn::OtherFilter {
            filter = if filter == ["notes"] { vec![] } else { vec!["notes"] };
        }
        let limit = 1 + (self.at % 4) as usize;
        self.snapshot(who, via, &SnapshotCall { workspace, limit, filter, page: Some(page) })
    }
}

fn array(filter: &Filter) -> Option<String> {
    (!filter.is_empty()).then(|| format!("{{{}}}", filter.join(",")))
}

fn fate(result: &Value) -> &'static str {
    match result["errorCode"].as_str() {
        Some("UNAUTHORIZED") => "ops refused as UNAUTHORIZED",
        Some("CONFLICT") => "ops refused as CONFLICT",
        Some(_) => "ops refused as VALIDATION_ERROR",
        None if result["replayed"] == true => "ops known already",
        None if result["applied"] == true => "ops that won",
        None => "ops that lost",
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
