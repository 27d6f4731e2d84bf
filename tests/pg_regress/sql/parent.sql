-- What an author had seen, and whose edit was overwritten unseen.
\ir ../prelude.sql
-- The n-th op, of a record in table notes, with a parent as JSON.
create function op(n integer, pk text, clock integer, parent text, operation text default 'put')
returns text language sql as $$
  select format('{"tableName": "notes", "operation": "%s", "pk": "%s", "payload": %s, "parent": %s,
    "stamp": {"deviceId": "d", "opId": "00000000-0000-4000-8000-%s", "hlc": "h", "clock": %s}}',
    operation, pk, case operation when 'put' then format('{"n": %s}', n) else 'null' end, parent, lpad(n::text, 12, '0'), clock)
$$;
create function id(n integer) returns text language sql as $$
  select '"00000000-0000-4000-8000-' || lpad(n::text, 12, '0') || '"'
$$;
create function told(ops text) returns setof text language sql as $$
  select concat_ws(' ', right(r ->> 'opId', 2), r ->> 'errorCode', r ->> 'serverVersion', r ->> 'applied',
    case when (r ->> 'replayed')::bool then 'replayed' end, case when (r ->> 'created')::bool then 'created' end,
    'overwrote ' || right(r ->> 'overwrote', 2))
  from json_array_elements(sync_push('w', format('[%s]', ops)::json) -> 'results') r
$$;

-- Of three authors the second has seen the first's edit and the third has not.
select told(op(1, 'a', 1, '"none"'));
select told(op(2, 'a', 2, id(1)));
select told(op(3, 'a', 3, id(1)));
-- Told again to who sends it again, and to who pulls it.
select told(op(3, 'a', 3, id(1)));
select c ->> 'serverVersion', c -> 'overwrote' from json_array_elements(sync_pull('w') -> 'changes') c;
-- An author who does not tell, or lost, has overwritten nothing.
select told(op(4, 'a', 4, 'null'));
select told(op(5, 'a', 1, '"none"'));
-- No part of the content: neither an opId's conflict nor another op.
select told(op(5, 'a', 1, id(4)));
select told(op(6, 'b', 1, '"none"') || ',' || op(6, 'b', 1, id(1)));

-- A put makes a record where no live one is: after a delete, too, which it may not
-- have seen. What loses, or deletes, creates nothing.
select told(op(10, 'c', 1, '"none"') || ',' || op(11, 'c', 2, id(10), 'delete') || ',' || op(12, 'c', 3, '"none"')
  || ',' || op(13, 'c', 2, '"none"') || ',' || op(14, 'd', 1, '"none"', 'delete'));
-- Neither can an author see what was not there.
select told(op(15, 'e', 1, id(99)));

-- Who lost an edit is shown it: those that lost at their turn, and those that were
-- overwritten; until GC has purged them.
select pk, overwritten, loser_version, winner_version, loser_payload, winner_payload, decided_by
from sync_ext.conflict order by loser_version;
select o ->> 'serverVersion', o ->> 'outcome', right(o ->> 'overwrote', 2)
from json_array_elements(sync_explain('w', 'notes', 'a') -> 'ops') o;
update sync_ext.change_log set created_at = created_at - interval '40 days';
select sync_gc('w') ->> 'changesDeleted';
select pk, overwritten, loser_version, winner_version from sync_ext.conflict order by loser_version;

-- Another form is refused; its neighbour is not.
select r ->> 'errorCode', r ->> 'error' from json_array_elements(sync_push('w', format('[%s, %s, %s]',
  op(20, 'f', 1, '"nobody"'), op(21, 'f', 1, '1'), op(22, 'f', 1, '"none"'))::json) -> 'results') r;
