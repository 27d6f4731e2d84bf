//! `sync_pull`: the changes after a cursor.

use super::Result;
use super::caller::{Caller, Permit};
use super::scopes::{self, following, scopes};
use crate::guc;
use crate::store::counters::{Counter, count};
use crate::store::entry::Texts;
use crate::store::log::{Entry, Log};
use crate::store::mvcc::MvccSnapshot;
use crate::store::record::{Names, Records};
use crate::store::server;
use crate::store::workspace::{self, Workspace};
use crate::store::{Access, memory};
use sync_ext_core::error::SyncError;
use sync_ext_core::rules::access::Action;
use sync_ext_core::rules::history::{Following, Position, ProofEntry, Verdict, judge};
use sync_ext_core::rules::op::Version;
use sync_ext_core::rules::scope::{Told, is_latest};
use sync_ext_core::wire::ids::{MAX_TABLES, Scopes, TableFilter, WorkspaceId};
use sync_ext_core::wire::pages::{Page, PullEnd, Telling, pull_reply};
use sync_ext_core::wire::reply::Reply;
use sync_ext_core::wire::token::{ReadProof, read_proof, write_proof};

/// The arguments of a pull, as passed.
pub struct Request<'r> {
    pub workspace_id: Option<&'r str>,
    pub cursor: Option<i64>,
    pub page_limit: Option<i32>,
    pub tables: Option<Texts<'r>>,
    pub latest: bool,
    pub proof: Option<&'r str>,
    pub scopes: Option<Texts<'r>>,
}

/// A pull with validated arguments.
pub struct Pull<'r> {
    pub workspace_id: &'r str,
    pub cursor: Version,
    token: Option<&'r str>,
    proof: Option<ReadProof>,
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
            filter: Filter {
                tables: table_filter(&request.tables)?,
                scopes: scopes(&request.scopes)?,
                latest: request.latest,
            },
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

/// Which entries a puller wants.
struct Filter {
    tables: TableFilter,
    /// `None` for the whole workspace.
    scopes: Option<Scopes>,
    /// Omit entries that lost or were superseded.
    latest: bool,
}

pub fn pull(request: &Request<'_>) -> Result<Reply> {
    // One snapshot for everything that follows. Otherwise the head and the changes
    // could belong to different moments, and a puller would skip entries.
    let snapshot = MvccSnapshot::of_statement();
    let permit = Permit::seen_by(&snapshot, Action::Pull, request.workspace_id)?;
    let pull = Pull::new(request)?;
    Ok(answer(&permit.caller, &pull, &snapshot)?.reply)
}

pub struct Answer {
    pub reply: Reply,
    pub head: Version,
    /// The pull continues from the cursor: no lag, no snapshot.
    pub continues: bool,
}

/// The reply to a caller who may pull.
pub fn answer(caller: &Caller, pull: &Pull<'_>, snapshot: &MvccSnapshot) -> Result<Answer> {
    count(Counter::Pulls, 1);
    let page = Page::of_changes(pull.limit, guc::max_page_bytes());
    let workspace = workspace::find(pull.workspace_id, snapshot)?;
    let progress = workspace.map(|workspace| workspace.progress);
    let log = workspace.map(|found| Log::open(found.key, Access::Read)).transpose()?;

    let following = following(pull.filter.scopes.as_ref(), workspace);
    let position = Position {
        cursor: pull.cursor,
        proof: checked(pull.workspace_id, pull.proof, log.as_ref(), snapshot)?,
        has_other_scopes: pull.proof.is_some_and(|read| read.following != following),
    };
    let reason = match (judge(progress, position, server::is_standby()), workspace, &log) {
        (Verdict::Serve, Some(workspace), Some(log)) => {
            let reply = serve(caller, pull, workspace, log, following, page, snapshot)?;
            return Ok(Answer { reply, head: workspace.progress.head, continues: true });
        }
        (Verdict::Snapshot(reason), ..) => {
            count(Counter::SnapshotsRequired, 1);
            Some(reason)
        }
        // Lag, or an unknown workspace, which at cursor 0 is an empty one.
        _ => None,
    };
    let progress = progress.unwrap_or_default();
    // Return the proof as passed: a new one would hide the lost history.
    let (next_cursor, proof) = (pull.cursor, pull.token);
    let end = PullEnd { next_cursor, has_more: false, progress, reason, proof };
    Ok(Answer { reply: pull_reply(page, &end), head: progress.head, continues: false })
}

fn checked(
    workspace_id: &str,
    read: Option<ReadProof>,
    log: Option<&Log>,
    snapshot: &MvccSnapshot,
) -> Result<Option<(Version, ProofEntry)>> {
    let Some(ReadProof { proof, .. }) = read else { return Ok(None) };
    let entry = match log {
        Some(log) => log.versions(snapshot).check(workspace_id, &proof)?,
        None => ProofEntry::Missing,
    };
    Ok(Some((proof.head, entry)))
}

fn serve(
    caller: &Caller,
    pull: &Pull<'_>,
    Workspace { key, progress, .. }: Workspace,
    log: &Log,
    following: Option<Following>,
    mut page: Page,
    snapshot: &MvccSnapshot,
) -> Result<Reply> {
    let next = if pull.cursor < progress.head {
        let records = Records::open(key, Access::Read)?;
        fill(&mut page, &records, log, caller, pull, snapshot)?
    } else {
        None
    };
    // What is served was compared with the entry at the version of the given proof.
    let given = pull.proof.map(|read| read.proof).filter(|proof| proof.head == progress.head);
    let proof = match given {
        Some(proof) => Some(proof),
        None => log.versions(snapshot).proof(pull.workspace_id, progress.head)?,
    };
    let proof = proof.map(|proof| write_proof(&ReadProof { proof, following }));
    let end = PullEnd {
        // At the end the cursor is the head, not the last match: entries that the
        // filter skipped are not read again.
        next_cursor: next.unwrap_or(progress.head),
        has_more: next.is_some(),
        progress,
        reason: None,
        proof: proof.as_deref(),
    };
    Ok(pull_reply(page, &end))
}

/// Fills a page; returns its last version if there are more after it.
fn fill(
    page: &mut Page,
    records: &Records,
    log: &Log,
    caller: &Caller,
    pull: &Pull<'_>,
    snapshot: &MvccSnapshot,
) -> Result<Option<Version>> {
    let mut names = records.names(snapshot);
    let scopes = pull.filter.scopes.as_ref();
    let mut scopes = scopes.map(|list| scopes::Filter::open(list, snapshot)).transpose()?;
    let mut entries = log.after(pull.cursor, snapshot);
    let mut last = pull.cursor;
    while let Some(entry) = entries.next() {
        if !pull.filter.tables.matches(entry.table()?) || !caller.sees(entry.owner()?) {
            continue;
        }
        let Some(telling) = telling(&entry, &pull.filter, scopes.as_mut(), &mut names)? else {
            continue;
        };
        if page.is_full() {
            return Ok(Some(last));
        }
        let change = entry.change()?;
        if !page.add(change.bounds(telling), |out| change.write(out, telling))? {
            return Ok(Some(last));
        }
        last = change.version;
    }
    Ok(None)
}

/// How an entry of a wanted table is told; `None` if it is not.
fn telling<'e>(
    entry: &Entry<'e>,
    filter: &Filter,
    mut scopes: Option<&mut scopes::Filter<'_>>,
    names: &mut Names<'_>,
) -> Result<Option<Telling<'e>>> {
    if filter.latest && !entry.applied()? {
        return Ok(None);
    }
    let told = match &mut scopes {
        Some(scopes) => scopes.told(entry)?,
        None => Some(Told::Op),
    };
    let Some(told) = told else { return Ok(None) };
    if filter.latest {
        let (table, pk) = (entry.table()?, entry.pk()?);
        let Some(record) = names.find(table, pk) else { return Ok(None) };
        let is_newest = record.version()? == entry.version()?;
        let is_inside = scopes.as_mut().map(|scopes| scopes.is_inside(table, record.scope()));
        if !is_latest(told, is_newest, is_inside.transpose()?.unwrap_or(true)) {
            return Ok(None);
        }
    }
    Ok(Some(match told {
        Told::Op => {
            let scope = entry.scope().filter(|_| scopes.is_some());
            Telling::Op { scope, left_scope: None }
        }
        Told::Leave => Telling::Leave,
    }))
}
