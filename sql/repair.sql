-- Attached tables compared with their records, and brought together.

-- STABLE: rows and records are read with the snapshot of the calling statement, so that
-- a change of both is never a difference. PARALLEL UNSAFE, because some primary keys are
-- read in a subtransaction.
create function sync_check_table(
  "table" regclass,
  workspace_id text default null,
  max_differences integer default 100
) returns json
language c stable parallel unsafe
as 'MODULE_PATHNAME', 'sync_check_table_wrapper';

-- One batch of the procedures below. What it marks becomes ops when its transaction
-- commits.
create function sync_ext.backfill_batch("table" regclass, workspace_id text, batch_size integer, "position" json)
returns json
language c volatile parallel unsafe
as 'MODULE_PATHNAME', 'backfill_batch_wrapper';

create function sync_ext.repair_batch(
  "table" regclass, toward text, workspace_id text, batch_size integer, "position" json
) returns json
language c volatile parallel unsafe
as 'MODULE_PATHNAME', 'repair_batch_wrapper';

-- The batches of a procedure, each committed. As sync_gc_all: a procedure that commits can
-- neither be SECURITY DEFINER nor have a search_path of its own, so every name is
-- qualified. A batch without differences has locked no workspace, so nobody waits for a
-- pause after it.
create procedure sync_ext.run_batches(
  name text,
  "table" regclass,
  toward text,
  workspace_id text,
  batch_size integer,
  time_budget interval,
  pause interval
)
language plpgsql
as $$
declare
  begun constant pg_catalog.timestamptz := pg_catalog.clock_timestamp();
  reported_at pg_catalog.timestamptz := begun;
  batches bigint := 0;
  read bigint := 0;
  captured bigint := 0;
  reply pg_catalog.json;
begin
  loop
    reply := case
      when name operator(pg_catalog.=) 'sync_backfill_table' then
        sync_ext.backfill_batch("table", workspace_id, batch_size, reply operator(pg_catalog.->) 'position')
      else
        sync_ext.repair_batch("table", toward, workspace_id, batch_size, reply operator(pg_catalog.->) 'position')
    end;
    commit;
    batches := batches operator(pg_catalog.+) 1;
    read := read operator(pg_catalog.+) (reply operator(pg_catalog.->>) 'read')::pg_catalog.int8;
    captured := captured operator(pg_catalog.+) (reply operator(pg_catalog.->>) 'captured')::pg_catalog.int8;
    if (reply operator(pg_catalog.->>) 'position') is null
      or pg_catalog.clock_timestamp() operator(pg_catalog.-) begun operator(pg_catalog.>=) time_budget
    then
      exit;
    end if;
    if pg_catalog.clock_timestamp() operator(pg_catalog.-) reported_at operator(pg_catalog.>=) interval '5 seconds' then
      raise notice '%: % read, % differed, batch %', name, read, captured, batches;
      reported_at := pg_catalog.clock_timestamp();
    end if;
    if (reply operator(pg_catalog.->>) 'captured')::pg_catalog.int8 operator(pg_catalog.>) 0 then
      perform pg_catalog.pg_sleep(extract(epoch from pause));
    end if;
  end loop;
  raise notice '%: % read, % differed, batch %: %', name, read, captured, batches,
    case when (reply operator(pg_catalog.->>) 'position') is null then 'nothing is left' else 'time is up' end;
end
$$;

create procedure sync_backfill_table(
  "table" regclass,
  workspace_id text default null,
  batch_size integer default 1000,
  time_budget interval default null,
  pause interval default interval '5 milliseconds'
)
language plpgsql
as $$
begin
  call sync_ext.run_batches('sync_backfill_table', "table", null, workspace_id, batch_size, time_budget, pause);
end
$$;

create procedure sync_repair_table(
  "table" regclass,
  toward text,
  workspace_id text default null,
  batch_size integer default 1000,
  time_budget interval default null,
  pause interval default interval '5 milliseconds'
)
language plpgsql
as $$
begin
  call sync_ext.run_batches('sync_repair_table', "table", toward, workspace_id, batch_size, time_budget, pause);
end
$$;

comment on function sync_check_table(regclass, text, integer) is 'the differences between an attached table and its records';
comment on procedure sync_backfill_table(regclass, text, integer, interval, interval) is 'makes records of the rows that were there before a table was attached, in batches, each committed';
comment on procedure sync_repair_table(regclass, text, text, integer, interval, interval) is 'brings the records of an attached table to its rows, or the rows to the records, in batches, each committed';
comment on function sync_ext.backfill_batch(regclass, text, integer, json) is 'a batch of sync_backfill_table';
comment on function sync_ext.repair_batch(regclass, text, text, integer, json) is 'a batch of sync_repair_table';
comment on procedure sync_ext.run_batches(text, regclass, text, text, integer, interval, interval) is 'the batches of sync_backfill_table and sync_repair_table';
