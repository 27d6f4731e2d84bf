//! Writes typed rows, as many as possible with one statement.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::tables::Tables;
use super::{Result, Stop};
use crate::guc;
use crate::store::mvcc::MvccSnapshot;
use crate::store::server;
use crate::store::typed::RowPlace;
use crate::store::typed_query::{Query, Written};
use crate::store::typed_write::{RowValues, Statement, WritableTable};
use sync_ext_core::rules::refusal::RowRefusal;
use sync_ext_core::wire::fields::each_member;

/// What becomes of the row of one record.
pub struct RowChange<'p> {
    /// The place of its table.
    pub table: usize,
    pub pk: &'p str,
    /// The record's owner, where records are private.
    pub owner: Option<Box<str>>,
    pub edit: Edit<'p>,
}

pub enum Edit<'p> {
    Delete,
    /// A row of these fields; others keep their values, or get the default.
    Put(Cow<'p, str>),
    /// These fields of the row that is there.
    Patch(String),
}

/// Rows that one statement writes.
#[derive(Default)]
struct Group<'c> {
    /// Their places among the changes.
    places: Vec<usize>,
    rows: Vec<RowValues<'c>>,
}

/// By table, statement and columns. Deletes come first, and inserts last, because a
/// unique value may move from one row to another.
type Groups<'c> = BTreeMap<(usize, u8, Vec<usize>), Group<'c>>;

const ORDER: [Statement; 3] = [Statement::Delete, Statement::Update, Statement::Insert];
/// The place after these: rows of which nothing is written, but which the caller must be
/// allowed to write.
const UNCHANGED: u8 = ORDER.len() as u8;

/// Writes the rows; returns those on which a statement had no effect.
pub fn write(
    tables: &Tables,
    changes: &[&RowChange<'_>],
    workspace_id: &str,
) -> std::result::Result<Vec<(usize, RowRefusal)>, Stop> {
    let (groups, mut refused) = plan(tables, changes, workspace_id).map_err(Stop::Failed)?;
    let mut at = 0;
    while at < tables.len() {
        // Neighbours that are applied in the same way.
        let same = (at..tables.len())
            .take_while(|other| tables.writable(*other).is_applied_as(tables.writable(at)));
        let end = at + same.count();
        let of_these: Vec<_> =
            groups.iter().filter(|((table, ..), _)| (at..end).contains(table)).collect();
        if !of_these.is_empty() {
            let writable: Vec<_> = (at..end).map(|at| tables.writable(at)).collect();
            let query = Query::begin(&writable, guc::apply_lock_timeout()).map_err(Stop::Failed)?;
            for ((table, order, columns), group) in of_these {
                let writable = tables.writable(*table);
                if *order == UNCHANGED {
                    let sees = query.sees(writable, &group.rows, workspace_id);
                    let sees = group.places.iter().zip(sees.map_err(Stop::Failed)?);
                    let hidden = sees.filter(|(_, is_seen)| !is_seen);
                    refused.extend(hidden.map(|(place, _)| (*place, RowRefusal::NotYours)));
                    continue;
                }
                let statement = ORDER[usize::from(*order)];
                let written = query
                    .write(writable, statement, columns, &group.rows, workspace_id)
                    .map_err(Stop::Failed)?;
                if written.contains(&Written::Moved) {
                    return Err(Stop::Moved);
                }
                let untouched = (0..written.len()).filter(|at| written[*at] == Written::Not);
                let untouched: Vec<usize> = untouched.collect();
                if !untouched.is_empty() {
                    let reasons = why_untouched(&query, writable, statement, group, workspace_id);
                    let reasons = reasons.map_err(Stop::Failed)?;
                    refused.extend(
                        untouched.iter().map(|at| (group.places[*at], reasons[*at].clone())),
                    );
                }
            }
            query.finish().map_err(Stop::Failed)?;
        }
        at = end;
    }
    Ok(refused)
}

/// The refusals of ops that had no effect: a trigger cancelled it, or under row security
/// the row may be hidden. Nothing shows which policies apply to deleting a row.
fn why_untouched(
    query: &Query,
    table: &WritableTable,
    statement: Statement,
    group: &Group<'_>,
    workspace_id: &str,
) -> Result<Vec<RowRefusal>> {
    let is_seen = match statement {
        _ if !table.has_row_security => vec![true; group.rows.len()],
        Statement::Insert => vec![true; group.rows.len()],
        Statement::Update => query.sees(table, &group.rows, workspace_id)?,
        Statement::Delete => vec![false; group.rows.len()],
    };
    let reason = |is_seen| if is_seen { RowRefusal::Cancelled } else { RowRefusal::NotYours };
    Ok(is_seen.into_iter().map(reason).collect())
}

/// Where the row of a record is.
enum Presence {
    Absent,
    Here {
        is_hidden: bool,
    },
    /// In another workspace, or another user's.
    Elsewhere,
}

fn plan<'c>(
    tables: &Tables,
    changes: &[&'c RowChange<'_>],
    workspace_id: &str,
) -> Result<(Groups<'c>, Vec<(usize, RowRefusal)>)> {
    let (mut groups, mut refused) = (Groups::new(), Vec::new());
    for at in 0..tables.len() {
        let of_table = || changes.iter().enumerate().filter(move |(_, change)| change.table == at);
        if of_table().next().is_none() {
            continue;
        }
        let snapshot = MvccSnapshot::latest();
        let typed = tables.typed(at);
        if !typed.is_workspace(workspace_id)? {
            refused.extend(of_table().map(|(place, _)| (place, RowRefusal::NotYours)));
            continue;
        }
        let mut rows = typed.rows(&snapshot)?;
        for (place, change) in of_table() {
            if let Some(owner) = &change.owner
                && !typed.is_owner(owner)?
            {
                refused.push((place, RowRefusal::NotYours));
                continue;
            }
            server::check_interrupts();
            let presence = match rows.find_place(change.pk) {
                None => Presence::Absent,
                Some((place, is_hidden)) => presence(&place, is_hidden, change, workspace_id),
            };
            match step(tables.writable(at), change, &presence) {
                Ok(Some((order, columns, row))) => {
                    let group = groups.entry((at, order, columns)).or_default();
                    group.places.push(place);
                    group.rows.push(row);
                }
                Ok(None) => {}
                Err(refusal) => refused.push((place, refusal)),
            }
        }
    }
    Ok((groups, refused))
}

fn presence(
    place: &RowPlace<'_>,
    is_hidden: bool,
    change: &RowChange<'_>,
    workspace_id: &str,
) -> Presence {
    let is_anothers = place.owner.is_some() && change.owner.as_deref() != place.owner.as_deref();
    if place.workspace.as_deref() != Some(workspace_id) || is_anothers {
        Presence::Elsewhere
    } else {
        Presence::Here { is_hidden }
    }
}

type Step<'c> = (u8, Vec<usize>, RowValues<'c>);

/// The statement for a row; `None` if it already is as it should be.
fn step<'c>(
    table: &WritableTable,
    change: &'c RowChange<'_>,
    presence: &Presence,
) -> std::result::Result<Option<Step<'c>>, RowRefusal> {
    let is_insert = matches!(presence, Presence::Absent);
    let (object, mut order) = match (&change.edit, presence) {
        (_, Presence::Elsewhere) => return Err(RowRefusal::NotYours),
        (Edit::Delete, Presence::Absent | Presence::Here { is_hidden: true }) => return Ok(None),
        (Edit::Delete, Presence::Here { .. }) => ("{}", 0),
        (Edit::Patch(_), Presence::Absent) => return Err(RowRefusal::NotYours),
        (Edit::Put(payload), _) => (&**payload, if is_insert { 2 } else { 1 }),
        (Edit::Patch(fields), _) => (&**fields, 1),
    };
    let mut by_column = BTreeMap::new();
    let _ = each_member(object, |name, value| {
        let column = std::str::from_utf8(&name).ok().and_then(|name| table.column_of(name));
        if let Some(column) = column.filter(|column| is_insert || table.in_update(*column)) {
            by_column.insert(column, value);
        }
    });
    let is_revived = matches!(presence, Presence::Here { is_hidden: true });
    if order == 1 && by_column.is_empty() && !is_revived {
        order = UNCHANGED;
    }
    let columns = by_column.keys().copied().collect();
    let values = by_column.into_values().collect();
    let owner = change.owner.as_deref();
    Ok(Some((order, columns, RowValues { pk: change.pk, owner, values })))
}
