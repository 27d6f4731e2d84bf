-- The SQL surface; src/api.rs has the entry points.
--
-- Callers need only EXECUTE: direct access to the tables checks no rights, and the few
-- SQL statements run as the owner, with a search_path of their own
-- (src/store/rights.rs). So only functions in SQL or PL/pgSQL are SECURITY DEFINER. No
-- function is STRICT, so that a NULL gets an answer. None that uses the tables is PARALLEL
-- SAFE: writers must run in the leader, and for readers a worker is not worth its cost.
--
-- sync_pull is STABLE: all of it reads the snapshot of the calling statement.
-- sync_snapshot is VOLATILE only because of its random snapshotId.

create function sync_push(workspace_id text, ops json) returns json
language c volatile parallel unsafe
as 'MODULE_PATHNAME', 'sync_push_wrapper';

create function sync_put(workspace_id text, table_name text, pk text, payload json) returns json
language c volatile parallel unsafe
as 'MODULE_PATHNAME', 'sync_put_wrapper';

create function sync_patch(workspace_id text, table_name text, pk text, payload json) returns json
language c volatile parallel unsafe
as 'MODULE_PATHNAME', 'sync_patch_wrapper';

create function sync_delete(workspace_id text, table_name text, pk text) returns json
language c volatile parallel unsafe
as 'MODULE_PATHNAME', 'sync_delete_wrapper';

create function sync_pull(
  workspace_id text,
  cursor bigint default 0,
  page_limit integer default 100,
  tables text[] default null,
  latest boolean default false,
  proof text default null,
  scopes text[] default null
) returns json
language c stable parallel restricted
as 'MODULE_PATHNAME', 'sync_pull_wrapper';

create function sync_snapshot(
  workspace_id text,
  page_token text default null,
  page_limit integer default 500,
  tables text[] default null,
  scopes text[] default null,
  have text[] default null,
  proof text default null
) returns json
language c volatile parallel restricted
as 'MODULE_PATHNAME', 'sync_snapshot_wrapper';

create function sync_update_cursor(workspace_id text, device_id text, version bigint) returns json
language c volatile parallel unsafe
as 'MODULE_PATHNAME', 'sync_update_cursor_wrapper';

create function sync_exchange(
  workspace_id text,
  device_id text,
  cursor bigint,
  ops json,
  page_limit integer default 100,
  tables text[] default null,
  latest boolean default false,
  proof text default null,
  scopes text[] default null
) returns json
language c volatile parallel unsafe
as 'MODULE_PATHNAME', 'sync_exchange_wrapper';

create function sync_gc(
  workspace_id text default null,
  retention interval default null,
  batch_size integer default 10000
) returns json
language c volatile parallel unsafe
as 'MODULE_PATHNAME', 'sync_gc_wrapper';

-- Runs sync_gc until nothing is left or the time is up, with one transaction per batch:
-- CALL it outside of a transaction block. A procedure that commits can neither be
-- SECURITY DEFINER nor have a search_path of its own, so every name is qualified.
create procedure sync_gc_all(
  workspace_id text default null,
  retention interval default null,
  batch_size integer default 100,
  time_budget interval default interval '1 minute',
  pause interval default interval '5 milliseconds'
)
language plpgsql
as $$
declare
  begun constant pg_catalog.timestamptz := pg_catalog.clock_timestamp();
  reported_at pg_catalog.timestamptz := begun;
  batches bigint := 0;
  scanned bigint := 0;
  deleted bigint := 0;
  statement pg_catalog.text;
  reply pg_catalog.json;
  has_more boolean;
begin
  loop
    -- By the current name of its schema, which may be renamed.
    select pg_catalog.format('select %I.sync_gc($1, $2, $3)', n.nspname) into strict statement
    from pg_catalog.pg_extension as e
    join pg_catalog.pg_namespace as n on n.oid operator(pg_catalog.=) e.extnamespace
    where e.extname operator(pg_catalog.=) 'sync_ext';
    -- A purge that a crash takes back is done again.
    perform pg_catalog.set_config('synchronous_commit', 'off', true);
    execute statement into reply using workspace_id, retention, batch_size;
    -- Commit after each batch, so that other sessions wait for one batch at most.
    commit;
    batches := batches operator(pg_catalog.+) 1;
    scanned := scanned operator(pg_catalog.+) (reply operator(pg_catalog.->>) 'scanned')::pg_catalog.int8;
    deleted := deleted
      operator(pg_catalog.+) (reply operator(pg_catalog.->>) 'changesDeleted')::pg_catalog.int8
      operator(pg_catalog.+) (reply operator(pg_catalog.->>) 'tombstonesDeleted')::pg_catalog.int8;
    has_more := (reply operator(pg_catalog.->>) 'hasMore')::pg_catalog.bool;
    if not has_more
      or pg_catalog.clock_timestamp() operator(pg_catalog.-) begun operator(pg_catalog.>=) time_budget
    then
      exit;
    end if;
    if pg_catalog.clock_timestamp() operator(pg_catalog.-) reported_at operator(pg_catalog.>=) interval '5 seconds' then
      raise notice 'sync_gc_all: % entries read, % deleted, batch %', scanned, deleted, batches;
      reported_at := pg_catalog.clock_timestamp();
    end if;
    perform pg_catalog.pg_sleep(extract(epoch from pause));
  end loop;
  raise notice 'sync_gc_all: % entries read, % deleted, batch %: %', scanned, deleted, batches,
    case when has_more then 'time is up' else 'nothing is left' end;
end
$$;

create function sync_register_table(
  table_name text,
  pk_field text default 'id',
  owner_field text default null,
  patches boolean default false,
  validation regprocedure default null,
  scope_field text default null
) returns void
language c volatile parallel unsafe
as 'MODULE_PATHNAME', 'sync_register_table_wrapper';

-- A step of the procedure below: the first one, without a position, changes the registry,
-- each other one a workspace.
create function sync_ext.set_scope_field(table_name text, scope_field text, "position" bigint) returns bigint
language c volatile parallel unsafe
as 'MODULE_PATHNAME', 'set_scope_field_wrapper';

-- The scope that a payload names in this field. As patched_names: functions of Postgres fail
-- on some payloads.
create function sync_ext.scope_of(payload json, scope_field text) returns text
language c immutable parallel safe
as 'MODULE_PATHNAME', 'scope_of_wrapper';

-- Changes the scope field of a table that has records, workspace by workspace. As
-- sync_gc_all: every name is qualified. After an interruption, CALL it again.
create procedure sync_set_scope_field(table_name text, scope_field text)
language plpgsql
as $$
declare
  "position" bigint;
begin
  loop
    "position" := sync_ext.set_scope_field(table_name, scope_field, "position");
    commit;
    exit when "position" is null;
  end loop;
end
$$;

create function sync_unregister_table(table_name text) returns void
language c volatile parallel unsafe
as 'MODULE_PATHNAME', 'sync_unregister_table_wrapper';

create function sync_create_workspace(workspace_id text, owner text) returns void
language c volatile parallel unsafe
as 'MODULE_PATHNAME', 'sync_create_workspace_wrapper';

create function sync_drop_workspace(workspace_id text, batch_size integer default 10000) returns json
language c volatile parallel unsafe
as 'MODULE_PATHNAME', 'sync_drop_workspace_wrapper';

create function sync_set_member(workspace_id text, user_id text, role text) returns void
language c volatile parallel unsafe
as 'MODULE_PATHNAME', 'sync_set_member_wrapper';

create function sync_remove_member(workspace_id text, user_id text) returns void
language c volatile parallel unsafe
as 'MODULE_PATHNAME', 'sync_remove_member_wrapper';

create function sync_list_members(workspace_id text) returns json
language c stable parallel restricted
as 'MODULE_PATHNAME', 'sync_list_members_wrapper';

create function sync_get_role(workspace_id text, user_id text default null) returns text
language c stable parallel restricted
as 'MODULE_PATHNAME', 'sync_get_role_wrapper';

create function sync_forget_device(workspace_id text, device_id text) returns boolean
language c volatile parallel unsafe
as 'MODULE_PATHNAME', 'sync_forget_device_wrapper';

create function sync_list_workspaces(page_token text default null, page_limit integer default null) returns json
language c stable parallel restricted
as 'MODULE_PATHNAME', 'sync_list_workspaces_wrapper';

-- Hybrid logical clocks, for backends that push: milliseconds since 1970, a counter and
-- who made it. The counter is the microseconds of now, so that what one backend makes
-- ascends without state.
create function sync_hlc_now() returns text
language sql volatile security definer parallel safe
set search_path = pg_catalog, pg_temp
begin atomic
  select pg_catalog.concat(
    pg_catalog.lpad((n.micros / 1000)::text, 13, '0'), ':', pg_catalog.lpad((n.micros % 1000)::text, 4, '0'), ':$server'
  )
  from (select (extract(epoch from pg_catalog.clock_timestamp()) * 1000000)::bigint as micros) as n;
end;

create function sync_hlc_parse(hlc text, out at timestamptz, out counter integer, out node text)
language sql immutable security definer parallel safe
set search_path = pg_catalog, pg_temp
begin atomic
  select pg_catalog.to_timestamp(m.parts[1]::double precision / 1000), m.parts[2]::integer, m.parts[3]
  from (select pg_catalog.regexp_match($1, '^([0-9]{13}):([0-9]{4}):(.+)$') as parts) as m;
end;

comment on function sync_push(text, json) is 'stores a batch of ops and resolves conflicts';
comment on function sync_put(text, text, text, json) is 'writes a record, as an edit that has seen it';
comment on function sync_patch(text, text, text, json) is 'writes some fields of a record, as an edit that has seen it';
comment on function sync_delete(text, text, text) is 'deletes a record, as an edit that has seen it';
comment on function sync_pull(text, bigint, integer, text[], boolean, text, text[]) is 'the changes after a cursor, in order of version';
comment on function sync_snapshot(text, text, integer, text[], text[], text[], text) is 'the current state, page by page, for devices that start or restart';
comment on function sync_update_cursor(text, text, bigint) is 'acknowledges that a device has seen everything up to a version';
comment on function sync_exchange(text, text, bigint, json, integer, text[], boolean, text, text[]) is 'pushes, acknowledges and pulls in one call';
comment on function sync_gc(text, interval, integer) is 'purges log entries that no active device needs';
comment on procedure sync_gc_all(text, interval, integer, interval, interval) is 'runs sync_gc in batches, each committed, within a time budget';
comment on function sync_register_table(text, text, text, boolean, regprocedure, text) is 'allows pushes to a table';
comment on procedure sync_set_scope_field(text, text) is 'changes what the scopes of a table''s records are, workspace by workspace';
comment on function sync_ext.set_scope_field(text, text, bigint) is 'a step of sync_set_scope_field';
comment on function sync_ext.scope_of(json, text) is 'the scope that a payload names in a field';
comment on function sync_unregister_table(text) is 'refuses further pushes to a table';
comment on function sync_create_workspace(text, text) is 'creates a workspace with its first owner';
comment on function sync_drop_workspace(text, integer) is 'makes a workspace unreachable and erases it, batch by batch';
comment on function sync_set_member(text, text, text) is 'makes a user owner, editor or viewer of a workspace';
comment on function sync_remove_member(text, text) is 'removes a user from a workspace, with the user''s devices';
comment on function sync_list_members(text) is 'the members of a workspace, with the role of each';
comment on function sync_get_role(text, text) is 'a user''s role in a workspace, null for a user who is not a member';
comment on function sync_forget_device(text, text) is 'deletes a lost device, which then no longer holds back sync_gc';
comment on function sync_list_workspaces(text, integer) is 'the workspaces of the current user, with the role in each';
comment on function sync_hlc_now() is 'a hybrid logical clock of now, for ops that a backend pushes';
comment on function sync_hlc_parse(text) is 'the time, counter and node of a hybrid logical clock, nulls if it has another form';
