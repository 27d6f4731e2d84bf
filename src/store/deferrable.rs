//! Constraints that may be checked later than at the end of a statement.

use std::cell::RefCell;
use std::rc::Rc;

use pgrx::{Spi, pg_sys};

use super::Result;
use super::attached;
use super::attempt::attempt;
use sync_ext_core::error::SyncError;

/// All of the database: cascades and triggers write any table.
const ALL: &str = "\
select pg_catalog.format('%I.%I', n.nspname, c.conname), c.condeferred, c.conrelid, c.confrelid
from pg_catalog.pg_constraint as c
join pg_catalog.pg_namespace as n on n.oid operator(pg_catalog.=) c.connamespace
where c.condeferrable and c.conrelid operator(pg_catalog.<>) 0";

/// wrong_object_type
const NOT_DEFERRABLE: &str = "42809";

struct Deferrable {
    /// Qualified and quoted.
    name: String,
    /// From the start of each transaction.
    is_deferred: bool,
    /// Those whose rows it is about.
    relations: [pg_sys::Oid; 2],
}

thread_local! {
    static KNOWN: RefCell<Option<(u64, Rc<Vec<Deferrable>>)>> = const { RefCell::new(None) };
}

/// What is checked of a transaction's writes before its commit.
pub struct Checks {
    /// Without those that the caller has left for its commit: they may still become right.
    constraints: Vec<(Rc<Vec<Deferrable>>, usize)>,
}

impl Checks {
    /// Before the writes.
    pub fn begin() -> Result<Checks> {
        let all = all()?;
        let ours = (0..all.len()).filter(|at| !all[*at].is_pending());
        Ok(Checks { constraints: ours.map(|at| (Rc::clone(&all), at)).collect() })
    }

    /// Checks what the writes left for the commit: at the commit nobody could be told which
    /// op is to blame. Which constraints are pending shows which are deferred now; these are
    /// so again afterwards, and the others stay as the caller set them.
    pub fn run(&self) -> Result<()> {
        // If only one kind is pending, the other one may be as the caller set it.
        for is_deferred in [true, false] {
            let of_kind = self.constraints.iter().map(|(all, at)| &all[*at]);
            let of_kind = of_kind.filter(|one| one.is_deferred == is_deferred);
            let pending: Vec<_> = of_kind.filter(|one| one.is_pending()).collect();
            for one in &pending {
                set(&one.name, "immediate")?;
            }
            for one in pending {
                // Another table may have one of this name that is not deferrable.
                match attempt(|| set(&one.name, "deferred")) {
                    Ok(is_set) => is_set?,
                    Err(failure) if failure.sqlstate == NOT_DEFERRABLE => {}
                    Err(failure) => failure.raise(),
                }
            }
        }
        Ok(())
    }
}

impl Deferrable {
    /// Do triggers on its tables wait for the commit?
    fn is_pending(&self) -> bool {
        // SAFETY: reads the list of this backend.
        self.relations.iter().any(|oid| unsafe { pg_sys::AfterTriggerPendingOnRel(*oid) })
    }
}

fn set(name: &str, mode: &str) -> Result<()> {
    let sql = format!("set constraints {name} {mode}");
    Spi::connect_mut(|spi| spi.update(&sql, None, &[]).map(|_| ())).map_err(SyncError::sql)
}

/// Kept until a relation changes.
fn all() -> Result<Rc<Vec<Deferrable>>> {
    let generation = attached::generation();
    let known = KNOWN.with_borrow(|known| {
        let known = known.as_ref().filter(|(of, _)| *of == generation);
        known.map(|(_, all)| Rc::clone(all))
    });
    if let Some(all) = known {
        return Ok(all);
    }
    let read = Spi::connect(|spi| {
        let rows = spi.select(ALL, None, &[])?;
        let rows = rows.map(|row| {
            let oid = |place| Ok::<_, pgrx::spi::Error>(row.get(place)?.unwrap_or_default());
            Ok(Deferrable {
                name: row.get(1)?.unwrap_or_default(),
                is_deferred: row.get(2)?.unwrap_or_default(),
                relations: [oid(3)?, oid(4)?],
            })
        });
        rows.collect::<std::result::Result<Vec<_>, pgrx::spi::Error>>()
    });
    let all = Rc::new(read.map_err(SyncError::sql)?);
    KNOWN.set(Some((generation, Rc::clone(&all))));
    Ok(all)
}
