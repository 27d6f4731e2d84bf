//! Pulls, snapshots and acknowledgements of the simulation.

use anyhow::{Context, Result, bail, ensure};
use sync_ext_harness::device::{self, Device, Listed, Listing};
use sync_ext_model::refusal::unexpected;
use sync_ext_model::reply::read;
use sync_ext_model::{Filter, Pull, Pulled, Scopes, Server, Snapshot};

use super::peer::Peer;
use super::session::{quote, quote_all, quote_list, quote_or_null};
use super::step::Page;
use super::world::{Doing, World};
use crate::common::rows::check_reply;

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
        let Device { workspace, cursor, tables, proof, scopes, .. } = &self.peers[number].device;
        let scopes = scopes.as_ref().map(Scopes::of);
        let proof = proof.as_ref().and_then(|token| {
            let proof = self.tokens.proof(token)?.clone();
            Some((token.clone(), proof))
        });
        let Page { limit, latest } = page;
        let (workspace, filter, limit) = (workspace.clone(), Filter::of(tables), Some(limit));
        let (user, cursor) = (None, *cursor);
        Pull { user, workspace, cursor, limit, filter, latest, scopes, proof }
    }

    fn pull_page(&mut self, number: usize, session: usize, page: Page, lose: bool) -> Result<()> {
        let pull = self.pull_by(number, page);
        let workspace = quote(&pull.workspace);
        let sql =
            format!("select sync_pull({workspace}, {}, {})::text", pull.cursor, wishes(&pull));
        let expected = self.seen_by(session).pull(&pull);
        let expected = expected.map_err(unexpected)?;
        let answer = self.call(session, sql)?;
        let Ok(columns) = answer else { bail!("a pull failed: {answer:?}") };
        let reply = columns.first().context("a pull without a reply")?;
        self.check_pull(&pull, &expected, reply)?;
        if lose {
            self.tally.add("replies lost", 1);
            return Ok(());
        }
        let is_late = self.reads_the_past(session);
        self.pulled(number, reply, is_late)
    }

    /// Is a pull's reply what is expected?
    pub fn check_pull(&mut self, pull: &Pull, expected: &Pulled, reply: &str) -> Result<()> {
        self.tally.add("pulls", 1);
        self.tally.add("pulls of some scopes", u64::from(pull.scopes.is_some()));
        let changes = expected.reply["changes"].as_array().into_iter().flatten();
        let leaves = changes.filter(|change| change["op"] == "leave").count();
        self.tally.add("leaves", leaves as u64);
        self.tokens.check_pull(pull, read(reply)?, expected, true).map(drop)
    }

    /// A device gets a pull's reply; `is_late` if GC may have overtaken what it
    /// shows.
    pub fn pulled(&mut self, number: usize, reply: &str, is_late: bool) -> Result<()> {
        let peer = &mut self.peers[number];
        match peer.device.pull_answered(reply)? {
            device::Pulled::SnapshotRequired { reason } => {
                let is_due = !peer.shielded || reason == "scopes_changed";
                ensure!(is_due, "{reason} to a device that was active at every GC");
                self.tally.add(reason_counted(&reason)?, 1);
                peer.start_snapshot();
            }
            device::Pulled::Page { has_more: true, .. } => {}
            device::Pulled::Page { has_more: false, .. } => {
                (peer.complete, peer.exposed) = (true, peer.exposed && is_late);
                peer.listing = Listing::default();
            }
        }
        Ok(())
    }

    fn snapshot_page(
        &mut self,
        number: usize,
        session: usize,
        limit: i64,
        lose: bool,
    ) -> Result<()> {
        let Peer { device, listing, .. } = &self.peers[number];
        let token = listing.page_token.clone();
        let have = device.scopes.as_ref().filter(|_| device.joins);
        let proof = device.proof.as_ref().filter(|_| device.joins);
        let sql = format!(
            "select sync_snapshot({}, {}, {limit}, {}, {}, {}, {})::text",
            quote(&device.workspace),
            quote_or_null(token.as_deref()),
            quote_all(&device.tables),
            quote_list(device.wanted_scopes().as_ref()),
            quote_list(have),
            quote_or_null(proof.map(String::as_str)),
        );
        let snapshot = Snapshot {
            user: None,
            workspace: device.workspace.clone(),
            limit: Some(limit),
            filter: Filter::of(&device.tables),
            scopes: device.wanted_scopes().as_ref().map(Scopes::of),
            have: have.map(Scopes::of),
            proof: proof.and_then(|proof| self.tokens.proof(proof)).cloned(),
            token: token.as_ref().and_then(|token| self.tokens.page(token)).cloned(),
        };
        let expected = self.seen_by(session).snapshot(&snapshot);
        self.tally.add("snapshot pages", 1);
        let answer = self.call(session, sql)?;
        let (columns, expected) = match (answer, expected) {
            (Ok(columns), Ok(expected)) => (columns, expected),
            (Err((Some(code), text)), Err(refusal)) if code == refusal.code => {
                ensure!(code == "SX001" && text.contains(refusal.message), "{text}");
                self.tally.add("snapshots expired", 1);
                self.tally
                    .add("changes of lists expired", u64::from(self.peers[number].device.joins));
                if matches!(self.doing[session], Doing::Open(..)) {
                    self.command(session, "rollback".to_owned())?;
                    self.doing[session] = Doing::Nothing;
                }
                self.peers[number].snapshot_expired();
                return Ok(());
            }
            (answer, expected) => bail!("a snapshot was {answer:?}, where {expected:?} is right"),
        };
        let reply = columns.first().context("a snapshot without a reply")?;
        let mut page = read(reply)?;
        self.map_times(&mut page);
        self.tokens.check_page(page, &expected)?;
        self.listed(number, session, reply, lose)
    }

    fn listed(&mut self, number: usize, session: usize, reply: &str, lose: bool) -> Result<()> {
        if lose {
            self.tally.add("replies lost", 1);
            return Ok(());
        }
        let is_exposed = self.reads_the_past(session);
        let peer = &mut self.peers[number];
        let has_next = peer.device.next_scopes.is_some();
        match peer.device.snapshot_answered(&mut peer.listing, reply)? {
            Listed::More => {}
            Listed::Whole => {
                (peer.complete, peer.exposed) = (true, peer.exposed && is_exposed);
                self.tally.add("snapshots completed", 1);
                self.tally.add("lists changed by whole snapshots", u64::from(has_next));
            }
            Listed::Joined => self.tally.add("lists changed by what they add", 1),
            // The server was restored while the snapshot was on its way.
            Listed::Old => {
                self.tally.add("snapshots discarded", 1);
                self.tally.add("snapshots of new lists discarded", u64::from(has_next));
            }
            Listed::Behind | Listed::Expired => bail!("a reply that is an error"),
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
        let expected = self.model.acknowledge(None, &workspace, &id, cursor, self.now);
        self.tally.add("acknowledgements", 1);
        match (self.call(session, sql)?, expected) {
            (Ok(columns), Ok(expected)) => {
                let reply = columns.first().context("an acknowledgement without a reply")?;
                check_reply("an acknowledgement", &read(reply)?, &expected)?;
                self.acknowledged(number, cursor);
                Ok(())
            }
            (Err((Some(code), _)), Err(refusal)) if code == refusal.code => {
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

/// The arguments of a pull after its cursor.
pub fn wishes(pull: &Pull) -> String {
    let token = pull.proof.as_ref().map(|(token, _)| token.as_str());
    let tables: Vec<String> = pull.filter.names().into_iter().flatten().cloned().collect();
    let limit = pull.limit.unwrap_or_default();
    format!(
        "{limit}, {}, {}, {}, {}",
        quote_all(&tables),
        pull.latest,
        quote_or_null(token),
        quote_list(pull.scopes.as_ref().map(Scopes::names))
    )
}

fn reason_counted(reason: &str) -> Result<&'static str> {
    Ok(match reason {
        "unknown_workspace" => "snapshots forced: unknown_workspace",
        "history_diverged" => "snapshots forced: history_diverged",
        "cursor_ahead" => "snapshots forced: cursor_ahead",
        "cursor_expired" => "snapshots forced: cursor_expired",
        "scopes_changed" => "snapshots forced: scopes_changed",
        _ => bail!("reason {reason}"),
    })
}
