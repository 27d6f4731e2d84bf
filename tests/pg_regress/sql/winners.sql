-- Winners are told once per record and reply, and their payloads fit on a page.
\ir ../prelude.sql
-- Ops of these records with the clock, opIds from the n-th on.
create function ops(n integer, clock integer, pks text[], size integer default 1) returns json language sql as $$
  select json_agg(json_build_object('tableName', 'notes', 'operation', 'put', 'pk', pk,
    'payload', json_build_object('v', repeat('x', size)),
    'stamp', json_build_object('deviceId', 'd', 'opId', '00000000-0000-4000-8000-' || lpad((n + i)::text, 12, '0'),
      'hlc', 'h', 'clock', clock)) order by i)
  from unnest(pks) with ordinality as u(pk, i)
$$;
create function told(reply json) returns setof text language sql as $$
  select concat_ws(' ', r -> 'applied', r -> 'replayed', r -> 'winner' -> 'serverVersion',
    length(r -> 'winner' -> 'payload' ->> 'v'), r -> 'winner' -> 'revision' -> 'clock')
  from json_array_elements(reply -> 'results') r
$$;
select json_array_length(sync_push('w', ops(0, 5, '{a,b,c}', 400)) -> 'results');

-- With the first that lost to it, be it new or a replay.
select told(sync_push('w', ops(10, 1, '{a,b,a,a,b}')));
select told(sync_push('w', ops(10, 1, '{a,b,a,a,b}')));
-- Also where the winner comes with the same push.
select told(sync_push('w', (select json_agg(o) from (
  select * from json_array_elements(ops(20, 1, '{d}'))
  union all select * from json_array_elements(ops(21, 3, '{d}', 50))
  union all select * from json_array_elements(ops(22, 2, '{d,d}'))) as o(o))));
-- Equal ops share all of their result but for it.
select told(sync_push('w', (select json_agg(o) from (
  select * from json_array_elements(ops(30, 1, '{a}'))
  union all select * from json_array_elements(ops(30, 1, '{a}'))) as o(o))));

-- What would not fit on a page is left to the pull; a smaller one still fits.
set sync_ext.max_page_bytes = 1024;
select told(sync_push('w', ops(40, 1, '{a,b,c,d,a}')));
-- Together they stay below a page, whose last byte is not theirs.
select json_array_length(sync_push('x', ops(0, 5, '{a,b}', 502)) -> 'results');
select told(sync_push('x', ops(10, 1, '{a,b}')));
select json_array_length(sync_push('y', ops(0, 5, '{a,b}', 501)) -> 'results');
select told(sync_push('y', ops(10, 1, '{a,b}')));
