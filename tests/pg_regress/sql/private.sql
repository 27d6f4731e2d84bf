-- Private records: in a table with an owner field each belongs to a user, and
-- nobody else ever hears of it.
\ir ../prelude.sql
select sync_register_table('diary', owner_field => 'by');
create function op(op integer, operation text, tab text, pk text, clock integer, payload json default null) returns json language sql as $$
  select an_op(op, operation, pk, clock, payload, tab)
$$;
-- What became of each op: its number, version and winner, or why it was refused.
create function push(variadic ops json[]) returns setof text language sql as $$
  select concat_ws(' ', ltrim(left(result ->> 'opId', 8), '0'), '@' || (result ->> 'serverVersion'),
      case when result ->> 'replayed' = 'true' then 'again,' end,
      case result ->> 'applied' when 'true' then 'wins' when 'false' then 'lost to' end,
      ltrim(left(winner -> 'revision' ->> 'opId', 8), '0'), '@' || (winner ->> 'serverVersion'), winner ->> 'kind',
      result -> 'payload', case when winner -> 'payload' is not null and winner ->> 'payload' <> result ->> 'payload' then 'BUT ' || (winner ->> 'payload') end,
      result ->> 'errorCode' || ': ' || (result ->> 'error'))
    from json_array_elements(sync_push('w', array_to_json(ops)) -> 'results') result, lateral (select result -> 'winner') _(winner)
$$;
create function gist(reply json) returns text language sql as $$
  select case reply ->> 'requiresSnapshot' when 'true' then 'snapshot first' else coalesce((select string_agg(concat(c ->> 'serverVersion', ':', coalesce(c ->> 'op', c ->> 'kind'), ' ', c ->> 'pk'), ', ')
                     from json_array_elements(coalesce(reply -> 'changes', reply -> 'items')) c), 'nothing') end
    || coalesce('; next ' || (reply ->> 'nextCursor') || case reply ->> 'hasMore' when 'true' then ' more' else '' end, '')
    || case when reply ->> 'nextPageToken' is null then '' else ' more' end || coalesce(' head ' || (reply ->> 'serverVersion'), '')
$$;
create function news(prefix text, number integer) returns json[] language sql as $$
  select array_agg(op(number + n, 'put', 'diary', prefix || n, 1, '{}')) from generate_series(1, 7) n
$$;
create function become(someone text) returns text language sql as $$
  select set_config('sync_ext.user_id', someone, false)
$$;
-- What each of them is shown, a trusted caller last.
create function shown() returns table (who text, by_pull text, by_snapshot text, by_view bigint, deleted bigint) language plpgsql as $$
begin
  foreach who in array array['ann', 'bob', 'vic', ''] loop
    perform become(who);
    return query select who, gist(sync_pull('w')), gist(sync_snapshot('w')),
      (select count(*) from sync_ext.current_record), (select count(*) from sync_ext.tombstone);
  end loop;
end
$$;
create view log as select server_version, table_name, pk, operation, payload, owner, filled_field from sync_ext.change_log order by 1;
select sync_create_workspace('w', 'ann'), sync_set_member('w', 'bob', 'editor'), sync_set_member('w', 'vic', 'viewer');

-- Ann's payloads need not name her; the field is added where it is missing, at
-- the end, and no other byte is touched.
select become('ann');
select push(
  op(1, 'put', 'diary', 'a', 1, '{"text": "mine", "n": 1e0}'),
  op(2, 'put', 'diary', 'b', 1, '{ "by":"ann" ,  "id":"b"}'),
  op(3, 'put', 'diary', 'c', 1, '{ }'),
  op(4, 'put', 'diary', 'd', 1, '{"x":[{"by":"bob"}],"n":12345678901234567890.10, "x":"\u00e9\/" }'),
  op(5, 'put', 'diary', 'e', 1, '{"b\u0079":"\u0061nn"}'),
  op(6, 'put', 'notes', 'n', 1, '{"by":"bob"}'),
  op(7, 'delete', 'notes', 'gone', 1));
select * from log;

-- Nobody else is shown them, but a trusted caller.
select * from shown();
select become('bob');
select sync_pull('w')::jsonb #- '{proof}';
select sync_pull('w', tables => '{diary}')::jsonb #- '{proof}';
select table_name, pk, payload from sync_ext.current_record;

-- An answer got lost: what was filled in is still the op that was sent, and so
-- it is with the name in it, or with the name first; another name is another op.
select become('ann');
select push(
  op(1, 'put', 'diary', 'a', 1, '{"n": 1e0, "text": "m\u0069ne"}'),
  op(3, 'put', 'diary', 'c', 1, '{"by": "ann"}'));
select push(op(1, 'put', 'diary', 'a', 1, '{"by": "ann", "text": "mine", "n": 1e0}'));
select push(op(1, 'put', 'diary', 'a', 1, '{"by": "bob", "text": "mine", "n": 1e0}'));
select push(op(1, 'put', 'diary', 'a', 1, '{"text": "changed", "n": 1e0}'));
-- What was sent with the name in it is not what is sent without.
select push(op(2, 'put', 'diary', 'b', 1, '{"id": "b"}'));
-- It stays so when the field gets another name, or none, or the table goes.
select become('');
select sync_register_table('diary', owner_field => 'author');
select become('ann');
select push(op(1, 'put', 'diary', 'a', 1, '{"text": "mine", "n": 1e0}'));
select become('');
select sync_unregister_table('diary'), sync_register_table('diary');
select become('ann');
select push(op(1, 'put', 'diary', 'a', 1, '{"text": "mine", "n": 1e0}'));
select become('');
select sync_unregister_table('diary');
select become('ann');
select push(op(1, 'put', 'diary', 'a', 1, '{"text": "mine", "n": 1e0}'));
-- A trusted caller may send it again, too.
select become('');
select push(op(1, 'put', 'diary', 'a', 1, '{"text": "mine", "n": 1e0}'));
select sync_register_table('diary', owner_field => 'by');

-- Bob cannot take ann's records, delete them, or make new ones in her name; one
-- text for all of it. His neighbours land.
select become('bob');
select json_array_elements(sync_push('w', json_build_array(op(11, 'put', 'diary', 'a', 9, '{"text": "bob was here"}'))) -> 'results');
select push(
  op(12, 'put', 'diary', 'a', 9, '{"by": "ann"}'),
  op(13, 'delete', 'diary', 'a', 9),
  op(14, 'put', 'diary', 'new', 1, '{"by": "ann"}'),
  op(15, 'put', 'diary', 'bobs', 1, '{"text": "his"}'),
  op(16, 'put', 'notes', 'n', 2, '{"by": "whoever"}'));
-- Only a text or a number can be a user.
select push(
  op(17, 'put', 'diary', 'new', 1, '{"by": null}'),
  op(18, 'put', 'diary', 'new', 1, '{"by": ""}'),
  op(19, 'put', 'diary', 'new', 1, '{"by": ["bob"]}'),
  op(20, 'put', 'diary', 'new', 1, '{"by": "Bob"}'),
  op(21, 'put', 'diary', 'new', 1, '{"by": "bob "}'),
  op(22, 'put', 'diary', 'new', 1, '{"by": "bob", "by": "ann"}'));
-- Ann's opIds are taken, and that is all that is told, also of her very op.
select push(
  op(1, 'put', 'diary', 'a', 1, '{"text": "mine", "n": 1e0}'),
  op(2, 'put', 'diary', 'b', 1, '{ "by":"ann" ,  "id":"b"}'),
  op(3, 'put', 'diary', 'bobs', 5, '{"text": "guess"}'),
  op(4, 'delete', 'unheard', 'x', 1));
-- Of everybody's op all of it is told, to all.
select push(op(6, 'put', 'notes', 'n', 1, '{"by":"bob"}'));
select * from shown();

-- A record keeps its owner: ann's own edits win and lose among themselves, and
-- she is told the winner as it is stored.
select become('ann');
select push(
  op(31, 'put', 'diary', 'a', 3, '{"text": "third"}'),
  op(32, 'put', 'diary', 'a', 2, '{"text": "second"}'),
  op(1, 'put', 'diary', 'a', 1, '{"text": "mine", "n": 1e0}'));
select push(op(33, 'put', 'diary', 'a', 4, '{"by": "bob", "text": "a gift"}'));

-- Deletes are hers, too: of her records, and of names that nobody has, whatever
-- their payload says. They reach her devices and no others.
select push(
  op(41, 'delete', 'diary', 'b', 2),
  op(42, 'delete', 'diary', 'never', 3),
  op(43, 'delete', 'diary', 'c', 2, '{"by": "bob"}'),
  op(44, 'put', 'diary', 'c', 1, '{"text": "late"}'));
select gist(sync_pull('w', 11));
select become('bob');
select gist(sync_pull('w', 11));
select push(
  op(45, 'put', 'diary', 'b', 9, '{}'),
  op(46, 'put', 'diary', 'never', 9, '{}'),
  op(47, 'delete', 'diary', 'never', 9));
select * from shown();
select become('ann');
select push(op(48, 'put', 'diary', 'b', 3, '{"text": "back"}'));

-- Pages pass over what is hidden: bob gets as many changes as he asked for, has
-- more only if he has, and ends at the head.
select become('');
select push(op(51, 'put', 'diary', 'z', 1, '{"by": "ann"}'), op(52, 'put', 'notes', 'o', 1, '{}'), op(53, 'put', 'diary', 'zz', 1, '{"by": "ann"}'));
select become('bob');
select gist(sync_pull('w', 0, 1));
select gist(sync_pull('w', 7, 1));
select gist(sync_pull('w', 8, 1));
select gist(sync_pull('w', 9, 1));
select gist(sync_pull('w', 9, 2));
select gist(sync_pull('w', 0, 9, latest => true));
select gist(sync_pull('w', 0, 1, '{diary}'));
select gist(sync_pull('w', 0, 1, '{diary}', true));
select sync_pull('w', 17)::jsonb #- '{proof}';
-- So do the pages of a snapshot; the last is not empty.
select sync_snapshot('w', null, 1) as page \gset
select gist(:'page');
select sync_snapshot('w', (:'page'::json) ->> 'nextPageToken', 2) as page \gset
select gist(:'page');
select sync_snapshot('w', (:'page'::json) ->> 'nextPageToken', 1) as page2 \gset
select gist(:'page2');
select sync_snapshot('w', null, 1, '{diary}') ->> 'nextPageToken';
-- A token is its user's.
select become('ann');
select sync_snapshot('w', (:'page'::json) ->> 'nextPageToken', 1);
\echo :LAST_ERROR_SQLSTATE
select become('');
select sync_snapshot('w', (:'page'::json) ->> 'nextPageToken', 1);
\echo :LAST_ERROR_SQLSTATE

-- The views show the same to a role that may read them.
create role sync_reader;
grant usage on schema sync_ext to sync_reader;
grant select on sync_ext.current_record, sync_ext.tombstone to sync_reader;
set role sync_reader;
select become('ann');
select table_name, pk, payload, deleted, server_version from sync_ext.current_record order by 1, 2;
select table_name, pk, server_version from sync_ext.tombstone order by 1, 2;
select become('bob');
select table_name, pk, payload, deleted, server_version from sync_ext.current_record order by 1, 2;
select count(*) from sync_ext.tombstone;
select become('eve');
select (select count(*) from sync_ext.current_record), (select count(*) from sync_ext.tombstone);
reset role;
drop owned by sync_reader;
drop role sync_reader;

-- GC forgets entries, never whose a record is.
select become('');
update sync_ext.change_log set created_at = created_at - interval '40 days';
select sync_gc('w');
select table_name, pk, deleted, server_version, owner from sync_ext.record order by 1, 2;
select become('bob');
select push(
  op(61, 'put', 'diary', 'never', 9, '{}'),
  op(62, 'delete', 'diary', 'c', 9));
-- An opId that is purged is taken no more, and a name that is, is.
select push(
  op(3, 'put', 'diary', 'bobs', 2, '{"text": "free again"}'),
  op(42, 'put', 'diary', 'never', 3, '{}'));
select become('ann');
select push(
  op(63, 'put', 'diary', 'never', 1, '{"text": "too old"}'),
  op(64, 'put', 'diary', 'c', 9, '{"text": "again"}'));
select * from shown();

-- A trusted caller speaks for nobody, so the payload of what is new must say
-- whose it is; what there is has its owner, whom no payload changes.
select become('');
select push(
  op(71, 'put', 'diary', 't', 1, '{"text": "whose?"}'),
  op(72, 'put', 'diary', 't', 1, '{"by": {}}'),
  op(73, 'delete', 'diary', 't', 1),
  op(74, 'put', 'diary', 't', 1, '{"by": "bob"}'),
  op(75, 'delete', 'diary', 'u', 1, '{"by": "bob"}'),
  op(76, 'put', 'diary', 't', 2, '{"text": "filled in"}'),
  op(77, 'put', 'diary', 't', 3, '{"by": "ann"}'),
  op(78, 'delete', 'diary', 'a', 9));
select * from log where server_version > 20;

-- A user whose name is digits may be a number in JSON, as it is written.
select sync_set_member('w', '42', 'editor');
select become('42');
select push(
  op(81, 'put', 'diary', 'answer', 1, '{"by": 42}'),
  op(82, 'put', 'diary', 'answers', 1, '{"by": 42.0}'),
  op(83, 'put', 'diary', 'answer', 2, '{"by": "42"}'));
select become('');
-- No name is as long as this.
select push(op(84, 'put', 'diary', 'long', 1, format('{"by": 1%s}', repeat('0', 256))::json));

-- A table that becomes private later keeps for everybody what was everybody's.
select sync_register_table('notes', owner_field => 'by');
select become('ann');
select push(
  op(91, 'put', 'notes', 'n', 7, '{"by": "bob", "text": "still ours"}'),
  op(92, 'put', 'notes', 'p', 1, '{"text": "mine"}'));
select become('bob');
select push(
  op(93, 'put', 'notes', 'n', 8, '{"text": "ours"}'),
  op(94, 'put', 'notes', 'p', 2, '{}'),
  op(95, 'delete', 'notes', 'o', 2));
-- One that ceases to be so makes new records everybody's; old ones stay private,
-- and nothing is filled in or compared any more.
select become('');
select sync_unregister_table('notes'), sync_register_table('notes');
select become('bob');
select push(
  op(96, 'put', 'notes', 'p', 9, '{}'),
  op(97, 'put', 'notes', 'q', 1, '{"by": "ann"}'));
select become('ann');
select push(
  op(98, 'put', 'notes', 'p', 2, '{"by": "bob"}'),
  op(99, 'put', 'notes', 'q', 2, '{}'));
select table_name, pk, owner, filled_field from sync_ext.change_log where table_name = 'notes' and server_version > 27 order by server_version;

-- Large batches are stored first and asked about later: the same for each op.
-- Here with one fault each, an opId of ann's and a name of hers; then with more.
select become('bob');
select push(variadic news('k', 150) || op(51, 'put', 'diary', 'm0', 1, '{}'));
select push(variadic news('l', 160) || op(100, 'put', 'diary', 'b', 1, '{"text": "as if it were new"}'));
select push(
  op(101, 'put', 'diary', 'm1', 1, '{}'),
  op(102, 'put', 'diary', 'm2', 1, '{"by": "bob"}'),
  op(103, 'put', 'diary', 'm3', 1, '{"by": "ann"}'),
  op(104, 'put', 'diary', 'b', 1, '{"text": "hers, with the clock of a new one"}'),
  op(105, 'put', 'diary', 'b', 9, '{"text": "hers"}'),
  op(106, 'delete', 'diary', 'z', 9),
  op(107, 'put', 'diary', 'm4', 2, '{}'),
  op(51, 'put', 'diary', 'm5', 1, '{}'),
  op(108, 'put', 'notes', 'm6', 1, '{}'),
  op(109, 'delete', 'diary', 'm1', 2),
  op(110, 'put', 'diary', 'm1', 1, '{}'));
-- Sent again, with one more; and by ann, who is told nothing of bob's.
select push(
  op(101, 'put', 'diary', 'm1', 1, '{}'),
  op(102, 'put', 'diary', 'm2', 1, '{"by": "bob"}'),
  op(103, 'put', 'diary', 'm3', 1, '{"by": "ann"}'),
  op(104, 'put', 'diary', 'b', 1, '{"text": "hers, with the clock of a new one"}'),
  op(107, 'put', 'diary', 'm4', 2, '{}'),
  op(108, 'put', 'notes', 'm6', 1, '{}'),
  op(109, 'delete', 'diary', 'm1', 2),
  op(110, 'put', 'diary', 'm1', 1, '{}'),
  op(111, 'put', 'diary', 'm7', 1, '{}'));
select become('ann');
select push(
  op(101, 'put', 'diary', 'm1', 1, '{}'),
  op(102, 'put', 'diary', 'm2', 1, '{"by": "bob"}'),
  op(103, 'put', 'diary', 'm3', 1, '{"by": "ann"}'),
  op(107, 'put', 'diary', 'm4', 2, '{}'),
  op(108, 'put', 'notes', 'm6', 1, '{}'),
  op(109, 'delete', 'diary', 'm1', 2),
  op(110, 'put', 'diary', 'm1', 1, '{}'),
  op(111, 'put', 'diary', 'm7', 1, '{}'),
  op(112, 'put', 'diary', 'm8', 1, '{}'));
-- A large batch that nothing is wrong with, and an owner that one of it gives to
-- a record for the others.
select push(variadic array_agg(op(120 + n, 'put', 'diary', 'r' || n / 2, 1 + n % 2, '{}'))) from generate_series(2, 9) n;
select become('');
select push(variadic array_agg(op(130 + n, 'put', 'diary', 's' || n / 2, 1 + n % 2, (array['{"by": "ann"}', '{}'])[1 + n % 2]::json))) from generate_series(2, 9) n;
-- An op that could be a record's first is not: its owner is known, and filled in.
select push(variadic array_agg(op(140 + n, 'put', 'diary', 'q' || n, 1, '{"by": "ann"}')) || op(140, 'put', 'diary', 'r2', 1, '{}')) from generate_series(1, 7) n;
select owner, filled_field, count(*) from log where server_version > 55 group by 1, 2 order by 1, 2;

-- Every entry says whose its record is.
select count(*) from sync_ext.change_log join sync_ext.record r using (workspace_key, table_name, pk) where change_log.owner <> r.owner;
-- One who is no member any more is told nothing, not even their own.
select sync_remove_member('w', 'bob');
select become('bob');
select sync_pull('w');
\echo :LAST_ERROR_SQLSTATE
select count(*) from sync_ext.current_record;
-- Back again, it is all there.
select become('');
select sync_set_member('w', 'bob', 'viewer');
select become('bob');
select gist(sync_snapshot('w', tables => '{diary}'));
