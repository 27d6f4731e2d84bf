-- An app's table three times: bare, attached, and with the trigger that people write
-- today, which logs each row as it changes. And two for pushes: attached, and written by
-- a loop that catches the errors of each op.
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

create table own.change_log (
  workspace_id text, server_version bigint, pk text, operation text, payload jsonb,
  created_at timestamptz not null default clock_timestamp(),
  primary key (workspace_id, server_version)
);
create table own.record (workspace_id text, pk text, server_version bigint, primary key (workspace_id, pk));
create table own.workspace (workspace_id text primary key, head bigint not null default 0);

create function own.log_row() returns trigger language plpgsql as $$
declare
  version bigint;
  changed own.by_trigger := coalesce(new, old);
begin
  insert into own.workspace as w values (changed.workspace_id, 1)
    on conflict (workspace_id) do update set head = w.head + 1 returning head into version;
  insert into own.change_log (workspace_id, server_version, pk, operation, payload)
    values (changed.workspace_id, version, changed.id::text, lower(tg_op), to_jsonb(new));
  insert into own.record values (changed.workspace_id, changed.id::text, version)
    on conflict (workspace_id, pk) do update set server_version = excluded.server_version;
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

-- As a push would have to be without sync_ext: each op in a block that catches its error.
create function own.push(into_workspace text, ops json) returns json language plpgsql as $$
declare
  op json;
  version bigint;
  results json[] := '{}';
begin
  insert into own.workspace values (into_workspace) on conflict do nothing;
  select head into version from own.workspace where workspace_id = into_workspace for update;
  for op in select value from json_array_elements(ops) loop
    begin
      insert into own.looped values ((op ->> 'pk')::uuid, into_workspace, op #>> '{payload,body}')
        on conflict (id) do update set body = excluded.body;
      version := version + 1;
      insert into own.change_log (workspace_id, server_version, pk, operation, payload)
        values (into_workspace, version, op ->> 'pk', op ->> 'operation', (op -> 'payload')::jsonb);
      insert into own.record values (into_workspace, op ->> 'pk', version)
        on conflict (workspace_id, pk) do update set server_version = excluded.server_version;
      results := results || json_build_object('success', true, 'serverVersion', version);
    exception when others then
      results := results || json_build_object('success', false, 'error', sqlerrm);
    end;
  end loop;
  update own.workspace set head = version where workspace_id = into_workspace;
  return array_to_json(results);
end
$$;
