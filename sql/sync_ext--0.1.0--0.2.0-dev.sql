-- Scopes and moves: what they are in, and the functions that know them.

alter table sync_ext.workspace
  add column scope_epoch bigint default 0,
  add column away text collate "C",
  add column held_until timestamptz,
  add constraint workspace_away_check check (away in ('arriving', 'departed'));
alter table sync_ext.synced_table add column scope_field text collate "C";
alter table sync_ext.change_log
  add column scope text collate "C",
  add column left_scope text collate "C";
alter table sync_ext.record add column scope text collate "C";
create index record_scope_idx on sync_ext.record (workspace_key, scope, table_name, pk)
  where scope is not null;

create table sync_ext.shard_bucket (
  bucket bigint not null,
  constraint shard_bucket_pkey primary key (bucket),
  constraint shard_bucket_bucket_check check (bucket between 0 and 1023)
);
create table sync_ext.move (
  workspace_id text collate "C" not null,
  move_id uuid not null,
  role text collate "C" not null,
  workspace_key bigint,
  peer text collate "C",
  through bigint not null default 0,
  has_graves boolean not null default false,
  grave_table text collate "C",
  grave_pk text collate "C",
  agreed json,
  scope_epoch bigint,
  last_page json,
  at timestamptz not null default pg_catalog.clock_timestamp(),
  constraint move_pkey primary key (workspace_id),
  constraint move_role_check check (role in ('departing', 'departed', 'arriving', 'arrived'))
);
select pg_catalog.pg_extension_config_dump('sync_ext.shard_bucket', '');
select pg_catalog.pg_extension_config_dump('sync_ext.move', '');
comment on table sync_ext.shard_bucket is 'the buckets of workspaces that this server owns, of several';
comment on table sync_ext.move is 'the last move of each workspace from or to this server';

-- When GC has to look at a workspace: at first at all.

alter table sync_ext.workspace
  add column unread_since timestamptz default '-infinity',
  add column pinned_since timestamptz,
  add column devices_since timestamptz default '-infinity';
create index workspace_unread_since_idx on sync_ext.workspace (unread_since) where unread_since is not null;
create index workspace_pinned_since_idx on sync_ext.workspace (pinned_since) where pinned_since is not null;
create index workspace_devices_since_idx on sync_ext.workspace (devices_since);
create table sync_ext.unpinned_workspace (
  workspace_key bigint not null,
  unpinned_id uuid not null default pg_catalog.gen_random_uuid(),
  constraint unpinned_workspace_pkey primary key (workspace_key, unpinned_id)
);
select pg_catalog.pg_extension_config_dump('sync_ext.unpinned_workspace', '');
comment on table sync_ext.unpinned_workspace is 'workspaces that a device may hold back from GC no longer';

create or replace view sync_ext.current_record with (security_barrier) as
select
  w.workspace_id,
  r.table_name,
  r.pk,
  case when r.deleted then null else l.payload end as payload,
  r.deleted,
  pg_catalog.json_build_object('clock', r.clock, 'hlc', r.hlc, 'opId', r.op_id) as revision,
  r.server_version,
  l.created_at as updated_at,
  case when r.deleted then null else l.fields end as fields,
  r.scope
from sync_ext.record as r
join sync_ext.workspace as w using (workspace_key)
left join sync_ext.change_log as l using (workspace_key, server_version)
where w.away is null
  and (select sync_ext.is_caller_known())
  and sync_ext.may_read(w.workspace_id)
  and ((select sync_ext.calling_user()) is null or r.owner in ('', (select sync_ext.calling_user())));

create or replace view sync_ext.tombstone with (security_barrier) as
select
  w.workspace_id,
  r.table_name,
  r.pk,
  r.server_version,
  l.created_at as deleted_at
from sync_ext.record as r
join sync_ext.workspace as w using (workspace_key)
left join sync_ext.change_log as l using (workspace_key, server_version)
where r.deleted
  and w.away is null
  and (select sync_ext.is_caller_known())
  and sync_ext.may_read(w.workspace_id)
  and ((select sync_ext.calling_user()) is null or r.owner in ('', (select sync_ext.calling_user())));

create or replace view sync_ext.conflict with (security_barrier) as
select
  w.workspace_id,
  l.table_name,
  l.pk,
  case
    when l.patch is not null then
      case
        when r.deleted then 'base'
        when (l.base ->> 'clock', l.base ->> 'hlc', l.base ->> 'opId') <> (r.clock::text, r.hlc, r.op_id::text) then 'base'
        else 'fields'
      end
    when l.clock <> r.clock then 'clock'
    when l.hlc <> r.hlc then 'hlc'
    when l.op_id <> r.op_id then 'opId'
  end as decided_by,
  e.overwrote is not null as overwritten,
  l.server_version as loser_version,
  l.operation as loser_operation,
  coalesce(l.patch, l.payload) as loser_payload,
  l.device_id as loser_device_id,
  l.created_at as loser_at,
  pg_catalog.json_build_object('clock', l.clock, 'hlc', l.hlc, 'opId', l.op_id) as loser_revision,
  r.server_version as winner_version,
  case when r.deleted then 'delete' else 'put' end as winner_operation,
  case when r.deleted then null else v.payload end as winner_payload,
  v.device_id as winner_device_id,
  v.created_at as winner_at,
  pg_catalog.json_build_object('clock', r.clock, 'hlc', r.hlc, 'opId', r.op_id) as winner_revision,
  lost.fields as lost_fields
from sync_ext.change_log as e
cross join lateral (
  select pg_catalog.array_agg(distinct name collate "C" order by name collate "C") as fields
  from pg_catalog.json_array_elements_text(sync_ext.patched_names(e.patch)) as name
  cross join lateral (select e.fields -> name as held) as f
  where not e.applied
    or (f.held ->> 'clock', f.held ->> 'hlc', f.held ->> 'opId') <> (e.clock::text, e.hlc, e.op_id::text)
) as lost
join sync_ext.change_log as l
  on l.workspace_key = e.workspace_key
  and l.server_version = case when e.overwrote is null then e.server_version else e.supersedes end
join sync_ext.record as r
  on r.workspace_key = l.workspace_key and r.table_name = l.table_name and r.pk = l.pk
join sync_ext.workspace as w on w.workspace_key = l.workspace_key
left join sync_ext.change_log as v
  on v.workspace_key = r.workspace_key and v.server_version = r.server_version
where (not e.applied or e.overwrote is not null or lost.fields is not null)
  and w.away is null
  and (select sync_ext.is_caller_known())
  and sync_ext.may_read(w.workspace_id)
  and ((select sync_ext.calling_user()) is null or r.owner in ('', (select sync_ext.calling_user())));

create or replace view sync_ext.workspace_status with (security_barrier) as
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

create or replace view sync_ext.attached_table with (security_barrier) as
select
  s.relation as "table",
  s.table_name,
  s.workspace_column,
  s.workspace_id,
  s.fields ->> s.owner_field as owner_column,
  s.deleted_column,
  s.fields as columns,
  s.patches,
  s.direction,
  s.apply_as,
  sync_ext.trigger_state(s.relation) as trigger,
  sync_ext.column_types(s.relation) is distinct from s.column_types as columns_changed,
  s.backfilled,
  s.fields ->> s.scope_field as scope_column
from sync_ext.synced_table as s
where s.relation is not null
  and (select sync_ext.is_caller_known())
  and (select sync_ext.calling_user()) is null;

create or replace function sync_explain(workspace_id text, table_name text, pk text) returns json
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
  newest as (
    select
      e.*,
      pg_catalog.octet_length(e.content::text) as payload_bytes,
      pg_catalog.sum(pg_catalog.octet_length(e.content::text)) over (order by e.server_version desc) as bytes
    from (
      select *, coalesce(patch, payload) as content from entry order by server_version desc limit 1000
    ) as e
  ),
  op as (
    select
      e.server_version,
      pg_catalog.json_build_object(
        'serverVersion', e.server_version,
        'op', e.operation,
        'outcome', case
          when held.fields is not null or e.op_id = t.op_id and e.applied then 'winner'
          when not e.applied then 'lost'
          else 'superseded'
        end,
        'against', coalesce(e.supersedes, case when not e.applied then coalesce(e.before, t.server_version) end),
        'decidedBy', case
          when e.patch is not null then
            case
              when e.applied then null
              when t.deleted then 'base'
              when (e.base ->> 'clock', e.base ->> 'hlc', e.base ->> 'opId') <> (t.clock::text, t.hlc, t.op_id::text)
                then 'base'
              else 'fields'
            end
          when o.clock <> e.clock then 'clock'
          when o.hlc <> e.hlc then 'hlc'
          when o.op_id <> e.op_id then 'opId'
        end,
        'overwrote', e.overwrote,
        'scope', e.scope,
        'leftScope', e.left_scope,
        'fields', held.fields,
        'supersededBy', (select s.server_version from entry as s where s.supersedes = e.server_version),
        'stamp', pg_catalog.json_build_object('clock', e.clock, 'hlc', e.hlc, 'deviceId', e.device_id, 'opId', e.op_id),
        'createdAt', e.created_at,
        'payload', case when e.bytes < page.max_bytes then e.content end,
        'payloadBytes', e.payload_bytes
      ) as item
    from newest as e
    cross join target as t
    cross join lateral (
      -- Of a patch, those that it holds now.
      select pg_catalog.json_agg(f.key order by f.key collate "C") as fields
      from entry as n
      cross join pg_catalog.json_each(n.fields) as f
      where n.server_version = t.server_version
        and (f.value ->> 'clock', f.value ->> 'hlc', f.value ->> 'opId') = (e.clock::text, e.hlc, e.op_id::text)
    ) as held
    cross join (
      select s.setting::bigint as max_bytes from pg_catalog.pg_settings as s where s.name = 'sync_ext.max_page_bytes'
    ) as page
    left join lateral (
      -- The register at its turn, that of a patch is its base: it replaced or lost to it.
      select
        coalesce((o.base ->> 'clock')::bigint, o.clock),
        coalesce(o.base ->> 'hlc', o.hlc),
        coalesce((o.base ->> 'opId')::uuid, o.op_id)
      from entry as o
      where o.server_version = coalesce(e.supersedes, e.before) and (e.applied or e.before is not null)
      union all
      select t.clock, t.hlc, t.op_id where not e.applied and e.before is null
    ) as o (clock, hlc, op_id) on true
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
      -- GC works in order and stops at an entry that is not due. If the clock was set
      -- back, such an entry can precede one that is due.
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
        'owner', nullif(t.owner, ''),
        'scope', t.scope,
        'fields', (select n.fields from entry as n where n.server_version = t.server_version)
      )
      from target as t
    ),
    'opsLogged', (select pg_catalog.count(*) from entry),
    'ops', (select coalesce(pg_catalog.json_agg(o.item order by o.server_version), '[]') from op as o),
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

-- A function cannot get another argument, so these are made anew under another name for a
-- moment.
alter function sync_pull(text, bigint, integer, text[], boolean, text) rename to sync_pull_before;
alter function sync_snapshot(text, text, integer, text[]) rename to sync_snapshot_before;
alter function sync_exchange(text, text, bigint, json, integer, text[], boolean, text) rename to sync_exchange_before;
alter function sync_register_table(text, text, text, boolean, regprocedure) rename to sync_register_table_before;
alter function sync_list_workspaces() rename to sync_list_workspaces_before;
alter function sync_status(text) rename to sync_status_before;
alter function sync_attach_table(regclass, text, name, text, name, name, jsonb, boolean, text, text, text, text, text)
  rename to sync_attach_table_before;

create function sync_pull(
  workspace_id text,
  cursor bigint default 0,
  page_limit integer default 100,
  tables text[] default null,
  latest boolean default false,
  proof text default null,
  scopes text[] default null
) returns json
language c stable parallel restricted
as 'MODULE_PATHNAME', 'sync_pull_wrapper';

create function sync_snapshot(
  workspace_id text,
  page_token text default null,
  page_limit integer default 500,
  tables text[] default null,
  scopes text[] default null,
  have text[] default null,
  proof text default null
) returns json
language c volatile parallel restricted
as 'MODULE_PATHNAME', 'sync_snapshot_wrapper';

create function sync_exchange(
  workspace_id text,
  device_id text,
  cursor bigint,
  ops json,
  page_limit integer default 100,
  tables text[] default null,
  latest boolean default false,
  proof text default null,
  scopes text[] default null
) returns json
language c volatile parallel unsafe
as 'MODULE_PATHNAME', 'sync_exchange_wrapper';

create function sync_register_table(
  table_name text,
  pk_field text default 'id',
  owner_field text default null,
  patches boolean default false,
  validation regprocedure default null,
  scope_field text default null
) returns void
language c volatile parallel unsafe
as 'MODULE_PATHNAME', 'sync_register_table_wrapper';

create function sync_list_workspaces(page_token text default null, page_limit integer default null) returns json
language c stable parallel restricted
as 'MODULE_PATHNAME', 'sync_list_workspaces_wrapper';

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

create function sync_attach_table(
  "table" regclass,
  table_name text default null,
  workspace_column name default 'workspace_id',
  workspace_id text default null,
  owner_column name default null,
  deleted_column name default null,
  columns jsonb default null,
  patches boolean default false,
  direction text default 'both',
  apply_as text default 'caller',
  reads text default null,
  numbers text default 'safe',
  apply_search_path text default null,
  scope_column name default null
) returns void
language c volatile parallel unsafe
as 'MODULE_PATHNAME', 'sync_attach_table_wrapper';

create function sync_ext.set_scope_field(table_name text, scope_field text, "position" bigint) returns bigint
language c volatile parallel unsafe
as 'MODULE_PATHNAME', 'set_scope_field_wrapper';

create function sync_ext.scope_of(payload json, scope_field text) returns text
language c immutable parallel safe
as 'MODULE_PATHNAME', 'scope_of_wrapper';

create procedure sync_set_scope_field(table_name text, scope_field text)
language plpgsql
as $$
declare
  "position" bigint;
begin
  loop
    "position" := sync_ext.set_scope_field(table_name, scope_field, "position");
    commit;
    exit when "position" is null;
  end loop;
end
$$;

comment on function sync_pull(text, bigint, integer, text[], boolean, text, text[]) is 'the changes after a cursor, in order of version';
comment on function sync_snapshot(text, text, integer, text[], text[], text[], text) is 'the current state, page by page, for devices that start or restart';
comment on function sync_exchange(text, text, bigint, json, integer, text[], boolean, text, text[]) is 'pushes, acknowledges and pulls in one call';
comment on function sync_register_table(text, text, text, boolean, regprocedure, text) is 'allows pushes to a table';
comment on function sync_list_workspaces(text, integer) is 'the workspaces of the current user, with the role in each';
comment on function sync_status(text, text, integer) is 'versions, contents and devices of workspaces, and what holds GC back';
comment on procedure sync_set_scope_field(text, text) is 'changes what the scopes of a table''s records are, workspace by workspace';
comment on function sync_ext.set_scope_field(text, text, bigint) is 'a step of sync_set_scope_field';
comment on function sync_ext.scope_of(json, text) is 'the scope that a payload names in a field';
comment on function sync_attach_table(regclass, text, name, text, name, name, jsonb, boolean, text, text, text, text, text, name)
  is 'makes the rows of a table of the app records that devices sync';

-- Of several servers: which workspaces this one has, and moves of a workspace from one to
-- another. For trusted callers; docs/scaling.md has the order of the calls.
--
-- Each call of a move is a transaction of its own and may be repeated: it is known by its
-- move_id. sync_export_depart is the point of no return. Before it the workspace is served
-- where it was, after sync_import_arrive where it is then, in between nowhere: there are
-- never two copies that take pushes.

-- Raises 42501 if a user is set.
create function sync_ext.require_trusted() returns void
language c stable parallel restricted
as 'MODULE_PATHNAME', 'require_trusted_wrapper';

-- Sends a hint about a workspace when the transaction commits.
create function sync_ext.hint(workspace_id text, server_version bigint) returns void
language c volatile parallel unsafe
as 'MODULE_PATHNAME', 'hint_wrapper';

-- The bucket of a workspace: the first 10 bits of its name's SHA-256.
create function sync_ext.bucket_of(workspace_id text) returns integer
language sql immutable strict security definer parallel safe
set search_path = pg_catalog, pg_temp
begin atomic
  select pg_catalog.get_byte(h.hash, 0) * 4 + pg_catalog.get_byte(h.hash, 1) / 64
  from (select pg_catalog.sha256(pg_catalog.convert_to($1, 'UTF8')) as hash) as h;
end;

create function sync_ext.owns_bucket(workspace_id text) returns boolean
language sql stable security definer parallel restricted
set search_path = pg_catalog, pg_temp
begin atomic
  select not exists (select from sync_ext.shard_bucket)
    or exists (select from sync_ext.shard_bucket as b where b.bucket = sync_ext.bucket_of($1));
end;

create function sync_set_key_range(server integer) returns void
language c volatile parallel unsafe
as 'MODULE_PATHNAME', 'sync_set_key_range_wrapper';

create function sync_own_buckets(buckets integer[]) returns void
language plpgsql volatile security definer parallel unsafe
set search_path = pg_catalog, pg_temp
as $$
begin
  perform sync_ext.require_trusted();
  if exists (select from unnest(buckets) as b where b is null or b not between 0 and 1023) then
    raise exception 'invalid buckets' using errcode = '22023', detail = 'A bucket is a number from 0 to 1023.';
  end if;
  -- Whoever creates a workspace has opened its table for writing before it looks here.
  lock table sync_ext.workspace in share row exclusive mode;
  delete from sync_ext.shard_bucket;
  insert into sync_ext.shard_bucket (bucket) select distinct b from unnest(buckets) as b;
end
$$;

-- Removes workspaces that other servers have: those of the names, which are remembered as
-- moved, or else those of foreign buckets that no move has brought here. sync_gc erases
-- their rows.
create function sync_disown(
  workspace_ids text[] default null,
  "to" text default null,
  batch_size integer default 1000
) returns json
language plpgsql volatile security definer parallel unsafe
set search_path = pg_catalog, pg_temp
as $$
declare
  names text[];
  keys bigint[];
begin
  perform sync_ext.require_trusted();
  if batch_size is null or batch_size < 1 then
    raise exception 'invalid batch_size' using errcode = '22023', hint = 'Pass at least 1.';
  end if;
  lock table sync_ext.workspace in share row exclusive mode;
  if workspace_ids is null then
    -- Of foreign buckets it is known without these; and who gets a bucket back would know what
    -- is no longer so.
    delete from sync_ext.move as m
    where m.role = 'departed' and m.workspace_key is null and not sync_ext.owns_bucket(m.workspace_id);
    select array_agg(f.workspace_id), array_agg(f.workspace_key) into names, keys
    from (
      select w.workspace_id, w.workspace_key
      from sync_ext.workspace as w
      where w.away is null
        and not sync_ext.owns_bucket(w.workspace_id)
        and not exists (select from sync_ext.move as m where m.workspace_id = w.workspace_id)
      order by w.workspace_key
      limit batch_size
    ) as f;
  else
    insert into sync_ext.move as m (workspace_id, move_id, role, peer)
    select distinct n, gen_random_uuid(), 'departed', "to" from unnest(workspace_ids) as n
    on conflict (workspace_id) do update
      set move_id = excluded.move_id, role = 'departed', workspace_key = null, peer = excluded.peer,
        agreed = null, last_page = null, at = clock_timestamp();
    select array_agg(w.workspace_id), array_agg(w.workspace_key) into names, keys
    from sync_ext.workspace as w
    where w.workspace_id = any (workspace_ids);
  end if;
  insert into sync_ext.dropped_workspace (workspace_key) select unnest(keys);
  delete from sync_ext.member where workspace_id = any (names);
  delete from sync_ext.workspace where workspace_key = any (keys);
  return json_build_object(
    'disowned', coalesce(cardinality(keys), 0),
    'hasMore', workspace_ids is null and coalesce(cardinality(keys), 0) = batch_size
  );
end
$$;

-- What two servers must have in common for a workspace to go from one to the other.
create function sync_ext.agreed() returns json
language sql stable security definer parallel restricted
set search_path = pg_catalog, pg_temp
begin atomic
  select pg_catalog.json_build_object(
    'version', (select e.extversion from pg_catalog.pg_extension as e where e.extname = 'sync_ext'),
    'membershipFunction', coalesce(pg_catalog.current_setting('sync_ext.membership_function', true), ''),
    'tables', (
      select coalesce(pg_catalog.json_agg(pg_catalog.json_build_array(
        t.table_name, t.pk_field, t.owner_field, t.patches, t.validation, t.scope_field, t.relation is not null
      ) order by t.table_name), '[]')
      from sync_ext.synced_table as t
    )
  );
end;

-- Raises 55000 unless both are the same.
create function sync_ext.require_agreed(mine json, theirs json) returns void
language plpgsql stable security definer parallel restricted
set search_path = pg_catalog, pg_temp
as $$
declare
  what text;
begin
  foreach what in array array['version', 'tables', 'membershipFunction'] loop
    if (mine -> what)::jsonb is distinct from (theirs -> what)::jsonb then
      raise exception 'servers differ' using errcode = '55000',
        detail = format('%s is %s on one and %s on the other.', what, mine -> what, coalesce((theirs -> what)::text, 'missing')),
        hint = 'Make them the same, or cancel the move and begin it again.';
    end if;
  end loop;
end
$$;

-- The move of this id that has one of the roles, locked until the transaction ends.
create function sync_ext.move_of(workspace_id text, move_id uuid, variadic roles text[]) returns sync_ext.move
language plpgsql volatile security definer parallel unsafe
set search_path = pg_catalog, pg_temp
as $$
declare
  found_move sync_ext.move;
begin
  perform sync_ext.require_trusted();
  select m.* into found_move from sync_ext.move as m where m.workspace_id = $1 for update;
  if found_move.move_id is distinct from $2 or found_move.role <> all (roles) then
    raise exception 'no such move' using errcode = '55000',
      detail = case
        when found_move.move_id is null then 'The workspace has none here.'
        when found_move.move_id is distinct from $2 then 'The workspace has another one here.'
        else format('It is %s.', found_move.role)
      end;
  end if;
  return found_move;
end
$$;

-- Raises 55000 if typed rows belong to the workspace: they stay where their tables are.
create function sync_ext.require_no_attached(workspace_key bigint) returns void
language plpgsql stable security definer parallel restricted
set search_path = pg_catalog, pg_temp
as $$
declare
  attached text;
begin
  select t.table_name into attached
  from sync_ext.synced_table as t
  where t.relation is not null
    and exists (select from sync_ext.record as r where r.workspace_key = $1 and r.table_name = t.table_name);
  if found then
    raise exception 'workspace has rows of attached tables' using errcode = '55000',
      detail = format('Table "%s" is attached.', attached);
  end if;
end
$$;

create function sync_export_begin(workspace_id text, move_id uuid, "to" text) returns json
language plpgsql volatile security definer parallel unsafe
set search_path = pg_catalog, pg_temp
as $$
declare
  moved sync_ext.move;
  found_workspace sync_ext.workspace;
begin
  perform sync_ext.require_trusted();
  if move_id is null then
    raise exception 'invalid move_id' using errcode = '22023';
  end if;
  select w.* into found_workspace from sync_ext.workspace as w where w.workspace_id = $1 for update;
  select m.* into moved from sync_ext.move as m where m.workspace_id = $1 for update;
  if moved.move_id = $2 and moved.role in ('departing', 'departed') then
    return json_build_object(
      'role', moved.role, 'workspaceKey', moved.workspace_key, 'serverVersion', found_workspace.head,
      'agreed', moved.agreed
    );
  end if;
  if moved.role in ('departing', 'arriving') or found_workspace.away is not null then
    raise exception 'workspace is being moved' using errcode = '55006',
      detail = format('It is %s, with move_id %s.', moved.role, moved.move_id);
  end if;
  if found_workspace.workspace_key is null then
    raise exception 'workspace does not exist' using errcode = '42704';
  end if;
  perform sync_ext.require_no_attached(found_workspace.workspace_key);
  -- Written, so that a GC above READ COMMITTED that does not see the move fails.
  update sync_ext.workspace as w set held_until = null where w.workspace_key = found_workspace.workspace_key;
  insert into sync_ext.move as m (workspace_id, move_id, role, workspace_key, peer, agreed, scope_epoch)
  values ($1, $2, 'departing', found_workspace.workspace_key, "to", sync_ext.agreed(), found_workspace.scope_epoch)
  on conflict on constraint move_pkey do update
    set move_id = excluded.move_id, role = excluded.role, workspace_key = excluded.workspace_key,
      peer = excluded.peer, through = 0, has_graves = false, grave_table = null, grave_pk = null,
      agreed = excluded.agreed, scope_epoch = excluded.scope_epoch, last_page = null, at = clock_timestamp()
  returning m.* into moved;
  return json_build_object(
    'role', moved.role, 'workspaceKey', moved.workspace_key, 'serverVersion', found_workspace.head,
    'agreed', moved.agreed
  );
end
$$;

create function sync_ext.import_position(move sync_ext.move) returns json
language sql immutable security definer parallel safe
set search_path = pg_catalog, pg_temp
begin atomic
  select pg_catalog.json_build_object(
    'through', ($1).through, 'hasGraves', ($1).has_graves,
    'graveTable', ($1).grave_table, 'gravePk', ($1).grave_pk
  );
end;

create function sync_ext.import_reply(move sync_ext.move) returns json
language sql immutable security definer parallel safe
set search_path = pg_catalog, pg_temp
begin atomic
  select pg_catalog.json_build_object(
    'arrived', ($1).role = 'arrived', 'isComplete', ($1).has_graves, 'through', ($1).through,
    'position', sync_ext.import_position($1)
  );
end;

-- The next page after a position: graves, which have no entry, and of which there are no new
-- ones while GC passes over the workspace; then entries of the log, to the head, with the
-- records that they are of. JSON goes as text, because functions of Postgres do not parse all
-- that a json may hold. All of a page is of one snapshot.
create function sync_export_page(workspace_id text, move_id uuid, "position" json default null) returns json
language plpgsql volatile security definer parallel unsafe
set search_path = pg_catalog, pg_temp
as $$
declare
  moved constant sync_ext.move := sync_ext.move_of(workspace_id, move_id, 'departing', 'departed');
  after sync_ext.move;
  page json;
  max_rows constant integer := 1000;
  max_bytes constant integer := 4194304;
begin
  after.through := coalesce(("position" ->> 'through')::bigint, 0);
  after.has_graves := coalesce(("position" ->> 'hasGraves')::boolean, false);
  after.grave_table := "position" ->> 'graveTable';
  after.grave_pk := "position" ->> 'gravePk';
  with workspace as (
    select w.head from sync_ext.workspace as w where w.workspace_key = moved.workspace_key
  ),
  read as materialized (
    select l.*,
      row_number() over by_version as place,
      coalesce(sum(octet_length(concat(l.payload, l.base, l.patch, l.fields))) over (
        by_version rows between unbounded preceding and 1 preceding
      ), 0) as bytes_before
    from (
      select l.* from sync_ext.change_log as l
      where after.has_graves and l.workspace_key = moved.workspace_key and l.server_version > after.through
      order by l.server_version
      limit max_rows + 1
    ) as l
    window by_version as (order by l.server_version)
  ),
  entry as materialized (
    select * from read where place <= max_rows and bytes_before < max_bytes
  ),
  grave as materialized (
    select r.* from sync_ext.record as r
    where r.workspace_key = moved.workspace_key
      and not after.has_graves
      and (r.table_name, r.pk) > (coalesce(after.grave_table, ''), coalesce(after.grave_pk, ''))
      and not exists (
        select from sync_ext.change_log as l
        where l.workspace_key = r.workspace_key and l.server_version = r.server_version
      )
    order by r.table_name, r.pk
    limit max_rows
  ),
  record as (
    select r.* from sync_ext.record as r
    where r.workspace_key = moved.workspace_key
      and (r.table_name, r.pk) in (select e.table_name, e.pk from entry as e)
    union all
    select * from grave
  )
  select json_build_object(
    'after', sync_ext.import_position(after),
    'next', json_build_object(
      'through', case
        when not after.has_graves then after.through
        when (select count(*) from entry) = (select count(*) from read) then (select head from workspace)
        else (select max(e.server_version) from entry as e)
      end,
      'hasGraves', after.has_graves or (select count(*) from grave) < max_rows,
      'graveTable', coalesce((select g.table_name from grave as g order by g.table_name desc, g.pk desc limit 1), after.grave_table),
      'gravePk', coalesce((select g.pk from grave as g order by g.table_name desc, g.pk desc limit 1), after.grave_pk)
    ),
    'serverVersion', (select head from workspace),
    'entries', (
      select coalesce(json_agg(json_build_object(
        'server_version', e.server_version, 'table_name', e.table_name, 'pk', e.pk, 'operation', e.operation,
        'payload', e.payload::text, 'clock', e.clock, 'hlc', e.hlc, 'device_id', e.device_id, 'op_id', e.op_id,
        'applied', e.applied, 'supersedes', e.supersedes, 'created_at', e.created_at, 'owner', e.owner,
        'filled_field', e.filled_field, 'overwrote', e.overwrote, 'base', e.base::text, 'patch', e.patch::text,
        'fields', e.fields::text, 'pushed_digest', e.pushed_digest, 'scope', e.scope, 'left_scope', e.left_scope
      ) order by e.server_version), '[]')
      from entry as e
    ),
    'records', (
      select coalesce(json_agg(json_build_object(
        'table_name', r.table_name, 'pk', r.pk, 'server_version', r.server_version, 'clock', r.clock,
        'hlc', r.hlc, 'op_id', r.op_id, 'deleted', r.deleted, 'owner', r.owner, 'scope', r.scope
      )), '[]')
      from record as r
    )
  ) into page;
  return page;
end
$$;

create function sync_export_hold(workspace_id text, move_id uuid, seconds double precision) returns void
language plpgsql volatile security definer parallel unsafe
set search_path = pg_catalog, pg_temp
as $$
declare
  moved sync_ext.move;
begin
  perform from sync_ext.workspace as w where w.workspace_id = $1 for update;
  moved := sync_ext.move_of($1, $2, 'departing');
  if seconds is null or seconds < 0 or seconds > 60 then
    raise exception 'invalid seconds' using errcode = '22023', detail = 'It must be from 0 to 60.';
  end if;
  update sync_ext.workspace as w
  set held_until = clock_timestamp() + seconds * interval '1 second'
  where w.workspace_key = moved.workspace_key;
end
$$;

-- The workspace's row lock excludes pushes, GC, changes of members and first acknowledgements,
-- so what is read under it is the last state.
create function sync_export_depart(workspace_id text, move_id uuid, through bigint) returns json
language plpgsql volatile security definer parallel unsafe
set search_path = pg_catalog, pg_temp
as $$
declare
  moved sync_ext.move;
  found_workspace sync_ext.workspace;
  page json;
begin
  select w.* into found_workspace from sync_ext.workspace as w where w.workspace_id = $1 for update;
  moved := sync_ext.move_of($1, $2, 'departing', 'departed');
  if moved.role = 'departed' then
    if moved.last_page is null then
      raise exception 'no such move' using errcode = '55000', detail = 'It is forgotten.';
    end if;
    return moved.last_page;
  end if;
  if found_workspace.workspace_key is distinct from moved.workspace_key then
    raise exception 'workspace does not exist' using errcode = '42704',
      detail = 'It was dropped after the move had begun.', hint = 'Cancel the move.';
  end if;
  if found_workspace.head is distinct from through then
    return json_build_object('departed', false, 'serverVersion', found_workspace.head);
  end if;
  perform sync_ext.require_agreed(sync_ext.agreed(), moved.agreed);
  if found_workspace.scope_epoch is distinct from moved.scope_epoch then
    raise exception 'scopes have changed' using errcode = '55000',
      detail = 'sync_set_scope_field was called after the move had begun.',
      hint = 'Cancel the move and begin it again.';
  end if;
  perform sync_ext.require_no_attached(moved.workspace_key);
  page := json_build_object(
    'departed', true,
    'serverVersion', found_workspace.head,
    'horizon', found_workspace.horizon,
    'gcThrough', found_workspace.gc_through,
    'createdAt', found_workspace.created_at,
    'scopeEpoch', found_workspace.scope_epoch,
    'agreed', moved.agreed,
    'members', (
      select coalesce(json_agg(json_build_object('user_id', m.user_id, 'role', m.role, 'added_at', m.added_at)), '[]')
      from sync_ext.member as m where m.workspace_id = $1
    ),
    'devices', (
      select coalesce(json_agg(json_build_object(
        'device_id', d.device_id, 'user_id', d.user_id, 'last_seen_version', d.last_seen_version, 'updated_at', d.updated_at
      )), '[]')
      from sync_ext.device_cursor as d where d.workspace_key = moved.workspace_key
    )
  );
  -- GC does not look at it any more.
  update sync_ext.workspace as w
  set away = 'departed', held_until = null, unread_since = null, pinned_since = null, devices_since = null
  where w.workspace_key = moved.workspace_key;
  update sync_ext.move as m set role = 'departed', last_page = page, at = clock_timestamp() where m.workspace_id = $1;
  -- Above every cursor: listeners pull, and learn that it is elsewhere.
  perform sync_ext.hint($1, found_workspace.head + 1);
  return page;
end
$$;

create function sync_export_cancel(workspace_id text, move_id uuid) returns void
language plpgsql volatile security definer parallel unsafe
set search_path = pg_catalog, pg_temp
as $$
declare
  moved sync_ext.move;
begin
  perform from sync_ext.workspace as w where w.workspace_id = $1 for update;
  moved := sync_ext.move_of($1, $2, 'departing', 'arrived');
  if moved.role = 'arrived' then
    return;
  end if;
  update sync_ext.workspace as w set held_until = null where w.workspace_key = moved.workspace_key;
  -- It is here, whatever its bucket is.
  update sync_ext.move as m
  set role = 'arrived', workspace_key = null, agreed = null, at = clock_timestamp()
  where m.workspace_id = $1;
end
$$;

create function sync_export_forget(workspace_id text, move_id uuid) returns void
language plpgsql volatile security definer parallel unsafe
set search_path = pg_catalog, pg_temp
as $$
declare
  moved sync_ext.move;
begin
  perform from sync_ext.workspace as w where w.workspace_id = $1 for update;
  moved := sync_ext.move_of($1, $2, 'departed');
  delete from sync_ext.workspace as w where w.workspace_key = moved.workspace_key;
  if found then
    delete from sync_ext.member as m where m.workspace_id = $1;
    insert into sync_ext.dropped_workspace (workspace_key) values (moved.workspace_key);
  end if;
  update sync_ext.move as m set workspace_key = null, agreed = null, last_page = null where m.workspace_id = $1;
end
$$;

-- The workspace's row is there from the beginning: its name is taken, so nobody creates it.
-- With keep_key it has the key that it has at the other server, for rows that come by
-- replication.
create function sync_import_begin(workspace_id text, move_id uuid, "from" json, keep_key boolean default false)
returns json
language plpgsql volatile security definer parallel unsafe
set search_path = pg_catalog, pg_temp
as $$
declare
  moved sync_ext.move;
  key bigint := case when keep_key then ("from" ->> 'workspaceKey')::bigint end;
begin
  perform sync_ext.require_trusted();
  if workspace_id is null or octet_length(workspace_id) not between 1 and 256 then
    raise exception 'invalid workspace_id' using errcode = '22023', detail = 'workspace_id must be 1 to 256 bytes.';
  end if;
  if move_id is null then
    raise exception 'invalid move_id' using errcode = '22023';
  end if;
  -- Nobody creates it, or changes what is owned, meanwhile.
  lock table sync_ext.workspace in share row exclusive mode;
  select m.* into moved from sync_ext.move as m where m.workspace_id = $1 for update;
  if moved.move_id = $2 and moved.role in ('arriving', 'arrived') then
    return sync_ext.import_reply(moved);
  end if;
  if moved.role in ('departing', 'arriving') then
    raise exception 'workspace is being moved' using errcode = '55006',
      detail = format('It is %s, with move_id %s.', moved.role, moved.move_id);
  end if;
  if exists (select from sync_ext.workspace as w where w.workspace_id = $1 and w.away is not null) then
    raise exception 'workspace is not forgotten' using errcode = '55000',
      detail = format('It has departed from here, with move_id %s.', moved.move_id),
      hint = 'Call sync_export_forget first.';
  end if;
  if exists (select from sync_ext.workspace as w where w.workspace_id = $1) then
    raise exception 'workspace already exists' using errcode = '42710';
  end if;
  perform sync_ext.require_agreed(sync_ext.agreed(), "from" -> 'agreed');
  if key is not null and (
    exists (select from sync_ext.workspace as w where w.workspace_key = key)
    or exists (select from sync_ext.dropped_workspace as d where d.workspace_key = key)
    or exists (select from sync_ext.change_log as l where l.workspace_key = key)
    or exists (select from sync_ext.record as r where r.workspace_key = key)
    or exists (select from sync_ext.device_cursor as d where d.workspace_key = key)
  ) then
    raise exception 'rows of the workspace are left' using errcode = '55000', hint = 'Call sync_gc until they are erased.';
  end if;
  insert into sync_ext.workspace as w (workspace_key, workspace_id, away, unread_since, devices_since)
    overriding system value
  values (coalesce(key, nextval('sync_ext.workspace_workspace_key_seq')), $1, 'arriving', null, null)
  returning w.workspace_key into key;
  insert into sync_ext.move as m (workspace_id, move_id, role, workspace_key, peer, agreed)
  values ($1, $2, 'arriving', key, "from" ->> 'server', "from" -> 'agreed')
  on conflict on constraint move_pkey do update
    set move_id = excluded.move_id, role = excluded.role, workspace_key = excluded.workspace_key,
      peer = excluded.peer, through = 0, has_graves = false, grave_table = null, grave_pk = null,
      agreed = excluded.agreed, last_page = null, at = clock_timestamp()
  returning m.* into moved;
  return sync_ext.import_reply(moved);
end
$$;

-- A page that is in already changes nothing; one that does not follow is refused.
create function sync_import_page(workspace_id text, move_id uuid, page json) returns json
language plpgsql volatile security definer parallel unsafe
set search_path = pg_catalog, pg_temp
as $$
declare
  moved sync_ext.move := sync_ext.move_of(workspace_id, move_id, 'arriving', 'arrived');
  here constant jsonb := sync_ext.import_position(moved)::jsonb;
  next constant json := page -> 'next';
begin
  if moved.role = 'arrived' or next::jsonb = here then
    return sync_ext.import_reply(moved);
  end if;
  if (page -> 'after')::jsonb is distinct from here then
    raise exception 'page does not follow' using errcode = '55000',
      detail = format('It is after %s, the import is at %s.', coalesce((page -> 'after')::text, 'nothing'), here);
  end if;
  insert into sync_ext.change_log (
    workspace_key, server_version, table_name, pk, operation, payload, clock, hlc, device_id, op_id, applied,
    supersedes, created_at, owner, filled_field, overwrote, base, patch, fields, pushed_digest, scope, left_scope
  )
  select
    moved.workspace_key, e.server_version, e.table_name, e.pk, e.operation, e.payload::json, e.clock, e.hlc,
    e.device_id, e.op_id, e.applied, e.supersedes, e.created_at, e.owner, e.filled_field, e.overwrote,
    e.base::json, e.patch::json, e.fields::json, e.pushed_digest, e.scope, e.left_scope
  from json_to_recordset(page -> 'entries') as e (
    server_version bigint, table_name text, pk text, operation text, payload text, clock bigint, hlc text,
    device_id text, op_id uuid, applied boolean, supersedes bigint, created_at timestamptz, owner text,
    filled_field text, overwrote uuid, base text, patch text, fields text, pushed_digest uuid, scope text,
    left_scope text
  );
  insert into sync_ext.record as r (
    workspace_key, table_name, pk, server_version, clock, hlc, op_id, deleted, owner, scope
  )
  select
    moved.workspace_key, n.table_name, n.pk, n.server_version, n.clock, n.hlc, n.op_id, n.deleted, n.owner, n.scope
  from json_to_recordset(page -> 'records') as n (
    table_name text, pk text, server_version bigint, clock bigint, hlc text, op_id uuid, deleted boolean,
    owner text, scope text
  )
  -- A page that was read later has the record as it was later.
  on conflict on constraint record_pkey do update
    set server_version = excluded.server_version, clock = excluded.clock, hlc = excluded.hlc,
      op_id = excluded.op_id, deleted = excluded.deleted, owner = excluded.owner, scope = excluded.scope;
  update sync_ext.move as m
  set through = (next ->> 'through')::bigint, has_graves = (next ->> 'hasGraves')::boolean,
    grave_table = next ->> 'graveTable', grave_pk = next ->> 'gravePk', at = clock_timestamp()
  where m.workspace_id = $1
  returning m.* into moved;
  return sync_ext.import_reply(moved);
end
$$;

create function sync_import_arrive(workspace_id text, move_id uuid, page json) returns void
language plpgsql volatile security definer parallel unsafe
set search_path = pg_catalog, pg_temp
as $$
declare
  moved sync_ext.move;
begin
  perform from sync_ext.workspace as w where w.workspace_id = $1 for update;
  moved := sync_ext.move_of($1, $2, 'arriving', 'arrived');
  if moved.role = 'arrived' then
    return;
  end if;
  if not moved.has_graves or moved.through is distinct from (page ->> 'serverVersion')::bigint
    or (page ->> 'departed')::boolean is not true
  then
    raise exception 'rows are missing' using errcode = '55000',
      detail = format('The import is at %s, the last page at %s.', sync_ext.import_position(moved),
        coalesce(page ->> 'serverVersion', 'none'));
  end if;
  perform sync_ext.require_agreed(sync_ext.agreed(), page -> 'agreed');
  delete from sync_ext.member as m where m.workspace_id = $1;
  insert into sync_ext.member (workspace_id, user_id, role, added_at)
  select $1, m.user_id, m.role, m.added_at
  from json_to_recordset(page -> 'members') as m (user_id text, role text, added_at timestamptz);
  -- With replication they are here.
  insert into sync_ext.device_cursor (workspace_key, device_id, last_seen_version, updated_at, user_id)
  select moved.workspace_key, d.device_id, d.last_seen_version, d.updated_at, d.user_id
  from json_to_recordset(page -> 'devices') as d (
    device_id text, last_seen_version bigint, updated_at timestamptz, user_id text
  )
  on conflict do nothing;
  update sync_ext.workspace as w
  set head = moved.through, horizon = (page ->> 'horizon')::bigint, gc_through = (page ->> 'gcThrough')::bigint,
    created_at = (page ->> 'createdAt')::timestamptz, scope_epoch = (page ->> 'scopeEpoch')::bigint, away = null,
    unread_since = '-infinity', devices_since = '-infinity'
  where w.workspace_key = moved.workspace_key;
  update sync_ext.move as m
  set role = 'arrived', workspace_key = null, agreed = null, at = clock_timestamp()
  where m.workspace_id = $1;
  perform sync_ext.hint($1, moved.through);
end
$$;

-- The workspace is where it was, which is elsewhere.
create function sync_import_cancel(workspace_id text, move_id uuid) returns void
language plpgsql volatile security definer parallel unsafe
set search_path = pg_catalog, pg_temp
as $$
declare
  moved sync_ext.move;
begin
  perform from sync_ext.workspace as w where w.workspace_id = $1 for update;
  moved := sync_ext.move_of($1, $2, 'arriving', 'departed');
  if moved.role = 'departed' then
    return;
  end if;
  delete from sync_ext.workspace as w where w.workspace_key = moved.workspace_key;
  insert into sync_ext.dropped_workspace (workspace_key) values (moved.workspace_key);
  update sync_ext.move as m
  set role = 'departed', workspace_key = null, agreed = null, at = clock_timestamp()
  where m.workspace_id = $1;
end
$$;

-- Splitting a server by promoting its standby. What leaves is not served here any more, batch by
-- batch in the order of the names; a standby that has replayed that does not serve it either.
-- These are the workspaces of the buckets, except for those that a move has brought here, and
-- those of the names. sync_split_arrive ends that: at the server that the standby has become, or
-- here, if the standby has remained one.
create function sync_split_depart(
  split_id uuid,
  buckets integer[],
  workspace_ids text[] default null,
  "to" text default null,
  after text default '',
  batch_size integer default 1000
) returns json
language plpgsql volatile security definer parallel unsafe
set search_path = pg_catalog, pg_temp
as $$
declare
  names text[];
  keys bigint[];
  heads bigint[];
begin
  perform sync_ext.require_trusted();
  if split_id is null then
    raise exception 'invalid split_id' using errcode = '22023';
  end if;
  if batch_size is null or batch_size < 1 then
    raise exception 'invalid batch_size' using errcode = '22023', hint = 'Pass at least 1.';
  end if;
  -- Nobody creates a workspace of theirs any more.
  if cardinality(buckets) > 0 and (
    not exists (select from sync_ext.shard_bucket)
    or exists (select from sync_ext.shard_bucket as b where b.bucket = any (buckets))
  ) then
    raise exception 'buckets are owned' using errcode = '55000', hint = 'Call sync_own_buckets with the other ones first.';
  end if;
  -- Names of this server that do not exist stay with their buckets.
  if exists (
    select from sync_ext.move as m
    where m.workspace_id = any (workspace_ids) and m.role = 'arrived'
      and not exists (select from sync_ext.workspace as w where w.workspace_id = m.workspace_id)
  ) then
    lock table sync_ext.workspace in share row exclusive mode;
    delete from sync_ext.move as m
    where m.workspace_id = any (workspace_ids) and m.role = 'arrived'
      and not exists (select from sync_ext.workspace as w where w.workspace_id = m.workspace_id);
  end if;
  select array_agg(f.workspace_id order by f.workspace_id), array_agg(f.workspace_key order by f.workspace_id),
    array_agg(f.head order by f.workspace_id)
  into names, keys, heads
  from (
    select w.workspace_id, w.workspace_key, w.head
    from sync_ext.workspace as w
    where w.workspace_id > coalesce(after, '')
      and w.away is null
      and (
        w.workspace_id = any (workspace_ids)
        or sync_ext.bucket_of(w.workspace_id) = any (buckets)
          and not exists (select from sync_ext.move as m where m.workspace_id = w.workspace_id and m.role = 'arrived')
      )
    -- As changes by SQL lock several.
    order by w.workspace_id
    limit batch_size
    for update
  ) as f;
  if exists (select from sync_ext.move as m where m.workspace_id = any (names) and m.role = 'departing') then
    raise exception 'workspace is being moved' using errcode = '55006', hint = 'End the move, or cancel it.';
  end if;
  insert into sync_ext.move as m (workspace_id, move_id, role, workspace_key, peer)
  select n.workspace_id, split_id, 'departed', n.workspace_key, "to"
  from unnest(names, keys) as n (workspace_id, workspace_key)
  on conflict on constraint move_pkey do update
    set move_id = excluded.move_id, role = excluded.role, workspace_key = excluded.workspace_key,
      peer = excluded.peer, agreed = null, last_page = null, at = clock_timestamp();
  update sync_ext.workspace as w
  set away = 'departed', held_until = null, unread_since = null, pinned_since = null, devices_since = null
  where w.workspace_key = any (keys);
  perform sync_ext.hint(n.workspace_id, n.head + 1) from unnest(names, heads) as n (workspace_id, head);
  return json_build_object(
    'departed', coalesce(cardinality(keys), 0),
    'after', names[cardinality(names)],
    'hasMore', coalesce(cardinality(keys), 0) = batch_size
  );
end
$$;

-- Those of buckets that this server owns are not exceptions of the map.
create function sync_split_arrive(split_id uuid, batch_size integer default 1000) returns json
language plpgsql volatile security definer parallel unsafe
set search_path = pg_catalog, pg_temp
as $$
declare
  names text[];
  keys bigint[];
  heads bigint[];
begin
  perform sync_ext.require_trusted();
  if batch_size is null or batch_size < 1 then
    raise exception 'invalid batch_size' using errcode = '22023', hint = 'Pass at least 1.';
  end if;
  select array_agg(f.workspace_id), array_agg(f.workspace_key), array_agg(f.head) into names, keys, heads
  from (
    select w.workspace_id, w.workspace_key, w.head
    from sync_ext.move as m
    join sync_ext.workspace as w using (workspace_key)
    where m.move_id = split_id and m.role = 'departed' and w.away = 'departed'
    limit batch_size
    for update of w
  ) as f;
  update sync_ext.workspace as w set away = null, unread_since = '-infinity', devices_since = '-infinity'
  where w.workspace_key = any (keys);
  delete from sync_ext.move as m where m.workspace_id = any (names) and sync_ext.owns_bucket(m.workspace_id);
  update sync_ext.move as m
  set role = 'arrived', workspace_key = null, at = clock_timestamp()
  where m.workspace_id = any (names);
  perform sync_ext.hint(n.workspace_id, n.head) from unnest(names, heads) as n (workspace_id, head);
  return json_build_object(
    'arrived', coalesce(cardinality(keys), 0),
    'hasMore', coalesce(cardinality(keys), 0) = batch_size
  );
end
$$;

comment on function sync_ext.require_trusted() is 'raises an error for users';
comment on function sync_ext.hint(text, bigint) is 'sends a hint about a workspace when the transaction commits';
comment on function sync_ext.bucket_of(text) is 'the bucket of a workspace, from 0 to 1023';
comment on function sync_ext.owns_bucket(text) is 'whether this server owns the bucket of a workspace';
comment on function sync_set_key_range(integer) is 'takes the keys of new workspaces from the range of this server, of several';
comment on function sync_own_buckets(integer[]) is 'sets which buckets of workspaces this server owns, of several; null for all';
comment on function sync_disown(text[], text, integer) is 'removes workspaces that other servers have';
comment on function sync_ext.agreed() is 'what two servers must have in common for a move';
comment on function sync_ext.require_agreed(json, json) is 'raises an error unless two servers agree';
comment on function sync_ext.move_of(text, uuid, text[]) is 'a move of a workspace, locked';
comment on function sync_ext.require_no_attached(bigint) is 'raises an error if a workspace has rows of attached tables';
comment on function sync_ext.import_position(sync_ext.move) is 'how far an import has come';
comment on function sync_ext.import_reply(sync_ext.move) is 'the reply of an import';
comment on function sync_export_begin(text, uuid, text) is 'begins to move a workspace to another server';
comment on function sync_export_page(text, uuid, json) is 'the next rows of a workspace that is being moved';
comment on function sync_export_hold(text, uuid, double precision) is 'refuses pushes to a workspace that is about to depart, for some seconds';
comment on function sync_export_depart(text, uuid, bigint) is 'ends the service of a workspace here, if its copy has everything';
comment on function sync_export_cancel(text, uuid) is 'gives up a move from this server';
comment on function sync_export_forget(text, uuid) is 'removes the rows of a workspace that has departed';
comment on function sync_import_begin(text, uuid, json, boolean) is 'begins to take a workspace from another server';
comment on function sync_import_page(text, uuid, json) is 'stores rows of a workspace that is being moved here';
comment on function sync_import_arrive(text, uuid, json) is 'begins the service of a workspace here';
comment on function sync_import_cancel(text, uuid) is 'gives up a move to this server';
comment on function sync_split_depart(uuid, integer[], text[], text, text, integer) is 'ends the service of workspaces that leave with a standby';
comment on function sync_split_arrive(uuid, integer) is 'begins the service of workspaces that left with a standby';

-- The rights of what is new: those of a fresh installation, whatever default privileges
-- say, and those that were granted on what it replaces. To pg_dump the latter are no part of
-- the extension, so it must find them beyond the initial privileges.
do $$
declare
  made record;
  granted record;
  initial pg_catalog.aclitem[];
begin
  for made in
    select 'routine' as kind, p.oid::pg_catalog.regprocedure::pg_catalog.text as name,
      'pg_catalog.pg_proc'::pg_catalog.regclass as class, p.oid, p.proacl as acl,
      before.oid::pg_catalog.regprocedure::pg_catalog.text as before, before.proacl as before_acl,
      sibling.proowner::pg_catalog.regrole::pg_catalog.text as owner, sibling.proowner as owner_oid
    from pg_catalog.pg_proc as p
    join pg_catalog.pg_proc as sibling
      on sibling.oid operator(pg_catalog.=) 'sync_push(text, json)'::pg_catalog.regprocedure
    left join pg_catalog.pg_proc as before
      on before.pronamespace operator(pg_catalog.=) p.pronamespace
      and before.proname operator(pg_catalog.=) (p.proname::pg_catalog.text operator(pg_catalog.||) '_before')
    where p.oid operator(pg_catalog.=) any (array[
      'sync_pull'::pg_catalog.regproc,
      'sync_snapshot'::pg_catalog.regproc,
      'sync_exchange'::pg_catalog.regproc,
      'sync_register_table'::pg_catalog.regproc,
      'sync_attach_table'::pg_catalog.regproc,
      'sync_list_workspaces'::pg_catalog.regproc,
      'sync_status'::pg_catalog.regproc,
      'sync_set_scope_field'::pg_catalog.regproc,
      'sync_ext.set_scope_field'::pg_catalog.regproc,
      'sync_ext.scope_of'::pg_catalog.regproc,
      'sync_ext.require_trusted'::pg_catalog.regproc,
      'sync_ext.hint'::pg_catalog.regproc,
      'sync_ext.bucket_of'::pg_catalog.regproc,
      'sync_ext.owns_bucket'::pg_catalog.regproc,
      'sync_set_key_range'::pg_catalog.regproc,
      'sync_own_buckets'::pg_catalog.regproc,
      'sync_disown'::pg_catalog.regproc,
      'sync_ext.agreed'::pg_catalog.regproc,
      'sync_ext.require_agreed'::pg_catalog.regproc,
      'sync_ext.move_of'::pg_catalog.regproc,
      'sync_ext.require_no_attached'::pg_catalog.regproc,
      'sync_export_begin'::pg_catalog.regproc,
      'sync_ext.import_position'::pg_catalog.regproc,
      'sync_ext.import_reply'::pg_catalog.regproc,
      'sync_export_page'::pg_catalog.regproc,
      'sync_export_hold'::pg_catalog.regproc,
      'sync_export_depart'::pg_catalog.regproc,
      'sync_export_cancel'::pg_catalog.regproc,
      'sync_export_forget'::pg_catalog.regproc,
      'sync_import_begin'::pg_catalog.regproc,
      'sync_import_page'::pg_catalog.regproc,
      'sync_import_arrive'::pg_catalog.regproc,
      'sync_import_cancel'::pg_catalog.regproc,
      'sync_split_depart'::pg_catalog.regproc,
      'sync_split_arrive'::pg_catalog.regproc
    ]::pg_catalog.oid[])
    union all
    select 'table', c.oid::pg_catalog.regclass::pg_catalog.text, 'pg_catalog.pg_class'::pg_catalog.regclass, c.oid, c.relacl,
      null, null, sibling.relowner::pg_catalog.regrole::pg_catalog.text, sibling.relowner
    from pg_catalog.pg_class as c
    join pg_catalog.pg_class as sibling
      on sibling.oid operator(pg_catalog.=) 'sync_ext.workspace'::pg_catalog.regclass
    where c.oid operator(pg_catalog.=) any (array['sync_ext.shard_bucket', 'sync_ext.move', 'sync_ext.unpinned_workspace']::pg_catalog.regclass[])
  loop
    execute pg_catalog.format('alter %s %s owner to %s', made.kind, made.name, made.owner);
    execute pg_catalog.format('revoke all on %s %s from public cascade', made.kind, made.name);
    for granted in
      select distinct a.grantee::pg_catalog.regrole as role from pg_catalog.aclexplode(made.acl) as a
      where a.grantee operator(pg_catalog.<>) 0 and a.grantee operator(pg_catalog.<>) made.owner_oid
    loop
      execute pg_catalog.format('revoke all on %s %s from %s cascade', made.kind, made.name, granted.role);
    end loop;
    execute pg_catalog.format('grant all on %s %s to %s', made.kind, made.name, made.owner);
    select i.initprivs into strict initial from pg_catalog.pg_init_privs as i
    where i.classoid operator(pg_catalog.=) made.class
      and i.objoid operator(pg_catalog.=) made.oid;
    for granted in
      select case a.grantee when 0 then 'public' else a.grantee::pg_catalog.regrole::pg_catalog.text end as role,
        case when a.is_grantable then ' with grant option' else '' end as option
      from pg_catalog.aclexplode(made.before_acl) as a
      where a.grantee operator(pg_catalog.<>) made.owner_oid
    loop
      execute pg_catalog.format('grant execute on routine %s to %s%s', made.name, granted.role, granted.option);
    end loop;
    update pg_catalog.pg_init_privs set initprivs = initial
    where classoid operator(pg_catalog.=) made.class
      and objoid operator(pg_catalog.=) made.oid;
    if made.before is not null then
      execute pg_catalog.format('drop function %s', made.before);
    end if;
  end loop;
end
$$;

grant execute on function sync_ext.scope_of(json, text) to public;
