//! What the catalogues say about a table, for the rules.

use pgrx::datum::DatumWithOid;
use pgrx::spi::{SpiClient, SpiHeapTupleData, SpiResult};
use pgrx::{FromDatum, IntoDatum, Spi, pg_sys};

use super::OwnTable;
use crate::store::mvcc::MvccSnapshot;
use crate::store::rights::Rights;
use crate::store::{Result, member};
use sync_ext_core::error::SyncError;
use sync_ext_core::rules::attach_facts::{
    Column, Generated, Kind, Obstacle, Persistence, Relation, RelationKind,
};
use sync_ext_core::rules::attach_notice::{ForeignKey, Parent, Surroundings, UniqueKey};

const RELATION: &str = "\
select c.relname::text, c.relkind::text, c.relpersistence::text, c.relispartition,
  n.nspname in ('pg_catalog', 'information_schema', 'sync_ext') or n.nspname ~ '^pg_toast',
  exists (select from pg_inherits as h where c.oid in (h.inhrelid, h.inhparent)),
  exists (select from pg_rewrite as r where r.ev_class = c.oid),
  c.relrowsecurity,
  (select not i.indimmediate from pg_index as i where i.indrelid = c.oid and i.indisprimary)
from pg_class as c
join pg_namespace as n on n.oid = c.relnamespace
where c.oid = $1";

/// `part` lists the types within the type of each column, as to_json goes through them:
/// below domains, in arrays and composite types. A range is shown as text, but its text
/// is that of the type within. to_json looks for a cast of base types that are not
/// built in.
const COLUMNS: &str = "\
with recursive part (attnum, type, is_text, is_column) as (
  select a.attnum, a.atttypid, false, true
  from pg_attribute as a
  where a.attrelid = $1 and a.attnum > 0 and not a.attisdropped
  union
  select p.attnum, within.type, p.is_text or within.is_text, p.is_column and within.is_column
  from part as p
  join pg_type as t on t.oid = p.type
  cross join lateral (
    select t.typbasetype, false, true where t.typtype = 'd'
    union all
    select t.typelem, false, false where t.typelem <> 0 and t.typsubscript = 'array_subscript_handler'::regproc
    union all
    select a.atttypid, false, false
    from pg_attribute as a
    where t.typtype = 'c' and a.attrelid = t.typrelid and a.attnum > 0 and not a.attisdropped
    union all
    select r.rngsubtype, true, false from pg_range as r where t.oid in (r.rngtypid, r.rngmultitypid)
  ) as within (type, is_text, is_column)
)
select a.attname::text, format_type(a.atttypid, a.atttypmod),
  base.oid, base.typtype::text,
  coalesce(l.collisdeterministic, true),
  a.attnotnull or exists (
    select from part as p join pg_type as d on d.oid = p.type
    where p.attnum = a.attnum and p.is_column and d.typnotnull
  ),
  a.atthasdef or a.attidentity <> '' or t.typdefault is not null,
  a.attgenerated::text,
  a.attidentity <> '' or exists (
    select from pg_depend as d
    join pg_class as s on s.oid = d.objid and s.relkind = 'S'
    where d.classid = 'pg_class'::regclass and d.refclassid = 'pg_class'::regclass
      and d.refobjid = a.attrelid and d.refobjsubid = a.attnum and d.deptype = 'a'
  ),
  (
    select k.place::integer
    from pg_index as i
    cross join unnest(i.indkey::int2[]) with ordinality as k (attnum, place)
    where i.indrelid = a.attrelid and i.indisprimary
      and k.attnum = a.attnum and k.place <= i.indnkeyatts
  ),
  (
    select min(format_type(p.type, null))
    from part as p join pg_type as b on b.oid = p.type
    where p.attnum = a.attnum and (
      b.typtype = 'p' or b.typnamespace = 'pg_catalog'::regnamespace and b.typname in (
        'regclass', 'regcollation', 'regconfig', 'regdictionary', 'regnamespace', 'regoper',
        'regoperator', 'regproc', 'regprocedure', 'regrole', 'regtype', 'gtsvector',
        'int2vector', 'oidvector', 'pg_brin_bloom_summary', 'pg_brin_minmax_multi_summary',
        'pg_dependencies', 'pg_mcv_list', 'pg_ndistinct', 'pg_node_tree')
    )
  ),
  (
    select min(format_type(p.type, null))
    from part as p
    join pg_type as b on b.oid = p.type
    join pg_cast as c on c.castsource = p.type and c.casttarget = 'json'::regtype and c.castmethod = 'f'
    where p.attnum = a.attnum and not p.is_text and p.type >= 16384 and b.typtype not in ('c', 'd')
  )
from pg_attribute as a
join pg_type as t on t.oid = a.atttypid
join part as p on p.attnum = a.attnum and p.is_column
join pg_type as base on base.oid = p.type and base.typtype <> 'd'
left join pg_collation as l on l.oid = a.attcollation
where a.attrelid = $1
order by a.attnum";

const UNIQUE_KEYS: &str = "\
select c.relname::text,
  array(
    select a.attname::text
    from unnest(i.indkey::int2[]) with ordinality as k (attnum, place)
    join pg_attribute as a on a.attrelid = i.indrelid and a.attnum = k.attnum
    where k.place <= i.indnkeyatts
    order by k.place
  ),
  not i.indimmediate
from pg_index as i
join pg_class as c on c.oid = i.indexrelid
where i.indrelid = $1 and (i.indisunique or i.indisexclusion) and not i.indisprimary
order by c.relname";

const REPLICA_TRIGGERS: &str = "\
select tgname::text from pg_trigger
where tgrelid = $1 and not tgisinternal and tgenabled in ('A', 'R')
order by tgname";

const FOREIGN_KEYS: &str = "\
select c.conname::text, c.confrelid = c.conrelid, s.relation is not null, s.workspace_column, s.workspace_id,
  array(
    select a.attname::text
    from unnest(c.conkey) with ordinality as k (attnum, place)
    join pg_attribute as a on a.attrelid = c.conrelid and a.attnum = k.attnum
    order by k.place
  ),
  array(
    select a.attname::text
    from unnest(c.confkey) with ordinality as k (attnum, place)
    join pg_attribute as a on a.attrelid = c.confrelid and a.attnum = k.attnum
    order by k.place
  )
from pg_constraint as c
left join sync_ext.synced_table as s on s.relation = c.confrelid
where c.conrelid = $1 and c.contype = 'f' and c.conparentid = 0
order by c.conname";

impl OwnTable {
    pub fn facts(&self) -> Result<Relation> {
        let columns = self.rows(COLUMNS, |row| {
            Ok(Column {
                name: required(row, 1)?,
                type_name: required(row, 2)?,
                kind: kind(required(row, 3)?, &required::<String>(row, 4)?),
                is_deterministic: required(row, 5)?,
                is_not_null: required(row, 6)?,
                has_default: required(row, 7)?,
                generated: match required::<String>(row, 8)?.as_str() {
                    "" => Generated::No,
                    "s" => Generated::Stored,
                    _ => Generated::Virtual,
                },
                is_numbered: required(row, 9)?,
                key_place: row.get::<i32>(10)?.and_then(|place| usize::try_from(place).ok()),
                obstacle: match (row.get(11)?, row.get(12)?) {
                    (Some(within), _) => Some(Obstacle::Unreadable(within)),
                    (None, Some(within)) => Some(Obstacle::CastToJson(within)),
                    (None, None) => None,
                },
            })
        })?;
        let mut relations = self.rows(RELATION, |row| {
            Ok(Relation {
                name: required(row, 1)?,
                kind: match required::<String>(row, 2)?.as_str() {
                    "r" => RelationKind::Table,
                    "p" => RelationKind::Partitioned,
                    "v" => RelationKind::View,
                    "m" => RelationKind::MaterializedView,
                    "f" => RelationKind::Foreign,
                    _ => RelationKind::Other,
                },
                persistence: match required::<String>(row, 3)?.as_str() {
                    "p" => Persistence::Permanent,
                    "u" => Persistence::Unlogged,
                    _ => Persistence::Temporary,
                },
                is_partition: required(row, 4)?,
                is_system: required(row, 5)?,
                inherits: required(row, 6)?,
                has_rules: required(row, 7)?,
                has_row_security: required(row, 8)?,
                deferrable_key: row.get(9)?,
                columns: Vec::new(),
            })
        })?;
        let relation = relations.pop().ok_or(SyncError::ConcurrentSync)?;
        Ok(Relation { columns, ..relation })
    }

    pub fn surroundings(&self) -> Result<Surroundings> {
        let unique_keys = self.rows(UNIQUE_KEYS, |row| {
            Ok(UniqueKey {
                name: required(row, 1)?,
                columns: required(row, 2)?,
                is_deferrable: required(row, 3)?,
            })
        })?;
        let replica_triggers = self.rows(REPLICA_TRIGGERS, |row| required(row, 1))?;
        let foreign_keys = self.rows(FOREIGN_KEYS, |row| {
            let parent = match (required(row, 2)?, required(row, 3)?) {
                (true, _) => Parent::Itself,
                (false, true) => {
                    Parent::Attached { workspace_column: row.get(4)?, workspace_id: row.get(5)? }
                }
                (false, false) => Parent::NotAttached,
            };
            let (here, there): (Vec<String>, Vec<String>) = (required(row, 6)?, required(row, 7)?);
            Ok(ForeignKey {
                name: required(row, 1)?,
                parent,
                columns: here.into_iter().zip(there).collect(),
            })
        })?;
        Ok(Surroundings { unique_keys, replica_triggers, foreign_keys })
    }

    /// What a statement returns for this table, run as the extension's owner.
    fn rows<T>(
        &self,
        sql: &str,
        read: impl Fn(&SpiHeapTupleData<'_>) -> SpiResult<T>,
    ) -> Result<Vec<T>> {
        let _rights = Rights::of(member::owner()?);
        // The table may have been altered while this call waited for its lock.
        let _snapshot = MvccSnapshot::latest();
        let table: DatumWithOid<'_> = self.oid.into();
        let run = |spi: &SpiClient<'_>| {
            spi.select(sql, None, &[table])?.map(|row| read(&row)).collect::<SpiResult<_>>()
        };
        Spi::connect(run).map_err(SyncError::sql)
    }
}

/// A value that is not NULL.
fn required<T: FromDatum + IntoDatum>(row: &SpiHeapTupleData<'_>, at: usize) -> SpiResult<T> {
    row.get(at)?.ok_or(pgrx::spi::SpiError::InvalidPosition)
}

fn kind(oid: pg_sys::Oid, category: &str) -> Kind {
    match oid {
        pg_sys::INT2OID | pg_sys::INT4OID | pg_sys::INT8OID => Kind::Integer,
        pg_sys::UUIDOID => Kind::Uuid,
        pg_sys::BOOLOID => Kind::Boolean,
        pg_sys::TEXTOID | pg_sys::VARCHAROID => Kind::Text,
        pg_sys::DATEOID => Kind::Date,
        pg_sys::TIMESTAMPOID => Kind::Timestamp,
        pg_sys::TIMESTAMPTZOID => Kind::Timestamptz,
        _ if category == "e" => Kind::Enum,
        _ => Kind::Other,
    }
}
