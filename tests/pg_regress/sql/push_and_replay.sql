-- A push stores a batch of ops; pushing it again stores nothing.
\ir ../prelude.sql

-- An empty batch answers the head; neither it nor a batch of which nothing is
-- accepted creates a workspace.
select sync_push('w', '[]'::json);
select sync_push('w', '[{"tableName": "nothing", "operation": "delete", "pk": "a",
   "stamp": {"deviceId": "phone", "opId": "00000000-0000-4000-8000-000000000000", "hlc": "h", "clock": 1}}]'::json);
select count(*) from sync_ext.workspace;

-- Two ops get the versions 1 and 2. Keys that are not ours are ignored.
select sync_push('w', '[
  {"tableName": "notes", "operation": "put", "pk": "a", "payload": {"id": "a", "text": "hello"},
   "stamp": {"deviceId": "phone", "opId": "00000000-0000-4000-8000-000000000001", "hlc": "2026-01-01T00:00:00Z-0", "clock": 1},
   "status": "pending", "attempts": 3},
  {"tableName": "notes", "operation": "put", "pk": "b", "payload": {"id": "b", "text": "world"},
   "stamp": {"deviceId": "phone", "opId": "00000000-0000-4000-8000-000000000002", "hlc": "2026-01-01T00:00:01Z-0", "clock": 1}}
]'::json);

-- The answer was lost; the phone sends the batch again, with a new op behind
-- it. Spelling is irrelevant: white space, key order, escapes, letter case of
-- the opId, which is echoed as given.
select sync_push('w', '[
  {"stamp": {"clock": 1, "hlc": "2026-01-01T00:00:00Z-0", "opId": "00000000-0000-4000-8000-000000000001", "deviceId": "phone"},
   "pk": "\u0061", "operation": "put", "tableName": "notes", "payload": {"text":"\u0068ello","id":"a"}},
  {"tableName": "notes", "operation": "put", "pk": "b", "payload": {"id": "b", "text": "world"},
   "stamp": {"deviceId": "phone", "opId": "00000000-0000-4000-8000-000000000002", "hlc": "2026-01-01T00:00:01Z-0", "clock": 1}},
  {"tableName": "notes", "operation": "put", "pk": "c", "payload": {"id": "c"},
   "stamp": {"deviceId": "phone", "opId": "ABCDEFAB-0000-4000-8000-000000000003", "hlc": "2026-01-01T00:00:02Z-0", "clock": 1}}
]'::json);

-- An opId says one thing for ever: other content under it is a CONFLICT.
select sync_push('w', '[
  {"tableName": "notes", "operation": "put", "pk": "a", "payload": {"id": "a", "text": "HELLO"},
   "stamp": {"deviceId": "phone", "opId": "00000000-0000-4000-8000-000000000001", "hlc": "2026-01-01T00:00:00Z-0", "clock": 1}}
]'::json);

-- Of another record too, which is new; its neighbours land.
select sync_push('w', '[
  {"tableName": "notes", "operation": "put", "pk": "x", "payload": {"id": "x"},
   "stamp": {"deviceId": "phone", "opId": "00000000-0000-4000-8000-0000000000a6", "hlc": "h", "clock": 1}},
  {"tableName": "notes", "operation": "put", "pk": "new", "payload": {"id": "new"},
   "stamp": {"deviceId": "phone", "opId": "00000000-0000-4000-8000-000000000001", "hlc": "h", "clock": 1}},
  {"tableName": "notes", "operation": "put", "pk": "y", "payload": {"id": "y"},
   "stamp": {"deviceId": "phone", "opId": "00000000-0000-4000-8000-0000000000a7", "hlc": "h", "clock": 1}}
]'::json);

-- Even of a table that nobody registered.
select sync_push('w', '[
  {"tableName": "unheard", "operation": "put", "pk": "new", "payload": {"id": "new"},
   "stamp": {"deviceId": "phone", "opId": "00000000-0000-4000-8000-000000000002", "hlc": "h", "clock": 1}}
]'::json);

-- The same op twice in one batch is one op with one result; different ops
-- under one opId refuse each other.
select sync_push('w', '[
  {"tableName": "notes", "operation": "put", "pk": "d", "payload": {"id": "d"},
   "stamp": {"deviceId": "phone", "opId": "00000000-0000-4000-8000-000000000004", "hlc": "h", "clock": 1}},
  {"tableName": "notes", "operation": "put", "pk": "e", "payload": {"id": "e"},
   "stamp": {"deviceId": "phone", "opId": "00000000-0000-4000-8000-000000000005", "hlc": "h", "clock": 1}},
  {"tableName": "notes", "operation": "put", "pk": "d", "payload": {"id": "d"},
   "stamp": {"deviceId": "phone", "opId": "00000000-0000-4000-8000-000000000004", "hlc": "h", "clock": 1}},
  {"tableName": "notes", "operation": "put", "pk": "e", "payload": {"id": "e"},
   "stamp": {"deviceId": "phone", "opId": "00000000-0000-4000-8000-000000000005", "hlc": "h", "clock": 2}}
]'::json);

-- opIds of different workspaces never meet.
select sync_push('other', '[
  {"tableName": "notes", "operation": "put", "pk": "a", "payload": {"id": "a", "text": "elsewhere"},
   "stamp": {"deviceId": "phone", "opId": "00000000-0000-4000-8000-000000000001", "hlc": "h", "clock": 1}}
]'::json);

-- A replay stays a replay whatever the rules became.
select sync_unregister_table('notes');
set sync_ext.max_payload_bytes = '2B';
select sync_push('w', '[
  {"tableName": "notes", "operation": "put", "pk": "b", "payload": {"id": "b", "text": "world"},
   "stamp": {"deviceId": "phone", "opId": "00000000-0000-4000-8000-000000000002", "hlc": "2026-01-01T00:00:01Z-0", "clock": 1}},
  {"tableName": "notes", "operation": "put", "pk": "f", "payload": {"id": "f"},
   "stamp": {"deviceId": "phone", "opId": "00000000-0000-4000-8000-000000000006", "hlc": "h", "clock": 1}}
]'::json);
reset sync_ext.max_payload_bytes;
select sync_register_table('notes');

-- Several pushes in one statement see each other.
select sync_push('w', '[{"tableName": "notes", "operation": "put", "pk": "g", "payload": {},
   "stamp": {"deviceId": "phone", "opId": "00000000-0000-4000-8000-000000000007", "hlc": "h", "clock": 1}}]'::json),
  sync_push('w', '[{"tableName": "notes", "operation": "put", "pk": "g", "payload": {},
   "stamp": {"deviceId": "phone", "opId": "00000000-0000-4000-8000-000000000007", "hlc": "h", "clock": 1}}]'::json);

-- A push that is rolled back leaves no gap.
begin;
savepoint before;
select sync_push('w', '[{"tableName": "notes", "operation": "put", "pk": "h", "payload": {},
   "stamp": {"deviceId": "phone", "opId": "00000000-0000-4000-8000-000000000008", "hlc": "h", "clock": 1}}]'::json);
rollback to before;
select sync_push('w', '[{"tableName": "notes", "operation": "put", "pk": "i", "payload": {},
   "stamp": {"deviceId": "phone", "opId": "00000000-0000-4000-8000-000000000009", "hlc": "h", "clock": 1}}]'::json);
commit;
select workspace_id, server_version, pk, applied from sync_ext.change_log join sync_ext.workspace using (workspace_key) order by 1, 2;
