//! Snapshots, page by page.

use serde_json::{Value, json};

use crate::members::Role;
use crate::pull::{Filter, Held, Page, Proof};
use crate::refusal::{Refusal, invalid, refusal};
use crate::scopes::{Following, Scopes};
use crate::server::{Key, Record, Server, Workspace, sees};

/// Where a record comes in a snapshot: what has no scope, or is not asked for by scopes, last.
type Position = (bool, Option<String>, Key);

/// What a page token stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageToken {
    pub user: Option<String>,
    pub workspace: String,
    pub filter: Filter,
    pub scopes: Option<Scopes>,
    pub have: Option<Scopes>,
    pub watermark: i64,
    pub last: Position,
    pub proof: Proof,
}

/// What a caller asks for.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    pub user: Option<String>,
    pub workspace: String,
    pub limit: Option<i64>,
    pub filter: Filter,
    pub scopes: Option<Scopes>,
    /// What the caller has, and the proof of that.
    pub have: Option<Scopes>,
    pub proof: Option<Proof>,
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
        let Snapshot { user, workspace, limit, filter, scopes, have, token, .. } = snapshot;
        self.allow(user.as_deref(), workspace, Role::Viewer)?;
        check_have(snapshot)?;
        let is_for_this = |token: &PageToken| {
            (&token.user, &token.workspace, &token.filter) == (user, workspace, filter)
                && (&token.scopes, &token.have) == (scopes, have)
        };
        if token.as_ref().is_some_and(|token| !is_for_this(token)) {
            return Err(invalid("invalid page_token"));
        }
        let nothing = Workspace::default();
        let state = self.workspaces.get(workspace).unwrap_or(&nothing);
        let following = self.following(scopes.as_ref(), workspace);
        let checked = match (token, &snapshot.proof) {
            (Some(token), _) => Some((token.watermark, &token.proof, following.clone())),
            (None, Some(proof)) => {
                Some((proof.head, proof, self.following(have.as_ref(), workspace)))
            }
            (None, None) => None,
        };
        if checked.is_some_and(|checked| !state.continues(workspace, checked)) {
            return Err(refusal("SX001", "snapshot expired"));
        }
        let mut page = Page::new(&self.settings, limit.unwrap_or(500));
        let (mut hidden, mut has_more) = (0, false);
        let mut last = token.as_ref().map(|token| token.last.clone());
        for (position, record) in self.listed(snapshot, state) {
            let (_, scope, key) = &position;
            let Some(entry) = state.winner(record) else { continue };
            if last.as_ref().is_some_and(|last| *last >= position) {
                continue;
            }
            if !sees(user.as_deref(), &record.owner) {
                hidden += 1;
                continue;
            }
            let mut item = record.item(key, entry);
            if let Some(scope) = scope {
                item["scope"] = json!(scope);
            }
            if !page.take(item) {
                has_more = true;
                break;
            }
            last = Some(position);
        }
        let watermark = token.as_ref().map_or(state.head, |token| token.watermark);
        let proof = state.proof(workspace, following);
        let next = last.filter(|_| has_more).zip(proof.clone()).map(|(last, proof)| {
            let (user, workspace, filter) = (user.clone(), workspace.clone(), filter.clone());
            let (scopes, have) = (scopes.clone(), have.clone());
            PageToken { user, workspace, filter, scopes, have, watermark, last, proof }
        });
        let reply = json!({"workspaceId": workspace, "highWatermark": watermark,
            "items": page.elements});
        Ok(Listed { reply, proof, next, hidden })
    }

    /// All that it lists, in order.
    fn listed<'a>(&self, snapshot: &Snapshot, state: &'a Workspace) -> Vec<(Position, &'a Record)> {
        let Snapshot { filter, scopes, have, .. } = snapshot;
        let is_new = |(table, _): &Key, scope: &Option<String>| {
            filter.wants(table)
                && self.is_inside(scopes.as_ref(), table, scope)
                && have.as_ref().is_none_or(|have| !self.is_inside(Some(have), table, scope))
        };
        let new = state.records.iter().filter(|(key, record)| is_new(key, &record.scope));
        let position = |key: &Key, record: &Record| {
            let scope = record.scope.clone().filter(|_| scopes.is_some());
            (scope.is_none(), scope, key.clone())
        };
        let mut listed: Vec<_> = new.map(|(key, record)| (position(key, record), record)).collect();
        listed.sort_by(|(one, _), (other, _)| one.cmp(other));
        listed
    }
}

/// Does what the caller says of its state fit together?
fn check_have(Snapshot { scopes, have, proof, .. }: &Snapshot) -> Result<(), Refusal> {
    let has_list = |proof: &Proof| match (&proof.following, have) {
        (Some((list, _)), Some(have)) => list == have,
        _ => false,
    };
    let fits = proof.as_ref().is_none_or(has_list) && (have.is_none() || scopes.is_some());
    if fits { Ok(()) } else { Err(invalid("have does not match")) }
}

impl Workspace {
    /// Can it be gone on from what was read up to this version, with this proof?
    fn continues(&self, name: &str, checked: (i64, &Proof, Following)) -> bool {
        let (through, proof, following) = checked;
        self.horizon <= through
            && proof.following == following
            && self.holds(name, proof) == Held::Same
    }
}
