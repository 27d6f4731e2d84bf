-- Moves a workspace from one shard to another while devices use it; included by router.sql.
-- Each step is a transaction here, and calls shards that know the move by its id. So a move
-- that is broken off anywhere goes on when it is called again.

-- Moves that are not done. A step may have been taken on the shards and not be recorded here.
create table if not exists sync_router.move (
  workspace_id text collate "C" primary key,
  move_id uuid not null default gen_random_uuid(),
  source integer not null,
  target integer not null,
  step text not null default 'begin' check (step in ('begin', 'import', 'copy', 'depart', 'place', 'forget', 'cancel')),
  -- Versions of the log: what the target has, and what the source had when it was last asked.
  through bigint not null default 0,
  head bigint not null default 0,
  "position" json,
  departed boolean not null default false,
  begun_at timestamptz not null default clock_timestamp(),
  at timestamptz not null default clock_timestamp()
);

-- Changes the map.
create function sync_router.place(workspace_id text, shard integer) returns void
language plpgsql volatile parallel unsafe
as $$
begin
  delete from sync_router.placed as p where p.workspace_id operator(pg_catalog.=) $1;
  if sync_router.shard_of($1) operator(pg_catalog.<>) $2 then
    insert into sync_router.placed (workspace_id, shard) values ($1, $2);
  end if;
end
$$;

-- The move of a workspace, begun if there is none; one that was broken off asks the target how
-- far it has come. Done if the workspace is there.
create function sync_router.move_to(workspace_id text, shard integer) returns sync_router.move
language plpgsql volatile parallel unsafe
as $$
declare
  m sync_router.move;
begin
  if workspace_id is null then
    raise exception 'invalid workspace_id' using errcode = 'invalid_parameter_value';
  end if;
  if not exists (
    select from pg_catalog.pg_foreign_server as s
    cross join lateral pg_catalog.pg_options_to_table(s.srvoptions) as o
    where s.srvname operator(pg_catalog.=) 'sync'
      and o.option_name operator(pg_catalog.=) pg_catalog.concat('p', shard)
  ) then
    raise exception 'no such shard' using errcode = 'invalid_parameter_value';
  end if;
  select v.* into m from sync_router.move as v where v.workspace_id operator(pg_catalog.=) $1 for update;
  if not found then
    m.workspace_id := $1;
    m.source := sync_router.shard_of($1);
    m.target := shard;
    if m.source operator(pg_catalog.=) m.target then
      m.step := 'done';
      return m;
    end if;
    insert into sync_router.move as v (workspace_id, source, target) values ($1, m.source, m.target)
    returning v.* into m;
  elsif m.step operator(pg_catalog.=) 'cancel' then
    raise exception 'workspace is being moved' using errcode = 'object_in_use',
      detail = 'Its move is being cancelled.', hint = 'Call sync_move_cancel until it is done.';
  elsif m.target operator(pg_catalog.<>) shard then
    raise exception 'workspace is being moved' using errcode = 'object_in_use',
      detail = pg_catalog.format('It moves to shard %s.', m.target),
      hint = 'Call sync_move with that shard until it is done, or sync_move_cancel.';
  elsif m.step operator(pg_catalog.<>) 'begin' then
    update sync_router.move as v set step = 'import' where v.workspace_id operator(pg_catalog.=) $1
    returning v.* into m;
  end if;
  return m;
end
$$;

-- The next step of a move:
-- begin   the source keeps what the workspace has
-- import  the target makes room, or says how far it has come
-- copy    a page
-- depart  if the copy has everything, the source serves the workspace no longer, but the target
-- place   the map changes
-- forget  the source erases its rows
create function sync_router.move_step(workspace_id text) returns sync_router.move
language plpgsql volatile parallel unsafe
as $$
declare
  m sync_router.move;
  page json;
  reply json;
  gap bigint;
begin
  select v.* into strict m from sync_router.move as v where v.workspace_id operator(pg_catalog.=) $1 for update;
  case m.step
    when 'begin' then
      perform sync_router.export_begin(m.source, $1, m.move_id, m.target::text);
      m.step := 'import';
    when 'import' then
      page := sync_router.export_begin(m.source, $1, m.move_id, m.target::text);
      reply := sync_router.import_begin(m.target, $1, m.move_id, page, false);
      m.step := case when (reply operator(pg_catalog.->>) 'arrived')::boolean then 'place' else 'copy' end;
      m.position := reply operator(pg_catalog.->) 'position';
      m.departed := page operator(pg_catalog.->>) 'role' operator(pg_catalog.=) 'departed';
    when 'copy' then
      page := sync_router.export_page(m.source, $1, m.move_id, m.position);
      reply := sync_router.import_page(m.target, $1, m.move_id, page);
      gap := nullif(m.head, 0) operator(pg_catalog.-) m.through;
      m.position := reply operator(pg_catalog.->) 'position';
      m.through := (reply operator(pg_catalog.->>) 'through')::bigint;
      m.head := (page operator(pg_catalog.->>) 'serverVersion')::bigint;
      if (reply operator(pg_catalog.->>) 'isComplete')::boolean then
        if m.head operator(pg_catalog.=) m.through then
          m.step := 'depart';
        -- Pushes wait while the last page is copied; and sometimes if they are more than can
        -- be copied meanwhile.
        elsif not m.departed and (
          m.head operator(pg_catalog.-) m.through operator(pg_catalog.<=) 1000
          or m.head operator(pg_catalog.-) m.through operator(pg_catalog.>=) gap
        ) then
          perform sync_router.export_hold(m.source, $1, m.move_id, 2);
        end if;
      end if;
    when 'depart' then
      page := sync_router.export_depart(m.source, $1, m.move_id, m.through);
      if (page operator(pg_catalog.->>) 'departed')::boolean then
        perform sync_router.import_arrive(m.target, $1, m.move_id, page);
        perform sync_router.place($1, m.target);
        m.step := 'forget';
      else
        m.head := (page operator(pg_catalog.->>) 'serverVersion')::bigint;
        perform sync_router.export_hold(m.source, $1, m.move_id, 2);
        m.step := 'copy';
      end if;
    when 'place' then
      perform sync_router.place($1, m.target);
      m.step := 'forget';
    when 'forget' then
      perform sync_router.export_forget(m.source, $1, m.move_id);
      delete from sync_router.move as v where v.workspace_id operator(pg_catalog.=) $1;
      m.step := 'done';
      return m;
  end case;
  update sync_router.move as v
  set step = m.step, "position" = m.position, through = m.through, head = m.head, departed = m.departed,
    at = pg_catalog.clock_timestamp()
  where v.workspace_id operator(pg_catalog.=) $1;
  return m;
end
$$;

revoke execute on function sync_router.place, sync_router.move_to, sync_router.move_step from public;

-- CALL it outside of a transaction block; again, if it was interrupted or has failed. Without
-- `forget` the source keeps its rows until a call with it.
create procedure sync_move(workspace_id text, "to" integer, forget boolean default true)
language plpgsql
as $$
declare
  m sync_router.move := sync_router.move_to(workspace_id, "to");
  error sync_router.error;
  reported_at timestamptz := pg_catalog.clock_timestamp();
begin
  commit;
  while m.step operator(pg_catalog.<>) 'done' and (forget or m.step operator(pg_catalog.<>) 'forget') loop
    begin
      m := sync_router.move_step(workspace_id);
    exception when others or query_canceled then
      get stacked diagnostics error.code = returned_sqlstate, error.message = message_text,
        error.detail = pg_exception_detail, error.hint = pg_exception_hint;
    end;
    if error.code is not null then
      -- Of what the source refused, there is nothing to cancel.
      if m.step operator(pg_catalog.=) 'begin' and error.message operator(pg_catalog.~) '\] REMOTE ERROR: ' then
        delete from sync_router.move as v where v.workspace_id operator(pg_catalog.=) m.workspace_id;
        commit;
      end if;
      perform sync_router.raise(error);
    end if;
    commit;
    if pg_catalog.clock_timestamp() operator(pg_catalog.-) reported_at operator(pg_catalog.>=) interval '5 seconds' then
      raise notice 'sync_move: % of %', m.through, m.head;
      reported_at := pg_catalog.clock_timestamp();
    end if;
  end loop;
  raise notice 'sync_move: the workspace is on shard %', "to";
end
$$;
comment on procedure sync_move(text, integer, boolean) is 'moves a workspace to a shard';

-- The source serves on, the target erases what it has. Once the workspace has departed there
-- is no way back, only on. CALL it again if it fails: until it is done, the move cannot go on,
-- because the source may have purged what the target has.
create procedure sync_move_cancel(workspace_id text)
language plpgsql
as $$
declare
  m sync_router.move;
  role text;
  error sync_router.error;
begin
  update sync_router.move as v set step = 'cancel' where v.workspace_id operator(pg_catalog.=) $1
  returning v.* into m;
  if not found then
    raise exception 'workspace is not being moved' using errcode = 'undefined_object';
  end if;
  commit;
  begin
    -- Begun, if it was not, so that it can be cancelled.
    role := sync_router.export_begin(m.source, $1, m.move_id, m.target::text) operator(pg_catalog.->>) 'role';
    if role operator(pg_catalog.=) 'departed' then
      update sync_router.move as v set step = 'import' where v.workspace_id operator(pg_catalog.=) $1;
    else
      perform sync_router.export_cancel(m.source, $1, m.move_id);
      begin
        perform sync_router.import_cancel(m.target, $1, m.move_id);
      exception when object_not_in_prerequisite_state then
        -- It has no such move.
      end;
      delete from sync_router.move as v where v.workspace_id operator(pg_catalog.=) $1;
    end if;
  exception when others or query_canceled then
    get stacked diagnostics error.code = returned_sqlstate, error.message = message_text,
      error.detail = pg_exception_detail, error.hint = pg_exception_hint;
    perform sync_router.raise(error);
  end;
  commit;
  if role operator(pg_catalog.=) 'departed' then
    raise exception 'workspace has departed' using errcode = 'object_not_in_prerequisite_state',
      hint = 'Call sync_move until it is done.';
  end if;
end
$$;
comment on procedure sync_move_cancel(text) is 'gives up a move that is not done';
