-- What GC forgets, and what it never forgets.
\ir ../prelude.sql
select push_op(1, 'put', 'a', 1), push_op(2, 'delete', 'a', 5), push_op(3, 'put', 'b', 1);
select sync_pull('w', 3) ->> 'proof' as proof3 \gset
update sync_ext.change_log set created_at = created_at - interval '40 days' where server_version < 3;
select sync_gc('w');

-- The tombstone's entry is gone; its record row stays as a grave.
select server_version, operation, pk from sync_ext.change_log;
select pk, deleted, payload, server_version from sync_ext.current_record order by pk;
select pk, server_version, deleted_at from sync_ext.tombstone;

-- An old put that arrives now still loses, to the grave. So does the very
-- delete that was purged: it is a new op again.
select push_op(4, 'put', 'a', 4);
select push_op(2, 'delete', 'a', 5);
select push_op(1, 'put', 'a', 1);
-- A newer put brings the record back.
select push_op(5, 'put', 'a', 6);

-- Who has not seen the purged delete must start from a snapshot, cursor 0
-- included. From the horizon on, pulling goes on.
select sync_pull('w', 0)::jsonb - 'proof';
select sync_pull('w', 1)::jsonb - 'proof';
select json_array_length(sync_pull('w', 2) -> 'changes');
-- The proof that was taken at 3 holds: that entry was not purged.
select sync_pull('w', 3, proof => :'proof3') ->> 'requiresSnapshot';

-- A proof whose entry GC has purged is expired, not diverged.
select push_op(6, 'put', 'b', 2), push_op(7, 'put', 'b', 3);
update sync_ext.change_log set created_at = created_at - interval '40 days' where server_version between 3 and 8;
select sync_gc('w');
select server_version from sync_ext.change_log order by 1;
select sync_pull('w', 3, proof => :'proof3')::jsonb - 'proof';
select sync_pull('w', 3, proof => :'proof3') ->> 'proof' = :'proof3';
