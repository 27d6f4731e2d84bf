//! # Layout
//!
//! * [`api`]: the entry point of each SQL function; `sql/` declares them
//! * [`sync`]: push, pull, snapshot, cursor, GC, members: each as steps
//! * [`capture`]: what SQL changes in attached tables; [`apply`]: what pushes change there
//! * [`store`]: tables, locks, the session; the only SQL text and `unsafe`
//! * [`guc`]: the settings
//! * [`sync_ext_core::rules`]: what the contract decides
//! * [`sync_ext_core::wire`]: JSON in, JSON out
//! * [`sync_ext_core::error`]: the errors that end a call
//!
//! Data flows one way:
//! `api (arguments) -> sync (steps) -> core::rules (decide) -> store (write) -> core::wire (reply)`.

mod api;
mod apply;
mod capture;
mod guc;
mod store;
mod sync;

#[cfg(any(test, feature = "pg_test"))]
mod tests;

::pgrx::pg_module_magic!(name, version);

::pgrx::extension_sql_file!("../sql/schema.sql", name = "schema", bootstrap);
::pgrx::extension_sql_file!("../sql/views.sql", name = "views", requires = ["schema"]);
::pgrx::extension_sql_file!("../sql/functions.sql", name = "functions", requires = ["views"]);
::pgrx::extension_sql_file!("../sql/status.sql", name = "status", requires = ["functions"]);
::pgrx::extension_sql_file!("../sql/explain.sql", name = "explain", requires = ["status"]);
::pgrx::extension_sql_file!("../sql/attach.sql", name = "attach", requires = ["explain"]);
::pgrx::extension_sql_file!("../sql/repair.sql", name = "repair", requires = ["attach"]);
::pgrx::extension_sql_file!("../sql/moves.sql", name = "moves", requires = ["repair"]);
::pgrx::extension_sql_file!("../sql/grants.sql", name = "grants", requires = ["moves"]);

#[::pgrx::pg_guard]
pub extern "C-unwind" fn _PG_init() {
    guc::init();
    store::known::init();
    store::notify::init();
    store::notifier::init();
    store::counters::init();
    capture::init();
}

/// `cargo pgrx test` looks here for the settings of its server.
#[cfg(test)]
pub mod pg_test {
    pub fn setup(_options: Vec<&str>) {}

    #[must_use]
    pub fn postgresql_conf_options() -> Vec<&'static str> {
        vec![]
    }
}
