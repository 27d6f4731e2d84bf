-- What an operator sees of a workspace with a dead device, a conflict, a
-- tombstone that is due, and a grave.
\ir ../prelude.sql
select sync_register_table('diary', owner_field => 'by');
create function pg_temp.op(n integer, pk text, clock integer, operation text default 'put', tab text default 'notes') returns text
language sql as $$ select format('{"tableName": "%s", "operation": "%s", "pk": "%s", "payload": {"n": %s},
  "stamp": {"deviceId": "d%s", "opId": "00000000-0000-4000-8000-%s", "hlc": "h%s", "clock": %s}}',
  tab, operation, pk, n, n % 2, lpad(n::text, 12, '0'), n, clock) $$;
select sync_status();
select sync_create_workspace('team', 'ann'), sync_set_member('team', 'bob', 'editor');

-- A grave: deleted and purged.
select sync_push('team', ops(pg_temp.op(1, 'old', 2), pg_temp.op(2, 'old', 3, 'delete'), pg_temp.op(3, 'a', 1)));
update sync_ext.change_log set created_at = created_at - interval '31 days';
select sync_gc('team');
-- A conflict decided by each part of the revision, and a loser of a grave.
select sync_push('team', ops(pg_temp.op(4, 'a', 3), pg_temp.op(5, 'a', 2), pg_temp.op(7, 'b', 1), pg_temp.op(6, 'b', 1),
  pg_temp.op(8, 'old', 1), pg_temp.op(9, 'gone', 1)));
select sync_push('team', ops(replace(pg_temp.op(10, 'b', 1), 'h10', 'h7'), pg_temp.op(11, 'gone', 2, 'delete'), pg_temp.op(12, 'c', 1)));
select sync_update_cursor('team', 'phone', 12), sync_update_cursor('team', 'dead', 4), sync_update_cursor('team', 'laptop', 9);
-- One that comes back, from below the horizon.
select sync_update_cursor('team', 'back', 1);
update sync_ext.device_cursor set updated_at = updated_at - interval '100 days' where device_id = 'dead';
update sync_ext.change_log set created_at = created_at - interval '31 days' where server_version < 12;

select table_name, pk, decided_by, loser_version, loser_device_id, loser_operation, loser_payload, loser_revision from sync_ext.conflict order by loser_version;
select loser_version, winner_version, winner_device_id, winner_operation, winner_payload, winner_revision, winner_at is null as purged, loser_at < now() as before
  from sync_ext.conflict order by 1;
select device_id, user_id, last_seen_version, lag, heartbeat_age > interval '90 days' as silent, active, pins_gc from sync_ext.device_status order by 1;
select workspace_id, head, horizon, gc_through, live_records, tombstones, graves, log_rows, log_bytes > 0 as bytes, garbage_waiting, devices,
  active_devices, pinned_at, pinned_by from sync_ext.workspace_status;
select jsonb_pretty(sync_status('team')::jsonb #- '{workspaces,0,logBytes}' #- '{workspaces,0,devices}');
select d ->> 'deviceId', d ->> 'lag', d ->> 'active', d ->> 'pinsGc', (d ->> 'heartbeatAgeSeconds')::numeric >= 0
  from json_array_elements(sync_status('team') #> '{workspaces,0,devices}') as d;
select sync_status('nobody knows it');

-- A record's history and what holds its tombstone.
create function pg_temp.told(explained json) returns setof text language sql as $$
  select jsonb_pretty(explained::jsonb - 'ops' - 'workspaceId' #- '{purge,dueAt}')
  union all
  select (op - 'createdAt' - 'stamp')::text from jsonb_array_elements(explained::jsonb -> 'ops') as op $$;
select pg_temp.told(sync_explain('team', 'notes', 'gone'));
select pg_temp.told(sync_explain('team', 'notes', 'b'));
select pg_temp.told(sync_explain('team', 'notes', 'a'));
select pg_temp.told(sync_explain('team', 'notes', 'old'));
select pg_temp.told(sync_explain('team', 'notes', 'never'));
select (sync_explain('team', 'notes', 'gone') #>> '{purge,dueAt}')::timestamptz - (sync_explain('team', 'notes', 'gone') #>> '{ops,-1,createdAt}')::timestamptz;
begin;
update sync_ext.change_log set created_at = now() where server_version = 9;
select sync_explain('team', 'notes', 'gone') #> '{purge,isDue}';
rollback;
select sync_explain('team', null, 'a') ->> 'state';
select sync_explain(null, 'notes', 'a');
\echo :LAST_ERROR_SQLSTATE

-- When the device that holds it has come past it, it goes.
select sync_update_cursor('team', 'laptop', 11) ->> 'advanced';
select sync_explain('team', 'notes', 'gone') #> '{purge,heldBy}', sync_explain('team', 'notes', 'gone') #> '{devices,2,hasSeenWinner}';
call sync_gc_all(batch_size => 3);
select sync_explain('team', 'notes', 'gone') ->> 'state';
select sync_update_cursor('team', 'laptop', 12) ->> 'advanced';
select sync_explain('team', 'notes', 'gone') #> '{purge,heldBy}';
call sync_gc_all();
select sync_explain('team', 'notes', 'gone') ->> 'state';
select tombstones, graves, garbage_waiting, pinned_by from sync_ext.workspace_status;
select device_id, lag, pins_gc from sync_ext.device_status where active order by 1;
call sync_gc_all(time_budget => interval '0', pause => interval '0', retention => interval '1 minute');
\echo :LAST_ERROR_SQLSTATE
begin;
call sync_gc_all();
\echo :LAST_ERROR_SQLSTATE
rollback;

-- Of a batch that is begun all is read; what comes after it waits for the next call.
select sync_push('team', ops(pg_temp.op(13, 'c', 2), pg_temp.op(14, 'c', 3), pg_temp.op(15, 'c', 4, 'delete'))) -> 'serverVersion';
update sync_ext.change_log set created_at = created_at - interval '31 days' where server_version >= 12;
select sync_update_cursor('team', 'phone', 15) ->> 'advanced', sync_update_cursor('team', 'laptop', 15) ->> 'advanced';
call sync_gc_all(time_budget => interval '0', batch_size => 1);
call sync_gc_all(time_budget => null);
-- The entry at the head stays.
select sync_explain('team', 'notes', 'c') -> 'purge' -> 'isHead', sync_explain('team', 'notes', 'c') -> 'purge' -> 'isDue';

-- Users see what they own, and others' private records in counts alone.
set sync_ext.user_id = 'ann';
select sync_push('team', ops(pg_temp.op(20, 'mine', 2, tab => 'diary'), pg_temp.op(21, 'mine', 1, tab => 'diary'))) -> 'serverVersion';
select pk from sync_ext.conflict where table_name = 'diary';
select sync_explain('team', 'diary', 'mine') -> 'winner' ->> 'owner';
set sync_ext.user_id = 'bob';
select pk from sync_ext.conflict where table_name = 'diary';
select count(*) from sync_ext.workspace_status;
select count(*) from sync_ext.device_status;
select sync_explain('team', 'notes', 'a');
\echo :LAST_ERROR_SQLSTATE
select sync_status('team');
\echo :LAST_ERROR_SQLSTATE
select sync_status();
reset sync_ext.user_id;
select sync_set_member('team', 'bob', 'owner');
set sync_ext.user_id = 'bob';
select sync_explain('team', 'diary', 'mine') ->> 'state';
select workspace_id, live_records from sync_ext.workspace_status;
