-- Pulling: pages in order of version, filters, latest, proofs.
\ir ../prelude.sql
select sync_register_table('tags');
create function push(op integer, tab text, operation text, pk text, clock integer, payload json) returns text language sql as $$
  select push_op(op, operation, pk, clock, payload, tab) ->> 'serverVersion'
$$;
-- What matters of a reply: the versions, then everything but the changes.
create function gist(reply json) returns text language sql as $$
  select coalesce((select string_agg(c ->> 'serverVersion', ' ') from json_array_elements(reply -> 'changes') c), '-')
    || ' ' || ((reply::jsonb - 'changes') - 'proof')::text
$$;

-- Nothing is known of a workspace that nobody has pushed to.
select sync_pull('w');

select push(1, 'notes', 'put', 'a', 1, '{"n": 1}');
select push(2, 'tags', 'put', 'x', 1, '{"t": 1.10, "a":  "\u0041" , "a": 2}');
select push(3, 'notes', 'put', 'a', 2, '{"n": 2}');
select push(4, 'notes', 'put', 'a', 1, '{"n": "late"}');
select push(5, 'tags', 'delete', 'x', 2, null);
select push(6, 'notes', 'put', 'b', 1, '{"n": 6}');

-- A change says what was pushed, when, by whom, and whether it won. Payloads
-- come back byte for byte.
select json_array_elements(sync_pull('w') -> 'changes');

-- Pages: nextCursor goes in as the next cursor, until hasMore is false.
select gist(sync_pull('w', 0, 4));
select gist(sync_pull('w', 4, 4));
select gist(sync_pull('w', 6, 4));
-- A full last page has no more.
select gist(sync_pull('w', 2, 4));
-- The limit is clamped: at least 1, at most sync_ext.max_page_limit; NULL is the default.
select gist(sync_pull('w', 0, 0));
select gist(sync_pull('w', 0, -5));
select gist(sync_pull('w', 0, null));
set sync_ext.max_page_limit = 2;
select gist(sync_pull('w', 0, 1000000));
reset sync_ext.max_page_limit;

-- A filter: the cursor still goes to the head, so nothing is read twice.
select gist(sync_pull('w', tables => '{notes}'));
select gist(sync_pull('w', tables => '{tags,notes,tags}', page_limit => 3));
select gist(sync_pull('w', tables => '{tags}', page_limit => 1));
select gist(sync_pull('w', 2, tables => '{tags}', page_limit => 1));
-- No filter: NULL or empty. Names that nobody registered and NULLs match nothing.
select gist(sync_pull('w', tables => '{}'));
select gist(sync_pull('w', tables => '{unknown}'));
select gist(sync_pull('w', tables => array[null]));
select gist(sync_pull('w', tables => array[null, 'notes']));

-- latest leaves out losers and what was superseded: each record at most once.
select gist(sync_pull('w', latest => true));
select gist(sync_pull('w', latest => true, page_limit => 1));
select gist(sync_pull('w', 3, latest => true, page_limit => 1));
select gist(sync_pull('w', latest => true, tables => '{notes}'));
select gist(sync_pull('w', latest => null)) = gist(sync_pull('w'));

-- A page ends before its bytes pass sync_ext.max_page_bytes, but is not empty.
select push(7, 'notes', 'put', 'c', 1, json_build_object('text', repeat('x', 600)));
select push(8, 'notes', 'put', 'd', 1, json_build_object('text', repeat('x', 600)));
select push(9, 'notes', 'put', 'e', 1, json_build_object('text', repeat('x', 2000)));
set sync_ext.max_page_bytes = '1kB';
select gist(sync_pull('w', 6));
select gist(sync_pull('w', 7));
select gist(sync_pull('w', 8));
reset sync_ext.max_page_bytes;

-- The proof is of the head, whatever the page: it is the same for all of them.
select count(distinct sync_pull('w', cursor, 1) ->> 'proof') from generate_series(0, 9) cursor;
select sync_pull('w', 9) ->> 'proof' as proof \gset
select gist(sync_pull('w', 9, proof => :'proof'));
-- One pushes on, and an older proof still holds.
select push(10, 'notes', 'put', 'f', 1, '{}');
select gist(sync_pull('w', 9, proof => :'proof'));
-- The reply's is of the head that it read.
select sync_pull('w', 9, proof => :'proof') ->> 'proof' = sync_pull('w', 10) ->> 'proof';

-- All of a reply is one state, and pulling works where writing does not.
begin read only;
select gist(sync_pull('w', 9));
commit;
