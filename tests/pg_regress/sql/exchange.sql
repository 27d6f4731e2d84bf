-- A device's whole round in one call: push, acknowledge, pull.
\ir ../prelude.sql
create function pg_temp.op(n integer, pk text, clock integer, operation text default 'put') returns text
language sql as $$ select format('{"tableName": "notes", "operation": "%s", "pk": "%s", "payload": {},
  "stamp": {"deviceId": "d%s", "opId": "00000000-0000-4000-8000-%s", "hlc": "h", "clock": %s}}',
  operation, pk, n, lpad(n::text, 12, '0'), clock) $$;

-- At cursor 0 nothing has been seen, so the device is not registered yet. What
-- is pushed is pulled too.
select sync_exchange('w', 'phone', 0, ops(pg_temp.op(1, 'a', 1), pg_temp.op(2, 'b', 1)))::jsonb #- '{pull,proof}';
select count(*) from sync_ext.device_cursor;
select sync_exchange('w', 'phone', 2, '[]')::jsonb #- '{pull,proof}';
select device_id, last_seen_version from sync_ext.device_cursor;

-- Both halves are what the single calls would answer.
select sync_exchange('w', 'phone', 2, ops(pg_temp.op(3, 'a', 2), pg_temp.op(4, 'a', 1)), 1, '{notes}', true) as exchanged \gset
select :'exchanged'::json -> 'push' ->> 'serverVersion', (:'exchanged'::json -> 'pull')::text = sync_pull('w', 2, 1, '{notes}', true)::text,
  (:'exchanged'::json -> 'push')::text = replace(sync_push('w', ops(pg_temp.op(3, 'a', 2), pg_temp.op(4, 'a', 1)))::text, ',"replayed":true', '');
select sync_pull('w', 2, 1, '{notes}', true) -> 'nextCursor';

-- A pull that must be refused leaves the push; nothing is acknowledged.
select sync_exchange('w', 'tablet', 70, ops(pg_temp.op(5, 'c', 1)))::jsonb;
select sync_exchange('w', 'tablet', 2, ops(pg_temp.op(6, 'd', 1)), proof => 'p1.2.00000000000000000000000000000000')::jsonb;
select sync_exchange('new', 'tablet', 3, ops(pg_temp.op(7, 'd', 1)))::jsonb;
select device_id, last_seen_version from sync_ext.device_cursor;

-- A cursor behind the device's moves nothing back.
select sync_exchange('w', 'phone', 1, '[]', 1)::jsonb -> 'pull' -> 'nextCursor';
select device_id, last_seen_version from sync_ext.device_cursor;

-- An error of either half stores nothing.
select sync_exchange('w', 'phone', -1, ops(pg_temp.op(8, 'e', 1)));
\echo :LAST_ERROR_SQLSTATE
select sync_exchange('w', 'phone', 2, ops(pg_temp.op(8, 'e', 1)), proof => 'x');
\echo :LAST_ERROR_SQLSTATE
select sync_exchange('w', null, 2, ops(pg_temp.op(8, 'e', 1)));
\echo :LAST_ERROR_SQLSTATE
select sync_exchange(null, 'phone', 2, ops(pg_temp.op(8, 'e', 1)));
\echo :LAST_ERROR_SQLSTATE
select sync_exchange('w', 'phone', 2, '{}');
\echo :LAST_ERROR_SQLSTATE
select sync_exchange('w', 'phone', 2, null);
\echo :LAST_ERROR_SQLSTATE
select head from sync_ext.workspace where workspace_id = 'w';

-- Who may only pull may not exchange; a device belongs to its user.
select sync_create_workspace('team', 'ann'), sync_set_member('team', 'vic', 'viewer');
set sync_ext.user_id = 'vic';
select sync_exchange('team', 'phone', 0, '[]');
\echo :LAST_ERROR_SQLSTATE
set sync_ext.user_id = 'ann';
select sync_exchange('team', 'phone', 0, ops(pg_temp.op(9, 'a', 1))) -> 'push' -> 'serverVersion';
select sync_exchange('team', 'phone', 1, '[]') -> 'pull' -> 'changes';
reset sync_ext.user_id;
select device_id, user_id, last_seen_version from sync_ext.device_cursor where user_id <> '';
