-- The SQL surface; src/api.rs has the other half of each declaration.
--
-- SECURITY DEFINER: callers need EXECUTE and nothing on the tables. The fixed
-- search_path keeps a caller's schemas out of name resolution. No function is
-- STRICT, so that a NULL gets an answer. None is PARALLEL SAFE: the writers
-- must run in the leader, and for the readers it is not worth a worker.
--
-- sync_pull is STABLE: all of it reads the snapshot of the calling statement.
-- sync_snapshot is VOLATILE for its random snapshotId alone.

create function sync_push(workspace_id text, ops json) returns json
language c volatile security definer parallel unsafe
set search_path = pg_catalog, pg_temp
as 'MODULE_PATHNAME', 'sync_push_wrapper';

create function sync_pull(
  workspace_id text,
  cursor bigint default 0,
  page_limit integer default 100,
  tables text[] default null,
  latest boolean default false,
  proof text default null
) returns json
language c stable security definer parallel restricted
set search_path = pg_catalog, pg_temp
as 'MODULE_PATHNAME', 'sync_pull_wrapper';

create function sync_snapshot(
  workspace_id text,
  page_token text default null,
  page_limit integer default 500,
  tables text[] default null
) returns json
language c volatile security definer parallel restricted
set search_path = pg_catalog, pg_temp
as 'MODULE_PATHNAME', 'sync_snapshot_wrapper';

create function sync_update_cursor(workspace_id text, device_id text, version bigint) returns json
language c volatile security definer parallel unsafe
set search_path = pg_catalog, pg_temp
as 'MODULE_PATHNAME', 'sync_update_cursor_wrapper';

create function sync_exchange(
  workspace_id text,
  device_id text,
  cursor bigint,
  ops json,
  page_limit integer default 100,
  tables text[] default null,
  latest boolean default false,
  proof text default null
) returns json
language c volatile security definer parallel unsafe
set search_path = pg_catalog, pg_temp
as 'MODULE_PATHNAME', 'sync_exchange_wrapper';

create function sync_gc(
  workspace_id text default null,
  retention interval default null,
  batch_size integer default 10000
) returns json
language c volatile security definer parallel unsafe
set search_path = pg_catalog, pg_temp
as 'MODULE_PATHNAME', 'sync_gc_wrapper';

create function sync_register_table(
  table_name text,
  pk_field text default 'id',
  owner_field text default null
) returns void
language c volatile security definer parallel unsafe
set search_path = pg_catalog, pg_temp
as 'MODULE_PATHNAME', 'sync_register_table_wrapper';

create function sync_unregister_table(table_name text) returns void
language c volatile security definer parallel unsafe
set search_path = pg_catalog, pg_temp
as 'MODULE_PATHNAME', 'sync_unregister_table_wrapper';

create function sync_create_workspace(workspace_id text, owner text) returns void
language c volatile security definer parallel unsafe
set search_path = pg_catalog, pg_temp
as 'MODULE_PATHNAME', 'sync_create_workspace_wrapper';

create function sync_drop_workspace(workspace_id text, batch_size integer default 10000) returns json
language c volatile security definer parallel unsafe
set search_path = pg_catalog, pg_temp
as 'MODULE_PATHNAME', 'sync_drop_workspace_wrapper';

create function sync_set_member(workspace_id text, user_id text, role text) returns void
language c volatile security definer parallel unsafe
set search_path = pg_catalog, pg_temp
as 'MODULE_PATHNAME', 'sync_set_member_wrapper';

create function sync_remove_member(workspace_id text, user_id text) returns void
language c volatile security definer parallel unsafe
set search_path = pg_catalog, pg_temp
as 'MODULE_PATHNAME', 'sync_remove_member_wrapper';

create function sync_list_members(workspace_id text) returns json
language c stable security definer parallel restricted
set search_path = pg_catalog, pg_temp
as 'MODULE_PATHNAME', 'sync_list_members_wrapper';

create function sync_get_role(workspace_id text, user_id text default null) returns text
language c stable security definer parallel restricted
set search_path = pg_catalog, pg_temp
as 'MODULE_PATHNAME', 'sync_get_role_wrapper';

create function sync_forget_device(workspace_id text, device_id text) returns boolean
language c volatile security definer parallel unsafe
set search_path = pg_catalog, pg_temp
as 'MODULE_PATHNAME', 'sync_forget_device_wrapper';

create function sync_list_workspaces() returns json
language c stable security definer parallel restricted
set search_path = pg_catalog, pg_temp
as 'MODULE_PATHNAME', 'sync_list_workspaces_wrapper';

comment on function sync_push(text, json) is 'stores a batch of ops of a device and decides conflicts';
comment on function sync_pull(text, bigint, integer, text[], boolean, text) is 'the changes after a cursor, in order of version';
comment on function sync_snapshot(text, text, integer, text[]) is 'the current state, page by page, for devices that start or start again';
comment on function sync_update_cursor(text, text, bigint) is 'acknowledges that a device has seen everything up to a version';
comment on function sync_exchange(text, text, bigint, json, integer, text[], boolean, text) is 'pushes, acknowledges and pulls in one call';
comment on function sync_gc(text, interval, integer) is 'purges log entries that no active device needs';
comment on function sync_register_table(text, text, text) is 'lets records of a table be pushed';
comment on function sync_unregister_table(text) is 'refuses further pushes of a table';
comment on function sync_create_workspace(text, text) is 'makes a workspace and its first owner';
comment on function sync_drop_workspace(text, integer) is 'makes a workspace unreachable and erases it, batch by batch';
comment on function sync_set_member(text, text, text) is 'makes a user owner, editor or viewer of a workspace';
comment on function sync_remove_member(text, text) is 'takes a user out of a workspace, their devices too';
comment on function sync_list_members(text) is 'the members of a workspace, with the role of each';
comment on function sync_get_role(text, text) is 'a user''s role in a workspace, null if they are no member';
comment on function sync_forget_device(text, text) is 'deletes a lost device, which from then on holds back nothing';
comment on function sync_list_workspaces() is 'the workspaces of the current user, with the role in each';
