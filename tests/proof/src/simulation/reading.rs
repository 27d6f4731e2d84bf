//! Pulls, snapshots and acknowledgements of the simulation.

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use sync_ext_cluster::device::{Device, Listed, Pulled};

use super::model::Server;
use super::peer::Peer;
use super::reads::{PageToken, Proof, ProofTold, Pull};
use super::session::{quote, quote_all, quote_or_null};
use super::step::Page;
use super::world::{Doing, World};

impl World<'_> {
    /// One page, of a pull or, where one has begun, of a snapshot.
    pub fn read(&mut self, device: usize, session: usize, page: Page, lose: bool) -> Result<()> {
        if !self.is_online(device) {
            return Ok(());
        }
        let reader = match &self.doing[session] {
            Doing::Open(_, view) if self.may_read(device, view.as_deref()) => Some(session),
            _ => self.idle(session),
        };
        let Some(session) = reader else { return Ok(()) };
        if self.peers[device].device.snapshot_begun {
            self.snapshot_page(device, session, page.limit, lose)
        } else {
            self.pull_page(device, session, page, lose)
        }
    }

    /// A device does not read from a view that is older than what it has seen.
    pub fn may_read(&self, device: usize, view: Option<&Server>) -> bool {
        let Some(view) = view else { return true };
        let Peer { device, listing, .. } = &self.peers[device];
        let head = |server: &Server| server.workspaces.get(&device.workspace).map(|w| w.head);
        let token = listing.page_token.as_ref();
        device.cursor == 0 && device.proof.is_none() && token.is_none()
            || head(view) == head(&self.model)
    }

    /// Does it read from a view that GC may have overtaken?
    fn reads_the_past(&self, session: usize) -> bool {
        matches!(self.doing[session], Doing::Open(_, Some(_)))
    }

    fn seen_by(&self, session: usize) -> &Server {
        match &self.doing[session] {
            Doing::Open(_, Some(view)) => view,
            _ => &self.model,
        }
    }

    /// What a device asks for when it pulls.
    pub fn pull_by(&self, number: usize, page: Page) -> Pull {
        let Device { workspace, cursor, tables, proof, .. } = &self.peers[number].device;
        let proof = proof.as_ref().map(|token| (token.clone(), self.proofs[token].clone()));
        let (workspace, tables) = (workspace.clone(), tables.clone());
        Pull { workspace, cursor: *cursor, page, tables, proof }
    }

    fn pull_page(&mut self, number: usize, session: usize, page: Page, lose: bool) -> Result<()> {
        let pull = self.pull_by(number, page);
        let sql = format!(
            "select sync_pull({}, {}, {})::text",
            quote(&pull.workspace),
            pull.cursor,
            pull.wishes()
        );
        let expected = self.seen_by(session).pull(&pull);
        let answer = self.call(session, sql)?;
        let Ok(columns) = answer else { bail!("a pull failed: {answer:?}") };
        let reply = columns.first().context("a pull without a reply")?;
        self.check_pull(&pull, expected, reply)?;
        if lose {
            self.tally.add("replies lost", 1);
            return Ok(());
        }
        let is_late = self.reads_the_past(session);
        self.pulled(number, reply, is_late)
    }

    /// Is a pull's reply what is expected?
    pub fn check_pull(
        &mut self,
        pull: &Pull,
        (expected, proof): (Value, ProofTold),
        reply: &str,
    ) -> Result<()> {
        self.tally.add("pulls", 1);
        let mut told: Value = serde_json::from_str(reply)?;
        let token = told["proof"].take();
        told.as_object_mut().context("no object")?.remove("proof");
        ensure!(told == expected, "a pull was answered\n  {told}\nwhere\n  {expected}\nis right");
        match proof {
            ProofTold::AsGiven => {
                let given = pull.proof.as_ref().map(|(token, _)| token.as_str());
                ensure!(token.as_str() == given, "{token} instead of the proof given, {given:?}");
                Ok(())
            }
            ProofTold::Of(proof) => self.learn_proof(&token, proof),
        }
    }

    /// A device gets a pull's reply; `is_late` if GC may have overtaken what it
    /// shows.
    pub fn pulled(&mut self, number: usize, reply: &str, is_late: bool) -> Result<()> {
        let peer = &mut self.peers[number];
        match peer.device.pull_answered(reply)? {
            Pulled::SnapshotRequired { reason } => {
                ensure!(!peer.shielded, "{reason} to a device that was active at every GC");
                self.tally.add(reason_counted(&reason)?, 1);
                peer.start_snapshot();
            }
            Pulled::Page { has_more: true, .. } => {}
            Pulled::Page { has_more: false, .. } => {
                (peer.complete, peer.exposed) = (true, peer.exposed && is_late);
            }
        }
        Ok(())
    }

    fn snapshot_page(
        &mut self,
        number: usize,
        session: usize,
        limit: usize,
        lose: bool,
    ) -> Result<()> {
        let Peer { device, listing, .. } = &self.peers[number];
        let token = listing.page_token.clone();
        let sql = format!(
            "select sync_snapshot({}, {}, {limit}, {})::text",
            quote(&device.workspace),
            quote_or_null(token.as_deref()),
            quote_all(&device.tables)
        );
        let known = token.as_ref().map(|token| self.page_tokens[token].clone());
        let expected = self.seen_by(session).snapshot(
            &device.workspace,
            known.as_ref(),
            limit,
            &device.tables,
        );
        self.tally.add("snapshot pages", 1);
        let answer = self.call(session, sql)?;
        let (columns, (expected, proof, next)) = match (answer, expected) {
            (Ok(columns), Some(expected)) => (columns, expected),
            (Err((Some(code), text)), None) if code == "SX001" => {
                ensure!(text.contains("snapshot expired"), "{text}");
                self.tally.add("snapshots expired", 1);
                if matches!(self.doing[session], Doing::Open(..)) {
                    self.command(session, "rollback".to_owned())?;
                    self.doing[session] = Doing::Nothing;
                }
                self.peers[number].start_snapshot();
                return Ok(());
            }
            (answer, expected) => bail!("a snapshot was {answer:?}, where {expected:?} is right"),
        };
        let reply = columns.first().context("a snapshot without a reply")?;
        let mut told: Value = serde_json::from_str(reply)?;
        let (proof_token, next_token) = (told["proof"].take(), told["nextPageToken"].take());
        let object = told.as_object_mut().context("no object")?;
        for key in ["proof", "nextPageToken", "snapshotId"] {
            ensure!(object.remove(key).is_some(), "no {key}");
        }
        for item in told["items"].as_array_mut().into_iter().flatten() {
            if let Some(at) = item.get_mut("serverDeletedAt") {
                *at = self.since_beginning(at)?;
            }
        }
        ensure!(told == expected, "a snapshot was\n  {told}\nwhere\n  {expected}\nis right");
        self.learn_proof(&proof_token, proof)?;
        self.learn_page(&next_token, next)?;
        self.listed(number, session, reply, lose)
    }

    fn listed(&mut self, number: usize, session: usize, reply: &str, lose: bool) -> Result<()> {
        if lose {
            self.tally.add("replies lost", 1);
            return Ok(());
        }
        let is_exposed = self.reads_the_past(session);
        let peer = &mut self.peers[number];
        match peer.device.snapshot_answered(&mut peer.listing, reply)? {
            Listed::More => {}
            Listed::Whole => {
                (peer.complete, peer.exposed) = (true, peer.exposed && is_exposed);
                self.tally.add("snapshots completed", 1);
            }
            // The server was restored while the snapshot was on its way.
            Listed::Old => self.tally.add("snapshots discarded", 1),
            Listed::Behind | Listed::Expired => bail!("a reply that is an error"),
        }
        Ok(())
    }

    /// Equal tokens stand for equal history, and the other way round.
    fn learn_proof(&mut self, token: &Value, proof: Option<Proof>) -> Result<()> {
        let (Some(token), Some(proof)) = (token.as_str(), &proof) else {
            ensure!(token.is_null() && proof.is_none(), "proof {token} for {proof:?}");
            return Ok(());
        };
        match self.proofs.get(token) {
            Some(known) => ensure!(known == proof, "{token} proves {known:?} and {proof:?}"),
            None => {
                let other = self.proofs.values().any(|known| known == proof);
                ensure!(!other, "another token than {token} proves {proof:?}");
                self.proofs.insert(token.to_owned(), proof.clone());
            }
        }
        Ok(())
    }

    fn learn_page(&mut self, token: &Value, page: Option<PageToken>) -> Result<()> {
        ensure!(token.is_string() == page.is_some(), "page token {token} for {page:?}");
        if let (Some(token), Some(page)) = (token.as_str(), page) {
            self.page_tokens.insert(token.to_owned(), page);
        }
        Ok(())
    }

    pub fn acknowledge(&mut self, number: usize, session: usize) -> Result<()> {
        let Some(session) = self.idle(session).filter(|_| self.is_online(number)) else {
            return Ok(());
        };
        let peer = &self.peers[number];
        if !peer.complete || peer.device.snapshot_begun {
            return Ok(());
        }
        let device = &peer.device;
        let sql = format!(
            "select sync_update_cursor({0}, {1}, {2})::text;
             update sync_ext.device_cursor set updated_at = to_timestamp({3})
              where device_id = {1} and updated_at > to_timestamp({3})",
            quote(&device.workspace),
            quote(&device.id),
            device.cursor,
            self.beginning + self.now
        );
        let (workspace, id, cursor) = (device.workspace.clone(), device.id.clone(), device.cursor);
        let expected = self.model.acknowledge(&workspace, &id, cursor, self.now);
        self.tally.add("acknowledgements", 1);
        match (self.call(session, sql)?, expected) {
            (Ok(columns), Some(expected)) => {
                let reply = columns.first().context("an acknowledgement without a reply")?;
                let told: Value = serde_json::from_str(reply)?;
                ensure!(told == expected, "acknowledged: {told} where {expected} is right");
                self.acknowledged(number, cursor);
                Ok(())
            }
            (Err((Some(code), _)), None) if code == "SX003" => {
                self.tally.add("acknowledgements above head refused", 1);
                Ok(())
            }
            (answer, expected) => bail!("acknowledged: {answer:?} where {expected:?} is right"),
        }
    }

    /// The device knows that the server knows its cursor.
    pub fn acknowledged(&mut self, number: usize, cursor: i64) {
        let peer = &mut self.peers[number];
        let state = self.model.workspaces.get(&peer.device.workspace);
        let is_active = state.is_some_and(|state| cursor >= state.horizon);
        peer.shielded = !peer.exposed && is_active;
    }
}

impl Pull {
    /// The arguments after the cursor.
    pub fn wishes(&self) -> String {
        let Page { limit, latest } = self.page;
        let token = self.proof.as_ref().map(|(token, _)| token.as_str());
        format!("{limit}, {}, {latest}, {}", quote_all(&self.tables), quote_or_null(token))
    }
}

fn reason_counted(reason: &str) -> Result<&'static str> {
    Ok(match reason {
        "unknown_workspace" => "snapshots forced: unknown_workspace",
        "history_diverged" => "snapshots forced: history_diverged",
        "cursor_ahead" => "snapshots forced: cursor_ahead",
        "cursor_expired" => "snapshots forced: cursor_expired",
        _ => bail!("reason {reason}"),
    })
}
