-- GC purges losers, what was superseded, and old tombstones' entries; never
-- what is young, what an active device has still to see, or the head.
\ir ../prelude.sql
create function push(op integer, operation text, pk text, clock integer) returns text language sql as $$
  select push_op(op, operation, pk, clock) ->> 'serverVersion'
$$;
create procedure age() language sql as $$
  update sync_ext.change_log set created_at = created_at - interval '40 days' where created_at > now() - interval '30 days';
  update sync_ext.workspace set unread_since = unread_since - interval '40 days' where unread_since > now() - interval '30 days'
$$;
create procedure silence(device text, span interval) language sql as $$
  update sync_ext.device_cursor set updated_at = now() - span where device_id = device;
  update sync_ext.workspace set pinned_since = pinned_since - span, devices_since = devices_since - span
$$;
create view log as select string_agg(concat(server_version, ':', operation, ' ', pk), ', ' order by server_version) from sync_ext.change_log;
create view progress as select head, horizon, gc_through from sync_ext.workspace where workspace_id = 'w';

-- Nothing to do: no workspace, or an unknown one.
select sync_gc();
select sync_gc('w');

select push(1, 'put', 'a', 1), push(2, 'put', 'a', 2), push(3, 'put', 'a', 1), push(4, 'put', 'b', 1), push(5, 'delete', 'b', 2), push(6, 'put', 'c', 1), push(7, 'put', 'c', 2);

-- Everything is young.
select sync_gc();
select * from log;

-- Now all is old. The entry at the head stays, and what only it supersedes.
call age();
select sync_gc();
select * from log;
select * from progress;
-- GC has read that; there is nothing new.
select sync_gc();

-- A device that has still to see version 7 holds back what comes after it;
-- the entry at its cursor stays for its proof.
select sync_update_cursor('w', 'phone', 7) ->> 'advanced';
select push(8, 'put', 'c', 3), push(9, 'delete', 'a', 3), push(10, 'put', 'd', 1);
call age();
select sync_gc();
select * from log;
select sync_update_cursor('w', 'phone', 9) ->> 'advanced';
select sync_gc();
select * from log;
select * from progress;

-- A device that has been silent for sync_ext.device_ttl holds back nothing;
-- after twice that it is forgotten.
select sync_update_cursor('w', 'phone', 10) ->> 'advanced', sync_update_cursor('w', 'watch', 9) ->> 'advanced';
select push(11, 'put', 'd', 2), push(12, 'put', 'd', 3);
call age();
call silence('watch', interval '91 days');
select sync_gc();
select * from progress;
call silence('watch', interval '181 days');
select sync_gc();
select device_id from sync_ext.device_cursor;

-- A device below the horizon must snapshot anyway; it holds back nothing.
select sync_forget_device('w', 'phone'), sync_update_cursor('w', 'phone', 3) ->> 'lastSeenVersion';
select push(13, 'put', 'd', 4), push(14, 'put', 'd', 5);
call age();
select sync_gc();
select * from progress;

-- Retention: a prefix of the log, up to the first young entry.
delete from sync_ext.device_cursor;
select push(15, 'put', 'e', 1), push(16, 'put', 'e', 2), push(17, 'put', 'e', 3), push(18, 'put', 'e', 4);
update sync_ext.change_log set created_at = now() - interval '3 hours' where server_version = 15;
update sync_ext.change_log set created_at = now() - interval '1 hours' where server_version = 16;
update sync_ext.change_log set created_at = now() - interval '3 hours' where server_version = 17;
select sync_gc('w', '2 hours');
select * from progress;
select sync_gc('w', '1 hour');
select * from progress;

-- Batches: at most batch_size entries a call, over all workspaces.
call age();
select push(19, 'put', 'e', 5), push(20, 'put', 'e', 6), push(21, 'put', 'e', 7);
call age();
select sync_gc(batch_size => 1);
select sync_gc(batch_size => 1);
select sync_gc(batch_size => 1);
select * from log;

-- Several workspaces share the batch.
select sync_push(workspace, (select json_agg(json_build_object('tableName', 'notes', 'operation', 'put', 'pk', 'a', 'payload', json_build_object('n', n),
  'stamp', json_build_object('deviceId', 'd', 'opId', lpad(n::text, 8, '0') || '-0000-4000-8000-000000000000', 'hlc', 'h', 'clock', n)))
  from generate_series(1, 5) n)) ->> 'serverVersion' from unnest(array['x', 'y', 'z']) workspace;
call age();
select sync_gc(batch_size => 6);
select sync_gc(batch_size => 6);
select sync_gc(batch_size => 6);

-- A live record has its payload, whatever its age.
select pk, payload from sync_ext.current_record order by pk;
