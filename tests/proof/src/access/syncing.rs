//! What devices call.

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use sync_ext_model::reply::map_times;
use sync_ext_model::{Filter, Pull, Pulled, Snapshot};

use super::asking::Call;
use super::op::{DIARY, Item, json_of};
use super::step::{Cursor, GoOn, Name, Read, USERS, Via, WORKSPACES, Who};
use super::world::{HOUR, KeptCursor, World};
use crate::common::rows::check_reply;

/// Tokens and cursors that are remembered.
const KEPT: usize = 12;
/// 2020, when step 0 was, in seconds since 1970.
const BEGINNING: i64 = 1_577_836_800;

impl World {
    pub fn push(&mut self, who: Who, via: Via, workspace: Name, items: &[Item]) -> Result<()> {
        let (at, ops) = (self.at, json_of(items));
        let expected = self.expect(who, |model, user| model.push(user, workspace, &ops, at * HOUR));
        let mut call = Call::new(who, via, "select sync_push($1, $2::text::json)::text")
            .about(workspace)
            .with(Some(ops));
        call.after = Some(format!("select app.pushed_at({at})"));
        let reply = self.ask(&call, &expected)?;
        self.tally.add("pushes", 1);
        self.tally.add("pushes of 8 ops and more", u64::from(items.len() >= 8));
        let (Some(reply), Ok(expected)) = (reply, expected) else { return Ok(()) };
        self.pushed(who, workspace, items, reply, &expected)
    }

    fn pushed(
        &mut self,
        who: Who,
        workspace: &str,
        items: &[Item],
        mut reply: Value,
        expected: &Value,
    ) -> Result<()> {
        for (item, result) in
            items.iter().zip(reply["results"].as_array_mut().into_iter().flatten())
        {
            self.tally.add("ops", 1);
            self.tally.add(fate(result), 1);
            if result["success"] == true {
                let is_new = result["replayed"] != true;
                self.secrets.accepted(workspace, who.user(), &item.op, is_new)?;
                let is_private = item.op.table == DIARY && who.user().is_some();
                self.tally.add("ops of diaries accepted from users", u64::from(is_private));
                let is_patch = is_private && item.op.base.is_some();
                self.tally.add("patches of diaries accepted from users", u64::from(is_patch));
            }
        }
        self.map_times(&mut reply);
        check_reply("a push", &reply, expected)
    }

    /// Epoch seconds as the model counts them.
    fn map_times(&self, reply: &mut Value) {
        map_times(reply, &mut |time| match time.as_i64().map(|time| time - BEGINNING) {
            Some(at) if at <= self.at * HOUR => json!(at),
            Some(_) => json!("now"),
            None => time.clone(),
        });
    }

    pub fn pull_of(&self, who: Who, read: &Read) -> Pull {
        let (cursor, proof) = match read.cursor {
            Cursor::At(version) => (version, None),
            Cursor::Kept { back, with_proof } => {
                let of_this = |kept: &&KeptCursor| kept.0 == read.workspace;
                let kept = self.cursors.iter().filter(of_this).nth(back);
                let proof = kept.and_then(|(.., proof)| proof.clone());
                (kept.map_or(0, |(_, cursor, _)| *cursor), proof.filter(|_| with_proof))
            }
        };
        let (user, workspace) = (who.user().map(str::to_owned), read.workspace.to_owned());
        let (limit, filter) = (Some(read.limit), Filter::of(&read.filter));
        Pull { user, workspace, cursor, limit, filter, latest: read.latest, scopes: None, proof }
    }

    pub fn pull(&mut self, who: Who, via: Via, pull: &Pull) -> Result<()> {
        let expected = self.expect(who, |model, _| model.pull(pull));
        let sql = "select sync_pull($1, $2::text::bigint, $3::text::int, $4::text::text[],
                                    $5::text::boolean, $6)::text";
        let call = Call::new(who, via, sql).about(&pull.workspace).with(Some(pull.cursor));
        let reply = self.ask(&wishes(call, pull), &expected)?;
        self.tally.add("pulls", 1);
        let (Some(reply), Ok(expected)) = (reply, expected) else { return Ok(()) };
        self.tally.add("hidden entries passed over", expected.hidden);
        self.pulled(pull, reply, &expected, true)
    }

    /// `is_kept` if the proof can be given later.
    fn pulled(
        &mut self,
        pull: &Pull,
        reply: Value,
        expected: &Pulled,
        is_kept: bool,
    ) -> Result<()> {
        let next = reply["nextCursor"].as_i64().unwrap_or_default();
        let token = self.tokens.check_pull(pull, reply, expected, is_kept)?;
        if expected.reply["requiresSnapshot"] == false {
            let proof = token.and_then(|token| {
                let proof = self.tokens.proof(&token)?.clone();
                Some((token, proof))
            });
            self.cursors.push_front((pull.workspace.clone(), next, proof));
            self.cursors.truncate(3 * KEPT);
        }
        Ok(())
    }

    pub fn exchange(
        &mut self,
        who: Who,
        via: Via,
        device: Name,
        items: &[Item],
        pull: &Pull,
    ) -> Result<()> {
        let workspace = &*pull.workspace;
        let (at, ops, before) = (self.at, json_of(items), self.model.head(workspace));
        let expected =
            self.expect(who, |model, _| model.exchange(device, &ops, pull, (at * HOUR, 0)));
        let sql = "select sync_exchange($1, $2, $3::text::bigint, $4::text::json, $5::text::int,
                                        $6::text::text[], $7::text::boolean, $8)::text";
        let call = Call::new(who, via, sql).about(workspace).with(Some(device));
        let mut call = wishes(call.with(Some(pull.cursor)).with(Some(ops)), pull);
        call.after = Some(format!("select app.pushed_at({at})"));
        let reply = self.ask(&call, &expected)?;
        self.tally.add("exchanges", 1);
        let (Some(mut reply), Ok(expected)) = (reply, expected) else { return Ok(()) };
        self.tally.add("exchanges that acknowledged", u64::from(expected.acknowledges));
        let (pushed, pulled) = (reply["push"].take(), reply["pull"].take());
        ensure!(reply == json!({"push": null, "pull": null}), "more than push and pull: {reply}");
        self.pushed(who, workspace, items, pushed, &expected.push)?;
        // A proof goes with the time when its op was logged, which the call's
        // transaction has turned back.
        let is_kept = self.model.head(workspace) == before;
        self.pulled(pull, pulled, &expected.pull, is_kept)
    }

    /// `token` is that of the page, as text.
    pub fn snapshot(
        &mut self,
        who: Who,
        via: Via,
        snapshot: &Snapshot,
        token: Option<String>,
    ) -> Result<()> {
        let expected = self.expect(who, |model, _| model.snapshot(snapshot));
        let sql = "select sync_snapshot($1, $2, $3::text::int, $4::text::text[])::text";
        let mut call = Call::new(who, via, sql)
            .about(&snapshot.workspace)
            .with(token.as_ref())
            .with(snapshot.limit)
            .with(array(&snapshot.filter));
        // A token names its workspace.
        call.has_twin = token.is_none();
        let reply = self.ask(&call, &expected)?;
        self.tally.add("pages of snapshots", 1);
        let (Some(mut reply), Ok(listed)) = (reply, expected) else { return Ok(()) };
        self.tally.add("hidden records passed over", listed.hidden);
        self.map_times(&mut reply);
        let (_, next) = self.tokens.check_page(reply, &listed)?;
        if let Some(next) = next {
            self.pages.push_front(next);
            self.pages.truncate(KEPT);
        }
        Ok(())
    }

    pub fn go_on(&mut self, who: Who, via: Via, token: usize, with: GoOn) -> Result<()> {
        let Some(text) = self.pages.get(token).cloned() else { return Ok(()) };
        let Some(page) = self.tokens.page(&text).cloned() else { return Ok(()) };
        let user = page.user.as_deref().and_then(|user| USERS.iter().find(|it| **it == user));
        let holder = user.map_or(Who::Trusted, |user| Who::User(user));
        let who = if with == GoOn::Handed { who } else { holder };
        let (mut workspace, mut filter) = (page.workspace.clone(), page.filter.clone());
        if with == GoOn::OtherWorkspace {
            let place = WORKSPACES.iter().position(|name| *name == workspace).unwrap_or(0);
            workspace = WORKSPACES[(place + 1) % WORKSPACES.len()].to_owned();
        }
        if with == GoOn::OtherFilter {
            let notes = Filter::of(&["notes"]);
            filter = if filter == notes { Filter::default() } else { notes };
        }
        let (user, limit) = (who.user().map(str::to_owned), Some(1 + self.at % 4));
        let token = Some(page);
        let snapshot = Snapshot { user, workspace, limit, filter, token, ..Snapshot::default() };
        self.snapshot(who, via, &snapshot, Some(text))
    }
}

/// The arguments of a pull after its cursor and ops.
fn wishes(call: Call, pull: &Pull) -> Call {
    call.with(pull.limit)
        .with(array(&pull.filter))
        .with(Some(pull.latest))
        .with(pull.proof.as_ref().map(|(token, _)| token))
}

fn array(filter: &Filter) -> Option<String> {
    filter.names().map(|names| {
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        format!("{{{}}}", names.join(","))
    })
}

fn fate(result: &Value) -> &'static str {
    match result["errorCode"].as_str() {
        Some("UNAUTHORIZED") => "ops refused as UNAUTHORIZED",
        Some("CONFLICT") => "ops refused as CONFLICT",
        Some("BASE_MISSING") => "ops refused as BASE_MISSING",
        Some("RECORD_CONFLICT" | "FIELD_CONFLICT") => "conditions not met",
        Some(_) => "ops refused as VALIDATION_ERROR",
        None if result["replayed"] == true => "ops known already",
        None if result["applied"] == true => "ops that won",
        None => "ops that lost",
    }
}
