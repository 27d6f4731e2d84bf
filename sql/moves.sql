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
