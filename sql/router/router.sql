-- A router: a database without data in which the functions of sync_ext exist by name and
-- arguments, and run on the shard that holds the workspace. docs/scaling.md says how to
-- set one up. For psql, as a superuser, in a database in UTF8; safe to run again, also by
-- a later version: the map, the servers and the rights stay.
--
-- The functions land in the current schema. On the shards the search_path finds them; what
-- a role may do is decided on the shard, where it logs in under its own name. No function
-- has a search_path of its own, which costs time: every name is qualified.

\set ON_ERROR_STOP on
begin;
set local client_min_messages = warning;

-- Where this library is missing, the setting at the end would lock everybody out.
load 'sync_ext';
do $$
begin
  if pg_catalog.getdatabaseencoding() operator(pg_catalog.<>) 'UTF8' then
    raise exception 'the database of a router must be in UTF8';
  end if;
end
$$;

create extension if not exists plproxy;
create schema if not exists sync_router;

-- The map.

-- First 10 bits of the SHA-256 of a workspace's name, as sync_ext.bucket_of has it.
create table if not exists sync_router.bucket (
  bucket integer primary key check (bucket between 0 and 1023),
  shard integer not null check (shard >= 0)
);

-- Workspaces that are not where their bucket is.
create table if not exists sync_router.placed (
  workspace_id text collate "C" primary key,
  shard integer not null check (shard >= 0)
);

-- Of an earlier version, functions may have other arguments. Their rights are granted
-- again below.
create temporary table granted on commit drop as
select p.proname as name, a.grantee
from pg_catalog.pg_proc as p
cross join lateral pg_catalog.aclexplode(p.proacl) as a
where p.pronamespace = pg_catalog.current_schema()::regnamespace
  and p.prosrc ~ 'sync_router\.' and a.grantee not in (0, p.proowner);

do $$
declare
  routine regprocedure;
begin
  for routine in
    select p.oid from pg_catalog.pg_proc as p
    where p.pronamespace = 'sync_router'::regnamespace
      or p.pronamespace = pg_catalog.current_schema()::regnamespace and p.prosrc ~ 'sync_router\.'
  loop
    execute pg_catalog.format('drop routine %s', routine);
  end loop;
end
$$;

-- PL/pgSQL, also where an expression would do: it keeps its plans, while a function in SQL
-- that cannot be inlined is planned by every call.
create function sync_router.bucket_of(workspace_id text) returns integer
language plpgsql immutable strict parallel safe
as $$
declare
  digest constant bytea := pg_catalog.sha256(pg_catalog.convert_to(workspace_id, 'UTF8'));
begin
  return (pg_catalog.get_byte(digest, 0) operator(pg_catalog.<<) 2)
    operator(pg_catalog.|) (pg_catalog.get_byte(digest, 1) operator(pg_catalog.>>) 6);
end
$$;

-- The shard that holds a workspace. VOLATILE, so that it sees a map that changed since the
-- calling statement began. Callers need no rights on the map, which names workspaces.
create function sync_router.shard_of(workspace_id text) returns integer
language plpgsql volatile security definer parallel unsafe
as $$
declare
  shard integer;
begin
  select coalesce(
    (select p.shard from sync_router.placed as p where p.workspace_id operator(pg_catalog.=) $1),
    (select b.shard from sync_router.bucket as b
     where b.bucket operator(pg_catalog.=) sync_router.bucket_of($1))
  ) into shard;
  if shard is null and $1 is not null then
    raise exception 'sync_router.bucket is not complete' using errcode = 'object_not_in_prerequisite_state';
  end if;
  -- Any shard says what is wrong with a NULL.
  return coalesce(shard, 0);
end
$$;

-- `set sync_router.reads = standby` sends reads to standbys, which may lag.
create function sync_router.cluster_of_reads() returns text
language plpgsql stable parallel safe
as $$
begin
  return case pg_catalog.current_setting('sync_router.reads', true) when 'standby' then 'sync_reads' else 'sync' end;
end
$$;

-- Nothing is written here, so Postgres would not object.
create function sync_router.require_writable(name text) returns void
language plpgsql stable parallel safe
as $$
begin
  if pg_catalog.current_setting('transaction_read_only')::boolean then
    raise exception 'cannot execute %() in a read-only transaction', name
      using errcode = 'read_only_sql_transaction';
  end if;
end
$$;

-- Errors, as the shard raised them.

drop type if exists sync_router.error;
create type sync_router.error as (code text, message text, detail text, hint text);

-- PL/Proxy reports what goes wrong with a connection as XX000, with hosts and ports, which
-- are for the log alone.
create function sync_router.raise(error sync_router.error) returns void
language plpgsql volatile parallel safe
as $$
declare
  code text := error.code;
  message text := coalesce(
    pg_catalog.substring(error.message, '^[^ ]+\(\d+\): \[[^]]*\] REMOTE [^:]+: (.*)$'), error.message
  );
  detail constant text := pg_catalog.regexp_replace(error.detail, '^Remote detail: ', '');
  hint text := pg_catalog.regexp_replace(error.hint, '^Remote hint: ', '');
begin
  if code operator(pg_catalog.=) 'XX000' and message operator(pg_catalog.~) '^PL/Proxy function ' then
    if message operator(pg_catalog.~) '(PQconnectPoll|PQconnectStart|connect timeout)' then
      code := '08001';
    elsif message operator(pg_catalog.~)
      '(PQflush|PQsendQuery|PQconsumeInput|query timeout|Lost result|Unfinished connection)'
    then
      code := '08006';
    end if;
    if code operator(pg_catalog.<>) 'XX000' then
      raise log 'sync_router: %', message;
      message := case code when '08001' then 'shard is not reachable' else 'connection to the shard was lost' end;
      hint := 'Call again; ops that are sent again with the same opIds are stored once.';
    end if;
  end if;
  if detail operator(pg_catalog.<>) '' and hint operator(pg_catalog.<>) '' then
    raise exception using errcode = code, message = message, detail = detail, hint = hint;
  elsif detail operator(pg_catalog.<>) '' then
    raise exception using errcode = code, message = message, detail = detail;
  elsif hint operator(pg_catalog.<>) '' then
    raise exception using errcode = code, message = message, hint = hint;
  end if;
  raise exception using errcode = code, message = message;
end
$$;

-- Where to call again after an error: if the shard did nothing because the workspace is
-- elsewhere, and the map has changed since. Otherwise raises the error.
create function sync_router.shard_after(error sync_router.error, shard integer, workspace_id text) returns integer
language plpgsql volatile parallel unsafe
as $$
declare
  now_at integer;
begin
  if error.code operator(pg_catalog.=) 'SX004' then
    now_at := sync_router.shard_of(workspace_id);
    if now_at operator(pg_catalog.<>) shard then
      return now_at;
    end if;
  end if;
  perform sync_router.raise(error);
end
$$;

-- Replies of all shards as one.

create function sync_router.merged_gc(replies json[]) returns json
language plpgsql immutable parallel safe
as $$
begin
  return (
    select pg_catalog.format(
      '{"workspaces":%s,"scanned":%s,"changesDeleted":%s,"tombstonesDeleted":%s,"devicesDeleted":%s,"hasMore":%s}',
      pg_catalog.sum((reply operator(pg_catalog.->>) 'workspaces')::bigint),
      pg_catalog.sum((reply operator(pg_catalog.->>) 'scanned')::bigint),
      pg_catalog.sum((reply operator(pg_catalog.->>) 'changesDeleted')::bigint),
      pg_catalog.sum((reply operator(pg_catalog.->>) 'tombstonesDeleted')::bigint),
      pg_catalog.sum((reply operator(pg_catalog.->>) 'devicesDeleted')::bigint),
      case when pg_catalog.bool_or((reply operator(pg_catalog.->>) 'hasMore')::boolean) then 'true' else 'false' end
    )
    from pg_catalog.unnest(replies) as reply
  );
end
$$;

-- The workspaces in all replies, in their order. While one moves two shards list it: the
-- one that has more of it counts.
create function sync_router.workspaces_in(replies json[]) returns setof json
language plpgsql immutable parallel safe
as $$
begin
  return query
    select distinct on (w.workspace_id) w.item
    from (
      select
        (item operator(pg_catalog.->>) 'workspaceId') collate "C" as workspace_id,
        (item operator(pg_catalog.->>) 'serverVersion')::bigint as server_version,
        item
      from pg_catalog.unnest(replies) as reply
      cross join pg_catalog.json_array_elements(reply operator(pg_catalog.->) 'workspaces') as item
    ) as w
    order by w.workspace_id, w.server_version desc;
end
$$;

create function sync_router.merged_list(replies json[]) returns json
language plpgsql immutable parallel safe
as $$
begin
  return (
    select pg_catalog.format('{"workspaces":[%s]}', pg_catalog.string_agg(item::text, ',' order by place))
    from sync_router.workspaces_in(replies) with ordinality as w (item, place)
  );
end
$$;

-- Counters are NULL where nothing is counted.
create function sync_router.merged_status(replies json[]) returns json
language plpgsql immutable parallel safe
as $$
begin
  return pg_catalog.json_build_object(
    'counters', (
      select pg_catalog.json_object_agg(c.key, c.value order by c.place) from (
        select counter.key, pg_catalog.min(counter.place) as place, pg_catalog.sum(counter.value::bigint) as value
        from pg_catalog.unnest(replies) as reply
        cross join pg_catalog.json_each_text(
          (reply operator(pg_catalog.->>) 'counters')::json
        ) with ordinality as counter (key, value, place)
        group by counter.key
      ) as c
    ),
    'workspaces', (
      select coalesce(pg_catalog.json_agg(item order by place), '[]')
      from sync_router.workspaces_in(replies) with ordinality as w (item, place)
    )
  );
end
$$;

\ir functions.sql
\ir move.sql

-- Rights. As in the extension, nobody may call anything until an administrator grants it:
-- EXECUTE on the functions by name, and USAGE on the servers of PL/Proxy. What is in
-- sync_router may be called by PUBLIC: without that USAGE it leads nowhere, and on the shards
-- a role has its own rights. But nobody may move workspaces or change what a shard owns.
do $$
declare
  grantee text;
  routine regprocedure;
begin
  for routine in
    select p.oid from pg_catalog.pg_proc as p
    where p.pronamespace = pg_catalog.current_schema()::regnamespace
      and (p.prosrc ~ 'sync_router\.' or p.proname ~ '^sync_hlc_')
  loop
    execute pg_catalog.format('revoke execute on routine %s from public', routine);
    for grantee in
      select distinct g.grantee::regrole from granted as g
      join pg_catalog.pg_proc as p on p.proname = g.name
      where p.oid = routine
    loop
      execute pg_catalog.format('grant execute on routine %s to %s', routine, grantee);
    end loop;
  end loop;
end
$$;
grant usage on schema sync_router to public;

-- A misspelt sync_ext.user_id must be an error here too, or the caller would be trusted: with
-- the library its settings are known.
do $$
begin
  execute pg_catalog.format(
    'alter database %I set session_preload_libraries = %L', pg_catalog.current_database(), 'sync_ext'
  );
end
$$;
commit;
