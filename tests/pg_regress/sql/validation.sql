-- A bad op gets its own error; its neighbours land, with contiguous versions.
\ir ../prelude.sql
select sync_register_table('people', 'email');
set sync_ext.max_payload_bytes = '64B';

-- A good op with one key replaced by raw JSON, or left out.
create function op(n integer, key text default '', raw text default '') returns text language sql as $$
  select '{' || string_agg(format('%s:%s', to_json(name), case when name = key then raw else value end), ',') || '}'
  from (values ('tableName', '"notes"'), ('operation', '"put"'), ('pk', '"p"'), ('payload', '{}'), ('deviceId', '"d"'),
               ('opId', format('"%s-0000-4000-8000-000000000000"', lpad(n::text, 8, '0'))), ('hlc', '"h"'), ('clock', n::text)) as f (name, value)
  where name <> key or raw <> ''
$$;
create table bad (n integer generated always as identity, key text, raw text);
insert into bad (key, raw) values
  ('operation', ''), ('operation', 'null'), ('operation', '"upsert"'), ('operation', '1'),
  ('tableName', ''), ('tableName', '""'), ('tableName', '7'), ('tableName', to_json(repeat('t', 129))::text), ('tableName', '"a\u0000"'), ('tableName', '"\ud800"'), ('tableName', '"unknown"'),
  ('pk', ''), ('pk', 'null'), ('pk', '""'), ('pk', '5'), ('pk', to_json(repeat('p', 1025))::text), ('pk', '"\u0000"'), ('pk', '"\udc00"'),
  ('payload', ''), ('payload', 'null'), ('payload', '[]'), ('payload', '"{}"'), ('payload', '1'),
  ('payload', json_build_object('id', 'p', 'x', repeat('x', 64))::text),
  ('payload', '{"id": "q"}'), ('payload', '{"id": null}'), ('payload', '{"id": ["p"]}'), ('payload', '{"workspace_id": "v"}'),
  ('opId', ''), ('opId', 'null'), ('opId', '5'), ('opId', '"x"'), ('opId', '"00000000000040008000000000000000"'), ('opId', '{"a": 1}'),
  ('deviceId', ''), ('deviceId', '""'), ('deviceId', to_json(repeat('d', 257))::text),
  ('hlc', ''), ('hlc', '""'), ('hlc', to_json(repeat('h', 513))::text),
  ('clock', ''), ('clock', '"1"'), ('clock', '-1'), ('clock', '1.0'), ('clock', '1e3'), ('clock', '9007199254740992'), ('clock', '1e999999');

-- Each of them between two good ops: what the bad one is told, and that the
-- others land on the next two versions.
create function sandwich(n integer, bad text) returns text language sql as $$
  select concat_ws(' ', r -> 'results' -> 1 ->> 'errorCode', r -> 'results' -> 1 ->> 'error',
    'neighbours', r -> 'results' -> 0 ->> 'serverVersion', r -> 'results' -> 2 ->> 'serverVersion', 'head', r ->> 'serverVersion')
  from sync_push('w', format('[%s,%s,%s]', op(n * 10), bad, op(n * 10 + 2))::json) r
$$;
select key, left(raw, 30), sandwich(n, op(n * 10 + 1, key, raw)) from bad order by n;
-- Things that are not even objects.
select bad, sandwich(100 + ordinality::integer, bad)
  from unnest(array['null', 'true', '1', '1e999999', '"x"', '[]', '[[{}]]', '{}']) with ordinality as u (bad, ordinality) order by ordinality;
-- No gap, none twice.
select count(*), min(server_version), max(server_version) from sync_ext.change_log;
select head from sync_ext.workspace;

-- The opId is echoed as given, or null.
select r -> 'opId' from sync_push('w', '[{"opId": 5}, {"opId": {"a":  1}}, {"opId": "x"}, {}, 1]'::json) p, json_array_elements(p -> 'results') r;

-- Things at their limits are fine.
select r ->> 'success' from sync_push('w', format('[%s,%s,%s,%s,%s,%s]',
  op(2000, 'pk', to_json(repeat('é', 512))::text), op(2001, 'deviceId', to_json(repeat('d', 256))::text), op(2002, 'hlc', to_json(repeat('h', 512))::text),
  op(2003, 'clock', '9007199254740991'), op(2004, 'payload', json_build_object('x', repeat('x', 54))::text), op(2005, 'clock', '0'))::json) p, json_array_elements(p -> 'results') r;

-- The payload must agree with the op where it says the same: the registered
-- pk field, here of another name, and workspace_id. A number equals its text.
select r ->> 'error' from sync_push('w', format('[%s,%s,%s,%s,%s]',
  replace(op(3000, 'payload', '{"email": "p", "id": "q"}'), 'notes', 'people'), replace(op(3001, 'payload', '{"email": "q"}'), 'notes', 'people'),
  op(3002, 'payload', '{"id": "p", "workspace_id": "w"}'), replace(op(3003, 'payload', '{"id": 7}'), '"p"', '"7"'),
  op(3004, 'payload', '{"id": "q", "id": "p"}'))::json) p, json_array_elements(p -> 'results') r;

-- Flat keys, snake case, and a stamp: the stamp goes first, camel case before snake case.
select sync_push('w', '[
  {"table_name": "notes", "operation": "put", "pk": "s", "payload": {}, "device_id": "d", "op_id": "0000aaaa-0000-4000-8000-000000000001", "hlc": "h", "clock": 1},
  {"tableName": "notes", "table_name": "nothing", "operation": "put", "pk": "s", "payload": {}, "clock": 1, "hlc": "flat", "opId": "ignored",
   "stamp": {"device_id": "d", "op_id": "0000aaaa-0000-4000-8000-000000000002", "hlc": "stamped", "clock": 2, "clock": 3}},
  {"tableName": "notes", "operation": "put", "pk": "s", "payload": {}, "deviceId": "d", "opId": "0000aaaa-0000-4000-8000-000000000003", "hlc": "h", "clock": 4, "stamp": "not an object"}
]'::json) ->> 'serverVersion';
select clock, hlc, device_id from sync_ext.change_log order by server_version desc limit 3;

-- A payload is kept byte for byte, whatever is in it.
set sync_ext.max_payload_bytes = '256kB';
select payload from sync_push('w', format('[%s]', op(4000, 'payload', E'{ "big" : 123456789012345678901234567890.10e+400,\n"nul":"\\u0000", "lone":"\\ud800","é":[1,2 , 3],"é":null }'))::json),
  lateral (select payload from sync_ext.change_log order by server_version desc limit 1) l;
select payload from sync_ext.change_log order by server_version desc limit 1;

-- Nesting has a limit of its own, the payload being level 1; brackets in strings are
-- none. Its neighbours are not harmed, and what was stored once stays a replay.
select r ->> 'success', r ->> 'errorCode', r ->> 'error' from sync_push('w', format('[%s,%s,%s]',
  op(4010, 'payload', '{"a":' || repeat('[', 99) || repeat(']', 99) || '}'), op(4011, 'payload', '{"a":' || repeat('[', 100) || repeat(']', 100) || '}'),
  op(4012, 'payload', '{"a":"' || repeat('[', 200) || '"}'))::json) p, json_array_elements(p -> 'results') r;
set sync_ext.max_payload_depth = 2;
select r ->> 'success', r ->> 'replayed', r ->> 'error' from sync_push('w', format('[%s,%s,%s]',
  op(4010, 'payload', '{"a" : ' || repeat('[', 99) || repeat(']', 99) || '}'), op(4013, 'payload', '{"a":[1,{}]}'), op(4014, 'payload', '{"a":{"b":1}}'))::json) p, json_array_elements(p -> 'results') r;
set sync_ext.max_payload_depth = 100000;
select sync_push('w', format('[%s]', op(4001, 'payload', '{"a":' || repeat('[', 3000) || repeat(']', 3000) || '}'))::json) -> 'results' -> 0 ->> 'success';
select sync_push('w', format('[%s]', op(4001, 'payload', '{"a": ' || repeat('[', 3000) || repeat(']', 3000) || '}'))::json) -> 'results' -> 0 ->> 'replayed';
