-- Written by scripts/router.py from the declarations of the extension; included by router.sql.

create function sync_router.explain(
  cluster text,
  shard integer,
  caller text,
  claims text,
  workspace_id text,
  table_name text,
  pk text
) returns json
language plproxy
as $$
  cluster pg_catalog.concat($1);
  run on $2;
  select case
    when pg_catalog.set_config('sync_ext.user_id', $3, true) is not null
      and pg_catalog.set_config('request.jwt.claims', $4, true) is not null
    then sync_explain($5, $6, $7)
  end;
$$;

create function sync_explain(workspace_id text, table_name text, pk text) returns json
language plpgsql stable
as $$
declare
  shard integer := sync_router.shard_of($1);
  caller constant text := coalesce(pg_catalog.current_setting('sync_ext.user_id', true), '');
  claims constant text := coalesce(pg_catalog.current_setting('request.jwt.claims', true), '');
  error sync_router.error;
begin
  loop
    begin
      return sync_router.explain(sync_router.cluster_of_reads(), shard, caller, claims, $1, $2, $3);
    exception when others or query_canceled then
      get stacked diagnostics error.code = returned_sqlstate, error.message = message_text,
        error.detail = pg_exception_detail, error.hint = pg_exception_hint;
    end;
    shard := sync_router.shard_after(error, shard, $1);
  end loop;
end
$$;
comment on function sync_explain(text, text, text) is 'all logged ops of a record with their outcomes, and when its tombstone can be purged';

create function sync_router.push(
  shard integer,
  caller text,
  claims text,
  workspace_id text,
  ops json
) returns json
language plproxy
as $$
  cluster 'sync';
  run on $1;
  select case
    when pg_catalog.set_config('sync_ext.user_id', $2, true) is not null
      and pg_catalog.set_config('request.jwt.claims', $3, true) is not null
    then sync_push($4, $5)
  end;
$$;

create function sync_push(workspace_id text, ops json) returns json
language plpgsql volatile
as $$
declare
  shard integer := sync_router.shard_of($1);
  caller constant text := coalesce(pg_catalog.current_setting('sync_ext.user_id', true), '');
  claims constant text := coalesce(pg_catalog.current_setting('request.jwt.claims', true), '');
  error sync_router.error;
begin
  perform sync_router.require_writable('sync_push');
  loop
    begin
      return sync_router.push(shard, caller, claims, $1, $2);
    exception when others or query_canceled then
      get stacked diagnostics error.code = returned_sqlstate, error.message = message_text,
        error.detail = pg_exception_detail, error.hint = pg_exception_hint;
    end;
    shard := sync_router.shard_after(error, shard, $1);
  end loop;
end
$$;
comment on function sync_push(text, json) is 'stores a batch of ops and resolves conflicts';

create function sync_router.put(
  shard integer,
  caller text,
  claims text,
  workspace_id text,
  table_name text,
  pk text,
  payload json
) returns json
language plproxy
as $$
  cluster 'sync';
  run on $1;
  select case
    when pg_catalog.set_config('sync_ext.user_id', $2, true) is not null
      and pg_catalog.set_config('request.jwt.claims', $3, true) is not null
    then sync_put($4, $5, $6, $7)
  end;
$$;

create function sync_put(workspace_id text, table_name text, pk text, payload json) returns json
language plpgsql volatile
as $$
declare
  shard integer := sync_router.shard_of($1);
  caller constant text := coalesce(pg_catalog.current_setting('sync_ext.user_id', true), '');
  claims constant text := coalesce(pg_catalog.current_setting('request.jwt.claims', true), '');
  error sync_router.error;
begin
  perform sync_router.require_writable('sync_put');
  loop
    begin
      return sync_router.put(shard, caller, claims, $1, $2, $3, $4);
    exception when others or query_canceled then
      get stacked diagnostics error.code = returned_sqlstate, error.message = message_text,
        error.detail = pg_exception_detail, error.hint = pg_exception_hint;
    end;
    shard := sync_router.shard_after(error, shard, $1);
  end loop;
end
$$;
comment on function sync_put(text, text, text, json) is 'writes a record, as an edit that has seen it';

create function sync_router.patch(
  shard integer,
  caller text,
  claims text,
  workspace_id text,
  table_name text,
  pk text,
  payload json
) returns json
language plproxy
as $$
  cluster 'sync';
  run on $1;
  select case
    when pg_catalog.set_config('sync_ext.user_id', $2, true) is not null
      and pg_catalog.set_config('request.jwt.claims', $3, true) is not null
    then sync_patch($4, $5, $6, $7)
  end;
$$;

create function sync_patch(workspace_id text, table_name text, pk text, payload json) returns json
language plpgsql volatile
as $$
declare
  shard integer := sync_router.shard_of($1);
  caller constant text := coalesce(pg_catalog.current_setting('sync_ext.user_id', true), '');
  claims constant text := coalesce(pg_catalog.current_setting('request.jwt.claims', true), '');
  error sync_router.error;
begin
  perform sync_router.require_writable('sync_patch');
  loop
    begin
      return sync_router.patch(shard, caller, claims, $1, $2, $3, $4);
    exception when others or query_canceled then
      get stacked diagnostics error.code = returned_sqlstate, error.message = message_text,
        error.detail = pg_exception_detail, error.hint = pg_exception_hint;
    end;
    shard := sync_router.shard_after(error, shard, $1);
  end loop;
end
$$;
comment on function sync_patch(text, text, text, json) is 'writes some fields of a record, as an edit that has seen it';

create function sync_router.delete(
  shard integer,
  caller text,
  claims text,
  workspace_id text,
  table_name text,
  pk text
) returns json
language plproxy
as $$
  cluster 'sync';
  run on $1;
  select case
    when pg_catalog.set_config('sync_ext.user_id', $2, true) is not null
      and pg_catalog.set_config('request.jwt.claims', $3, true) is not null
    then sync_delete($4, $5, $6)
  end;
$$;

create function sync_delete(workspace_id text, table_name text, pk text) returns json
language plpgsql volatile
as $$
declare
  shard integer := sync_router.shard_of($1);
  caller constant text := coalesce(pg_catalog.current_setting('sync_ext.user_id', true), '');
  claims constant text := coalesce(pg_catalog.current_setting('request.jwt.claims', true), '');
  error sync_router.error;
begin
  perform sync_router.require_writable('sync_delete');
  loop
    begin
      return sync_router.delete(shard, caller, claims, $1, $2, $3);
    exception when others or query_canceled then
      get stacked diagnostics error.code = returned_sqlstate, error.message = message_text,
        error.detail = pg_exception_detail, error.hint = pg_exception_hint;
    end;
    shard := sync_router.shard_after(error, shard, $1);
  end loop;
end
$$;
comment on function sync_delete(text, text, text) is 'deletes a record, as an edit that has seen it';

create function sync_router.pull(
  cluster text,
  shard integer,
  caller text,
  claims text,
  workspace_id text,
  cursor bigint,
  page_limit integer,
  tables text[],
  latest boolean,
  proof text,
  scopes text[]
) returns json
language plproxy
as $$
  cluster pg_catalog.concat($1);
  run on $2;
  select case
    when pg_catalog.set_config('sync_ext.user_id', $3, true) is not null
      and pg_catalog.set_config('request.jwt.claims', $4, true) is not null
    then sync_pull($5, $6, $7, $8, $9, $10, $11)
  end;
$$;

create function sync_pull(
  workspace_id text,
  cursor bigint default 0,
  page_limit integer default 100,
  tables text[] default null,
  latest boolean default false,
  proof text default null,
  scopes text[] default null
) returns json
language plpgsql stable
as $$
declare
  shard integer := sync_router.shard_of($1);
  caller constant text := coalesce(pg_catalog.current_setting('sync_ext.user_id', true), '');
  claims constant text := coalesce(pg_catalog.current_setting('request.jwt.claims', true), '');
  error sync_router.error;
begin
  loop
    begin
      return sync_router.pull(sync_router.cluster_of_reads(), shard, caller, claims, $1, $2, $3, $4, $5, $6, $7);
    exception when others or query_canceled then
      get stacked diagnostics error.code = returned_sqlstate, error.message = message_text,
        error.detail = pg_exception_detail, error.hint = pg_exception_hint;
    end;
    shard := sync_router.shard_after(error, shard, $1);
  end loop;
end
$$;
comment on function sync_pull(text, bigint, integer, text[], boolean, text, text[]) is 'the changes after a cursor, in order of version';

create function sync_router.snapshot(
  cluster text,
  shard integer,
  caller text,
  claims text,
  workspace_id text,
  page_token text,
  page_limit integer,
  tables text[],
  scopes text[],
  have text[],
  proof text
) returns json
language plproxy
as $$
  cluster pg_catalog.concat($1);
  run on $2;
  select case
    when pg_catalog.set_config('sync_ext.user_id', $3, true) is not null
      and pg_catalog.set_config('request.jwt.claims', $4, true) is not null
    then sync_snapshot($5, $6, $7, $8, $9, $10, $11)
  end;
$$;

create function sync_snapshot(
  workspace_id text,
  page_token text default null,
  page_limit integer default 500,
  tables text[] default null,
  scopes text[] default null,
  have text[] default null,
  proof text default null
) returns json
language plpgsql volatile
as $$
declare
  shard integer := sync_router.shard_of($1);
  caller constant text := coalesce(pg_catalog.current_setting('sync_ext.user_id', true), '');
  claims constant text := coalesce(pg_catalog.current_setting('request.jwt.claims', true), '');
  error sync_router.error;
begin
  loop
    begin
      return sync_router.snapshot(sync_router.cluster_of_reads(), shard, caller, claims, $1, $2, $3, $4, $5, $6, $7);
    exception when others or query_canceled then
      get stacked diagnostics error.code = returned_sqlstate, error.message = message_text,
        error.detail = pg_exception_detail, error.hint = pg_exception_hint;
    end;
    shard := sync_router.shard_after(error, shard, $1);
  end loop;
end
$$;
comment on function sync_snapshot(text, text, integer, text[], text[], text[], text) is 'the current state, page by page, for devices that start or restart';

create function sync_router.update_cursor(
  shard integer,
  caller text,
  claims text,
  workspace_id text,
  device_id text,
  version bigint
) returns json
language plproxy
as $$
  cluster 'sync';
  run on $1;
  select case
    when pg_catalog.set_config('sync_ext.user_id', $2, true) is not null
      and pg_catalog.set_config('request.jwt.claims', $3, true) is not null
    then sync_update_cursor($4, $5, $6)
  end;
$$;

create function sync_update_cursor(workspace_id text, device_id text, version bigint) returns json
language plpgsql volatile
as $$
declare
  shard integer := sync_router.shard_of($1);
  caller constant text := coalesce(pg_catalog.current_setting('sync_ext.user_id', true), '');
  claims constant text := coalesce(pg_catalog.current_setting('request.jwt.claims', true), '');
  error sync_router.error;
begin
  perform sync_router.require_writable('sync_update_cursor');
  loop
    begin
      return sync_router.update_cursor(shard, caller, claims, $1, $2, $3);
    exception when others or query_canceled then
      get stacked diagnostics error.code = returned_sqlstate, error.message = message_text,
        error.detail = pg_exception_detail, error.hint = pg_exception_hint;
    end;
    shard := sync_router.shard_after(error, shard, $1);
  end loop;
end
$$;
comment on function sync_update_cursor(text, text, bigint) is 'acknowledges that a device has seen everything up to a version';

create function sync_router.exchange(
  shard integer,
  caller text,
  claims text,
  workspace_id text,
  device_id text,
  cursor bigint,
  ops json,
  page_limit integer,
  tables text[],
  latest boolean,
  proof text,
  scopes text[]
) returns json
language plproxy
as $$
  cluster 'sync';
  run on $1;
  select case
    when pg_catalog.set_config('sync_ext.user_id', $2, true) is not null
      and pg_catalog.set_config('request.jwt.claims', $3, true) is not null
    then sync_exchange($4, $5, $6, $7, $8, $9, $10, $11, $12)
  end;
$$;

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
language plpgsql volatile
as $$
declare
  shard integer := sync_router.shard_of($1);
  caller constant text := coalesce(pg_catalog.current_setting('sync_ext.user_id', true), '');
  claims constant text := coalesce(pg_catalog.current_setting('request.jwt.claims', true), '');
  error sync_router.error;
begin
  perform sync_router.require_writable('sync_exchange');
  loop
    begin
      return sync_router.exchange(shard, caller, claims, $1, $2, $3, $4, $5, $6, $7, $8, $9);
    exception when others or query_canceled then
      get stacked diagnostics error.code = returned_sqlstate, error.message = message_text,
        error.detail = pg_exception_detail, error.hint = pg_exception_hint;
    end;
    shard := sync_router.shard_after(error, shard, $1);
  end loop;
end
$$;
comment on function sync_exchange(text, text, bigint, json, integer, text[], boolean, text, text[]) is 'pushes, acknowledges and pulls in one call';

create function sync_router.gc(
  shard integer,
  caller text,
  claims text,
  workspace_id text,
  retention interval,
  batch_size integer
) returns json
language plproxy
as $$
  cluster 'sync';
  run on $1;
  select case
    when pg_catalog.set_config('sync_ext.user_id', $2, true) is not null
      and pg_catalog.set_config('request.jwt.claims', $3, true) is not null
    then sync_gc($4, $5, $6)
  end;
$$;

create function sync_router.gc_on_all(
  caller text,
  claims text,
  workspace_id text,
  retention interval,
  batch_size integer
) returns setof json
language plproxy
as $$
  cluster 'sync';
  run on all;
  select case
    when pg_catalog.set_config('sync_ext.user_id', $1, true) is not null
      and pg_catalog.set_config('request.jwt.claims', $2, true) is not null
    then sync_gc($3, $4, $5)
  end;
$$;

create function sync_gc(
  workspace_id text default null,
  retention interval default null,
  batch_size integer default 10000
) returns json
language plpgsql volatile
as $$
declare
  shard integer := sync_router.shard_of($1);
  caller constant text := coalesce(pg_catalog.current_setting('sync_ext.user_id', true), '');
  claims constant text := coalesce(pg_catalog.current_setting('request.jwt.claims', true), '');
  error sync_router.error;
begin
  perform sync_router.require_writable('sync_gc');
  loop
    begin
      if $1 is null then
        return sync_router.merged_gc(array(select sync_router.gc_on_all(caller, claims, $1, $2, $3)));
      end if;
      return sync_router.gc(shard, caller, claims, $1, $2, $3);
    exception when others or query_canceled then
      get stacked diagnostics error.code = returned_sqlstate, error.message = message_text,
        error.detail = pg_exception_detail, error.hint = pg_exception_hint;
    end;
    shard := sync_router.shard_after(error, shard, $1);
  end loop;
end
$$;
comment on function sync_gc(text, interval, integer) is 'purges log entries that no active device needs';

create function sync_router.register_table(
  caller text,
  claims text,
  table_name text,
  pk_field text,
  owner_field text,
  patches boolean,
  validation text,
  scope_field text
) returns setof text
language plproxy
as $$
  cluster 'sync';
  run on all;
  select case
    when pg_catalog.set_config('sync_ext.user_id', $1, true) is not null
      and pg_catalog.set_config('request.jwt.claims', $2, true) is not null
    then sync_register_table($3, $4, $5, $6, $7::regprocedure, $8)::text
  end;
$$;

create function sync_register_table(
  table_name text,
  pk_field text default 'id',
  owner_field text default null,
  patches boolean default false,
  validation text default null,
  scope_field text default null
) returns void
language plpgsql volatile
as $$
declare
  caller constant text := coalesce(pg_catalog.current_setting('sync_ext.user_id', true), '');
  claims constant text := coalesce(pg_catalog.current_setting('request.jwt.claims', true), '');
  error sync_router.error;
begin
  perform sync_router.require_writable('sync_register_table');
  loop
    begin
      perform sync_router.register_table(caller, claims, $1, $2, $3, $4, $5, $6);
      return;
    exception when others or query_canceled then
      get stacked diagnostics error.code = returned_sqlstate, error.message = message_text,
        error.detail = pg_exception_detail, error.hint = pg_exception_hint;
    end;
    perform sync_router.raise(error);
  end loop;
end
$$;
comment on function sync_register_table(text, text, text, boolean, text, text) is 'allows pushes to a table';

create function sync_router.unregister_table(caller text, claims text, table_name text) returns setof text
language plproxy
as $$
  cluster 'sync';
  run on all;
  select case
    when pg_catalog.set_config('sync_ext.user_id', $1, true) is not null
      and pg_catalog.set_config('request.jwt.claims', $2, true) is not null
    then sync_unregister_table($3)::text
  end;
$$;

create function sync_unregister_table(table_name text) returns void
language plpgsql volatile
as $$
declare
  caller constant text := coalesce(pg_catalog.current_setting('sync_ext.user_id', true), '');
  claims constant text := coalesce(pg_catalog.current_setting('request.jwt.claims', true), '');
  error sync_router.error;
begin
  perform sync_router.require_writable('sync_unregister_table');
  loop
    begin
      perform sync_router.unregister_table(caller, claims, $1);
      return;
    exception when others or query_canceled then
      get stacked diagnostics error.code = returned_sqlstate, error.message = message_text,
        error.detail = pg_exception_detail, error.hint = pg_exception_hint;
    end;
    perform sync_router.raise(error);
  end loop;
end
$$;
comment on function sync_unregister_table(text) is 'refuses further pushes to a table';

create function sync_router.create_workspace(
  shard integer,
  caller text,
  claims text,
  workspace_id text,
  owner text
) returns text
language plproxy
as $$
  cluster 'sync';
  run on $1;
  select case
    when pg_catalog.set_config('sync_ext.user_id', $2, true) is not null
      and pg_catalog.set_config('request.jwt.claims', $3, true) is not null
    then sync_create_workspace($4, $5)::text
  end;
$$;

create function sync_create_workspace(workspace_id text, owner text) returns void
language plpgsql volatile
as $$
declare
  shard integer := sync_router.shard_of($1);
  caller constant text := coalesce(pg_catalog.current_setting('sync_ext.user_id', true), '');
  claims constant text := coalesce(pg_catalog.current_setting('request.jwt.claims', true), '');
  error sync_router.error;
begin
  perform sync_router.require_writable('sync_create_workspace');
  loop
    begin
      perform sync_router.create_workspace(shard, caller, claims, $1, $2);
      return;
    exception when others or query_canceled then
      get stacked diagnostics error.code = returned_sqlstate, error.message = message_text,
        error.detail = pg_exception_detail, error.hint = pg_exception_hint;
    end;
    shard := sync_router.shard_after(error, shard, $1);
  end loop;
end
$$;
comment on function sync_create_workspace(text, text) is 'creates a workspace with its first owner';

create function sync_router.drop_workspace(
  shard integer,
  caller text,
  claims text,
  workspace_id text,
  batch_size integer
) returns json
language plproxy
as $$
  cluster 'sync';
  run on $1;
  select case
    when pg_catalog.set_config('sync_ext.user_id', $2, true) is not null
      and pg_catalog.set_config('request.jwt.claims', $3, true) is not null
    then sync_drop_workspace($4, $5)
  end;
$$;

create function sync_drop_workspace(workspace_id text, batch_size integer default 10000) returns json
language plpgsql volatile
as $$
declare
  shard integer := sync_router.shard_of($1);
  caller constant text := coalesce(pg_catalog.current_setting('sync_ext.user_id', true), '');
  claims constant text := coalesce(pg_catalog.current_setting('request.jwt.claims', true), '');
  error sync_router.error;
begin
  perform sync_router.require_writable('sync_drop_workspace');
  loop
    begin
      return sync_router.drop_workspace(shard, caller, claims, $1, $2);
    exception when others or query_canceled then
      get stacked diagnostics error.code = returned_sqlstate, error.message = message_text,
        error.detail = pg_exception_detail, error.hint = pg_exception_hint;
    end;
    shard := sync_router.shard_after(error, shard, $1);
  end loop;
end
$$;
comment on function sync_drop_workspace(text, integer) is 'makes a workspace unreachable and erases it, batch by batch';

create function sync_router.set_member(
  shard integer,
  caller text,
  claims text,
  workspace_id text,
  user_id text,
  role text
) returns text
language plproxy
as $$
  cluster 'sync';
  run on $1;
  select case
    when pg_catalog.set_config('sync_ext.user_id', $2, true) is not null
      and pg_catalog.set_config('request.jwt.claims', $3, true) is not null
    then sync_set_member($4, $5, $6)::text
  end;
$$;

create function sync_set_member(workspace_id text, user_id text, role text) returns void
language plpgsql volatile
as $$
declare
  shard integer := sync_router.shard_of($1);
  caller constant text := coalesce(pg_catalog.current_setting('sync_ext.user_id', true), '');
  claims constant text := coalesce(pg_catalog.current_setting('request.jwt.claims', true), '');
  error sync_router.error;
begin
  perform sync_router.require_writable('sync_set_member');
  loop
    begin
      perform sync_router.set_member(shard, caller, claims, $1, $2, $3);
      return;
    exception when others or query_canceled then
      get stacked diagnostics error.code = returned_sqlstate, error.message = message_text,
        error.detail = pg_exception_detail, error.hint = pg_exception_hint;
    end;
    shard := sync_router.shard_after(error, shard, $1);
  end loop;
end
$$;
comment on function sync_set_member(text, text, text) is 'makes a user owner, editor or viewer of a workspace';

create function sync_router.remove_member(
  shard integer,
  caller text,
  claims text,
  workspace_id text,
  user_id text
) returns text
language plproxy
as $$
  cluster 'sync';
  run on $1;
  select case
    when pg_catalog.set_config('sync_ext.user_id', $2, true) is not null
      and pg_catalog.set_config('request.jwt.claims', $3, true) is not null
    then sync_remove_member($4, $5)::text
  end;
$$;

create function sync_remove_member(workspace_id text, user_id text) returns void
language plpgsql volatile
as $$
declare
  shard integer := sync_router.shard_of($1);
  caller constant text := coalesce(pg_catalog.current_setting('sync_ext.user_id', true), '');
  claims constant text := coalesce(pg_catalog.current_setting('request.jwt.claims', true), '');
  error sync_router.error;
begin
  perform sync_router.require_writable('sync_remove_member');
  loop
    begin
      perform sync_router.remove_member(shard, caller, claims, $1, $2);
      return;
    exception when others or query_canceled then
      get stacked diagnostics error.code = returned_sqlstate, error.message = message_text,
        error.detail = pg_exception_detail, error.hint = pg_exception_hint;
    end;
    shard := sync_router.shard_after(error, shard, $1);
  end loop;
end
$$;
comment on function sync_remove_member(text, text) is 'removes a user from a workspace, with the user''s devices';

create function sync_router.list_members(
  cluster text,
  shard integer,
  caller text,
  claims text,
  workspace_id text
) returns json
language plproxy
as $$
  cluster pg_catalog.concat($1);
  run on $2;
  select case
    when pg_catalog.set_config('sync_ext.user_id', $3, true) is not null
      and pg_catalog.set_config('request.jwt.claims', $4, true) is not null
    then sync_list_members($5)
  end;
$$;

create function sync_list_members(workspace_id text) returns json
language plpgsql stable
as $$
declare
  shard integer := sync_router.shard_of($1);
  caller constant text := coalesce(pg_catalog.current_setting('sync_ext.user_id', true), '');
  claims constant text := coalesce(pg_catalog.current_setting('request.jwt.claims', true), '');
  error sync_router.error;
begin
  loop
    begin
      return sync_router.list_members(sync_router.cluster_of_reads(), shard, caller, claims, $1);
    exception when others or query_canceled then
      get stacked diagnostics error.code = returned_sqlstate, error.message = message_text,
        error.detail = pg_exception_detail, error.hint = pg_exception_hint;
    end;
    shard := sync_router.shard_after(error, shard, $1);
  end loop;
end
$$;
comment on function sync_list_members(text) is 'the members of a workspace, with the role of each';

create function sync_router.get_role(
  cluster text,
  shard integer,
  caller text,
  claims text,
  workspace_id text,
  user_id text
) returns text
language plproxy
as $$
  cluster pg_catalog.concat($1);
  run on $2;
  select case
    when pg_catalog.set_config('sync_ext.user_id', $3, true) is not null
      and pg_catalog.set_config('request.jwt.claims', $4, true) is not null
    then sync_get_role($5, $6)
  end;
$$;

create function sync_get_role(workspace_id text, user_id text default null) returns text
language plpgsql stable
as $$
declare
  shard integer := sync_router.shard_of($1);
  caller constant text := coalesce(pg_catalog.current_setting('sync_ext.user_id', true), '');
  claims constant text := coalesce(pg_catalog.current_setting('request.jwt.claims', true), '');
  error sync_router.error;
begin
  loop
    begin
      return sync_router.get_role(sync_router.cluster_of_reads(), shard, caller, claims, $1, $2);
    exception when others or query_canceled then
      get stacked diagnostics error.code = returned_sqlstate, error.message = message_text,
        error.detail = pg_exception_detail, error.hint = pg_exception_hint;
    end;
    shard := sync_router.shard_after(error, shard, $1);
  end loop;
end
$$;
comment on function sync_get_role(text, text) is 'a user''s role in a workspace, null for a user who is not a member';

create function sync_router.forget_device(
  shard integer,
  caller text,
  claims text,
  workspace_id text,
  device_id text
) returns boolean
language plproxy
as $$
  cluster 'sync';
  run on $1;
  select case
    when pg_catalog.set_config('sync_ext.user_id', $2, true) is not null
      and pg_catalog.set_config('request.jwt.claims', $3, true) is not null
    then sync_forget_device($4, $5)
  end;
$$;

create function sync_forget_device(workspace_id text, device_id text) returns boolean
language plpgsql volatile
as $$
declare
  shard integer := sync_router.shard_of($1);
  caller constant text := coalesce(pg_catalog.current_setting('sync_ext.user_id', true), '');
  claims constant text := coalesce(pg_catalog.current_setting('request.jwt.claims', true), '');
  error sync_router.error;
begin
  perform sync_router.require_writable('sync_forget_device');
  loop
    begin
      return sync_router.forget_device(shard, caller, claims, $1, $2);
    exception when others or query_canceled then
      get stacked diagnostics error.code = returned_sqlstate, error.message = message_text,
        error.detail = pg_exception_detail, error.hint = pg_exception_hint;
    end;
    shard := sync_router.shard_after(error, shard, $1);
  end loop;
end
$$;
comment on function sync_forget_device(text, text) is 'deletes a lost device, which then no longer holds back sync_gc';

create function sync_router.list_workspaces(cluster text, caller text, claims text) returns setof json
language plproxy
as $$
  cluster pg_catalog.concat($1);
  run on all;
  select case
    when pg_catalog.set_config('sync_ext.user_id', $2, true) is not null
      and pg_catalog.set_config('request.jwt.claims', $3, true) is not null
    then sync_list_workspaces()
  end;
$$;

create function sync_list_workspaces() returns json
language plpgsql stable
as $$
declare
  caller constant text := coalesce(pg_catalog.current_setting('sync_ext.user_id', true), '');
  claims constant text := coalesce(pg_catalog.current_setting('request.jwt.claims', true), '');
  error sync_router.error;
begin
  loop
    begin
      return sync_router.merged_list(array(select sync_router.list_workspaces(sync_router.cluster_of_reads(), caller, claims)));
    exception when others or query_canceled then
      get stacked diagnostics error.code = returned_sqlstate, error.message = message_text,
        error.detail = pg_exception_detail, error.hint = pg_exception_hint;
    end;
    perform sync_router.raise(error);
  end loop;
end
$$;
comment on function sync_list_workspaces() is 'the workspaces of the current user, with the role in each';

create or replace function sync_hlc_now() returns text
language sql volatile security definer parallel safe
set search_path = pg_catalog, pg_temp
begin atomic
  select pg_catalog.concat(
    pg_catalog.lpad((n.micros / 1000)::text, 13, '0'), ':', pg_catalog.lpad((n.micros % 1000)::text, 4, '0'), ':$server'
  )
  from (select (extract(epoch from pg_catalog.clock_timestamp()) * 1000000)::bigint as micros) as n;
end;
comment on function sync_hlc_now() is 'a hybrid logical clock of now, for ops that a backend pushes';

create or replace function sync_hlc_parse(hlc text, out at timestamptz, out counter integer, out node text)
language sql immutable security definer parallel safe
set search_path = pg_catalog, pg_temp
begin atomic
  select pg_catalog.to_timestamp(m.parts[1]::double precision / 1000), m.parts[2]::integer, m.parts[3]
  from (select pg_catalog.regexp_match($1, '^([0-9]{13}):([0-9]{4}):(.+)$') as parts) as m;
end;
comment on function sync_hlc_parse(text) is 'the time, counter and node of a hybrid logical clock, nulls if it has another form';

create function sync_router.set_key_range(shard integer, server integer) returns text
language plproxy
as $$
  cluster 'sync';
  run on $1;
  select sync_set_key_range($2)::text;
$$;
revoke execute on function sync_router.set_key_range from public;

create function sync_router.own_buckets(shard integer, buckets integer[]) returns text
language plproxy
as $$
  cluster 'sync';
  run on $1;
  select sync_own_buckets($2)::text;
$$;
revoke execute on function sync_router.own_buckets from public;

create function sync_router.export_begin(shard integer, workspace_id text, move_id uuid, "to" text) returns json
language plproxy
as $$
  cluster 'sync';
  run on $1;
  select sync_export_begin($2, $3, $4);
$$;
revoke execute on function sync_router.export_begin from public;

create function sync_router.export_page(
  shard integer,
  workspace_id text,
  move_id uuid,
  "position" json
) returns json
language plproxy
as $$
  cluster 'sync';
  run on $1;
  select sync_export_page($2, $3, $4);
$$;
revoke execute on function sync_router.export_page from public;

create function sync_router.export_hold(
  shard integer,
  workspace_id text,
  move_id uuid,
  seconds double precision
) returns text
language plproxy
as $$
  cluster 'sync';
  run on $1;
  select sync_export_hold($2, $3, $4)::text;
$$;
revoke execute on function sync_router.export_hold from public;

create function sync_router.export_depart(
  shard integer,
  workspace_id text,
  move_id uuid,
  through bigint
) returns json
language plproxy
as $$
  cluster 'sync';
  run on $1;
  select sync_export_depart($2, $3, $4);
$$;
revoke execute on function sync_router.export_depart from public;

create function sync_router.export_cancel(shard integer, workspace_id text, move_id uuid) returns text
language plproxy
as $$
  cluster 'sync';
  run on $1;
  select sync_export_cancel($2, $3)::text;
$$;
revoke execute on function sync_router.export_cancel from public;

create function sync_router.export_forget(shard integer, workspace_id text, move_id uuid) returns text
language plproxy
as $$
  cluster 'sync';
  run on $1;
  select sync_export_forget($2, $3)::text;
$$;
revoke execute on function sync_router.export_forget from public;

create function sync_router.import_begin(
  shard integer,
  workspace_id text,
  move_id uuid,
  "from" json,
  keep_key boolean
) returns json
language plproxy
as $$
  cluster 'sync';
  run on $1;
  select sync_import_begin($2, $3, $4, $5);
$$;
revoke execute on function sync_router.import_begin from public;

create function sync_router.import_page(shard integer, workspace_id text, move_id uuid, page json) returns json
language plproxy
as $$
  cluster 'sync';
  run on $1;
  select sync_import_page($2, $3, $4);
$$;
revoke execute on function sync_router.import_page from public;

create function sync_router.import_arrive(shard integer, workspace_id text, move_id uuid, page json) returns text
language plproxy
as $$
  cluster 'sync';
  run on $1;
  select sync_import_arrive($2, $3, $4)::text;
$$;
revoke execute on function sync_router.import_arrive from public;

create function sync_router.import_cancel(shard integer, workspace_id text, move_id uuid) returns text
language plproxy
as $$
  cluster 'sync';
  run on $1;
  select sync_import_cancel($2, $3)::text;
$$;
revoke execute on function sync_router.import_cancel from public;

create function sync_router.status(
  cluster text,
  shard integer,
  caller text,
  claims text,
  workspace_id text
) returns json
language plproxy
as $$
  cluster pg_catalog.concat($1);
  run on $2;
  select case
    when pg_catalog.set_config('sync_ext.user_id', $3, true) is not null
      and pg_catalog.set_config('request.jwt.claims', $4, true) is not null
    then sync_status($5)
  end;
$$;

create function sync_router.status_on_all(cluster text, caller text, claims text, workspace_id text) returns setof json
language plproxy
as $$
  cluster pg_catalog.concat($1);
  run on all;
  select case
    when pg_catalog.set_config('sync_ext.user_id', $2, true) is not null
      and pg_catalog.set_config('request.jwt.claims', $3, true) is not null
    then sync_status($4)
  end;
$$;

create function sync_status(workspace_id text default null) returns json
language plpgsql stable
as $$
declare
  shard integer := sync_router.shard_of($1);
  caller constant text := coalesce(pg_catalog.current_setting('sync_ext.user_id', true), '');
  claims constant text := coalesce(pg_catalog.current_setting('request.jwt.claims', true), '');
  error sync_router.error;
begin
  loop
    begin
      if $1 is null then
        return sync_router.merged_status(array(select sync_router.status_on_all(sync_router.cluster_of_reads(), caller, claims, $1)));
      end if;
      return sync_router.status(sync_router.cluster_of_reads(), shard, caller, claims, $1);
    exception when others or query_canceled then
      get stacked diagnostics error.code = returned_sqlstate, error.message = message_text,
        error.detail = pg_exception_detail, error.hint = pg_exception_hint;
    end;
    shard := sync_router.shard_after(error, shard, $1);
  end loop;
end
$$;
comment on function sync_status(text) is 'versions, contents and devices of workspaces, and what holds GC back';
