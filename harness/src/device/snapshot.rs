//! A device reads a snapshot, whole or what a new list of scopes adds.

use anyhow::Result;
use postgres::Client;
use postgres::types::ToSql;

use super::{Device, Listed, Listing, Synced};
use crate::replies::SnapshotReply;

/// "snapshot expired".
const EXPIRED: &str = "SX001";
/// "standby is behind the snapshot", and "workspace is elsewhere", which it is until it has
/// arrived: the same page may be read later.
const LATER: [&str; 2] = ["SX002", "SX004"];

impl Device {
    /// Replaces synced state with the server's, as of the last page. False if that is
    /// not possible yet: the snapshot expired on the way, or came from a standby that
    /// is behind what this device has seen.
    pub fn snapshot(&mut self, client: &mut Client, page_limit: i32) -> Result<bool> {
        let mut listing = Listing::default();
        loop {
            match self.snapshot_page(&mut listing, client, page_limit)? {
                Listed::More => {}
                listed => return Ok(matches!(listed, Listed::Whole | Listed::Joined)),
            }
        }
    }

    /// Reads one page of a snapshot; the last one replaces synced state.
    pub fn snapshot_page(
        &mut self,
        listing: &mut Listing,
        client: &mut Client,
        page_limit: i32,
    ) -> Result<Listed> {
        self.snapshot_begun = true;
        let Device { workspace, tables, proof, joins, .. } = &*self;
        let scopes = Device::names_of(self.wanted_scopes());
        let have = Device::names_of(&self.scopes).filter(|_| *joins);
        let proof = proof.as_ref().filter(|_| *joins);
        let all: [&(dyn ToSql + Sync); 7] =
            [workspace, &listing.page_token, &page_limit, tables, &scopes, &have, &proof];
        let answer = match scopes.is_some() {
            true => {
                client.query_one("select sync_snapshot($1, $2, $3, $4, $5, $6, $7)::text", &all)
            }
            false => client.query_one("select sync_snapshot($1, $2, $3, $4)::text", &all[..4]),
        };
        match answer {
            Err(error) if is(&error, EXPIRED) => {
                self.snapshot_expired();
                Ok(Listed::Expired)
            }
            Err(error) if LATER.iter().any(|state| is(&error, state)) => Ok(Listed::Behind),
            reply => self.snapshot_answered(listing, reply?.get(0)),
        }
    }

    /// Processes the reply to the page of the listing's token.
    pub fn snapshot_answered(&mut self, listing: &mut Listing, reply: &str) -> Result<Listed> {
        let reply: SnapshotReply = serde_json::from_str(reply)?;
        for item in reply.items {
            let deleted = item.kind == "tombstone";
            let payload = item.payload.map(|raw| raw.get().to_owned());
            let synced = Synced {
                version: item.server_version,
                newest: item.op_id.unwrap_or_else(|| item.revision.op_id.clone()),
                revision: item.revision,
                payload,
                deleted,
                fields: item.fields,
                scope: item.scope,
            };
            // One that moves meanwhile may be listed twice.
            let key = (item.table_name, item.pk);
            if listing.records.get(&key).is_none_or(|known| known.version < synced.version) {
                listing.records.insert(key, synced);
            }
        }
        listing.page_token = reply.next_page_token;
        if listing.page_token.is_some() {
            return Ok(Listed::More);
        }
        if self.joins {
            return Ok(self.join(std::mem::take(listing), reply.proof));
        }
        let Listing { records, .. } = std::mem::take(listing);
        if reply.high_watermark < self.cursor && !self.history_lost {
            // Or the server was restored meanwhile, which a pull shows. Synced state
            // still matches cursor and proof.
            self.snapshot_begun = false;
            return Ok(Listed::Old);
        }
        for (key, record) in &records {
            self.know_clocks(key, &record.revision, &record.fields);
        }
        self.synced = records;
        self.marks.clear();
        self.scopes = self.wanted_scopes().clone();
        self.next_scopes = None;
        self.cursor = reply.high_watermark;
        self.proof = reply.proof;
        self.snapshot_begun = false;
        self.history_lost = false;
        self.clear_outbox(reply.high_watermark);
        Ok(Listed::Whole)
    }
}

fn is(error: &postgres::Error, state: &str) -> bool {
    error.code().is_some_and(|code| code.code() == state)
}
