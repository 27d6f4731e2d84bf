-- Tables of the app, as attached tables.

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

create function sync_detach_table("table" regclass) returns void
language c volatile parallel unsafe
as 'MODULE_PATHNAME', 'sync_detach_table_wrapper';

-- The triggers of attached tables. Their owners make them, so PUBLIC may execute both
-- functions; without USAGE on the schema nobody finds them.

-- AFTER INSERT OR UPDATE OR DELETE FOR EACH ROW.
create function sync_ext.capture() returns trigger
language c volatile parallel unsafe
as 'MODULE_PATHNAME', 'capture_wrapper';

-- BEFORE TRUNCATE: it fires no row triggers, so the log would keep the rows.
create function sync_ext.refuse_truncate() returns trigger
language plpgsql volatile security definer parallel unsafe
set search_path = pg_catalog, pg_temp
as $$
begin
  raise exception using
    errcode = 'feature_not_supported',
    message = 'an attached table cannot be truncated',
    detail = pg_catalog.format('It is %I.%I.', tg_table_schema, tg_table_name),
    hint = 'DELETE the rows; or detach the table, truncate it, attach it again and repair toward the log.';
end
$$;

-- The columns of a table, as text: attached_table compares it with what it was when the
-- table was attached. The search_path makes all types but those of Postgres qualified.
create function sync_ext.column_types(relation regclass) returns text
language sql stable security definer parallel safe
set search_path = pg_catalog, pg_temp
begin atomic
  select pg_catalog.string_agg(
    pg_catalog.format('%I %s', a.attname, pg_catalog.format_type(a.atttypid, a.atttypmod)), ', ' order by a.attnum
  )
  from pg_catalog.pg_attribute as a
  where a.attrelid = $1 and a.attnum > 0 and not a.attisdropped;
end;

-- Whether the triggers of an attached table are there, and fire.
create function sync_ext.trigger_state(relation regclass) returns text
language sql stable security definer parallel safe
set search_path = pg_catalog, pg_temp
begin atomic
  select case pg_catalog.count(*)
    when 2 then case pg_catalog.count(*) filter (where t.tgenabled in ('O', 'A')) when 2 then 'ok' else 'disabled' end
    else 'missing'
  end
  from pg_catalog.pg_trigger as t
  where t.tgrelid = $1
    and (t.tgname, t.tgfoid) in (
      ('sync_ext_capture', 'sync_ext.capture()'::regprocedure),
      ('sync_ext_truncate', 'sync_ext.refuse_truncate()'::regprocedure)
    );
end;

-- The attached tables, for trusted callers.
create view sync_ext.attached_table with (security_barrier) as
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

comment on function sync_attach_table(regclass, text, name, text, name, name, jsonb, boolean, text, text, text, text, text, name)
  is 'makes the rows of a table of the app records that devices sync';
comment on function sync_detach_table(regclass) is 'ends that; the records stay, as those of a JSON table';
comment on function sync_ext.capture() is 'the row trigger of attached tables';
comment on function sync_ext.refuse_truncate() is 'the TRUNCATE trigger of attached tables';
comment on function sync_ext.column_types(regclass) is 'the columns of a table, with their types';
comment on function sync_ext.trigger_state(regclass) is 'whether the triggers of an attached table are ok, disabled or missing';
comment on view sync_ext.attached_table is 'attached tables, their triggers, and whether their columns changed since';
