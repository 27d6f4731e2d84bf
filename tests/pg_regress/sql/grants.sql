-- Nobody may call the functions until told so; nobody needs the tables.
\pset format unaligned
\pset tuples_only on
-- Default privileges that give everybody everything change nothing about it.
alter default privileges grant all on tables to public;
alter default privileges grant all on sequences to public;
alter default privileges grant all on schemas to public;
create extension sync_ext;
select sync_register_table('notes');
select has_schema_privilege('public', 'sync_ext', 'usage') as schema,
  bool_or(has_table_privilege('public', c.oid, 'select, insert, update, delete')) as tables
  from pg_class c where c.relnamespace = 'sync_ext'::regnamespace and c.relkind in ('r', 'v');
create role sync_backend;
create role sync_stranger;
select bool_or(has_function_privilege('sync_stranger', oid, 'execute')) as functions from pg_proc where proname like 'sync\_%';

set role sync_stranger;
select sync_push('w', '[]'::json);
\echo :LAST_ERROR_SQLSTATE
select sync_pull('w');
\echo :LAST_ERROR_SQLSTATE
select sync_snapshot('w');
\echo :LAST_ERROR_SQLSTATE
select sync_update_cursor('w', 'd', 0);
\echo :LAST_ERROR_SQLSTATE
select sync_gc();
\echo :LAST_ERROR_SQLSTATE
select sync_register_table('t');
\echo :LAST_ERROR_SQLSTATE
select sync_unregister_table('notes');
\echo :LAST_ERROR_SQLSTATE
select * from sync_ext.workspace;
\echo :LAST_ERROR_SQLSTATE
reset role;

-- A backend gets the four functions it calls and nothing else.
grant execute on function sync_push(text, json),
  sync_pull,
  sync_snapshot,
  sync_update_cursor(text, text, bigint) to sync_backend;
set role sync_backend;
select sync_push('w', '[{"tableName": "notes", "operation": "put", "pk": "a", "payload": {},
  "stamp": {"deviceId": "d", "opId": "00000000-0000-4000-8000-000000000001", "hlc": "h", "clock": 1}}]'::json);
select json_array_length(sync_pull('w') -> 'changes');
select json_array_length(sync_snapshot('w') -> 'items');
select sync_update_cursor('w', 'd', 1) ->> 'advanced';
select sync_gc();
\echo :LAST_ERROR_SQLSTATE
select * from sync_ext.change_log;
\echo :LAST_ERROR_SQLSTATE
insert into sync_ext.synced_table values ('t');
\echo :LAST_ERROR_SQLSTATE

-- Its own schemas do not come into it: names resolve in pg_catalog alone.
reset role;
create schema trap authorization sync_backend;
set role sync_backend;
set search_path = trap, public;
create function trap.clock_timestamp() returns timestamptz language sql as $$ select 1 / 0; select null::timestamptz $$;
create function trap.eq(text, text) returns boolean language sql as $$ select (1 / 0) = 1 $$;
create operator trap.= (leftarg = text, rightarg = text, function = trap.eq);
create temp table change_log (x integer);
create temp table workspace (x integer);
select sync_push('v', '[{"tableName": "notes", "operation": "put", "pk": "a", "payload": {},
  "stamp": {"deviceId": "d", "opId": "00000000-0000-4000-8000-000000000001", "hlc": "h", "clock": 1}}]'::json) ->> 'serverVersion';
select sync_update_cursor('v', 'd', 1) ->> 'advanced';
reset role;

-- Every function fixes its search_path, is SECURITY DEFINER and not STRICT.
set search_path = public;
select proname, prosecdef, proisstrict, proconfig from pg_proc where proname like 'sync\_%' order by 1;
-- Every table goes into a dump.
select c.relname, array_position(e.extconfig, c.oid) is not null as dumped
  from pg_class c, pg_extension e
 where e.extname = 'sync_ext' and c.relnamespace = 'sync_ext'::regnamespace and c.relkind in ('r', 'S') order by 1;
drop schema trap cascade;
drop owned by sync_backend;
drop role sync_backend, sync_stranger;
