-- Scopes: what they are in, and the functions that know them.

alter table sync_ext.workspace add column scope_epoch bigint default 0;
alter table sync_ext.synced_table add column scope_field text collate "C";
alter table sync_ext.change_log
  add column scope text collate "C",
  add column left_scope text collate "C";
alter table sync_ext.record add column scope text collate "C";
create index record_scope_idx on sync_ext.record (workspace_key, scope, table_name, pk)
  where scope is not null;

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
where (select sync_ext.is_caller_known())
  and sync_ext.may_read(w.workspace_id)
  and ((select sync_ext.calling_user()) is null or r.owner in ('', (select sync_ext.calling_user())));

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
    select p.oid::pg_catalog.regprocedure::pg_catalog.text as name, p.oid, p.proacl as acl,
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
      'sync_ext.scope_of'::pg_catalog.regproc
    ]::pg_catalog.oid[])
  loop
    execute pg_catalog.format('alter routine %s owner to %s', made.name, made.owner);
    execute pg_catalog.format('revoke all on routine %s from public cascade', made.name);
    for granted in
      select distinct a.grantee::pg_catalog.regrole as role from pg_catalog.aclexplode(made.acl) as a
      where a.grantee operator(pg_catalog.<>) 0 and a.grantee operator(pg_catalog.<>) made.owner_oid
    loop
      execute pg_catalog.format('revoke all on routine %s from %s cascade', made.name, granted.role);
    end loop;
    execute pg_catalog.format('grant all on routine %s to %s', made.name, made.owner);
    select i.initprivs into strict initial from pg_catalog.pg_init_privs as i
    where i.classoid operator(pg_catalog.=) 'pg_catalog.pg_proc'::pg_catalog.regclass
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
    where classoid operator(pg_catalog.=) 'pg_catalog.pg_proc'::pg_catalog.regclass
      and objoid operator(pg_catalog.=) made.oid;
    if made.before is not null then
      execute pg_catalog.format('drop function %s', made.before);
    end if;
  end loop;
end
$$;

grant execute on function sync_ext.scope_of(json, text) to public;

-- As in a fresh installation, only the owner may use the table.
do $$
declare
  granted record;
  owner pg_catalog.text;
begin
  select w.relowner::pg_catalog.regrole::pg_catalog.text into strict owner
  from pg_catalog.pg_class as w
  where w.oid operator(pg_catalog.=) 'sync_ext.workspace'::pg_catalog.regclass;
  execute pg_catalog.format('alter table sync_ext.unpinned_workspace owner to %s', owner);
  revoke all on sync_ext.unpinned_workspace from public cascade;
  for granted in
    select distinct a.grantee::pg_catalog.regrole as role
    from pg_catalog.pg_class as c
    cross join pg_catalog.aclexplode(c.relacl) as a
    where c.oid operator(pg_catalog.=) 'sync_ext.unpinned_workspace'::pg_catalog.regclass
      and a.grantee operator(pg_catalog.<>) 0
      and a.grantee operator(pg_catalog.<>) c.relowner
  loop
    execute pg_catalog.format('revoke all on sync_ext.unpinned_workspace from %s cascade', granted.role);
  end loop;
  execute pg_catalog.format('grant all on sync_ext.unpinned_workspace to %s', owner);
end
$$;
