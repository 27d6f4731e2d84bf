//! What an exchange does besides its push: it pulls, and acknowledges.

use anyhow::{Result, bail, ensure};
use sync_ext_harness::replies::ExchangeReply;
use sync_ext_model::refusal::unexpected;
use sync_ext_model::{Device, Pull, Pulled, Scopes, Server, ShownProof};

use super::pushing::{Answered, PushCall};
use super::reading::wishes;
use super::session::{quote, quote_list};
use super::step::Page;
use super::world::World;

/// The rest of an exchange, as the model has it.
pub struct Expected {
    reply: Pulled,
    /// The cursor that is acknowledged, and what the device's becomes.
    acknowledged: Option<(i64, i64)>,
    /// Was the device's cursor changed since the transaction took its view?
    pub is_stale: bool,
}

/// The rest of an exchange that was answered.
pub struct Exchanged {
    pull: String,
    acknowledged: Option<i64>,
}

impl World<'_> {
    /// What a device pulls in an exchange; `None` if it cannot make one: it has
    /// begun a snapshot, or has nothing yet that it may acknowledge.
    pub fn pull_to_exchange(&self, number: usize, page: Option<Page>) -> Option<Pull> {
        let peer = &self.peers[number];
        let may = !peer.device.snapshot_begun && (peer.complete || peer.device.cursor == 0);
        page.filter(|_| may).map(|page| self.pull_by(number, page))
    }

    /// The exchange, what it acknowledged, and the turning back of times; before
    /// and after that the proof of the head, which goes with its time.
    pub fn exchange_sql(&self, call: &PushCall, pull: &Pull, ops: &str, turn_back: &str) -> String {
        let workspace = quote(&pull.workspace);
        let device = quote(&self.peers[call.device].device.id);
        let (cursor, wishes, at) = (pull.cursor, wishes(pull), self.beginning + call.at);
        let proof = format!(
            "select sync_pull({workspace}, coalesce((select head from sync_ext.workspace
               where workspace_id = {workspace}), 0), scopes => {}) ->> 'proof'",
            quote_list(pull.scopes.as_ref().map(Scopes::names))
        );
        format!(
            "select sync_exchange({workspace}, {device}, {cursor}, {ops}::json, {wishes})::text;
             with heard as (
               update sync_ext.device_cursor set updated_at = to_timestamp({at})
                where device_id = {device} and updated_at > to_timestamp({at})
               returning last_seen_version)
             select max(last_seen_version) from heard;
             {proof}; {turn_back}; {proof}"
        )
    }

    /// `after` is what the push has made of what its transaction sees.
    pub fn expect_exchange(
        &self,
        call: &PushCall,
        pull: &Pull,
        after: &Server,
    ) -> Result<Expected> {
        let reply = after.pull(pull).map_err(unexpected)?;
        let device = |server: &Server| -> Option<Device> {
            let devices = &server.workspaces.get(&pull.workspace)?.devices;
            devices.get(&(self.peers[call.device].device.id.clone(), String::new())).copied()
        };
        let acknowledges = pull.cursor > 0 && matches!(reply.proof, ShownProof::New(_));
        let known = device(&self.model);
        let becomes = known.map_or(pull.cursor, |known| known.cursor.max(pull.cursor));
        Ok(Expected {
            reply,
            acknowledged: acknowledges.then_some((pull.cursor, becomes)),
            is_stale: acknowledges && call.view.as_ref().is_some_and(|view| device(view) != known),
        })
    }

    pub fn check_exchange(
        &mut self,
        call: &PushCall,
        expected: Expected,
        columns: &[String],
    ) -> Result<Answered> {
        let (Some(pull), [reply, heard, proof, proof_turned_back]) = (&call.pull, columns) else {
            bail!("an exchange was answered {columns:?}");
        };
        let reply: ExchangeReply = serde_json::from_str(reply)?;
        let becomes = expected.acknowledged.map(|(_, becomes)| becomes.to_string());
        ensure!(
            *heard == becomes.clone().unwrap_or_default(),
            "an exchange acknowledged {heard:?} where {becomes:?} is right: {}",
            reply.pull
        );
        let mut pulled = reply.pull.get().to_owned();
        if !proof.is_empty() {
            // As it would be, had the ops been logged at the simulation's time.
            pulled = pulled.replace(proof, proof_turned_back);
        }
        let is_refused = expected.reply.reply["requiresSnapshot"] == true;
        self.tally.add("exchanges whose pull was refused", u64::from(is_refused));
        self.check_pull(pull, &expected.reply, &pulled)?;
        let acknowledged = expected.acknowledged.map(|(cursor, _)| cursor);
        Ok(Answered {
            push: reply.push.get().to_owned(),
            exchanged: Some(Exchanged { pull: pulled, acknowledged }),
        })
    }

    pub fn exchange_committed(&mut self, call: &PushCall, exchanged: &Exchanged) {
        let Some(cursor) = exchanged.acknowledged else { return };
        self.tally.add("exchanges that acknowledged", 1);
        let device = &self.peers[call.device].device;
        // A version that a restore has lost is refused, and changes nothing.
        let _ = self.model.acknowledge(None, &device.workspace, &device.id, cursor, call.at);
    }

    /// A device takes the rest as if it had come after the push's reply.
    pub fn exchanged(&mut self, call: &PushCall, exchanged: &Exchanged) -> Result<()> {
        if self.peers[call.device].device.snapshot_begun {
            // Meanwhile, and that comes first.
            return Ok(());
        }
        let told = self.peers[call.device].device.told(&call.sent);
        self.pulled(call.device, &exchanged.pull, call.view.is_some())?;
        // Some devices leave that to the replays of later pushes.
        if call.device.is_multiple_of(2) {
            self.peers[call.device].device.settle(&told);
        }
        if let Some(cursor) = exchanged.acknowledged {
            self.acknowledged(call.device, cursor);
        }
        Ok(())
    }
}
