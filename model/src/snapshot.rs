//! Snapshots, page by page.

use std::ops::Bound;

use serde_json::{Value, json};

use crate::members::Role;
use crate::pull::{Filter, Held, Page, Proof};
use crate::refusal::{Refusal, invalid, refusal};
use crate::server::{Key, Server, Workspace, sees};

/// What a page token stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageToken {
    pub user: Option<String>,
    pub workspace: String,
    pub filter: Filter,
    pub watermark: i64,
    pub last: Key,
    pub proof: Proof,
}

/// What a caller asks for.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    pub user: Option<String>,
    pub workspace: String,
    pub limit: Option<i64>,
    pub filter: Filter,
    pub token: Option<PageToken>,
}

/// A page without its id and tokens, and what these stand for.
#[derive(Clone, Debug)]
pub struct Listed {
    pub reply: Value,
    pub proof: Option<Proof>,
    pub next: Option<PageToken>,
    /// How many records were passed over for their owner.
    pub hidden: u64,
}

impl Server {
    pub fn snapshot(&self, snapshot: &Snapshot) -> Result<Listed, Refusal> {
        let Snapshot { user, workspace, limit, filter, token } = snapshot;
        self.allow(user.as_deref(), workspace, Role::Viewer)?;
        let is_for_this = |token: &PageToken| {
            (&token.user, &token.workspace, &token.filter) == (user, workspace, filter)
        };
        if token.as_ref().is_some_and(|token| !is_for_this(token)) {
            return Err(invalid("invalid page_token"));
        }
        let nothing = Workspace::default();
        let state = self.workspaces.get(workspace).unwrap_or(&nothing);
        if let Some(token) = token
            && (state.horizon > token.watermark
                || state.holds(workspace, &token.proof) != Held::Same)
        {
            return Err(refusal("SX001", "snapshot expired"));
        }
        let mut page = Page::new(&self.settings, limit.unwrap_or(500));
        let (mut hidden, mut has_more) = (0, false);
        let mut last = token.as_ref().map(|token| token.last.clone());
        let after = last.clone().map_or(Bound::Unbounded, Bound::Excluded);
        for (key, record) in state.records.range((after, Bound::Unbounded)) {
            let Some(entry) = state.winner(record) else { continue };
            if !filter.wants(&key.0) {
                continue;
            }
            if !sees(user.as_deref(), &record.owner) {
                hidden += 1;
                continue;
            }
            if !page.take(record.item(key, entry)) {
                has_more = true;
                break;
            }
            last = Some(key.clone());
        }
        let watermark = token.as_ref().map_or(state.head, |token| token.watermark);
        let proof = state.proof(workspace);
        let next = last.filter(|_| has_more).zip(proof.clone()).map(|(last, proof)| {
            let (user, workspace, filter) = (user.clone(), workspace.clone(), filter.clone());
            PageToken { user, workspace, filter, watermark, last, proof }
        });
        let reply = json!({"workspaceId": workspace, "highWatermark": watermark,
            "items": page.elements});
        Ok(Listed { reply, proof, next, hidden })
    }
}
