-- For operators. All of it counts or reads the data of the workspaces: one workspace is
-- cheap, the cost of all grows with their data.
--
-- Trusted callers see everything; users see the workspaces that they own, and only
-- counts of private records.

create function sync_ext.may_govern(workspace_id text) returns boolean
language c stable parallel restricted cost 1000
as 'MODULE_PATHNAME', 'may_govern_wrapper';

-- Raises 42501 if sync_ext.may_govern is false.
create function sync_ext.require_owner(workspace_id text) returns void
language c stable parallel restricted
as 'MODULE_PATHNAME', 'require_owner_wrapper';

-- Whether a device with this heartbeat and cursor holds GC back.
create function sync_ext.is_active(updated_at timestamptz, last_seen_version bigint, horizon bigint)
returns boolean
language c stable parallel restricted
as 'MODULE_PATHNAME', 'is_active_wrapper';

-- When GC may purge an entry of that time, by sync_ext.retention.
create function sync_ext.due_at(created_at timestamptz) returns timestamptz
language c stable parallel restricted
as 'MODULE_PATHNAME', 'due_at_wrapper';

-- Counts since the server started, in this database. NULL unless sync_ext is in
-- shared_preload_libraries, and for users.
create function sync_ext.counters() returns json
language c volatile parallel restricted
as 'MODULE_PATHNAME', 'counters_wrapper';

create view sync_ext.counter as
select c.key as counter, c.value::bigint as value
from pg_catalog.json_each_text(sync_ext.counters()) as c;

-- By the workspace's name, so that a query for one does not read all.
create view sync_ext.device_status with (security_barrier) as
select
  w.workspace_id,
  d.device_id,
  d.user_id,
  d.last_seen_version,
  w.head - d.last_seen_version as lag,
  pg_catalog.clock_timestamp() - d.updated_at as heartbeat_age,
  a.active,
  a.active
    and d.last_seen_version < w.head
    and d.last_seen_version
      = pg_catalog.min(case when a.active then d.last_seen_version end) over (partition by w.workspace_id)
    as pins_gc
from sync_ext.workspace as w
join sync_ext.device_cursor as d using (workspace_key)
cross join lateral sync_ext.is_active(d.updated_at, d.last_seen_version, w.horizon) as a (active)
where (select sync_ext.is_caller_known()) and sync_ext.may_govern(w.workspace_id);

create view sync_ext.workspace_status with (security_barrier) as
select
  w.workspace_id,
  w.head,
  w.horizon,
  w.gc_through,
  r.live_records,
  l.tombstones,
  r.deleted_records - l.tombstones as graves,
  l.log_rows,
  l.log_bytes,
  l.log_rows - r.live_records as garbage_waiting,
  d.devices,
  d.active_devices,
  d.pinned_at,
  d.pinned_by,
  w.away,
  case when w.held_until > pg_catalog.clock_timestamp() then w.held_until end as held_until
from sync_ext.workspace as w
cross join lateral (
  select
    pg_catalog.count(*) filter (where not r.deleted) as live_records,
    pg_catalog.count(*) filter (where r.deleted) as deleted_records
  from sync_ext.record as r
  where r.workspace_key = w.workspace_key
) as r
cross join lateral (
  select
    pg_catalog.count(*) as log_rows,
    pg_catalog.count(r.deleted) filter (where r.deleted) as tombstones,
    coalesce(pg_catalog.sum(
      pg_catalog.pg_column_size(l.table_name) + pg_catalog.pg_column_size(l.pk)
      + coalesce(pg_catalog.pg_column_size(l.payload), 0) + pg_catalog.pg_column_size(l.hlc)
      + pg_catalog.pg_column_size(l.device_id) + pg_catalog.pg_column_size(l.owner) + 90
    ), 0)::bigint as log_bytes
  from sync_ext.change_log as l
  left join sync_ext.record as r using (workspace_key, table_name, pk, server_version)
  where l.workspace_key = w.workspace_key
) as l
cross join lateral (
  select
    pg_catalog.count(*) as devices,
    pg_catalog.count(*) filter (where a.active) as active_devices,
    pg_catalog.min(d.last_seen_version) filter (where a.active and d.last_seen_version < w.head) as pinned_at,
    (pg_catalog.array_agg(d.device_id order by d.last_seen_version, d.updated_at)
      filter (where a.active and d.last_seen_version < w.head))[1] as pinned_by
  from sync_ext.device_cursor as d
  cross join lateral sync_ext.is_active(d.updated_at, d.last_seen_version, w.horizon) as a (active)
  where d.workspace_key = w.workspace_key
) as d
where (select sync_ext.is_caller_known()) and sync_ext.may_govern(w.workspace_id);

create function sync_status(
  workspace_id text default null,
  page_token text default null,
  page_limit integer default null
) returns json
language sql stable security definer parallel restricted
set search_path = pg_catalog, pg_temp
begin atomic
  select case when $1 is not null then sync_ext.require_owner($1) end;
  with size as (
    select case when $3 is not null then
      greatest(least($3, pg_catalog.current_setting('sync_ext.max_page_limit')::integer), 1)
    end as size
  ),
  listed as materialized (
    select w.workspace_id, pg_catalog.row_number() over (order by w.workspace_id) as place
    from sync_ext.workspace as w
    where $1 is null
      and w.workspace_id > coalesce($2, '')
      and (select sync_ext.is_caller_known())
      and sync_ext.may_govern(w.workspace_id)
    order by w.workspace_id
    -- One more shows whether there is another page.
    limit (select size + 1 from size)
  ),
  page as materialized (
    select l.workspace_id from listed as l cross join size as s where s.size is null or l.place <= s.size
  ),
  shown as (
    select s.*
    from page as p
    cross join lateral (
      -- With OFFSET it is not joined to the view, which would be read as a whole.
      select s.* from sync_ext.workspace_status as s where s.workspace_id = p.workspace_id offset 0
    ) as s
    union all
    -- Not combined with OR, for which a plan would read all workspaces.
    select s.* from sync_ext.workspace_status as s where s.workspace_id = $1
  ),
  described as (
    select coalesce(pg_catalog.json_agg(pg_catalog.json_build_object(
      'workspaceId', s.workspace_id,
      'serverVersion', s.head,
      'oldestRetainedVersion', s.horizon + 1,
      'gcThrough', s.gc_through,
      'liveRecords', s.live_records,
      'tombstones', s.tombstones,
      'graves', s.graves,
      'logRows', s.log_rows,
      'logBytes', s.log_bytes,
      'garbageWaiting', s.garbage_waiting,
      'pinnedAt', s.pinned_at,
      'pinnedBy', s.pinned_by,
      'devices', (
        select coalesce(pg_catalog.json_agg(pg_catalog.json_build_object(
          'deviceId', d.device_id,
          'userId', nullif(d.user_id, ''),
          'lastSeenVersion', d.last_seen_version,
          'lag', d.lag,
          'heartbeatAgeSeconds', pg_catalog.trunc(extract(epoch from d.heartbeat_age)),
          'active', d.active,
          'pinsGc', d.pins_gc
        ) order by d.device_id, d.user_id), '[]')
        from sync_ext.device_status as d
        where d.workspace_id = s.workspace_id
      )
    ) order by s.workspace_id), '[]') as workspaces
    from shown as s
  )
  select case
    when $3 is null then pg_catalog.json_build_object('counters', c.counters, 'workspaces', d.workspaces)
    else pg_catalog.json_build_object('counters', c.counters, 'workspaces', d.workspaces, 'nextPageToken', (
      select pg_catalog.max(p.workspace_id) from page as p
      where (select pg_catalog.count(*) from listed) > (select size from size)
    ))
  end
  from described as d
  cross join (select case when $1 is null then sync_ext.counters() end as counters) as c;
end;

comment on function sync_status(text, text, integer) is 'versions, contents and devices of workspaces, and what holds GC back';
comment on function sync_ext.counters() is 'counts of calls and ops in this database since the server started';
comment on view sync_ext.counter is 'counts of calls and ops in this database since the server started, by name';
comment on view sync_ext.device_status is 'every device: its lag, the age of its heartbeat, and whether it holds GC back';
comment on view sync_ext.workspace_status is 'every workspace: its versions, records, log and devices';
comment on function sync_ext.may_govern(text) is 'whether the calling user is an owner of this workspace, or trusted';
comment on function sync_ext.require_owner(text) is 'raises 42501 unless the calling user is an owner of this workspace, or trusted';
comment on function sync_ext.is_active(timestamptz, bigint, bigint) is 'whether a device with this heartbeat and cursor holds sync_gc back';
comment on function sync_ext.due_at(timestamptz) is 'when sync_ext.retention allows to purge an entry of that time';
