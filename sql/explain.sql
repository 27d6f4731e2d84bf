-- The history of one record. There is no index for it: this reads the whole log of the
-- workspace. The reply is bounded: the newest ops, and their payloads while they fit
-- into a page.
--
-- An op that lost is listed with the op that it lost to at its turn, or, if that is
-- purged, with the record's winner. For a patch, payload is what it wrote, and fields
-- are those that it holds.

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

comment on function sync_explain(text, text, text) is 'all logged ops of a record with their outcomes, and when its tombstone can be purged';
