-- A server that lost history says so at the next pull with a proof, also when
-- the same version numbers were used again.
\ir ../prelude.sql
create function push(op integer, pk text) returns text language sql as $$
  select push_op(op, 'put', pk, 1) ->> 'serverVersion'
$$;
select push(1, 'a'), push(2, 'b');
-- A device reads to version 2; then another one to version 4.
select sync_pull('w') ->> 'proof' as proof2 \gset
select push(3, 'c'), push(4, 'd');
select sync_pull('w') ->> 'proof' as proof4 \gset

-- The server is restored to when its head was 3.
delete from sync_ext.change_log where server_version = 4;
delete from sync_ext.record where server_version = 4;
update sync_ext.workspace set head = 3;

-- The first device has lost nothing.
select sync_pull('w', 2, proof => :'proof2')::jsonb - 'proof' - 'changes';
-- The second has: with its proof or by its cursor alone it is told.
select sync_pull('w', 4, proof => :'proof4')::jsonb - 'proof';
select sync_pull('w', 4)::jsonb - 'proof';
-- A proof that was given is given back: a new one would hide the loss.
select sync_pull('w', 4, proof => :'proof4') ->> 'proof' = :'proof4';
select sync_pull('w', 4) ->> 'proof';
-- It cannot acknowledge what the server does not know.
select sync_update_cursor('w', 'phone', 4);
\echo :LAST_ERROR_SQLSTATE

-- Version 4 is used again, by the very same op: its number is the same, its
-- history is not.
select push(4, 'd');
select sync_pull('w', 4)::jsonb - 'proof';
select sync_pull('w', 4, proof => :'proof4')::jsonb - 'proof';
-- Also below its cursor, and before any other reason.
select push(5, 'e');
select sync_pull('w', 2, proof => :'proof4') ->> 'reason';
select sync_pull('w', 9, proof => :'proof4') ->> 'reason';

-- It recovers by snapshot.
select sync_snapshot('w') as snapshot \gset
select sync_pull('w', ((:'snapshot'::json) ->> 'highWatermark')::bigint, proof => (:'snapshot'::json) ->> 'proof')::jsonb - 'proof';

-- A proof of another workspace fails; so does a workspace that is gone.
select sync_push('v', '[{"tableName": "notes", "operation": "put", "pk": "a", "payload": {},
  "stamp": {"deviceId": "d", "opId": "00000001-0000-4000-8000-000000000000", "hlc": "h", "clock": 1}}]'::json) ->> 'serverVersion';
select sync_pull('v') ->> 'proof' as proof_of_v \gset
select sync_pull('w', 1, proof => :'proof_of_v') ->> 'reason';
select sync_pull('gone', 0, proof => :'proof_of_v')::jsonb - 'proof';
select sync_pull('gone', 1) ->> 'reason';
