\set ECHO none
-- What most scripts begin with: the extension, the table `notes`, and ops of it.
\pset format unaligned
\pset tuples_only on
create extension sync_ext;
select sync_register_table('notes') \g /dev/null
-- The n-th op, hlc and table only where they matter. A put without payload has its clock.
create function an_op(n integer, operation text, pk text, clock integer, payload json default null,
  tab text default 'notes', hlc text default 'h') returns json language sql as $$
  select json_build_object('tableName', tab, 'operation', operation, 'pk', pk,
    'payload', coalesce(payload, case operation when 'put' then json_build_object('clock', clock) end),
    'stamp', json_build_object('deviceId', 'd', 'opId', lpad(n::text, 8, '0') || '-0000-4000-8000-000000000000',
                               'hlc', hlc, 'clock', clock))
$$;
-- Pushes it to `w`, alone: what became of it.
create function push_op(n integer, operation text, pk text, clock integer, payload json default null,
  tab text default 'notes', hlc text default 'h') returns json language sql as $$
  select sync_push('w', json_build_array(an_op(n, operation, pk, clock, payload, tab, hlc))) -> 'results' -> 0
$$;
-- Ops that are text, as a batch.
create function ops(variadic ops text[]) returns json language sql as $$
  select ('[' || array_to_string(ops, ',') || ']')::json
$$;
\set ECHO all
