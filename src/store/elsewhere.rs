//! `sync_ext.move`, `sync_ext.shard_bucket`: what other servers have.
//!
//! A workspace's row says whether it is here ([`super::workspace`]). These tables are looked
//! at only where it is not: to tell one that never existed from one that is elsewhere.

use pgrx::{IntoDatum, direct_function_call, pg_sys};

use super::Result;
use super::mvcc::MvccSnapshot;
use super::relation::{Access, Table};
use super::scan::{By, Key, Scan};
use super::shape::{ColumnType, IndexShape, Shape};
use sync_ext_core::error::{Elsewhere, SyncError};

static MOVE: Shape = Shape {
    name: c"move",
    columns: &[
        ("workspace_id", ColumnType::Text),
        ("move_id", ColumnType::Uuid),
        ("role", ColumnType::Text),
        ("workspace_key", ColumnType::Int8),
        ("peer", ColumnType::Text),
    ],
    first: 5,
};
static BY_WORKSPACE: IndexShape =
    IndexShape { name: c"move_pkey", keys: &[0], is_unique: true, not_null: None };

static SHARD_BUCKET: Shape =
    Shape { name: c"shard_bucket", columns: &[("bucket", ColumnType::Int8)], first: 1 };
static BY_BUCKET: IndexShape =
    IndexShape { name: c"shard_bucket_pkey", keys: &[0], is_unique: true, not_null: None };

const ROLE: usize = 3;
const PEER: usize = 5;

/// The last move of a workspace from or to this server.
pub enum Move {
    Departing,
    Departed { to: Option<String> },
    Arriving,
    Arrived,
}

pub fn last_move(workspace_id: &str, snapshot: &MvccSnapshot) -> Result<Option<Move>> {
    let table = Table::open(&MOVE, Access::Read)?;
    let index = table.index(&BY_WORKSPACE)?;
    let mut scan = Scan::new(&table, &index, snapshot, &[By::Text]);
    let Some(row) = scan.find(&[Key::Text(workspace_id)]) else { return Ok(None) };
    match row.text(ROLE)? {
        "departing" => Ok(Some(Move::Departing)),
        "departed" => Ok(Some(Move::Departed { to: row.text_or_null(PEER).map(str::to_owned) })),
        "arriving" => Ok(Some(Move::Arriving)),
        "arrived" => Ok(Some(Move::Arrived)),
        role => Err(SyncError::Damaged { what: format!("A move has the role \"{role}\".") }),
    }
}

/// Why a workspace that is not here is not to be created here, if so. What arrived or
/// departed goes before the buckets: it is an exception of the map.
pub fn of_absent(workspace_id: &str, snapshot: &MvccSnapshot) -> Result<Option<Elsewhere>> {
    Ok(match last_move(workspace_id, snapshot)? {
        Some(Move::Departed { to }) => Some(Elsewhere::Departed { to }),
        Some(Move::Arriving) => Some(Elsewhere::Arriving),
        Some(Move::Departing | Move::Arrived) => None,
        None => foreign_bucket(workspace_id, snapshot)?.map(Elsewhere::Bucket),
    })
}

/// The workspace's bucket, if others are listed here and it is not.
fn foreign_bucket(workspace_id: &str, snapshot: &MvccSnapshot) -> Result<Option<i64>> {
    let table = Table::open(&SHARD_BUCKET, Access::Read)?;
    let index = table.index(&BY_BUCKET)?;
    let mut any = Scan::new(&table, &index, snapshot, &[]);
    any.seek(&[]);
    if any.next().is_none() {
        return Ok(None);
    }
    let bucket = bucket_of(workspace_id);
    let mut own = Scan::new(&table, &index, snapshot, &[By::Int8]);
    Ok(own.find(&[Key::Int8(bucket)]).is_none().then_some(bucket))
}

/// The first 10 bits of the name's SHA-256: any language has it, and no release changes it.
pub fn bucket_of(workspace_id: &str) -> i64 {
    // SAFETY: sha256_bytea takes a bytea and returns one of 32 bytes.
    let hash = unsafe {
        let name = workspace_id.as_bytes().into_datum();
        direct_function_call::<Vec<u8>>(pg_sys::sha256_bytea, &[name])
    };
    let hash = hash.unwrap_or_default();
    i64::from(hash[0]) << 2 | i64::from(hash[1]) >> 6
}
