//! `sync_pull`: the changes after a cursor.

use super::Result;
use super::caller::Caller;
use crate::error::SyncError;
use crate::guc;
use crate::rules::access::Action;
use crate::rules::history::{Claim, Proof, ProofEntry, Verdict, judge};
use crate::rules::op::Version;
use crate::store::counters::{Counter, count};
use crate::store::entry::Texts;
use crate::store::log::{Entry, Log};
use crate::store::record::{Names, Records};
use crate::store::server;
use crate::store::snapshot::Snapshot;
use crate::store::workspace::{self, Workspace};
use crate::store::{Access, memory};
use crate::wire::ids::{MAX_TABLES, TableFilter, WorkspaceId};
use crate::wire::pages::{Page, PullEnd, bounds, pull_reply, write_change};
use crate::wire::reply::Reply;
use crate::wire::token::{read_proof, write_proof};

/// The arguments of a pull, as given.
pub struct Request<'r> {
    pub workspace_id: Option<&'r str>,
    pub cursor: Option<i64>,
    pub page_limit: Option<i32>,
    pub tables: Option<Texts<'r>>,
    pub latest: bool,
    pub proof: Option<&'r str>,
}

/// A pull to be made.
pub struct Pull<'r> {
    pub workspace_id: &'r str,
    pub cursor: Version,
    token: Option<&'r str>,
    proof: Option<Proof>,
    filter: Filter,
    limit: usize,
}

impl<'r> Pull<'r> {
    pub fn new(request: &Request<'r>) -> Result<Pull<'r>> {
        let Request { cursor, proof: token, .. } = *request;
        Ok(Pull {
            workspace_id: WorkspaceId::new(request.workspace_id)?.as_str(),
            cursor: cursor.and_then(Version::new).ok_or(SyncError::Cursor { given: cursor })?,
            token,
            proof: token.map(|token| read_proof(token).ok_or(SyncError::Proof)).transpose()?,
            filter: Filter { tables: table_filter(&request.tables)?, latest: request.latest },
            limit: guc::page_limit(request.page_limit, 100),
        })
    }
}

pub fn table_filter(tables: &Option<Texts<'_>>) -> Result<TableFilter> {
    match tables {
        Some(names) => {
            memory::require(names.len().min(MAX_TABLES) * 256)?;
            TableFilter::new(names.len(), names.iter())
        }
        None => Ok(TableFilter::All),
    }
}

/// What of the log a puller wants.
struct Filter {
    tables: TableFilter,
    /// Leave out losers and what was superseded.
    latest: bool,
}

pub fn pull(request: &Request<'_>) -> Result<Reply> {
    let caller = Caller::identify()?;
    let workspace_id = WorkspaceId::new(request.workspace_id)?.as_str();
    // One snapshot for all that follows, or the head and the changes could
    // tell of different moments and a puller would step over what lies between.
    let snapshot = Snapshot::of_statement();
    caller.require(Action::Pull, workspace_id, &snapshot)?;
    let pull = Pull::new(request)?;
    let (reply, _) = answer(&caller, &pull, &snapshot)?;
    Ok(reply)
}

/// The reply to a caller who may pull; and whether it goes on from the cursor,
/// neither behind it nor on another way.
pub fn answer(caller: &Caller, pull: &Pull<'_>, snapshot: &Snapshot) -> Result<(Reply, bool)> {
    count(Counter::Pulls, 1);
    let page = Page::of_changes(pull.limit, guc::max_page_bytes());
    let workspace = workspace::find(pull.workspace_id, snapshot)?;
    let progress = workspace.map(|workspace| workspace.progress);
    let log = workspace.map(|found| Log::open(found.key, Access::Read)).transpose()?;

    let proof = checked(pull.workspace_id, pull.proof, log.as_ref(), snapshot)?;
    let claim = Claim { cursor: pull.cursor, proof };
    let reason = match (judge(progress, claim, server::is_standby()), workspace, &log) {
        (Verdict::Serve, Some(workspace), Some(log)) => {
            return Ok((serve(caller, pull, workspace, log, page, snapshot)?, true));
        }
        (Verdict::Snapshot(reason), ..) => {
            count(Counter::SnapshotsRequired, 1);
            Some(reason)
        }
        // Lag, or an unknown workspace, which at cursor 0 is an empty one.
        _ => None,
    };
    // The proof is handed back as given: a new one would hide what it shows.
    let end = PullEnd {
        next_cursor: pull.cursor,
        has_more: false,
        progress: progress.unwrap_or_default(),
        reason,
        proof: pull.token,
    };
    Ok((pull_reply(page, &end), false))
}

fn checked(
    workspace_id: &str,
    proof: Option<Proof>,
    log: Option<&Log>,
    snapshot: &Snapshot,
) -> Result<Option<(Version, ProofEntry)>> {
    let Some(proof) = proof else { return Ok(None) };
    let entry = match log {
        Some(log) => log.versions(snapshot).check(workspace_id, &proof)?,
        None => ProofEntry::Missing,
    };
    Ok(Some((proof.head, entry)))
}

fn serve(
    caller: &Caller,
    pull: &Pull<'_>,
    Workspace { key, progress }: Workspace,
    log: &Log,
    mut page: Page,
    snapshot: &Snapshot,
) -> Result<Reply> {
    let next = if pull.cursor < progress.head {
        let records = Records::open(key, Access::Read)?;
        fill(&mut page, &records, log, caller, pull, snapshot)?
    } else {
        None
    };
    let proof = log.versions(snapshot).proof(pull.workspace_id, progress.head)?;
    let proof = proof.as_ref().map(write_proof);
    let end = PullEnd {
        // At the end the cursor is the head, not the last match: what the
        // filter passed over is never read again.
        next_cursor: next.unwrap_or(progress.head),
        has_more: next.is_some(),
        progress,
        reason: None,
        proof: proof.as_deref(),
    };
    Ok(pull_reply(page, &end))
}

/// Fills a page; gives its last version if there is more after it.
fn fill(
    page: &mut Page,
    records: &Records,
    log: &Log,
    caller: &Caller,
    pull: &Pull<'_>,
    snapshot: &Snapshot,
) -> Result<Option<Version>> {
    let mut names = records.names(snapshot);
    let mut entries = log.after(pull.cursor, snapshot);
    let mut last = pull.cursor;
    while let Some(entry) = entries.next() {
        if !caller.sees(entry.owner()?) || !wanted(&entry, &pull.filter, &mut names)? {
            continue;
        }
        if page.is_full() {
            return Ok(Some(last));
        }
        let (version, applied, op) = (entry.version()?, entry.applied()?, entry.op()?);
        let texts = [&*op.key.table, &*op.key.pk, &*op.revision.hlc, &*op.device_id];
        let overwrote = entry.overwrote();
        let bounds = bounds(&texts, op.payload);
        if !page.add(bounds, |out| write_change(out, version, applied, overwrote, &op))? {
            return Ok(Some(last));
        }
        last = version;
    }
    Ok(None)
}

fn wanted(entry: &Entry<'_>, filter: &Filter, names: &mut Names<'_>) -> Result<bool> {
    if !filter.tables.matches(entry.table()?) {
        return Ok(false);
    }
    if !filter.latest {
        return Ok(true);
    }
    if !entry.applied()? {
        return Ok(false);
    }
    let winner = names.find(entry.table()?, entry.pk()?);
    let winner = winner.map(|record| record.version()).transpose()?;
    Ok(winner == Some(entry.version()?))
}
