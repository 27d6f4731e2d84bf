-- Writing from SQL: the server stamps the op as an edit that has seen the record.
\ir ../prelude.sql
select sync_register_table('tasks', patches => true), sync_register_table('diary', owner_field => 'by') \g /dev/null
-- New opIds are X, and the time in an hlc is T.
create function masked(reply text) returns text language sql as $$
  select regexp_replace(regexp_replace(regexp_replace($1,
    '[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}', 'X', 'g'),
    '[0-9]{13}:[0-9]{4}:', 'T:', 'g'), '("serverDeletedAt":)[0-9]+', '\1...')
$$;
create function put(pk text, payload json, tab text default 'tasks', ws text default 'w') returns text language sql
  as 'select masked(sync_put(ws, tab, pk, payload)::text)';
create function patch(pk text, payload json, tab text default 'tasks', ws text default 'w') returns text language sql
  as 'select masked(sync_patch(ws, tab, pk, payload)::text)';
create function del(pk text, tab text default 'tasks', ws text default 'w') returns text language sql
  as 'select masked(sync_delete(ws, tab, pk)::text)';
create function changes(ws text default 'w') returns setof text language sql as $$
  select masked(c::text) from json_array_elements(sync_pull(ws) -> 'changes') c
$$;

-- A record is put, patched, put again and deleted; each op has seen the one before.
select put('a', ' { "n" : 1.50, "n":2 }  ');
select patch('a', '{"m": {"x": 1}}');
select patch('a', '{"n": 3, "more": null}');
select put('a', '{"n": 4}');
select del('a');
select del('a');
select put('a', '{}');
select changes();
select payload from sync_ext.current_record where pk = 'a';
-- Its clock is above that of a device, of patches too; the other edit of the device loses.
select push_op(1, 'put', 'b', 7, tab => 'tasks');
select patch('b', '{"x": 1}');
select sync_push('w', json_build_array(json_build_object('tableName', 'tasks', 'operation', 'patch', 'pk', 'b', 'payload', '{"y": 1}'::json,
  'base', '{"clock": 7, "hlc": "h", "opId": "00000001-0000-4000-8000-000000000000"}'::json,
  'stamp', '{"clock": 20, "hlc": "h", "opId": "00000002-0000-4000-8000-000000000000", "deviceId": "d"}'::json))) -> 'results' -> 0;
select put('b', '{"x": 2}');
select clock from sync_ext.record where pk = 'b';
select masked((push_op(3, 'put', 'b', 20, tab => 'tasks') -> 'winner' -> 'revision')::text);
-- A delete of an unknown record is a tombstone.
select del('c');
-- A patch of an unknown record is refused, one of a deleted record loses.
select patch('d', '{"x": 1}');
select patch('c', '{"x": 1}');

-- What a push would refuse is refused, and stores nothing.
select head from sync_ext.workspace;
select put('e', '{}', 'unknown');
select put('e', null);
select put('e', '[]');
select put('e', '{"id": "f"}');
select put('e', '{"workspace_id": "v"}');
select put(null, '{}');
select put('', '{}');
select put(repeat('p', 1025), '{}');
select put('e', '{}', null);
select put('e', '{}', '');
select put('e', '{}', repeat('t', 129));
select patch('b', '{}');
select patch('b', 'null');
select patch('b', '1');
select patch('b', '{"": 1}');
select patch('b', '{}', 'notes');
select patch('b', '{"x": 1}', 'notes');
select del(null);
select del('e', 'unknown');
set sync_ext.max_payload_bytes = 30;
select put('e', '{"n": "012345678901234567890123"}');
select patch('b', '{"n": "01234567890123456"}');
reset sync_ext.max_payload_bytes;
set sync_ext.max_payload_depth = 2;
select put('e', '{"n": {"n": {}}}');
reset sync_ext.max_payload_depth;
-- Not by the drift, which is for devices.
set sync_ext.max_clock_drift = 1;
select put('e', '{}');
reset sync_ext.max_clock_drift;
select head from sync_ext.workspace;
-- A workspace is created by what is accepted.
select put('e', '{}', 'unknown', 'new'), patch('e', '{"x": 1}', ws => 'new'), put('e', null, ws => 'new');
select count(*) from sync_ext.workspace;
select del('e', ws => 'new');
select workspace_id, head from sync_ext.workspace order by 1;
\set VERBOSITY sqlstate
select sync_put(null, 'tasks', 'a', '{}');
select sync_patch('', 'tasks', 'a', '{}');
select sync_delete(repeat('w', 257), 'tasks', 'a');
begin read only;
select sync_put('w', 'tasks', 'a', '{}');
rollback;
\set VERBOSITY default

-- The highest clock is not exceeded: the hlc decides.
select sync_push('w', json_build_array(json_build_object('tableName', 'tasks', 'operation', 'put', 'pk', 'z', 'payload', '{}'::json,
  'stamp', '{"clock": 9007199254740991, "hlc": "0", "opId": "00000004-0000-4000-8000-000000000000", "deviceId": "d"}'::json))) -> 'serverVersion';
select put('z', '{}');
select clock from sync_ext.record where pk = 'z';

-- The hlc ascends, in either style.
select hlc from sync_ext.record where pk = 'z' and hlc !~ '^[0-9]{13}:[0-9]{4}:\$server$';
set sync_ext.server_hlc = 'iso';
select put('z', '{}'), put('y', '{}');
select pk from sync_ext.record where hlc ~ '^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]{12}Z:[0-9]{4}:\$server$' order by 1;
select hlc > lag(hlc) over (order by server_version) from sync_ext.change_log where hlc ~ 'Z' order by server_version;
reset sync_ext.server_hlc;
set sync_ext.server_hlc = 'other';

-- Editors may, for themselves; viewers and others may not.
select sync_create_workspace('team', 'ann'), sync_set_member('team', 'bob', 'editor'), sync_set_member('team', 'vic', 'viewer');
create role writes_from_sql;
grant execute on function sync_put, sync_patch, sync_delete to writes_from_sql;
grant usage on schema public to writes_from_sql;
set role writes_from_sql;
set sync_ext.user_id = 'bob';
select put('a', '{"n": 1}', ws => 'team');
select put('p', '{"day": 1}', 'diary', 'team');
select put('p', '{"by": "ann"}', 'diary', 'team');
select patch('a', '{"n": 2}', ws => 'team'), del('a', ws => 'team');
set sync_ext.user_id = 'ann';
select put('p', '{"day": 1}', 'diary', 'team');
select del('p', 'diary', 'team');
\set VERBOSITY terse
set sync_ext.user_id = 'vic';
select sync_put('team', 'tasks', 'a', '{}');
select sync_patch('team', 'tasks', 'a', '{"n": 1}');
select sync_delete('team', 'tasks', 'a');
set sync_ext.user_id = 'eve';
select sync_put('team', 'tasks', 'a', '{}');
select sync_put('nowhere', 'tasks', 'a', '{}');
reset sync_ext.user_id;
select put('trusted', '{"by": "ann"}', 'diary', 'team');
select put('nobody', '{}', 'diary', 'team');
set sync_ext.server_hlc = 'iso';
reset role;
revoke execute on function sync_put from writes_from_sql;
set role writes_from_sql;
select sync_put('team', 'tasks', 'a', '{}');
reset role;
select pk, payload from sync_ext.current_record where table_name = 'diary' order by 1;

drop owned by writes_from_sql;
drop role writes_from_sql;
