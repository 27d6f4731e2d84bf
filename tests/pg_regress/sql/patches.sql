-- Two people edit two fields of one record, and both edits stay.
\pset format unaligned
\pset tuples_only on
create extension sync_ext;
select sync_register_table('notes', patches => true), sync_register_table('plain');
create function id(n integer) returns text language sql as $$
  select '00000000-0000-4000-8000-' || lpad(n::text, 12, '0')
$$;
create function put(n integer, pk text, clock integer, payload text, more text default '') returns text language sql as $$
  select format('{"tableName": "notes", "operation": "put", "pk": "%s", "payload": %s, %s
    "stamp": {"deviceId": "d", "opId": "%s", "hlc": "h", "clock": %s}}', pk, payload, more, id(n), clock)
$$;
-- A patch of the record that op base put with its clock.
create function patch(n integer, pk text, clock integer, base integer, base_clock integer, payload text, more text default '')
returns text language sql as $$
  select format('{"tableName": "notes", "operation": "patch", "pk": "%s", "payload": %s, %s
    "base": {"clock": %s, "hlc": "h", "opId": "%s"},
    "stamp": {"deviceId": "d", "opId": "%s", "hlc": "h", "clock": %s}}',
    pk, payload, more, base_clock, id(base), id(n), clock)
$$;
create function del(n integer, pk text, clock integer, more text default '') returns text language sql as $$
  select format('{"tableName": "notes", "operation": "delete", "pk": "%s", %s
    "stamp": {"deviceId": "d", "opId": "%s", "hlc": "h", "clock": %s}}', pk, more, id(n), clock)
$$;
-- Results with opIds cut to their last digits.
create function push(variadic ops text[]) returns setof text language sql as $$
  select regexp_replace(replace(r::text, '00000000-0000-4000-8000-0000000000', ''), '("serverDeletedAt":)[0-9]+', '\1...')
  from json_array_elements(sync_push('w', format('[%s]', array_to_string(ops, ','))::json) -> 'results') r
$$;
create function changes(latest boolean default false) returns setof text language sql as $$
  select replace(c::text, '00000000-0000-4000-8000-0000000000', '')
  from json_array_elements(sync_pull('w', latest => $1) -> 'changes') c
$$;
create function state(pk text) returns text language sql as $$
  select concat_ws(' ', payload, replace(fields::text, '00000000-0000-4000-8000-0000000000', ''))
  from sync_ext.current_record as r where r.pk = $1
$$;

-- Every byte that nobody patched stays; a new field goes to the end.
select push(put(1, 'a', 1, '{ "title" : "x",  "n":1.50, "n":2.50 }'));
select push(patch(2, 'a', 2, 1, 1, '{"title":"y"}'));
select push(patch(3, 'a', 2, 1, 1, '{"n":1e400, "new": {"z": 1}}'));
select state('a');
-- By field the higher revision wins, in either order; the device hears what it lost.
select push(patch(4, 'a', 3, 1, 1, '{"title":"z"}'));
select push(patch(5, 'a', 2, 1, 1, '{"title":"late","more":true}'));
select push(patch(6, 'a', 2, 1, 1, '{"title":"late"}'));
select state('a');
-- A replay says what it holds now.
select push(patch(2, 'a', 2, 1, 1, '{"title":"y"}'), patch(4, 'a', 3, 1, 1, '{"title":"z"}'),
  patch(5, 'a', 2, 1, 1, '{"title":"late","more":true}'), put(1, 'a', 1, '{ "title" : "x",  "n":1.50, "n":2.50 }'));
-- Its base and the patch itself are its content, a condition is not.
select push(patch(4, 'a', 3, 1, 1, '{"title":"q"}'));
select push(patch(4, 'a', 3, 1, 0, '{"title":"z"}'));
select push(patch(4, 'a', 3, 1, 1, '{"title":"z"}', '"expected": "none",'));
-- Nor is it asked of a replay that holds nothing any more.
select push(patch(2, 'a', 2, 1, 1, '{"title":"y"}', '"expected": "none",'));

-- What others pull: the record as it then was, and who holds which field.
select changes();
select changes(latest => true);
select replace(i::text, '00000000-0000-4000-8000-0000000000', '')
from json_array_elements(sync_snapshot('w') -> 'items') i;

-- A put ends all patches before it, whatever their revisions; so does a delete.
select push(put(10, 'a', 2, '{"title":"new"}'));
select state('a');
select push(patch(11, 'a', 9, 1, 1, '{"title":"of the old one"}'));
select push(del(12, 'a', 3), patch(13, 'a', 9, 10, 2, '{"title":"of what is deleted"}'));
-- A put that never came may still come.
select push(patch(14, 'a', 9, 99, 4, '{"title":"too early"}'), patch(15, 'b', 9, 99, 4, '{"title":"unknown"}'));
select push(put(99, 'a', 4, '{"title":"now"}'), patch(14, 'a', 9, 99, 4, '{"title":"not too early"}'));
select state('a');

-- Many small patches log the record once.
select push(put(20, 'c', 1, '{}'), patch(21, 'c', 2, 20, 1, '{"a":1}'), patch(22, 'c', 3, 20, 1, '{"b":2}'),
  patch(23, 'c', 4, 20, 1, '{"a":3}'));
select server_version, payload, patch, fields is not null, supersedes from sync_ext.change_log where pk = 'c';

-- Conditions. The newest entry, none, or who holds a field.
select push(put(30, 'd', 1, '{"x":1,"y":1}', '"expected": "none",'));
select push(put(31, 'd', 2, '{"x":2}', '"expected": "none",'));
select push(patch(32, 'd', 2, 30, 1, '{"x":2}', format('"expected": "%s",', id(30))));
select push(put(33, 'd', 3, '{"x":3}', format('"expected": "%s",', id(30))));
select push(patch(34, 'd', 3, 30, 1, '{"y":3}', format('"expected": {"y": "%s", "x": "%s", "z": null},', id(30), id(32))));
select push(patch(35, 'd', 4, 30, 1, '{"y":4}', format('"expected": {"y": "%s"},', id(30))));
-- Once stored it is a replay, and no condition is asked.
select push(patch(32, 'd', 2, 30, 1, '{"x":2}', format('"expected": "%s",', id(30))));
-- In any table.
select push(replace(put(36, 'd', 1, '{}', '"expected": "none",'), 'notes', 'plain'),
  replace(put(37, 'd', 2, '{}', '"expected": "none",'), 'notes', 'plain'),
  replace(patch(38, 'd', 3, 36, 1, '{"x":1}'), 'notes', 'plain'));

-- A record that would become too large stays as it is.
set sync_ext.max_payload_bytes = 100;
select push(put(40, 'e', 1, '{"x":"' || repeat('x', 80) || '"}'));
select push(patch(41, 'e', 2, 40, 1, '{"y":"' || repeat('y', 80) || '"}'), patch(42, 'e', 3, 40, 1, '{"x":1}'));
reset sync_ext.max_payload_bytes;
select state('e');

-- Whoever lost fields can be told, and who holds them.
select pk, decided_by, overwritten, loser_version, loser_payload, lost_fields, winner_payload
from sync_ext.conflict where pk in ('a', 'd') order by loser_version;
select replace(o::text, '00000000-0000-4000-8000-0000000000', '')
from (
  select json_build_object('v', o -> 'serverVersion', 'op', o -> 'op', 'outcome', o -> 'outcome', 'fields', o -> 'fields', 'payload', o -> 'payload') as o
  from json_array_elements(sync_explain('w', 'notes', 'd') -> 'ops') as o
) as o;
select replace((sync_explain('w', 'notes', 'd') -> 'winner')::text, '00000000-0000-4000-8000-0000000000', '');

-- What GC leaves has the whole record.
update sync_ext.change_log set created_at = created_at - interval '40 days';
select sync_gc('w') ->> 'changesDeleted';
select changes();
-- A patch that is purged and comes again loses to itself.
select push(patch(32, 'd', 2, 30, 1, '{"x":2}', '"expected": "none",'));
select push(patch(32, 'd', 2, 30, 1, '{"x":2}', '"expected": "none",'));

-- A base is a whole revision, not only an opId; and what decides on a put is the register.
select push(put(70, 'g', 2, '{"x":1}'), patch(71, 'g', 3, 70, 1, '{"x":2}'));
select push(patch(72, 'g', 9, 70, 2, '{"x":3}'), put(73, 'g', 9, '{"x":4}'));
select pk, decided_by, loser_version, lost_fields from sync_ext.conflict where pk = 'g';
select o -> 'op', o -> 'outcome', o -> 'decidedBy' from json_array_elements(sync_explain('w', 'notes', 'g') -> 'ops') as o;

-- Any value may be patched, and the view shows what was lost.
select push(put(75, 'h', 1, '{}'), patch(76, 'h', 1, 75, 0, '{"a":"\ud800\u0000\\ud800\\","b\ud83d\ude00\u0041":["\ude00\ud83d\n"],"c\\u0000":1}'));
select loser_payload, lost_fields from sync_ext.conflict where pk = 'h';

-- Forms.
select push(patch(50, 'f', 1, 51, 1, '{"a":1}'), patch(52, 'f', 2, 51, 1, '{}'), patch(53, 'f', 2, 51, 1, '1'),
  replace(patch(54, 'f', 2, 51, 1, '{"a":1}'), '"base"', '"ground"'), patch(55, 'f', 2, 51, 1, '{"":1}'),
  patch(56, 'f', 2, 51, 1, '{"id":"g"}'), patch(57, 'f', 2, 51, 1, '{"a":1}', '"expected": 1,'),
  put(58, 'f', 2, '{"a":1}', '"expected": {"a": null},'));
-- Patches are allowed and forbidden at any time; what is stored stays.
select sync_register_table('notes');
select push(patch(60, 'd', 9, 30, 1, '{"x":9}'), patch(34, 'd', 3, 30, 1, '{"y":3}'));
select state('d');
-- Values that no text can hold are kept, and hide nothing from who looks for conflicts.
select sync_register_table('notes', patches => true);
select push(put(80, 'i', 1, '{}'), patch(81, 'i', 3, 80, 1, '{"x":"\u0000","y":"\ud800"}'), patch(82, 'i', 2, 80, 1, '{"x":"\u0000","z":["\udc00"]}'));
select state('i');
select lost_fields, loser_payload from sync_ext.conflict where pk = 'i';
select sync_explain('w', 'notes', 'i')::text like '%"fields" : ["x", "y"], %\u0000%';
