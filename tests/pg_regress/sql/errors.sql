-- Every error that ends a call: its message, its SQLSTATE, and that nothing
-- was stored.
\ir ../prelude.sql
select sync_push('w', '[{"tableName": "notes", "operation": "put", "pk": "a", "payload": {},
  "stamp": {"deviceId": "d", "opId": "00000000-0000-4000-8000-000000000001", "hlc": "h", "clock": 1}}]'::json) ->> 'serverVersion';

-- ops
select sync_push('w', null);
\echo :LAST_ERROR_SQLSTATE
select sync_push('w', '{}'::json);
\echo :LAST_ERROR_SQLSTATE
select sync_push('w', 'null'::json);
\echo :LAST_ERROR_SQLSTATE
set sync_ext.max_ops_per_push = 2;
select sync_push('w', '[1, 2, 3]'::json);
\echo :LAST_ERROR_SQLSTATE
select json_array_length(sync_push('w', '[1, 2]'::json) -> 'results');
reset sync_ext.max_ops_per_push;

-- workspace_id, in every function
select sync_push(null, '[]'::json);
\echo :LAST_ERROR_SQLSTATE
select sync_push('', '[]'::json);
\echo :LAST_ERROR_SQLSTATE
select sync_push(repeat('w', 257), '[]'::json);
\echo :LAST_ERROR_SQLSTATE
select sync_pull(null);
\echo :LAST_ERROR_SQLSTATE
select sync_pull('');
\echo :LAST_ERROR_SQLSTATE
select sync_snapshot(null);
\echo :LAST_ERROR_SQLSTATE
select sync_update_cursor(null, 'd', 0);
\echo :LAST_ERROR_SQLSTATE
select sync_gc('');
\echo :LAST_ERROR_SQLSTATE

-- pull
select sync_pull('w', null);
\echo :LAST_ERROR_SQLSTATE
select sync_pull('w', -1);
\echo :LAST_ERROR_SQLSTATE
select sync_pull('w', proof => '');
\echo :LAST_ERROR_SQLSTATE
select sync_pull('w', proof => 'p1.1.nonsense');
\echo :LAST_ERROR_SQLSTATE

select sync_pull('w', tables => array_fill('t'::text, array[1001]));
\echo :LAST_ERROR_SQLSTATE
select json_array_length(sync_pull('w', tables => array_fill('t'::text, array[1000])) -> 'changes');

-- snapshot
select sync_snapshot('w', '');
\echo :LAST_ERROR_SQLSTATE
select sync_snapshot('w', repeat('s', 100000));
\echo :LAST_ERROR_SQLSTATE
select sync_snapshot('w', tables => array_fill('t'::text, array[1001]));
\echo :LAST_ERROR_SQLSTATE

-- cursor
select sync_update_cursor('w', null, 0);
\echo :LAST_ERROR_SQLSTATE
select sync_update_cursor('w', repeat('d', 257), 0);
\echo :LAST_ERROR_SQLSTATE
select sync_update_cursor('w', 'd', null);
\echo :LAST_ERROR_SQLSTATE
select sync_update_cursor('w', 'd', -1);
\echo :LAST_ERROR_SQLSTATE
select sync_update_cursor('w', 'd', 2);
\echo :LAST_ERROR_SQLSTATE

-- gc
select sync_gc('w', '59 minutes');
\echo :LAST_ERROR_SQLSTATE
select sync_gc('w', '-1 day');
\echo :LAST_ERROR_SQLSTATE
select sync_gc('w', batch_size => 0);
\echo :LAST_ERROR_SQLSTATE
select sync_gc('w', batch_size => null);
\echo :LAST_ERROR_SQLSTATE
-- (Postgres' own words for this vary by version.)
\set VERBOSITY sqlstate
set sync_ext.retention = '59min';
\set VERBOSITY default

set sync_ext.retension = '2h';
\echo :LAST_ERROR_SQLSTATE

-- registry
select sync_register_table(null);
\echo :LAST_ERROR_SQLSTATE
select sync_register_table('');
\echo :LAST_ERROR_SQLSTATE
select sync_register_table(repeat('t', 129));
\echo :LAST_ERROR_SQLSTATE
select sync_register_table('t', null);
\echo :LAST_ERROR_SQLSTATE
select sync_register_table('t', '');
\echo :LAST_ERROR_SQLSTATE

-- Where writing is not possible, Postgres says so in its own words.
begin read only;
select sync_push('w', '[]'::json);
\echo :LAST_ERROR_SQLSTATE
rollback;
begin read only;
select sync_update_cursor('w', 'd', 0);
\echo :LAST_ERROR_SQLSTATE
rollback;
begin read only;
select sync_gc();
\echo :LAST_ERROR_SQLSTATE
rollback;
begin read only;
select sync_register_table('t');
\echo :LAST_ERROR_SQLSTATE
rollback;

-- Nothing of all this was stored.
select head from sync_ext.workspace;
select count(*) from sync_ext.device_cursor;
select table_name from sync_ext.synced_table;

-- What an unknown name or NULL may do is nothing.
select sync_unregister_table('unknown'), sync_unregister_table(null);
-- Registering again changes the pk field.
select sync_register_table('notes', 'key');
select table_name, pk_field from sync_ext.synced_table;

-- Settings are the superuser's.
create role settings_tester;
set role settings_tester;
set sync_ext.max_ops_per_push = 1000000;
\echo :LAST_ERROR_SQLSTATE
reset role;
drop role settings_tester;
select name, boot_val, unit, context from pg_settings where name like 'sync\_ext.%' order by 1;
