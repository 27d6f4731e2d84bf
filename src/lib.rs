//! `sync_ext`: the server side of sync for offline-first apps, inside Postgres.
//!
//! # Layout
//!
//! Data flows one way:
//! `api -> wire (parse) -> sync (steps) -> rules (decide) -> store (write) -> wire (reply)`.
//!
//! * [`api`]: the SQL surface; `sql/functions.sql` holds its declarations
//! * [`wire`]: JSON in, JSON out
//! * [`rules`]: what the contract decides, as plain Rust
//! * [`sync`]: push, pull, snapshot, cursor, GC: the algorithms, as steps
//! * [`store`]: everything that touches tables, and all `unsafe`
//! * [`guc`] holds the settings
//! * [`error`] holds the errors that end a call

mod api;
mod error;
mod guc;
mod rules;
mod store;
mod sync;
mod wire;

#[cfg(any(test, feature = "pg_test"))]
mod tests;

::pgrx::pg_module_magic!(name, version);

::pgrx::extension_sql_file!("../sql/schema.sql", name = "schema", bootstrap);
::pgrx::extension_sql_file!("../sql/views.sql", name = "views", requires = ["schema"]);
::pgrx::extension_sql_file!("../sql/functions.sql", name = "functions", requires = ["views"]);
::pgrx::extension_sql_file!("../sql/status.sql", name = "status", requires = ["functions"]);
::pgrx::extension_sql_file!("../sql/explain.sql", name = "explain", requires = ["status"]);
::pgrx::extension_sql_file!("../sql/grants.sql", name = "grants", requires = ["explain"]);

#[::pgrx::pg_guard]
pub extern "C-unwind" fn _PG_init() {
    guc::init();
    store::notify::init();
    store::counters::init();
}

/// Where `cargo pgrx test` looks for the settings of its server.
#[cfg(test)]
pub mod pg_test {
    pub fn setup(_options: Vec<&str>) {}

    #[must_use]
    pub fn postgresql_conf_options() -> Vec<&'static str> {
        vec![]
    }
}
