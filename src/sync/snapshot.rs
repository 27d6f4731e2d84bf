//! `sync_snapshot`: the current state, page by page, without copying it.
//!
//! Later pages show records in their state when read. A record that changes after the
//! first page is shown in its older or newer state; either way the change has a version
//! above the watermark, and a pull from there returns it.

use super::Result;
use super::caller::Caller;
use super::pull::table_filter;
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
use sync_ext_core::rules::history::{Proof, ProofEntry};
use sync_ext_core::rules::op::Version;
use sync_ext_core::wire::ids::{TableFilter, WorkspaceId};
use sync_ext_core::wire::pages::{Page, SnapshotItem, bounds, snapshot_reply, write_snapshot_item};
use sync_ext_core::wire::reply::Reply;
use sync_ext_core::wire::token::{self, Binding, read_page, write_page};

pub fn snapshot(
    workspace_id: Option<&str>,
    page_token: Option<&str>,
    page_limit: Option<i32>,
    tables: Option<Texts<'_>>,
) -> Result<Reply> {
    let caller = Caller::identify()?;
    let workspace_id = WorkspaceId::new(workspace_id)?.as_str();
    // One snapshot: the proof is that of the state that the page shows.
    let view = MvccSnapshot::of_statement();
    caller.require(Action::Pull, workspace_id, &view)?;
    let tables = table_filter(&tables)?;
    let bound_to = Binding { workspace_id, user: caller.user(), tables: &tables };
    let resumed = page_token
        .map(|token| read_page(token, &bound_to).ok_or(SyncError::PageToken))
        .transpose()?;

    let workspace = workspace::find(workspace_id, &view)?;
    let log = workspace.map(|found| Log::open(found.key, Access::Read)).transpose()?;
    if let Some(resumed) = &resumed {
        check_resumed(workspace_id, resumed, workspace, log.as_ref(), &view)?;
    }
    count(Counter::SnapshotPages, 1);
    let head = workspace.map_or(Version::ZERO, |found| found.progress.head);
    let watermark = resumed.as_ref().map_or(head, |resumed| resumed.watermark);
    let snapshot_id = resumed.as_ref().map_or_else(server::random_uuid, |page| page.snapshot_id);

    let (limit, bytes) = (guc::page_limit(page_limit, 500), guc::max_page_bytes());
    let mut items = Page::of_snapshot(workspace_id, snapshot_id, watermark, limit, bytes);
    let mut proof = None;
    let mut next_page_token = None;
    if let (Some(workspace), Some(log)) = (workspace, &log) {
        let records = Records::open(workspace.key, Access::Read)?;
        let mut versions = log.versions(&view);
        let from = resumed.as_ref().map(|page| (page.table.as_str(), page.pk.as_str()));
        let wanted = Wanted { caller: &caller, tables: &tables, from };
        let next = fill(&mut items, &records, &wanted, &mut versions, &view)?;
        proof = versions.proof(workspace_id, head)?;
        next_page_token = next.zip(proof).map(|((table, pk), proof)| {
            let page = token::SnapshotPlace { snapshot_id, watermark, proof, table, pk };
            write_page(&page, &bound_to)
        });
    }
    Ok(snapshot_reply(items, next_page_token.as_deref(), proof.as_ref()))
}

/// An error if the snapshot cannot continue: a tombstone above its watermark was
/// purged, or the history is not the one in which it began.
fn check_resumed(
    workspace_id: &str,
    resumed: &token::SnapshotPlace,
    workspace: Option<Workspace>,
    log: Option<&Log>,
    view: &MvccSnapshot,
) -> Result<()> {
    let progress = workspace.map(|found| found.progress).unwrap_or_default();
    if server::is_standby() && progress.head < resumed.proof.head {
        return Err(SyncError::StandbyBehindSnapshot);
    }
    let holds = |proof: &Proof| -> Result<bool> {
        let Some(log) = log else { return Ok(false) };
        Ok(log.versions(view).check(workspace_id, proof)? == ProofEntry::Same)
    };
    if progress.horizon > resumed.watermark || !holds(&resumed.proof)? {
        return Err(SyncError::SnapshotExpired);
    }
    Ok(())
}

/// Which records a page shows.
struct Wanted<'w> {
    caller: &'w Caller,
    tables: &'w TableFilter,
    /// Only records after this table and pk.
    from: Option<(&'w str, &'w str)>,
}

/// Fills a page; returns the name of its last record if there are more after it.
fn fill(
    items: &mut Page,
    records: &Records,
    wanted: &Wanted<'_>,
    versions: &mut Versions<'_>,
    view: &MvccSnapshot,
) -> Result<Option<(String, String)>> {
    let mut last = wanted.from.map(|(table, pk)| (table.to_owned(), pk.to_owned()));
    for stretch in stretches(wanted.tables, wanted.from) {
        let mut range = match stretch {
            Stretch::Table(table, pk) => records.of_table(table, pk, view),
            Stretch::TablesAfter(table) => records.of_tables_after(table, view),
        };
        while let Some(record) = range.next() {
            if !wanted.caller.sees(record.owner()?) {
                continue;
            }
            match add(items, &record, versions)? {
                Added::No => return Ok(last),
                Added::Grave => {}
                Added::Yes => last = Some((record.table()?.to_owned(), record.pk()?.to_owned())),
            }
        }
    }
    Ok(None)
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

fn add(items: &mut Page, record: &Record<'_>, versions: &mut Versions<'_>) -> Result<Added> {
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
    let added = items.add(bounds(&[name.0, name.1, &revision.hlc], &json), |out| {
        write_snapshot_item(out, name, &revision, version, &item);
    })?;
    Ok(if added { Added::Yes } else { Added::No })
}
