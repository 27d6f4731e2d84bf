//! `sync_pull`: the changes after a cursor.

use super::Result;
use super::caller::Caller;
use crate::error::SyncError;
use crate::guc;
use crate::rules::access::Action;
use crate::rules::history::{Claim, Proof, ProofEntry, Verdict, judge};
use crate::rules::op::Version;
use crate::store::Access;
use crate::store::log::{Entry, Log};
use crate::store::record::{Names, Records};
use crate::store::server;
use crate::store::snapshot::Snapshot;
use crate::store::workspace::{self, Workspace};
use crate::wire::ids::{TableFilter, WorkspaceId};
use crate::wire::pages::{Page, PullEnd, pull_reply, write_change};
use crate::wire::reply::Reply;
use crate::wire::token::{read_proof, write_proof};

/// What of the log a puller wants.
struct Filter {
    caller: Caller,
    tables: TableFilter,
    /// Leave out losers and what was superseded.
    latest: bool,
}

pub fn pull(
    workspace_id: Option<&str>,
    cursor: Option<i64>,
    page_limit: Option<i32>,
    tables: Option<Vec<Option<String>>>,
    latest: bool,
    token: Option<&str>,
) -> Result<Reply> {
    let caller = Caller::identify()?;
    let workspace_id = WorkspaceId::new(workspace_id)?.as_str();
    let cursor = cursor.and_then(Version::new).ok_or(SyncError::Cursor { given: cursor })?;
    let proof = token.map(|token| read_proof(token).ok_or(SyncError::Proof)).transpose()?;
    let filter = Filter { caller, tables: TableFilter::new(tables), latest };
    let page = Page::of_changes(guc::page_limit(page_limit, 100), guc::max_page_bytes());

    // One snapshot for all that follows, or the head and the changes could
    // tell of different moments and a puller would step over what lies between.
    let snapshot = Snapshot::of_statement();
    filter.caller.require(Action::Pull, workspace_id, &snapshot)?;
    let workspace = workspace::find(workspace_id, &snapshot)?;
    let progress = workspace.map(|workspace| workspace.progress);
    let log = workspace.map(|found| Log::open(found.key, Access::Read)).transpose()?;

    let claim = Claim { cursor, proof: checked(workspace_id, proof, log.as_ref(), &snapshot)? };
    let reason = match (judge(progress, claim, server::is_standby()), workspace, &log) {
        (Verdict::Serve, Some(workspace), Some(log)) => {
            return serve(workspace_id, workspace, log, cursor, &filter, page, &snapshot);
        }
        (Verdict::Snapshot(reason), ..) => Some(reason),
        // Lag, or an unknown workspace, which at cursor 0 is an empty one.
        _ => None,
    };
    // The proof is handed back as given: a new one would hide what it shows.
    let end = PullEnd {
        next_cursor: cursor,
        has_more: false,
        progress: progress.unwrap_or_default(),
        reason,
        proof: token,
    };
    Ok(pull_reply(page, &end))
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
    workspace_id: &str,
    Workspace { key, progress }: Workspace,
    log: &Log,
    cursor: Version,
    filter: &Filter,
    mut page: Page,
    snapshot: &Snapshot,
) -> Result<Reply> {
    let next = if cursor < progress.head {
        fill(&mut page, key, log, cursor, filter, snapshot)?
    } else {
        None
    };
    let proof = log.versions(snapshot).proof(workspace_id, progress.head)?;
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
    workspace_key: i64,
    log: &Log,
    cursor: Version,
    filter: &Filter,
    snapshot: &Snapshot,
) -> Result<Option<Version>> {
    let records = Records::open(workspace_key, Access::Read)?;
    let mut names = records.names(snapshot);
    let mut entries = log.after(cursor, snapshot);
    let mut last = cursor;
    while let Some(entry) = entries.next() {
        if !wanted(&entry, filter, &mut names)? {
            continue;
        }
        if page.is_full() {
            return Ok(Some(last));
        }
        let (version, applied, op) = (entry.version()?, entry.applied()?, entry.op()?);
        if !page.add(|out| write_change(out, version, applied, &op)) {
            return Ok(Some(last));
        }
        last = version;
    }
    Ok(None)
}

fn wanted(entry: &Entry<'_>, filter: &Filter, names: &mut Names<'_>) -> Result<bool> {
    if !filter.tables.matches(entry.table()?) || !filter.caller.sees(entry.owner()?) {
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
