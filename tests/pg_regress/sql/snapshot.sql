-- Bootstrap: the current state in pages, then pull from its watermark.
\ir ../prelude.sql
select sync_register_table('tags'), sync_register_table('Zoo');
create function push(op integer, tab text, operation text, pk text, clock integer, payload json default null) returns text language sql as $$
  select push_op(op, operation, pk, clock, payload, tab) ->> 'serverVersion'
$$;
create function gist(reply json) returns text language sql as $$
  select coalesce((select string_agg(concat(c ->> 'kind', ':', c ->> 'tableName', '/', c ->> 'pk', '@', c ->> 'serverVersion'), ' ') from json_array_elements(reply -> 'items') c), '-')
    || ' watermark ' || (reply ->> 'highWatermark') || case when reply ->> 'nextPageToken' is null then ' end' else ' more' end
$$;

-- An unknown workspace has nothing to list.
select sync_snapshot('w')::jsonb - 'snapshotId';

select push(1, 'notes', 'put', 'b', 1, '{"n":  1}');
select push(2, 'notes', 'put', 'a', 1, '{"n": 1}');
select push(3, 'tags', 'put', 'x', 1, '{}');
select push(4, 'tags', 'delete', 'x', 2, '{"gone": true}');
select push(5, 'Zoo', 'put', 'é', 1, '{}');
select push(6, 'notes', 'put', 'B', 1, '{}');

-- Rows and tombstones in byte order of table and pk.
select gist(sync_snapshot('w'));
select json_array_elements(sync_snapshot('w', tables => '{notes}') -> 'items');
select json_array_elements(sync_snapshot('w', tables => '{tags}') -> 'items')::jsonb - 'serverDeletedAt';
select (sync_snapshot('w') ->> 'proof') = (sync_pull('w') ->> 'proof');

-- Pages: the token goes back in as it came. The last page is not empty.
select sync_snapshot('w', null, 2) as page \gset
select gist(:'page');
select sync_snapshot('w', (:'page'::json) ->> 'nextPageToken', 2) as page2 \gset
select gist(:'page2');
select (:'page'::json) ->> 'snapshotId' = (:'page2'::json) ->> 'snapshotId' as same_snapshot;
-- Between two pages a record changes that is still to come, and one that was
-- listed already: the first is shown as it is now, the second comes by pull.
select push(7, 'tags', 'put', 'x', 3, '{"back": true}');
select push(8, 'Zoo', 'put', 'é', 2, '{"later": true}');
select sync_snapshot('w', (:'page2'::json) ->> 'nextPageToken', 2) as page3 \gset
select gist(:'page3');
select c ->> 'serverVersion', c ->> 'pk' from json_array_elements(sync_pull('w', 6) -> 'changes') c;

-- One at a time, with a filter.
select sync_snapshot('w', null, 1, '{tags,notes}') as p1 \gset
select gist(:'p1');
select sync_snapshot('w', (:'p1'::json) ->> 'nextPageToken', 1, '{notes,tags}') as p2 \gset
select gist(:'p2');
select sync_snapshot('w', (:'p2'::json) ->> 'nextPageToken', null, '{notes,tags}') as p3 \gset
select gist(:'p3');
select gist(sync_snapshot('w', tables => '{unknown}'));
select gist(sync_snapshot('w', tables => array[null]));

-- A token is good for its workspace and filter only.
select sync_snapshot('w', (:'page'::json) ->> 'nextPageToken', tables => '{notes}');
\echo :LAST_ERROR_SQLSTATE
select sync_snapshot('other', (:'page'::json) ->> 'nextPageToken');
\echo :LAST_ERROR_SQLSTATE
select sync_snapshot('w', 'nonsense');
\echo :LAST_ERROR_SQLSTATE

-- When GC has purged a delete after the watermark, the pages read so far may
-- show what was deleted since: start again, though the proof holds.
update sync_ext.change_log set created_at = created_at - interval '40 days';
select sync_snapshot('w', null, 1) as begun \gset
select push(9, 'notes', 'delete', 'a', 2);
select push(10, 'notes', 'put', 'c', 1, '{}');
update sync_ext.change_log set created_at = created_at - interval '40 days' where server_version = 9;
select sync_gc('w');
select sync_pull('w', 9, proof => (:'begun'::json) ->> 'proof') ->> 'requiresSnapshot';
select sync_snapshot('w', (:'begun'::json) ->> 'nextPageToken', 1);
\echo :LAST_ERROR_SQLSTATE
-- The grave of notes/a is left out.
select gist(sync_snapshot('w'));

-- When the server was restored, it is another history: start again, too.
select sync_snapshot('w', null, 1) as begun \gset
update sync_ext.change_log set created_at = created_at + interval '1 second' where server_version = 10;
select sync_snapshot('w', (:'begun'::json) ->> 'nextPageToken', 1);
\echo :LAST_ERROR_SQLSTATE
begin read only;
select gist(sync_snapshot('w'));
commit;
