-- A function of the app may reject ops of a table.
\ir ../prelude.sql
create function check_note(payload json, previous json, op json) returns text language plpgsql as $$
begin
  insert into public.asked (payload, previous, op) values (payload, previous, op);
  if payload ->> 'text' = 'error' then
    perform 1 / 0;
  end if;
  return case when payload ->> 'text' like 'bad%' or op ->> 'pk' = 'kept' and payload is null
    then pg_catalog.concat_ws(' ', 'not', op ->> 'operation', payload ->> 'text') end;
end
$$;
create table asked (n integer generated always as identity, payload json, previous json, op json);
-- What it was asked since the last time.
create function asked() returns table (payload text, previous text, op text) language sql as $$
  with gone as (delete from asked returning *)
  select payload, previous, replace((op::jsonb - 'stamp')::text, '-0000-4000-8000-000000000000', '') from gone order by n
$$;
select sync_register_table('notes', patches => true, validation => 'check_note'::regproc::regprocedure);
select validation from sync_ext.synced_table;
-- Results with short opIds; put, patch and delete of `notes`.
create function push(variadic ops text[]) returns setof text language sql as $$
  select regexp_replace(replace(r::text, '-0000-4000-8000-000000000000', ''), '("serverDeletedAt":)[0-9]+', '\1...')
  from json_array_elements(sync_push('w', format('[%s]', array_to_string(ops, ','))::json) -> 'results') r
$$;
create function put(n integer, pk text, clock integer, text text) returns text language sql
  as $$ select an_op(n, 'put', pk, clock, json_build_object('text', text))::text $$;
create function del(n integer, pk text, clock integer) returns text language sql
  as $$ select an_op(n, 'delete', pk, clock)::text $$;
create function patch(n integer, pk text, clock integer, base integer, base_clock integer, payload json) returns text language sql
  as $$ select an_op(n, 'patch', pk, clock, payload)::jsonb || format('{"base": {"clock": %s, "hlc": "h", "opId": "%s"}}',
    base_clock, lpad(base::text, 8, '0') || '-0000-4000-8000-000000000000')::jsonb $$;

-- It sees the record as it would be, and as it is.
select push(put(1, 'a', 1, 'x'));
select push(put(2, 'a', 2, 'y'));
select push(patch(3, 'a', 3, 2, 2, '{"more": [1]}'));
select push(del(4, 'a', 4));
select push(put(5, 'a', 5, 'z'));
select * from asked();
-- The stamp is that of the op.
select push(put(6, 'b', 1, 'x'));
select op -> 'stamp' from asked;
select from asked();

-- What it rejects takes no version and is not stored; the others are.
select push(put(7, 'c', 1, 'x'), put(8, 'd', 1, 'bad'), put(9, 'e', 1, 'x'), put(10, 'c', 2, 'bad too'), put(11, 'c', 2, 'y'));
select head from sync_ext.workspace;
select * from asked();
-- Later ops of the batch find the record without the rejected op.
select push(put(20, 'f', 1, 'bad'), put(21, 'f', 1, 'x'), put(22, 'f', 2, 'bad'), patch(23, 'f', 3, 21, 1, '{"text": "bad patch"}'),
  patch(24, 'f', 4, 21, 1, '{"n": 1}'), patch(25, 'f', 5, 21, 1, '{"m": 1}'), del(26, 'f', 2), patch(27, 'f', 6, 21, 1, '{"m": 2}'), put(28, 'f', 3, 'y'));
select * from asked();
select pk, payload from sync_ext.current_record where not deleted order by 1;
-- A delete can be rejected; the winner is shown, and only once with its payload.
select push(put(30, 'kept', 1, 'x'));
select push(del(31, 'kept', 2), del(32, 'kept', 3));
select count(*) from asked();
-- It is not asked about replays, about ops that lose, or about those that are refused otherwise.
select push(put(30, 'kept', 1, 'x'), put(33, 'kept', 0, 'bad'), put(30, 'q', 1, 'bad'),
  patch(34, 'unknown', 9, 1, 1, '{"text": "bad"}'), patch(35, 'a', 9, 1, 1, '{"text": "bad"}'));
select push(an_op(36, 'put', 'kept', 9, '{"id": "other", "text": "bad"}')::text,
  (an_op(37, 'put', 'kept', 9, '{"text": "bad"}')::jsonb || '{"expected": "none"}')::text,
  an_op(38, 'put', 'kept', 9, '[]')::text);
select count(*) from asked();
-- Of equal ops of a batch once; again when a rejected op is sent again.
select push(put(40, 'g', 1, 'bad'), put(40, 'g', 1, 'bad'));
select push(put(40, 'g', 1, 'bad'));
select count(*) from asked();
-- A large batch presumes that its ops are new; each is asked about once all the same.
select count(*) from push(variadic array(select put(100 + n, 'many' || n, 1, case n % 5 when 0 then 'bad' else 'x' end) from generate_series(1, 20) n)) r;
select count(*), count(previous) from asked();
select count(*) from push(variadic array(select put(200 + n, 'many' || n, 1, 'y') from generate_series(1, 20) n)) r where r ~ '"applied":true';
select count(*), count(previous) from asked();
-- In its retry, what was rejected loses to what came meanwhile.
select count(*) from push(variadic array(select put(100 + n, 'many' || n, 1, case n % 5 when 0 then 'bad' else 'x' end) from generate_series(1, 20) n)) r where r ~ 'replayed';
select count(*) from asked();

-- The app's writes are stored too; sync_exchange and sync_put ask as sync_push does.
select sync_exchange('w', 'd', 0, json_build_array(put(50, 'h', 1, 'bad')::json), 1) -> 'push' -> 'results' -> 0 ->> 'error';
select sync_put('w', 'notes', 'h', '{"text": "bad"}') ->> 'error', sync_put('w', 'notes', 'h', '{"text": "x"}') ->> 'created',
  sync_patch('w', 'notes', 'h', '{"text": "bad"}') ->> 'error', sync_delete('w', 'notes', 'kept') ->> 'error';
select count(*) from asked();

-- A workspace is not created for what is rejected.
select sync_push('new', json_build_array(put(60, 'a', 1, 'bad')::json)), sync_put('new', 'notes', 'a', '{"text": "bad"}') ->> 'errorCode';
select workspace_id from sync_ext.workspace;

-- An error in it ends the call, and nothing is stored.
select head from sync_ext.workspace;
select push(put(70, 'i', 1, 'x'), put(71, 'i', 2, 'error'));
select sync_put('w', 'notes', 'i', '{"text": "error"}');
select head from sync_ext.workspace;

-- Owners who are filled in are in what it sees.
select sync_register_table('diary', owner_field => 'by', validation => 'check_note(json,json,json)');
select sync_create_workspace('team', 'ann');
delete from asked;
set sync_ext.user_id = 'ann';
select sync_push('team', json_build_array(an_op(1, 'put', 'p', 1, '{"text":"x"}', 'diary'))) -> 'results' -> 0 -> 'applied';
reset sync_ext.user_id;
select * from asked();

-- The reason is bounded, and never empty.
create function says(payload json, previous json, op json) returns text immutable language sql as $$ select $1 ->> 'says' $$;
select sync_register_table('said', validation => 'says(json,json,json)');
select length(sync_put('w', 'said', 'a', json_build_object('says', repeat('x', 5000))) ->> 'error'),
  sync_put('w', 'said', 'a', '{"says": ""}') ->> 'error', sync_put('w', 'said', 'a', '{"says": "\"quoted\"\n"}') -> 'error',
  sync_put('w', 'said', 'a', '{}') -> 'success';
-- Registering again without it removes it.
select sync_register_table('said');
select table_name, validation from sync_ext.synced_table order by 1;
select sync_put('w', 'said', 'a', '{"says": "no"}') -> 'success';

-- What is no such function.
create function of_two(json, json) returns text language sql as 'select null::text';
create function of_jsonb(jsonb, jsonb, jsonb) returns text language sql as 'select null::text';
create function to_json3(json, json, json) returns json language sql as 'select null::json';
create function strict3(json, json, json) returns text strict language sql as 'select null::text';
create function set3(json, json, json) returns setof text language sql as 'select null::text';
create procedure procedure3(json, json, json) language sql as 'select';
select sync_register_table('said', validation => 'of_two(json,json)');
\set VERBOSITY terse
select sync_register_table('said', validation => 'of_jsonb(jsonb,jsonb,jsonb)');
select sync_register_table('said', validation => 'to_json3(json,json,json)');
select sync_register_table('said', validation => 'strict3(json,json,json)');
select sync_register_table('said', validation => 'set3(json,json,json)');
select sync_register_table('said', validation => 'procedure3(json,json,json)');
select sync_register_table('said', validation => '-');
select sync_register_table('said', validation => 4294967295::oid::regprocedure);
select sync_register_table('said', validation => 'nothing(json,json,json)');
-- Its owner must be allowed everything anyway.
create role rejects;
alter function says owner to rejects;
\set VERBOSITY default
select sync_register_table('said', validation => 'says(json,json,json)');
select validation from sync_ext.synced_table where table_name = 'said';
-- Later, too: then only ops that it would be asked about fail.
alter function check_note owner to rejects;
select push(put(80, 'j', 1, 'x'));
select push(put(30, 'kept', 1, 'x'), put(33, 'kept', 0, 'bad'));
select sync_put('w', 'said', 'a', '{}') -> 'success';
alter function check_note owner to current_user;
alter function check_note strict;
select push(put(80, 'j', 1, 'x'));
alter function check_note called on null input;
select push(put(80, 'j', 1, 'x'));
drop function check_note;
select push(put(81, 'j', 2, 'x'));
\set VERBOSITY default
select sync_register_table('notes', patches => true);
select push(put(81, 'j', 2, 'x'));
-- Users may not register it.
set sync_ext.user_id = 'ann';
select sync_register_table('notes', validation => 'says(json,json,json)');
reset sync_ext.user_id;
drop owned by rejects;
drop role rejects;
