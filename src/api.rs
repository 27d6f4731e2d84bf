//! The SQL surface: one thin extern per function. `sql/functions.sql` declares
//! them (arguments, defaults, volatility, rights); docs/functions.md documents them.
//!
//! `json` arguments arrive as `&str`: json and text have the same layout.

#![expect(clippy::result_large_err, reason = "pgrx reports an error of this type alone")]

use pgrx::datum::Interval;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

use crate::error::reported;
use crate::rules::access::Action;
use crate::sync;
use crate::sync::pull::Request;
use crate::wire::reply::Reply;

type Answer = Result<Reply, ErrorReport>;

#[pg_extern(sql = false)]
fn sync_push(workspace_id: Option<&str>, ops: Option<&str>) -> Answer {
    reported(|| sync::push::push(workspace_id, ops))
}

#[pg_extern(sql = false)]
fn sync_pull(
    workspace_id: Option<&str>,
    cursor: Option<i64>,
    page_limit: Option<i32>,
    tables: Option<Vec<Option<String>>>,
    latest: Option<bool>,
    proof: Option<&str>,
) -> Answer {
    let latest = latest.unwrap_or(false);
    let request = Request { workspace_id, cursor, page_limit, tables, latest, proof };
    reported(|| sync::pull::pull(request))
}

#[pg_extern(sql = false)]
#[expect(clippy::too_many_arguments, reason = "it is three calls in one")]
fn sync_exchange(
    workspace_id: Option<&str>,
    device_id: Option<&str>,
    cursor: Option<i64>,
    ops: Option<&str>,
    page_limit: Option<i32>,
    tables: Option<Vec<Option<String>>>,
    latest: Option<bool>,
    proof: Option<&str>,
) -> Answer {
    let latest = latest.unwrap_or(false);
    let request = Request { workspace_id, cursor, page_limit, tables, latest, proof };
    reported(|| sync::exchange::exchange(device_id, ops, request))
}

#[pg_extern(sql = false)]
fn sync_snapshot(
    workspace_id: Option<&str>,
    page_token: Option<&str>,
    page_limit: Option<i32>,
    tables: Option<Vec<Option<String>>>,
) -> Answer {
    reported(|| sync::snapshot::snapshot(workspace_id, page_token, page_limit, tables))
}

#[pg_extern(sql = false)]
fn sync_update_cursor(
    workspace_id: Option<&str>,
    device_id: Option<&str>,
    version: Option<i64>,
) -> Answer {
    reported(|| sync::cursor::update_cursor(workspace_id, device_id, version))
}

#[pg_extern(sql = false)]
fn sync_gc(
    workspace_id: Option<&str>,
    retention: Option<Interval>,
    batch_size: Option<i32>,
) -> Answer {
    let retention = retention.map(|span| (span.months(), span.days(), span.micros()));
    reported(|| sync::gc::gc(workspace_id, retention, batch_size))
}

#[pg_extern(sql = false)]
fn sync_register_table(
    table_name: Option<&str>,
    pk_field: Option<&str>,
    owner_field: Option<&str>,
) -> Result<(), ErrorReport> {
    reported(|| sync::registry::register(table_name, pk_field, owner_field))
}

#[pg_extern(sql = false)]
fn sync_unregister_table(table_name: Option<&str>) -> Result<(), ErrorReport> {
    reported(|| sync::registry::unregister(table_name))
}

#[pg_extern(sql = false)]
fn sync_create_workspace(
    workspace_id: Option<&str>,
    owner: Option<&str>,
) -> Result<(), ErrorReport> {
    reported(|| sync::workspaces::create_workspace(workspace_id, owner))
}

#[pg_extern(sql = false)]
fn sync_drop_workspace(workspace_id: Option<&str>, batch_size: Option<i32>) -> Answer {
    reported(|| sync::workspaces::drop_workspace(workspace_id, batch_size))
}

#[pg_extern(sql = false)]
fn sync_set_member(
    workspace_id: Option<&str>,
    user_id: Option<&str>,
    role: Option<&str>,
) -> Result<(), ErrorReport> {
    reported(|| sync::members::set_member(workspace_id, user_id, role))
}

#[pg_extern(sql = false)]
fn sync_remove_member(
    workspace_id: Option<&str>,
    user_id: Option<&str>,
) -> Result<(), ErrorReport> {
    reported(|| sync::members::remove_member(workspace_id, user_id))
}

#[pg_extern(sql = false)]
fn sync_list_workspaces() -> Answer {
    reported(sync::workspaces::list_workspaces)
}

#[pg_extern(sql = false)]
fn is_caller_known() -> Result<bool, ErrorReport> {
    reported(|| sync::caller::calling_user().map(|_| true))
}

#[pg_extern(sql = false)]
fn calling_user() -> Result<Option<String>, ErrorReport> {
    reported(sync::caller::calling_user)
}

#[pg_extern(sql = false)]
fn may_read(workspace_id: Option<&str>) -> Result<bool, ErrorReport> {
    reported(|| sync::caller::may(Action::Pull, workspace_id))
}

#[pg_extern(sql = false)]
fn may_govern(workspace_id: Option<&str>) -> Result<bool, ErrorReport> {
    reported(|| sync::caller::may(Action::Govern, workspace_id))
}

#[pg_extern(sql = false)]
fn require_owner(workspace_id: Option<&str>) -> Result<(), ErrorReport> {
    reported(|| sync::caller::require_owner(workspace_id))
}

#[pg_extern(sql = false)]
fn is_active(
    updated_at: Option<TimestampWithTimeZone>,
    last_seen_version: Option<i64>,
    horizon: Option<i64>,
) -> bool {
    sync::gc::is_active(updated_at.map(i64::from), last_seen_version, horizon)
}

#[pg_extern(sql = false)]
fn due_at(created_at: Option<TimestampWithTimeZone>) -> Option<TimestampWithTimeZone> {
    let due_at = sync::gc::due_at(i64::from(created_at?));
    TimestampWithTimeZone::try_from(due_at).ok()
}

#[pg_extern(sql = false)]
fn counters() -> Result<Option<Reply>, ErrorReport> {
    reported(sync::caller::counters)
}
