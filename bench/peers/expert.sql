-- What an expert writes in SQL: the whole batch in one statement, set-based,
-- LWW by window functions. The log, records and versions are the contract's; it
-- does less: no check of form, no CONFLICT, no winners in the reply.
create schema expert;
create table expert.workspace (like sync_ext.workspace including all);
create table expert.change_log (like sync_ext.change_log including all);
create table expert.record (like sync_ext.record including all);

create function expert.push(p_workspace text, p_ops json) returns json language plpgsql
-- or plans made while the tables were small would be kept
set plan_cache_mode = force_custom_plan as $$
declare
  ws_key bigint;
  ws_head bigint;
  reply json;
begin
  select workspace_key, head into ws_key, ws_head from expert.workspace
    where workspace_id = p_workspace for no key update;
  if not found then
    insert into expert.workspace (workspace_id) values (p_workspace) on conflict do nothing;
    select workspace_key, head into ws_key, ws_head from expert.workspace
      where workspace_id = p_workspace for no key update;
  end if;

  with item as materialized (
    select i.ord, i."tableName" as table_name, i.pk, i.operation, i.payload, s."deviceId" as device_id,
      s."opId" as op_id, s.hlc, s.clock
    from rows from (json_to_recordset(p_ops) as ("tableName" text, pk text, operation text, payload json, stamp json)) with ordinality
        as i ("tableName", pk, operation, payload, stamp, ord),
      json_to_record(i.stamp) as s ("deviceId" text, "opId" uuid, hlc text, clock bigint)
  ), checked as (
    select item.*, l.server_version as seen, r.server_version as old_version,
      r.clock as old_clock, r.hlc as old_hlc, r.op_id as old_op_id,
      t.table_name is null or octet_length(item.payload::text) > 262144
        or coalesce(item.payload ->> t.pk_field, item.pk) <> item.pk
        or coalesce(item.payload ->> 'workspace_id', p_workspace) <> p_workspace as refused,
      row_number() over (partition by item.op_id order by item.ord) as nth
    from item
    left join sync_ext.synced_table t on t.table_name = item.table_name
    left join lateral (select server_version from expert.change_log c
        where c.workspace_key = ws_key and c.op_id = item.op_id limit 1) l on true
    left join lateral (select * from expert.record r
        where r.workspace_key = ws_key and r.table_name = item.table_name and r.pk = item.pk limit 1) r on true
  ), fresh as (
    select checked.*, ws_head + row_number() over (order by ord) as version,
      dense_rank() over (partition by table_name, pk order by clock, hlc collate "C", op_id) as rank
    from checked where seen is null and nth = 1 and not refused
  ), ranked as (
    select fresh.*, max(rank) over (partition by table_name, pk order by ord rows between unbounded preceding and 1 preceding) as best
    from fresh
  ), decided as (
    select ranked.*, (old_version is null or (clock, hlc collate "C", op_id) > (old_clock, old_hlc, old_op_id))
        and (best is null or rank > best) as applied
    from ranked
  ), entry as (
    select decided.*, case when applied then coalesce(max(version) filter (where applied) over (
        partition by table_name, pk order by ord rows between unbounded preceding and 1 preceding), old_version) end as supersedes
    from decided
  ), logged as (
    insert into expert.change_log
    select ws_key, version, table_name, pk, operation, payload, clock, hlc, device_id, op_id, applied, supersedes, clock_timestamp()
    from entry order by version
  ), winner as (
    select distinct on (table_name, pk) * from entry where applied order by table_name, pk, version desc
  ), stored as (
    insert into expert.record
    select ws_key, table_name, pk, version, clock, hlc, op_id, operation = 'delete' from winner
    on conflict (workspace_key, table_name, pk) do update set server_version = excluded.server_version,
      clock = excluded.clock, hlc = excluded.hlc, op_id = excluded.op_id, deleted = excluded.deleted
  ), counted as (
    update expert.workspace set head = ws_head + (select count(*) from fresh) where workspace_key = ws_key
    returning head
  )
  select json_build_object('results', json_agg(
      case when c.refused then json_build_object('opId', c.op_id, 'success', false, 'errorCode', 'VALIDATION_ERROR')
        when c.seen is not null then json_build_object('opId', c.op_id, 'success', true, 'serverVersion', c.seen, 'replayed', true)
        else json_build_object('opId', c.op_id, 'success', true, 'serverVersion', e.version, 'applied', e.applied) end order by c.ord),
      'serverVersion', (select head from counted))
  into reply
  from checked c left join entry e on e.op_id = c.op_id;
  return reply;
end
$$;

create function expert.pull(p_workspace text, p_cursor bigint, p_limit integer) returns json language sql stable as $$
  with ws as (
    select workspace_key, head, horizon from sync_ext.workspace where workspace_id = p_workspace
  ), page as (
    select c.* from ws, lateral (select * from sync_ext.change_log c
      where c.workspace_key = ws.workspace_key and c.server_version > p_cursor
      order by c.server_version limit p_limit) c
  )
  select json_build_object(
    'changes', coalesce((select json_agg(json_build_object('serverVersion', server_version, 'tableName', table_name, 'pk', pk,
        'op', operation, 'applied', applied, 'payload', payload,
        'stamp', json_build_object('clock', clock, 'hlc', hlc, 'deviceId', device_id, 'opId', op_id)) order by server_version) from page), '[]'),
    'nextCursor', coalesce((select max(server_version) from page), head),
    'hasMore', coalesce((select max(server_version) from page), head) < head,
    'serverVersion', head, 'oldestRetainedVersion', horizon + 1, 'requiresSnapshot', p_cursor < horizon)
  from ws
$$;
