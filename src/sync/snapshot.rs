//! `sync_snapshot`: the current state, page by page, without copying it.
//!
//! Later pages show records in their state when read. A record that changes after the
//! first page is shown in its older or newer state; either way the change has a version
//! above the watermark, and a pull from there returns it.

use super::Result;
use super::caller::Caller;
use super::pull::table_filter;
use super::scopes::{Filter, following, scopes};
use crate::guc;
use crate::store::Access;
use crate::store::counters::{Counter, count};
use crate::store::entry::Texts;
use crate::store::log::{Log, Versions};
use crate::store::mvcc::MvccSnapshot;
use crate::store::record::{Record, Records};
use crate::store::server;
use crate::store::workspace::{self, Workspace};
use sync_ext_core::error::SyncError;
use sync_ext_core::rules::access::Action;
use sync_ext_core::rules::history::{Following, ProofEntry};
use sync_ext_core::rules::op::Version;
use sync_ext_core::wire::ids::{Scopes, TableFilter, WorkspaceId};
use sync_ext_core::wire::pages::{Page, SnapshotItem, bounds, snapshot_reply, write_snapshot_item};
use sync_ext_core::wire::reply::Reply;
use sync_ext_core::wire::token::{
    Binding, ReadProof, SnapshotPlace, read_page, read_proof, write_page,
};

/// The arguments of a snapshot, as passed.
pub struct Request<'r> {
    pub workspace_id: Option<&'r str>,
    pub page_token: Option<&'r str>,
    pub page_limit: Option<i32>,
    pub tables: Option<Texts<'r>>,
    pub scopes: Option<Texts<'r>>,
    /// The scopes of the caller's state, of which nothing is listed, and its proof.
    pub have: Option<Texts<'r>>,
    pub proof: Option<&'r str>,
}

pub fn snapshot(request: &Request<'_>) -> Result<Reply> {
    let caller = Caller::identify()?;
    let workspace_id = WorkspaceId::new(request.workspace_id)?.as_str();
    // One snapshot: the proof is that of the state that the page shows.
    let view = MvccSnapshot::of_statement();
    caller.require(Action::Pull, workspace_id, &view)?;
    let tables = table_filter(&request.tables)?;
    let (scopes, have) = (scopes(&request.scopes)?, scopes(&request.have)?);
    let state = state_of(request.proof, scopes.as_ref(), have.as_ref())?;
    let bound_to = Binding {
        workspace_id,
        user: caller.user(),
        tables: &tables,
        scopes: scopes.as_ref(),
        have: have.as_ref(),
    };
    let resumed = request
        .page_token
        .map(|token| {
            let of_scopes = scopes.is_some();
            read_page(token, &bound_to).ok_or(SyncError::PageToken { of_scopes })
        })
        .transpose()?;

    let workspace = workspace::find(workspace_id, &view)?;
    let log = workspace.map(|found| Log::open(found.key, Access::Read)).transpose()?;
    let read = (workspace, log.as_ref(), &view);
    let following = following(scopes.as_ref(), workspace);
    match (&resumed, state) {
        (Some(page), _) => check(workspace_id, &page.proof, following, page.watermark, read)?,
        (None, Some(state)) => {
            let following = self::following(have.as_ref(), workspace);
            check(workspace_id, &state, following, state.proof.head, read)?;
        }
        (None, None) => {}
    }
    count(Counter::SnapshotPages, 1);
    let head = workspace.map_or(Version::ZERO, |found| found.progress.head);
    let watermark = resumed.as_ref().map_or(head, |resumed| resumed.watermark);
    let snapshot_id = resumed.as_ref().map_or_else(server::random_uuid, |page| page.snapshot_id);

    let (limit, bytes) = (guc::page_limit(request.page_limit, 500), guc::max_page_bytes());
    let mut items = Page::of_snapshot(workspace_id, snapshot_id, watermark, limit, bytes);
    let mut proof = None;
    let mut next_page_token = None;
    if let (Some(workspace), Some(log)) = (workspace, &log) {
        let records = Records::open(workspace.key, Access::Read)?;
        let mut versions = log.versions(&view);
        let wanted = Wanted {
            caller: &caller,
            tables: &tables,
            scopes: scopes.as_ref(),
            have: have.as_ref(),
            from: resumed.as_ref(),
        };
        let next = fill(&mut items, &records, &wanted, &mut versions, &view)?;
        let read = versions.proof(workspace_id, head)?;
        proof = read.map(|proof| ReadProof { proof, following });
        next_page_token = next.zip(proof).map(|(Name { scope, table, pk }, proof)| {
            write_page(
                &SnapshotPlace { snapshot_id, watermark, proof, table, pk, scope },
                &bound_to,
            )
        });
    }
    Ok(snapshot_reply(items, next_page_token.as_deref(), proof.as_ref()))
}

/// The proof of the state that the caller has.
fn state_of(
    proof: Option<&str>,
    scopes: Option<&Scopes>,
    have: Option<&Scopes>,
) -> Result<Option<ReadProof>> {
    let proof = proof.map(|token| read_proof(token).ok_or(SyncError::Proof)).transpose()?;
    let list = proof.map(|read| read.following.map(|following| following.list));
    let why = if have.is_some() && scopes.is_none() {
        "With have, scopes must be given."
    } else if proof.is_some() && have.is_none() {
        "With proof, have must be given."
    } else if list.is_some_and(|list| list != have.map(|have| Following::of(have, 0).list)) {
        "The proof is not one of this list."
    } else {
        return Ok(proof);
    };
    Err(SyncError::Have { why })
}

/// An error if what was read before cannot be continued: a tombstone above its watermark was
/// purged, or the history is not the one that was read, or scopes mean something else.
fn check(
    workspace_id: &str,
    before: &ReadProof,
    following: Option<Following>,
    watermark: Version,
    (workspace, log, view): (Option<Workspace>, Option<&Log>, &MvccSnapshot),
) -> Result<()> {
    let progress = workspace.map(|found| found.progress).unwrap_or_default();
    if server::is_standby() && progress.head < before.proof.head {
        return Err(SyncError::StandbyBehindSnapshot);
    }
    let holds = || -> Result<bool> {
        let Some(log) = log else { return Ok(false) };
        Ok(log.versions(view).check(workspace_id, &before.proof)? == ProofEntry::Same)
    };
    if progress.horizon > watermark || before.following != following || !holds()? {
        return Err(SyncError::SnapshotExpired);
    }
    Ok(())
}

/// Which records a page shows.
struct Wanted<'w> {
    caller: &'w Caller,
    tables: &'w TableFilter,
    scopes: Option<&'w Scopes>,
    have: Option<&'w Scopes>,
    /// Only records after this one.
    from: Option<&'w SnapshotPlace>,
}

/// A record, with the scope in which it was found.
#[derive(Clone)]
struct Name {
    scope: Option<String>,
    table: String,
    pk: String,
}

/// Fills a page; returns its last record if there are more after it.
fn fill(
    items: &mut Page,
    records: &Records,
    wanted: &Wanted<'_>,
    versions: &mut Versions<'_>,
    view: &MvccSnapshot,
) -> Result<Option<Name>> {
    let mut last = wanted.from.map(|from| Name {
        scope: from.scope.clone(),
        table: from.table.clone(),
        pk: from.pk.clone(),
    });
    let mut filter = wanted.scopes.map(|list| Filter::open(list, view)).transpose()?;
    let scoped = filter.is_some().then(|| records.scopes()).transpose()?;
    for (scope, from) in parts(wanted) {
        for stretch in stretches(wanted.tables, from) {
            let mut range = match (&stretch, scope, &scoped) {
                (Stretch::Table(table, pk), Some(scope), Some(scoped)) => {
                    scoped.of_table(scope, table, pk, view)
                }
                (Stretch::TablesAfter(table), Some(scope), Some(scoped)) => {
                    scoped.of_tables_after(scope, table, view)
                }
                (Stretch::Table(table, pk), ..) => records.of_table(table, pk, view),
                (Stretch::TablesAfter(table), ..) => records.of_tables_after(table, view),
            };
            while let Some(record) = range.next() {
                if let (Some(filter), None) = (&mut filter, scope) {
                    // Nor are the other records of its table listed here.
                    if filter.has_scopes(record.table()?)? {
                        if let Stretch::Table(..) = stretch {
                            break;
                        }
                        let table = record.table()?.to_owned();
                        range = records.of_tables_after(&table, view);
                        continue;
                    }
                    // The scope field of its table is being taken away.
                    if record.scope().is_some() {
                        continue;
                    }
                }
                if !wanted.caller.sees(record.owner()?) {
                    continue;
                }
                match add(items, &record, scope, versions)? {
                    Added::No => return Ok(last),
                    Added::Grave => {}
                    Added::Yes => {
                        let (table, pk) = (record.table()?.to_owned(), record.pk()?.to_owned());
                        last = Some(Name { scope: scope.map(str::to_owned), table, pk });
                    }
                }
            }
        }
    }
    Ok(None)
}

/// A scope, or `None` for what has none, and where in it a page begins.
type Part<'w> = (Option<&'w str>, Option<(&'w str, &'w str)>);

/// What is left to list: scope by scope, then the tables without scope field. Who has a state
/// has these.
fn parts<'w>(wanted: &Wanted<'w>) -> impl Iterator<Item = Part<'w>> {
    let (have, from) = (wanted.have, wanted.from);
    let names = wanted.scopes.map(Scopes::names).unwrap_or_default();
    let new = names.iter().filter(move |name| have.is_none_or(|have| !have.contain(Some(name))));
    let rest = have.is_none().then_some(None);
    new.map(|name| Some(name.as_str())).chain(rest).filter_map(move |scope| {
        let Some(from) = from else { return Some((scope, None)) };
        // None is last here, and the least otherwise.
        let begun = from.scope.as_deref();
        let is_before = scope.is_some() && begun.is_none_or(|begun| scope < Some(begun));
        let here = (scope == begun).then_some((from.table.as_str(), from.pk.as_str()));
        (!is_before).then_some((scope, here))
    })
}

/// A part of the records' index in which all records are wanted.
enum Stretch<'a> {
    /// One table, after a pk.
    Table(&'a str, &'a str),
    /// All tables after one.
    TablesAfter(&'a str),
}

/// The stretches that the filter selects, in order. There may be many names: each is
/// opened only when it is reached.
fn stretches<'a>(
    tables: &'a TableFilter,
    from: Option<(&'a str, &'a str)>,
) -> Box<dyn Iterator<Item = Stretch<'a>> + 'a> {
    // Names and pks are not empty, so all follow the empty one.
    let (table, pk) = from.unwrap_or(("", ""));
    match tables {
        TableFilter::All => {
            let rest = from.map(|_| Stretch::Table(table, pk));
            Box::new(rest.into_iter().chain([Stretch::TablesAfter(table)]))
        }
        TableFilter::Only(names) => Box::new(
            names
                .iter()
                .filter(move |name| name.as_str() >= table)
                .map(move |name| Stretch::Table(name, if name == table { pk } else { "" })),
        ),
    }
}

enum Added {
    Yes,
    /// Not an item.
    Grave,
    /// The page is full without it.
    No,
}

fn add(
    items: &mut Page,
    record: &Record<'_>,
    scope: Option<&str>,
    versions: &mut Versions<'_>,
) -> Result<Added> {
    let (version, deleted) = (record.version()?, record.deleted()?);
    let Some(entry) = versions.find(version) else {
        if deleted {
            return Ok(Added::Grave);
        }
        return Err(SyncError::Damaged {
            what: format!("The log has no entry {}, of a live record.", version.get()),
        });
    };
    if items.is_full() {
        return Ok(Added::No);
    }
    let (name, revision) = ((record.table()?, record.pk()?), record.register()?);
    let (item, json) = if deleted {
        (SnapshotItem::Tombstone { deleted_at: entry.created_at()? }, [None, None])
    } else {
        let (payload, op_id) = (entry.payload().unwrap_or("null"), entry.op_id()?);
        let fields = entry.fields().map(|fields| (op_id, fields));
        (SnapshotItem::Row { payload, fields }, [Some(payload), entry.fields()])
    };
    let strings = [name.0, name.1, &revision.hlc, scope.unwrap_or("")];
    let added = items.add(bounds(&strings, &json), |out| {
        write_snapshot_item(out, name, &revision, version, scope, &item);
    })?;
    Ok(if added { Added::Yes } else { Added::No })
}
