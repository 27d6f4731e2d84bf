-- Acknowledging: registers a device, moves its cursor forward, is its heartbeat.
\ir ../prelude.sql

-- In an unknown workspace only 0 is possible, and nothing is stored.
select sync_update_cursor('w', 'phone', 0);
select sync_update_cursor('w', 'phone', 1);
\echo :LAST_ERROR_SQLSTATE
select count(*) from sync_ext.workspace;

select sync_push('w', (select json_agg(json_build_object('tableName', 'notes', 'operation', 'put', 'pk', n::text, 'payload', json_build_object('n', n),
  'stamp', json_build_object('deviceId', 'd', 'opId', lpad(n::text, 8, '0') || '-0000-4000-8000-000000000000', 'hlc', 'h', 'clock', 1)))
  from generate_series(1, 5) n)) ->> 'serverVersion';

-- The first call registers the device, at 0 too.
select sync_update_cursor('w', 'phone', 0);
select sync_update_cursor('w', 'tablet', 5);
-- Forward.
select sync_update_cursor('w', 'phone', 3);
-- Never backward: only the heartbeat moves.
update sync_ext.device_cursor set updated_at = updated_at - interval '1 day';
select sync_update_cursor('w', 'phone', 2);
select sync_update_cursor('w', 'phone', 3);
select device_id, last_seen_version, updated_at > now() - interval '1 hour' as beats from sync_ext.device_cursor order by 1;
-- Never above the head.
select sync_update_cursor('w', 'phone', 6);
\echo :LAST_ERROR_SQLSTATE
-- A version that a push of the same statement gave is fine.
select sync_push('w', '[{"tableName": "notes", "operation": "put", "pk": "x", "payload": {},
  "stamp": {"deviceId": "d", "opId": "00000000-0000-4000-8000-000000000006", "hlc": "h", "clock": 1}}]'::json) ->> 'serverVersion',
  sync_update_cursor('w', 'phone', 6), sync_update_cursor('w', 'phone', 5);
