//! Writing typed rows as a caller would: by statements, under the table's constraints,
//! triggers and row security.
//!
//! All statements of a [`Query`] count as one, so that foreign keys are checked when all
//! rows are written: a child may come before its parent.

use std::ffi::CString;
use std::time::Duration;

use pgrx::datum::DatumWithOid;
use pgrx::pg_sys;

use super::deferrable::Checks;
use super::image::SETTINGS;
use super::rights::Rights;
use super::settings::Changed;
use super::typed_write::{RowValues, Statement, WritableTable};
use super::{Result, server};
use sync_ext_core::error::SyncError;

/// What became of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    Done,
    /// No row was changed: it was hidden from the caller, or a trigger cancelled it.
    Not,
    /// It has another primary key or workspace now.
    Moved,
}

/// Statements that count as one, made as the caller or as a table's owner.
pub struct Query {
    checks: Checks,
    /// Before the rights, which have settings too: the level that was begun last ends first.
    _settings: Changed,
    _rights: Rights,
}

impl Query {
    /// For tables that are all applied in the same way.
    pub fn begin(tables: &[&WritableTable], lock_timeout: Duration) -> Result<Query> {
        let checks = Checks::begin()?;
        let first = tables.first();
        let rights = Rights::of_applier(first.and_then(|table| table.owner));
        let mut settings = SETTINGS.to_vec();
        settings[0].1 = first.map_or(c"", |table| &table.search_path);
        let lock_timeout = CString::new(format!("{}ms", lock_timeout.as_millis()));
        let lock_timeout = lock_timeout.unwrap_or_default();
        settings.push((c"lock_timeout", &lock_timeout));
        let settings = Changed::begin(&settings);
        // SAFETY: ended by `finish`, or by the abort of the subtransaction.
        unsafe { pg_sys::AfterTriggerBeginQuery() };
        Ok(Query { checks, _settings: settings, _rights: rights })
    }

    /// Writes rows that write the same columns.
    pub fn write(
        &self,
        table: &WritableTable,
        statement: Statement,
        columns: &[usize],
        rows: &[RowValues<'_>],
        workspace_id: &str,
    ) -> Result<Vec<Written>> {
        let (sql, parameter) = (table.sql(statement, columns), table.parameter(rows));
        let found = execute(&sql, &parameter, table.workspace.is_some().then_some(workspace_id))?;
        let all = found.first().map_or(0, |(_, all)| *all);
        let places = || found.iter().filter_map(|(place, _)| usize::try_from((*place)?).ok());
        let is_moved = usize::try_from(all) != Ok(places().count());
        let mut written = vec![if is_moved { Written::Moved } else { Written::Not }; rows.len()];
        for place in places() {
            if let Some(written) = written.get_mut(place) {
                *written = Written::Done;
            }
        }
        Ok(written)
    }

    /// Which of these rows the caller may see and update.
    pub fn sees(
        &self,
        table: &WritableTable,
        rows: &[RowValues<'_>],
        workspace_id: &str,
    ) -> Result<Vec<bool>> {
        let (sql, parameter) = (table.sql_of_seen(), table.parameter(rows));
        let found = execute(&sql, &parameter, table.workspace.is_some().then_some(workspace_id))?;
        let mut seen = vec![false; rows.len()];
        for (place, _) in found {
            let place = place.and_then(|place| usize::try_from(place).ok());
            if let Some(seen) = place.and_then(|place| seen.get_mut(place)) {
                *seen = true;
            }
        }
        Ok(seen)
    }

    /// Fires the triggers, and checks what is deferred.
    pub fn finish(self) -> Result<()> {
        server::end_command();
        // SAFETY: the query that `begin` began; the state's relations are closed before it
        // is freed.
        unsafe {
            let state = pg_sys::CreateExecutorState();
            pg_sys::AfterTriggerEndQuery(state);
            pg_sys::ExecCloseResultRelations(state);
            pg_sys::ExecResetTupleTable((*state).es_tupleTable, false);
            pg_sys::FreeExecutorState(state);
        }
        self.checks.run()?;
        server::end_command();
        Ok(())
    }
}

/// Runs a statement whose triggers wait for the end of the query.
fn execute(sql: &str, rows: &str, workspace_id: Option<&str>) -> Result<Vec<(Option<i32>, i64)>> {
    let sql = CString::new(sql).unwrap_or_default();
    let parameters: [DatumWithOid<'_>; 2] = [
        // SAFETY: a json has the layout of a text.
        unsafe { DatumWithOid::new(rows, pg_sys::JSONOID) },
        workspace_id.unwrap_or("").into(),
    ];
    let count = 1 + usize::from(workspace_id.is_some());
    pgrx::Spi::connect_mut(|_| {
        let mut types = [pg_sys::JSONOID, pg_sys::TEXTOID];
        let mut values = parameters.map(|value| value.datum().map(|datum| datum.sans_lifetime()));
        let mut values =
            values.each_mut().map(|value| value.take().unwrap_or(pg_sys::Datum::from(0)));
        // SAFETY: SPI is connected; the arrays have as many elements as the statement has
        // parameters; the result lives until SPI is left.
        unsafe {
            let plan = pg_sys::SPI_prepare(sql.as_ptr(), count as i32, types.as_mut_ptr());
            if plan.is_null() {
                return Err(SyncError::sql("a statement on an attached table was not prepared"));
            }
            let (none, nulls) = (std::ptr::null_mut(), std::ptr::null());
            let (values, fires) = (values.as_mut_ptr(), false);
            let code =
                pg_sys::SPI_execute_snapshot(plan, values, nulls, none, none, false, fires, 0);
            if code < 0 {
                return Err(SyncError::sql(format!("SPI answered {code}")));
            }
            let table = &*pg_sys::SPI_tuptable;
            let rows = std::slice::from_raw_parts(table.vals, table.numvals as usize);
            let value = |row, column| {
                let mut is_null = false;
                let datum = pg_sys::SPI_getbinval(row, table.tupdesc, column, &mut is_null);
                (!is_null).then(|| datum.value())
            };
            let place = |row| value(row, 1).map(|place| place as i32);
            let count = |row| value(row, 2).unwrap_or(0) as i64;
            Ok(rows.iter().map(|row| (place(*row), count(*row))).collect())
        }
    })
}
