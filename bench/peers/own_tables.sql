-- An app's table three times: bare, attached, and with a trigger that logs each row as it
-- changes. And two for pushes: attached, and written by a loop that catches the errors of
-- each op.
create schema own;

create table own.bare (
  id uuid primary key default gen_random_uuid(),
  workspace_id text not null,
  batch integer not null,
  title text not null,
  priority integer not null default 0 check (priority between 0 and 9),
  done boolean not null default false,
  updated_at timestamptz not null default now()
);
create index on own.bare (workspace_id, batch);
create table own.attached (like own.bare including all);
create table own.by_trigger (like own.bare including all);
create table own.filled (like own.bare including all);

create table own.workspace (like sync_ext.workspace including all);
create table own.change_log (like sync_ext.change_log including all);
create table own.record (like sync_ext.record including all);

-- The log, records, stamps and versions are the contract's, but for changes that change
-- nothing. It locks the workspace at the statement.
create function own.log_row() returns trigger language plpgsql as $$
declare
  changed own.by_trigger := coalesce(new, old);
  ws own.workspace;
  known own.record;
  op uuid := gen_random_uuid();
  hlc text := (extract(epoch from clock_timestamp()) * 1000)::bigint || ':0000:$server';
begin
  update own.workspace set head = head + 1 where workspace_id = changed.workspace_id returning * into ws;
  if not found then
    insert into own.workspace (workspace_id, head) values (changed.workspace_id, 1) returning * into ws;
  end if;
  select * into known from own.record
    where workspace_key = ws.workspace_key and table_name = tg_table_name and pk = changed.id::text;
  insert into own.change_log values (ws.workspace_key, ws.head, tg_table_name, changed.id::text,
    case when new is null then 'delete' else 'put' end, to_jsonb(new) - 'workspace_id', coalesce(known.clock, 0) + 1, hlc,
    '$server', op, true, known.server_version, clock_timestamp());
  insert into own.record values (ws.workspace_key, tg_table_name, changed.id::text, ws.head,
    coalesce(known.clock, 0) + 1, hlc, op, new is null)
  on conflict (workspace_key, table_name, pk) do update set server_version = excluded.server_version,
    clock = excluded.clock, hlc = excluded.hlc, op_id = excluded.op_id, deleted = excluded.deleted;
  return null;
end
$$;
create trigger log_row after insert or update or delete on own.by_trigger
  for each row execute function own.log_row();

create table own.notes (
  id uuid primary key,
  workspace_id text not null,
  body text not null check (body <> 'bad')
);
create table own.looped (like own.notes including all);

-- As a push would have to be without sync_ext: the loop of tutorial.sql, with each op in a
-- block that catches its error.
create function own.push(into_workspace text, ops json) returns json language plpgsql as $$
declare
  ws own.workspace;
  op json;
  stamp json;
  seen bigint;
  known own.record;
  won boolean;
  results jsonb := '[]';
begin
  insert into own.workspace (workspace_id) values (into_workspace) on conflict do nothing;
  select * into ws from own.workspace where workspace_id = into_workspace for update;
  for op in select value from json_array_elements(ops) loop
    stamp := op -> 'stamp';
    select server_version into seen from own.change_log
      where workspace_key = ws.workspace_key and op_id = (stamp ->> 'opId')::uuid;
    if found then
      results := results || jsonb_build_object('opId', stamp ->> 'opId', 'success', true, 'serverVersion', seen, 'replayed', true);
      continue;
    end if;
    begin
      select * into known from own.record
        where workspace_key = ws.workspace_key and table_name = op ->> 'tableName' and pk = op ->> 'pk';
      won := not found or ((stamp ->> 'clock')::bigint, stamp ->> 'hlc' collate "C", (stamp ->> 'opId')::uuid)
        > (known.clock, known.hlc, known.op_id);
      if won then
        insert into own.looped values ((op ->> 'pk')::uuid, into_workspace, op #>> '{payload,body}')
          on conflict (id) do update set body = excluded.body;
        insert into own.record values (ws.workspace_key, op ->> 'tableName', op ->> 'pk', ws.head + 1,
          (stamp ->> 'clock')::bigint, stamp ->> 'hlc', (stamp ->> 'opId')::uuid, false)
        on conflict (workspace_key, table_name, pk) do update set server_version = excluded.server_version,
          clock = excluded.clock, hlc = excluded.hlc, op_id = excluded.op_id, deleted = excluded.deleted;
      end if;
      insert into own.change_log values (ws.workspace_key, ws.head + 1, op ->> 'tableName', op ->> 'pk',
        op ->> 'operation', op -> 'payload', (stamp ->> 'clock')::bigint, stamp ->> 'hlc', stamp ->> 'deviceId',
        (stamp ->> 'opId')::uuid, won, case when won then known.server_version end, clock_timestamp());
      ws.head := ws.head + 1;
      results := results || jsonb_build_object('opId', stamp ->> 'opId', 'success', true, 'serverVersion', ws.head, 'applied', won);
    exception when others then
      results := results || jsonb_build_object('opId', stamp ->> 'opId', 'success', false, 'error', sqlerrm);
    end;
  end loop;
  update own.workspace set head = ws.head where workspace_key = ws.workspace_key;
  return jsonb_build_object('results', results, 'serverVersion', ws.head);
end
$$;
