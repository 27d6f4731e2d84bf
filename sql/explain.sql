-- What became of one record and why. There is no index for it: this reads the
-- whole log of the workspace.
--
-- What lost is told with what it lost to at its turn, or, if that is purged, to
-- the record's winner.

create function sync_explain(workspace_id text, table_name text, pk text) returns json
language sql stable security definer parallel restricted
set search_path = pg_catalog, pg_temp
begin atomic
  select sync_ext.require_owner($1);
  with target as materialized (
    select r.*, w.head, w.horizon, w.gc_through
    from sync_ext.record as r
    join sync_ext.workspace as w using (workspace_key)
    where w.workspace_id = $1 and r.table_name = $2 and r.pk = $3
      and (sync_ext.calling_user() is null or r.owner in ('', sync_ext.calling_user()))
  ),
  entry as materialized (
    select
      l.*,
      pg_catalog.max(l.server_version) filter (where l.applied) over (
        order by l.server_version rows between unbounded preceding and 1 preceding
      ) as before
    from target as t
    join sync_ext.change_log as l using (workspace_key, table_name, pk)
  ),
  op as (
    select
      e.server_version,
      pg_catalog.json_build_object(
        'serverVersion', e.server_version,
        'op', e.operation,
        'outcome', case
          when not e.applied then 'lost'
          when e.server_version = t.server_version then 'winner'
          else 'superseded'
        end,
        'against', coalesce(e.supersedes, case when not e.applied then coalesce(e.before, t.server_version) end),
        'decidedBy', case
          when o.clock <> e.clock then 'clock'
          when o.hlc <> e.hlc then 'hlc'
          when o.op_id <> e.op_id then 'opId'
        end,
        'supersededBy', (select s.server_version from entry as s where s.supersedes = e.server_version),
        'stamp', pg_catalog.json_build_object('clock', e.clock, 'hlc', e.hlc, 'deviceId', e.device_id, 'opId', e.op_id),
        'createdAt', e.created_at,
        'payload', e.payload
      ) as told
    from entry as e
    cross join target as t
    left join lateral (
      -- The other op: the replaced winner, or the winner that it lost to.
      select o.clock, o.hlc, o.op_id
      from entry as o
      where o.server_version = coalesce(e.supersedes, e.before) and (e.applied or e.before is not null)
      union all
      select t.clock, t.hlc, t.op_id where not e.applied and e.before is null
    ) as o on true
  ),
  device as (
    select d.*, a.active
    from target as t
    join sync_ext.device_cursor as d using (workspace_key)
    cross join lateral sync_ext.is_active(d.updated_at, d.last_seen_version, t.horizon) as a (active)
  ),
  tombstone as (
    select t.server_version, t.head, sync_ext.due_at(greatest(e.created_at, before.created_at)) as due_at
    from target as t
    cross join lateral (
      -- GC goes in order, and does not pass an entry that is not due, which a
      -- clock that was set back can leave before one that is.
      select pg_catalog.max(l.created_at) as created_at
      from sync_ext.change_log as l
      where l.workspace_key = t.workspace_key
        and l.server_version > t.gc_through
        and l.server_version < t.server_version
    ) as before
    join entry as e on e.server_version = t.server_version
    where t.deleted
  )
  select pg_catalog.json_build_object(
    'workspaceId', $1,
    'tableName', $2,
    'pk', $3,
    'state', coalesce((
      select case
        when not t.deleted then 'live'
        when exists (select from entry as e where e.server_version = t.server_version) then 'tombstone'
        else 'grave'
      end
      from target as t
    ), 'unknown'),
    'winner', (
      select pg_catalog.json_build_object(
        'serverVersion', t.server_version,
        'revision', pg_catalog.json_build_object('clock', t.clock, 'hlc', t.hlc, 'opId', t.op_id),
        'owner', nullif(t.owner, '')
      )
      from target as t
    ),
    'ops', (select coalesce(pg_catalog.json_agg(o.told order by o.server_version), '[]') from op as o),
    'devices', (
      select coalesce(pg_catalog.json_agg(pg_catalog.json_build_object(
        'deviceId', d.device_id,
        'userId', nullif(d.user_id, ''),
        'lastSeenVersion', d.last_seen_version,
        'hasSeenWinner', d.last_seen_version >= t.server_version
      ) order by d.device_id, d.user_id), '[]')
      from device as d
      cross join target as t
    ),
    'purge', (
      select pg_catalog.json_build_object(
        'dueAt', m.due_at,
        'isDue', m.due_at <= pg_catalog.clock_timestamp(),
        'isHead', m.server_version = m.head,
        'heldBy', (
          select coalesce(pg_catalog.json_agg(d.device_id order by d.last_seen_version, d.device_id), '[]')
          from device as d
          where d.active and d.last_seen_version <= m.server_version
        )
      )
      from tombstone as m
    )
  );
end;

-- Runs sync_gc until nothing is left or the time is up, one transaction for each
-- batch: CALL it outside of a transaction block. Not SECURITY DEFINER and without
-- a search_path of its own, as a procedure that commits cannot be: so every name
-- is qualified.
create procedure sync_gc_all(
  time_budget interval default interval '1 minute',
  batch_size integer default 1000,
  pause interval default interval '5 milliseconds',
  retention interval default null
)
language plpgsql
as $$
declare
  begun constant pg_catalog.timestamptz := pg_catalog.clock_timestamp();
  told pg_catalog.timestamptz := begun;
  batches bigint := 0;
  scanned bigint := 0;
  deleted bigint := 0;
  reply pg_catalog.json;
  has_more boolean;
begin
  loop
    reply := @extschema@.sync_gc(null, retention, batch_size);
    -- A batch at a time: who waits for a workspace waits no longer than for one.
    commit;
    batches := batches operator(pg_catalog.+) 1;
    scanned := scanned operator(pg_catalog.+) (reply operator(pg_catalog.->>) 'scanned')::pg_catalog.int8;
    deleted := deleted
      operator(pg_catalog.+) (reply operator(pg_catalog.->>) 'changesDeleted')::pg_catalog.int8
      operator(pg_catalog.+) (reply operator(pg_catalog.->>) 'tombstonesDeleted')::pg_catalog.int8;
    has_more := (reply operator(pg_catalog.->>) 'hasMore')::pg_catalog.bool;
    if not has_more
      or pg_catalog.clock_timestamp() operator(pg_catalog.-) begun operator(pg_catalog.>=) time_budget
    then
      exit;
    end if;
    if pg_catalog.clock_timestamp() operator(pg_catalog.-) told operator(pg_catalog.>=) interval '5 seconds' then
      raise notice 'sync_gc_all: % entries read, % deleted, batch %', scanned, deleted, batches;
      told := pg_catalog.clock_timestamp();
    end if;
    perform pg_catalog.pg_sleep(extract(epoch from pause));
  end loop;
  raise notice 'sync_gc_all: % entries read, % deleted, batch %: %', scanned, deleted, batches,
    case when has_more then 'time is up' else 'nothing is left' end;
end
$$;

revoke execute on function sync_explain(text, text, text) from public;
revoke execute on procedure sync_gc_all(interval, integer, interval, interval) from public;
comment on function sync_explain(text, text, text) is 'all logged ops of a record, what each did and why, and what becomes of its tombstone';
comment on procedure sync_gc_all(interval, integer, interval, interval) is 'runs sync_gc in batches, each committed, within a time budget';
