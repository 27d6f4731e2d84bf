-- What apps do without a sync server: rows with a time stamp, and a client that
-- asks for all after the latest it has seen. It reads one index and no log, and
-- it loses changes:
-- * now() is when a transaction began. One that commits after a later one was
--   read is stepped over for ever.
-- * Rows of the same microsecond are split by a page's end, and the rest of
--   them is never asked for again; with >= they would come twice instead.
-- * A deleted row is gone, so nobody hears of it.
create schema "timestamp";
create table "timestamp".row (
  workspace_key bigint not null,
  table_name text collate "C" not null,
  pk text collate "C" not null,
  payload json,
  updated_at timestamptz not null default now(),
  primary key (workspace_key, table_name, pk)
);
create index on "timestamp".row (workspace_key, updated_at);

create function "timestamp".pull(p_workspace bigint, p_since timestamptz, p_limit integer) returns json language sql stable as $$
  with page as (
    select * from "timestamp".row where workspace_key = p_workspace and updated_at > p_since
    order by updated_at limit p_limit
  )
  select json_build_object(
    'changes', coalesce((select json_agg(json_build_object('tableName', table_name, 'pk', pk, 'payload', payload,
        'updatedAt', updated_at) order by updated_at) from page), '[]'),
    'since', coalesce((select max(updated_at) from page), p_since))
$$;
