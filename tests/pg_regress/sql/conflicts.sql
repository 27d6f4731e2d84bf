-- Last writer wins by (clock, hlc, opId): clock as a number, hlc and opId by
-- bytes. A loser is logged and told who won.
\ir ../prelude.sql
create function put(op integer, clock integer, hlc text, text text) returns jsonb language sql as $$
  select push_op(op, 'put', 'a', clock, json_build_object('text', text), hlc => hlc)::jsonb
$$;

-- The first op wins.
select put(10, 9, 'a', 'first');
-- A higher clock wins, compared as a number: 10 > 9.
select put(20, 10, 'a', 'clock');
-- Equal clocks: the higher hlc wins, compared by bytes: 'a' > 'Z'.
select put(30, 10, 'Z', 'lower hlc');
select put(40, 10, 'b', 'higher hlc');
-- Equal hlc too: the higher opId wins.
select put(39, 10, 'b', 'lower opId');
select put(41, 10, 'b', 'higher opId');
-- A lower clock loses whatever else it has.
select put(99, 9, 'zzz', 'late');

-- The log tells what each op did; the record is the winner's.
select server_version, applied, supersedes, payload from sync_ext.change_log order by 1;
select table_name, pk, payload, deleted, revision, server_version from sync_ext.current_record;

-- A put replaces the whole payload: nothing is merged.
-- Ops of one batch see each other in order; the winner that is told is the
-- record's at the end of the call.
select jsonb_pretty(sync_push('w', '[
  {"tableName": "notes", "operation": "put", "pk": "b", "payload": {"n": 2},
   "stamp": {"deviceId": "d", "opId": "00000000-0000-4000-8000-000000000002", "hlc": "h", "clock": 2}},
  {"tableName": "notes", "operation": "put", "pk": "b", "payload": {"n": 1},
   "stamp": {"deviceId": "d", "opId": "00000000-0000-4000-8000-000000000001", "hlc": "h", "clock": 1}},
  {"tableName": "notes", "operation": "put", "pk": "b", "payload": {"n": 3},
   "stamp": {"deviceId": "d", "opId": "00000000-0000-4000-8000-000000000003", "hlc": "h", "clock": 3}}
]'::json)::jsonb);

-- A replay tells whether its op is the winner now.
select jsonb_pretty(sync_push('w', '[
  {"tableName": "notes", "operation": "put", "pk": "b", "payload": {"n": 2},
   "stamp": {"deviceId": "d", "opId": "00000000-0000-4000-8000-000000000002", "hlc": "h", "clock": 2}},
  {"tableName": "notes", "operation": "put", "pk": "b", "payload": {"n": 3},
   "stamp": {"deviceId": "d", "opId": "00000000-0000-4000-8000-000000000003", "hlc": "h", "clock": 3}}
]'::json)::jsonb);
