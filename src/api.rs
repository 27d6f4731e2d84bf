//! The SQL surface: an entry point per function, with its arguments by position.
//! `sql/*.sql` declare them (names, types, defaults, volatility, rights);
//! docs/functions.md documents them.
//!
//! Arguments are not validated here: the caller is checked first.

use crate::capture;
use crate::store::entry::{Answer, Call, entry_points};
use crate::sync;
use crate::sync::attach::Given;
use crate::sync::pull::Request;
use crate::sync::repair::Batch;
use sync_ext_core::rules::access::Action;
use sync_ext_core::rules::attached;
use sync_ext_core::rules::op::Operation;
use sync_ext_core::wire::reply::Reply;
use sync_ext_core::wire::write_request::Arguments;

entry_points! {
    sync_push_wrapper: |call| sync::push::push(call.text(0), || call.text(1));
    sync_put_wrapper: |call| {
        sync::push::write(Operation::Put, call.text(0), || arguments(call, call.text(3)))
    };
    sync_patch_wrapper: |call| {
        sync::push::write(Operation::Patch, call.text(0), || arguments(call, call.text(3)))
    };
    sync_delete_wrapper: |call| {
        sync::push::write(Operation::Delete, call.text(0), || arguments(call, None))
    };
    sync_pull_wrapper: |call| sync::pull::pull(&request(call, [0, 1, 2, 3, 4, 5, 6]));
    sync_exchange_wrapper: |call| {
        sync::exchange::exchange(call.text(1), || call.text(3), &request(call, [0, 2, 4, 5, 6, 7, 8]))
    };
    sync_snapshot_wrapper: |call| {
        sync::snapshot::snapshot(&sync::snapshot::Request {
            workspace_id: call.text(0),
            page_token: call.text(1),
            page_limit: call.int4(2),
            tables: call.texts(3),
            scopes: call.texts(4),
            have: call.texts(5),
            proof: call.text(6),
        })
    };
    sync_update_cursor_wrapper: |call| {
        sync::cursor::update_cursor(call.text(0), call.text(1), call.int8(2))
    };
    sync_gc_wrapper: |call| sync::gc::gc(call.text(0), call.interval(1), call.int4(2));
    sync_register_table_wrapper: |call| {
        let (patches, validation) = (call.boolean(3), call.oid(4));
        sync::registry::register(&sync::registry::Request {
            table_name: call.text(0),
            pk_field: call.text(1),
            owner_field: call.text(2),
            patches,
            validation,
            scope_field: call.text(5),
        })
    };
    set_scope_field_wrapper: |call| {
        sync::registry::set_scope_field(call.text(0), call.text(1), call.int8(2))
    };
    scope_of_wrapper: |call| Ok(sync::registry::scope_of(call.text(0), call.text(1)));
    sync_unregister_table_wrapper: |call| sync::registry::unregister(call.text(0));
    sync_attach_table_wrapper: |call| {
        let given = Given {
            table: call.oid(0),
            columns: call.jsonb(6),
            apply_search_path: call.text(12),
        };
        sync::attach::attach(&given, attachment(call))
    };
    sync_detach_table_wrapper: |call| sync::attach::detach(call.oid(0));
    sync_create_workspace_wrapper: |call| {
        sync::workspaces::create_workspace(call.text(0), call.text(1))
    };
    sync_drop_workspace_wrapper: |call| {
        sync::workspaces::drop_workspace(call.text(0), call.int4(1))
    };
    sync_list_workspaces_wrapper: |call| {
        sync::workspaces::list_workspaces(call.text(0), call.int4(1))
    };
    sync_set_member_wrapper: |call| {
        sync::members::set_member(call.text(0), call.text(1), call.text(2))
    };
    sync_remove_member_wrapper: |call| sync::members::remove_member(call.text(0), call.text(1));
    sync_list_members_wrapper: |call| sync::members::list_members(call.text(0));
    sync_get_role_wrapper: |call| sync::members::get_role(call.text(0), call.text(1));
    sync_forget_device_wrapper: |call| sync::devices::forget_device(call.text(0), call.text(1));

    sync_check_table_wrapper: |call| {
        sync::check::check(call.oid(0), call.text(1), call.int4(2))
    };
    backfill_batch_wrapper: |call| sync::repair::backfill(&batch(call, [0, 1, 2, 3]));
    repair_batch_wrapper: |call| {
        sync::repair::repair(&batch(call, [0, 2, 3, 4]), call.text(1))
    };

    capture_wrapper: |call| capture::row_changed(call);

    is_caller_known_wrapper: |_call| sync::caller::calling_user().map(|_| true);
    calling_user_wrapper: |_call| sync::caller::calling_user();
    may_read_wrapper: |call| sync::caller::may(Action::Pull, call.text(0));
    patched_names_wrapper: |call| sync::push::patched_names(call.text(0));
    may_govern_wrapper: |call| sync::caller::may(Action::Govern, call.text(0));
    require_owner_wrapper: |call| sync::caller::require_owner(call.text(0));
    is_active_wrapper: |call| {
        Ok(sync::gc::is_active(call.timestamp(0), call.int8(1), call.int8(2)))
    };
    due_at_wrapper: |call| Ok(call.timestamp(0).map(sync::gc::due_at));
    counters_wrapper: |_call| sync::caller::counters();
    require_trusted_wrapper: |_call| sync::caller::Caller::require_trusted();
    hint_wrapper: |call| sync::servers::hint(call.text(0), call.int8(1));
    sync_set_key_range_wrapper: |call| sync::servers::set_key_range(call.int4(0));
}

/// The arguments of an op after the workspace.
fn arguments<'c>(call: &Call<'c>, payload: Option<&'c str>) -> Arguments<'c> {
    Arguments { table_name: call.text(1), pk: call.text(2), payload }
}

/// The arguments of a batch, by the positions of table, workspace_id, batch_size and
/// position.
fn batch<'c>(call: &Call<'c>, places: [usize; 4]) -> Batch<'c> {
    let [table, workspace_id, batch_size, position] = places;
    Batch {
        table: call.oid(table),
        workspace_id: call.text(workspace_id),
        batch_size: call.int4(batch_size),
        position: call.text(position),
    }
}

/// The arguments of a pull, by the positions of workspace_id, cursor, page_limit,
/// tables, latest, proof and scopes.
fn request<'c>(call: &Call<'c>, places: [usize; 7]) -> Request<'c> {
    let [workspace_id, cursor, page_limit, tables, latest, proof, scopes] = places;
    Request {
        workspace_id: call.text(workspace_id),
        cursor: call.int8(cursor),
        page_limit: call.int4(page_limit),
        tables: call.texts(tables),
        latest: call.boolean(latest).unwrap_or(false),
        proof: call.text(proof),
        scopes: call.texts(scopes),
    }
}

/// What sync_attach_table is asked for, but its columns.
fn attachment<'c>(call: &Call<'c>) -> attached::Request<'c> {
    attached::Request {
        table_name: call.text(1),
        workspace_column: call.name(2),
        workspace_id: call.text(3),
        owner_column: call.name(4),
        deleted_column: call.name(5),
        scope_column: call.name(13),
        columns: None,
        patches: call.boolean(7).unwrap_or(false),
        direction: call.text(8),
        apply_as: call.text(9),
        reads: call.text(10),
        numbers: call.text(11),
    }
}

impl Answer for Reply {
    fn into_datum(self) -> Option<::pgrx::pg_sys::Datum> {
        self.as_str().into_datum()
    }
}
