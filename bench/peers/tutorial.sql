-- The loop that tutorials teach: one op at a time, a few statements each, the
-- reply built as jsonb. It decides as the contract says, without its checks.
create schema tutorial;
create table tutorial.workspace (like sync_ext.workspace including all);
create table tutorial.change_log (like sync_ext.change_log including all);
create table tutorial.record (like sync_ext.record including all);

create function tutorial.push(p_workspace text, p_ops json) returns jsonb language plpgsql
-- or plans made while the tables were small would be kept
set plan_cache_mode = force_custom_plan as $$
declare
  ws tutorial.workspace;
  op json;
  stamp json;
  seen bigint;
  rec tutorial.record;
  won boolean;
  results jsonb := '[]';
begin
  insert into tutorial.workspace (workspace_id) values (p_workspace) on conflict do nothing;
  select * into ws from tutorial.workspace where workspace_id = p_workspace for update;
  for op in select value from json_array_elements(p_ops) loop
    stamp := op -> 'stamp';
    select server_version into seen from tutorial.change_log
      where workspace_key = ws.workspace_key and op_id = (stamp ->> 'opId')::uuid;
    if found then
      results := results || jsonb_build_object('opId', stamp ->> 'opId', 'success', true, 'serverVersion', seen, 'replayed', true);
      continue;
    end if;
    ws.head := ws.head + 1;
    select * into rec from tutorial.record
      where workspace_key = ws.workspace_key and table_name = op ->> 'tableName' and pk = op ->> 'pk';
    won := not found or ((stamp ->> 'clock')::bigint, stamp ->> 'hlc' collate "C", (stamp ->> 'opId')::uuid) > (rec.clock, rec.hlc, rec.op_id);
    insert into tutorial.change_log values (ws.workspace_key, ws.head, op ->> 'tableName', op ->> 'pk', op ->> 'operation', op -> 'payload',
      (stamp ->> 'clock')::bigint, stamp ->> 'hlc', stamp ->> 'deviceId', (stamp ->> 'opId')::uuid, won,
      case when won then rec.server_version end, clock_timestamp());
    if won then
      insert into tutorial.record values (ws.workspace_key, op ->> 'tableName', op ->> 'pk', ws.head, (stamp ->> 'clock')::bigint,
        stamp ->> 'hlc', (stamp ->> 'opId')::uuid, op ->> 'operation' = 'delete')
      on conflict (workspace_key, table_name, pk) do update set server_version = excluded.server_version,
        clock = excluded.clock, hlc = excluded.hlc, op_id = excluded.op_id, deleted = excluded.deleted;
    end if;
    results := results || jsonb_build_object('opId', stamp ->> 'opId', 'success', true, 'serverVersion', ws.head, 'applied', won);
  end loop;
  update tutorial.workspace set head = ws.head where workspace_key = ws.workspace_key;
  return jsonb_build_object('results', results, 'serverVersion', ws.head);
end
$$;
