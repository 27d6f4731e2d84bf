//! What devices call.

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::asking::Call;
use super::op::{DIARY, Item, json_of};
use super::reads::{Page, Proof, PullCall, SnapshotCall, without_tokens};
use super::step::{Cursor, Filter, GoOn, Name, Via, WORKSPACES, Who};
use super::world::{KeptCursor, KeptProof, World, normalize};

/// Tokens and cursors that are remembered.
const KEPT: usize = 12;

impl World {
    pub fn push(&mut self, who: Who, via: Via, workspace: Name, items: &[Item]) -> Result<()> {
        let at = self.at;
        let foretold = self.foretell(who, |model, user| model.push(user, workspace, items, at));
        let mut call = Call::new(who, via, "select sync_push($1, $2::text::json)::text")
            .about(workspace)
            .with(Some(json_of(items)));
        call.after = Some(format!("select app.pushed_at({at})"));
        let reply = self.ask(&call, &foretold)?;
        self.tally.add("pushes", 1);
        self.tally.add("pushes of 8 ops and more", u64::from(items.len() >= 8));
        let (Some(reply), Ok(foretold)) = (reply, foretold) else { return Ok(()) };
        self.pushed(who, workspace, items, reply, &foretold)
    }

    fn pushed(
        &mut self,
        who: Who,
        workspace: Name,
        items: &[Item],
        mut reply: Value,
        foretold: &Value,
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
            }
            normalize(result);
        }
        ensure!(reply == *foretold, "a push was answered {reply}\nforetold {foretold}");
        Ok(())
    }

    pub fn resolve(&self, workspace: Name, cursor: Cursor) -> (i64, Option<KeptProof>) {
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

    pub fn pull(
        &mut self,
        who: Who,
        via: Via,
        pull: &PullCall,
        proof: Option<String>,
    ) -> Result<()> {
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
        let (Some(reply), Ok((foretold, hidden))) = (reply, foretold) else { return Ok(()) };
        self.tally.add("hidden entries passed over", hidden);
        self.pulled(workspace, proof, reply, &foretold, true)
    }

    /// `keeps` if the proof can be handed in later.
    fn pulled(
        &mut self,
        workspace: Name,
        proof: Option<String>,
        mut reply: Value,
        foretold: &Value,
        keeps: bool,
    ) -> Result<()> {
        let given = reply["proof"].as_str().map(str::to_owned);
        if reply["requiresSnapshot"] == true {
            ensure!(given == proof, "a proof is handed back as given: {reply}");
        } else {
            let next = reply["nextCursor"].as_i64().unwrap_or_default();
            let of = self.model.workspaces.get(workspace);
            let proof = given.zip(of.map(|of| Proof { of: of.number, version: of.head }));
            let proof = proof.filter(|_| keeps);
            self.cursors.push_front((workspace, next, proof));
            self.cursors.truncate(3 * KEPT);
        }
        without_tokens(&mut reply);
        ensure!(reply == *foretold, "a pull was answered {reply}\nforetold {foretold}");
        Ok(())
    }

    pub fn exchange(
        &mut self,
        who: Who,
        via: Via,
        device: Name,
        items: &[Item],
        pull: &PullCall,
        proof: Option<String>,
    ) -> Result<()> {
        let PullCall { workspace, cursor, limit, filter, latest, .. } = pull;
        let head = |world: &World| world.model.workspaces.get(workspace).map(|state| state.head);
        let (at, before) = (self.at, head(self));
        let foretold =
            self.foretell(who, |model, user| model.exchange(user, device, items, pull, at));
        let sql = "select sync_exchange($1, $2, $3::text::bigint, $4::text::json, $5::text::int,
                                        $6::text::text[], $7::text::boolean, $8)::text";
        let mut call = Call::new(who, via, sql)
            .about(workspace)
            .with(Some(device))
            .with(Some(cursor))
            .with(Some(json_of(items)))
            .with(Some(limit))
            .with(array(filter))
            .with(Some(latest))
            .with(proof.clone());
        call.after = Some(format!("select app.pushed_at({at})"));
        let reply = self.ask(&call, &foretold)?;
        self.tally.add("exchanges", 1);
        let (Some(mut reply), Ok(foretold)) = (reply, foretold) else { return Ok(()) };
        self.tally.add("exchanges that acknowledged", u64::from(foretold.acknowledges));
        let (pushed, pulled) = (reply["push"].take(), reply["pull"].take());
        ensure!(reply == json!({"push": null, "pull": null}), "more than push and pull: {reply}");
        self.pushed(who, workspace, items, pushed, &foretold.push)?;
        // A proof goes with the time when its op was logged, which the call's
        // transaction has turned back.
        self.pulled(workspace, proof, pulled, &foretold.pull, head(self) == before)
    }

    pub fn snapshot(&mut self, who: Who, via: Via, snapshot: &SnapshotCall) -> Result<()> {
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

    pub fn go_on(&mut self, who: Who, via: Via, token: usize, with: GoOn) -> Result<()> {
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
