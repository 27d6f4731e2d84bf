-- What GC forgets, and what it never forgets.
\pset format unaligned
\pset tuples_only on
create extension sync_ext;
select sync_register_table('notes');
create function push(op integer, operation text, pk text, clock integer) returns json language sql as $$
  select sync_push('w', json_build_array(json_build_object(
    'tableName', 'notes', 'operation', operation, 'pk', pk, 'payload', case operation when 'put' then json_build_object('clock', clock) end,
    'stamp', json_build_object('deviceId', 'd', 'opId', lpad(op::text, 8, '0') || '-0000-4000-8000-000000000000',
                               'hlc', 'h', 'clock', clock)))) -> 'results' -> 0
$$;
select push(1, 'put', 'a', 1), push(2, 'delete', 'a', 5), push(3, 'put', 'b', 1);
select sync_pull('w', 3) ->> 'proof' as proof3 \gset
update sync_ext.change_log set created_at = created_at - interval '40 days' where server_version < 3;
select sync_gc();

-- The tombstone's entry is gone; its record row stays as a grave.
select server_version, operation, pk from sync_ext.change_log;
select pk, deleted, payload, server_version from sync_ext.current_record order by pk;
select pk, server_version, deleted_at from sync_ext.tombstone;

-- An old put that arrives now still loses, to the grave. So does the very
-- delete that was purged: it is a new op again.
select push(4, 'put', 'a', 4);
select push(2, 'delete', 'a', 5);
select push(1, 'put', 'a', 1);
-- A newer put brings the record back.
select push(5, 'put', 'a', 6);

-- Who has not seen the purged delete must start from a snapshot, cursor 0
-- included. From the horizon on, pulling goes on.
select sync_pull('w', 0)::jsonb - 'proof';
select sync_pull('w', 1)::jsonb - 'proof';
select json_array_length(sync_pull('w', 2) -> 'changes');
-- The proof that was taken at 3 holds: that entry was not purged.
select sync_pull('w', 3, proof => :'proof3') ->> 'requiresSnapshot';

-- A proof whose entry GC has purged is expired, not diverged.
select push(6, 'put', 'b', 2), push(7, 'put', 'b', 3);
update sync_ext.change_log set created_at = created_at - interval '40 days' where server_version between 3 and 8;
select sync_gc();
select server_version from sync_ext.change_log order by 1;
select sync_pull('w', 3, proof => :'proof3')::jsonb - 'proof';
select sync_pull('w', 3, proof => :'proof3') ->> 'proof' = :'proof3';
