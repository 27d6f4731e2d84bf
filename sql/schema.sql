-- The tables; docs/operations.md describes them. The Rust side (src/store) addresses
-- columns by position, so new columns go at the end.

do $$
begin
  -- Rust reads stored text as JSON, which is UTF-8.
  if pg_catalog.getdatabaseencoding() operator(pg_catalog.<>) 'UTF8' then
    raise exception using
      errcode = 'feature_not_supported',
      message = 'sync_ext needs a database with encoding UTF8',
      detail = pg_catalog.format('This database has encoding %s.', pg_catalog.getdatabaseencoding()),
      hint = 'Create the database with ENCODING ''UTF8'' TEMPLATE template0.';
  end if;
end
$$;

-- Plain CREATE SCHEMA: if the schema already exists, installation must fail instead of
-- adopting it.
create schema sync_ext;

-- One row per workspace. Its row lock makes version order equal commit order. Its
-- counters are updated in place (HOT), hence the free space on each page. scope_epoch
-- tells changes of what scopes mean in it. One that is away is not served: it is still
-- arriving from another server, or has departed to one. Until held_until it refuses pushes.
-- The last three columns are marks for sync_gc, which looks at a workspace only when one of
-- them is old enough: no entry that it may read is older than unread_since, which is NULL if
-- there is none, or none that the devices have seen; pinned_since is the heartbeat of a device
-- that holds it back, NULL if none does; no heartbeat is older than devices_since. A push
-- changes them only if sync_gc had read everything, so that the others stay HOT.
create table sync_ext.workspace (
  workspace_key bigint generated always as identity,
  workspace_id text collate "C" not null,
  head bigint not null default 0,
  horizon bigint not null default 0,
  gc_through bigint not null default 0,
  created_at timestamptz not null default pg_catalog.clock_timestamp(),
  scope_epoch bigint default 0,
  away text collate "C",
  held_until timestamptz,
  unread_since timestamptz default '-infinity',
  pinned_since timestamptz,
  devices_since timestamptz default '-infinity',
  constraint workspace_away_check check (away in ('arriving', 'departed')),
  constraint workspace_pkey primary key (workspace_key),
  constraint workspace_workspace_id_key unique (workspace_id)
) with (fillfactor = 50);
create index workspace_unread_since_idx on sync_ext.workspace (unread_since) where unread_since is not null;
create index workspace_pinned_since_idx on sync_ext.workspace (pinned_since) where pinned_since is not null;
create index workspace_devices_since_idx on sync_ext.workspace (devices_since);

-- The tables that may be pushed. With an owner_field new records are private: they
-- belong to the user whom that field of the payload names. patches allows patches.
-- validation is the name of a function that may reject an op; by oid it would keep
-- pg_upgrade from copying the table.
-- The columns after relation are those of an attached table, one with typed rows of its
-- own; they are NULL for a JSON table. fields maps fields of the payload to columns, in
-- the order of the image; column_types is their definition when the table was attached;
-- a backfill that was interrupted goes on after the primary key backfilled_through.
-- scope_field names the field of the payload with a record's scope, of either kind of table.
create table sync_ext.synced_table (
  table_name text collate "C" not null,
  pk_field text collate "C" not null default 'id',
  registered_at timestamptz not null default pg_catalog.clock_timestamp(),
  owner_field text collate "C",
  patches boolean not null default false,
  validation text collate "C",
  relation regclass,
  workspace_column text collate "C",
  workspace_id text collate "C",
  deleted_column text collate "C",
  fields json,
  column_types text collate "C",
  direction text collate "C",
  apply_as text collate "C",
  numbers text collate "C",
  apply_search_path text collate "C",
  backfilled boolean,
  backfilled_through text collate "C",
  scope_field text collate "C",
  constraint synced_table_pkey primary key (table_name),
  constraint synced_table_relation_key unique (relation),
  constraint synced_table_direction_check check (direction in ('both', 'down')),
  constraint synced_table_apply_as_check check (apply_as in ('caller', 'owner')),
  constraint synced_table_numbers_check check (numbers in ('safe', 'native'))
);

-- The compacted log: every op at its version, until GC finds that it is not needed. The
-- newest entry of a live record is never purged. owner is that of the record, empty
-- if it is shared; filled_field is the field in which the server added the owner to the
-- payload, empty if it did not; overwrote is the op that this one replaced although its
-- author had not seen it.
-- base, patch and fields are NULL except for patches: the revision of the put that is
-- patched, the patch as pushed, and, if it won a field, the revision that holds each
-- patched field; payload is then the whole record. A patch that was superseded within
-- its own call has neither payload nor fields.
-- pushed_digest is that of a put's payload as pushed, where the payload is the image of the
-- typed row instead.
-- scope is the record's after the entry, left_scope the one that it left with it; NULL in a
-- table without scope field. There is no index for them: a puller reads the log from its
-- cursor on, and an index by scope would cost each push two more entries for what is read
-- once.
create table sync_ext.change_log (
  workspace_key bigint not null,
  server_version bigint not null,
  table_name text collate "C" not null,
  pk text collate "C" not null,
  operation text collate "C" not null,
  payload json,
  clock bigint not null,
  hlc text collate "C" not null,
  device_id text collate "C" not null,
  op_id uuid not null,
  applied boolean not null,
  supersedes bigint,
  created_at timestamptz not null,
  owner text collate "C" not null default '',
  filled_field text collate "C" not null default '',
  overwrote uuid,
  base json,
  patch json,
  fields json,
  pushed_digest uuid,
  scope text collate "C",
  left_scope text collate "C",
  constraint change_log_pkey primary key (workspace_key, server_version),
  constraint change_log_workspace_key_op_id_key unique (workspace_key, op_id),
  constraint change_log_operation_check check (operation in ('put', 'delete', 'patch'))
);

-- The register of each record, and the version of its newest entry. Updates touch
-- no indexed column, and each page has room for a new version of all its rows, because
-- records that are pushed together are updated together. A record keeps its owner and its
-- scope after a delete and as a grave; a record that was never live has no scope.
create table sync_ext.record (
  workspace_key bigint not null,
  table_name text collate "C" not null,
  pk text collate "C" not null,
  server_version bigint not null,
  clock bigint not null,
  hlc text collate "C" not null,
  op_id uuid not null,
  deleted boolean not null,
  owner text collate "C" not null default '',
  scope text collate "C",
  constraint record_pkey primary key (workspace_key, table_name, pk)
) with (fillfactor = 45);
-- For the snapshot of some scopes. It has nothing of tables without a scope field.
create index record_scope_idx on sync_ext.record (workspace_key, scope, table_name, pk)
  where scope is not null;

-- The version that each device has acknowledged, and when it last did. A device belongs
-- to its user; the user is empty if a trusted caller registered it.
create table sync_ext.device_cursor (
  workspace_key bigint not null,
  device_id text collate "C" not null,
  last_seen_version bigint not null,
  updated_at timestamptz not null,
  user_id text collate "C" not null default '',
  constraint device_cursor_pkey primary key (workspace_key, device_id, user_id)
) with (fillfactor = 70);

-- Members and roles, by the workspace's name, not its key: the work must be the same
-- for a user who is not a member, whether the workspace exists or not.
create table sync_ext.member (
  workspace_id text collate "C" not null,
  user_id text collate "C" not null,
  role text collate "C" not null,
  added_at timestamptz not null default pg_catalog.clock_timestamp(),
  constraint member_pkey primary key (workspace_id, user_id),
  constraint member_role_check check (role in ('owner', 'editor', 'viewer'))
);
create index member_user_id_workspace_id_idx on sync_ext.member (user_id, workspace_id);

-- Dropped workspaces: rows with these keys are unreachable and remain to be erased. The
-- name is not kept.
create table sync_ext.dropped_workspace (
  workspace_key bigint not null,
  dropped_at timestamptz not null default pg_catalog.clock_timestamp(),
  constraint dropped_workspace_pkey primary key (workspace_key)
);

-- The buckets of workspaces that this server owns, of several; empty if it owns all. They are
-- bigint because the library looks up no other numbers.
create table sync_ext.shard_bucket (
  bucket bigint not null,
  constraint shard_bucket_pkey primary key (bucket),
  constraint shard_bucket_bucket_check check (bucket between 0 and 1023)
);

-- The last move of each workspace from or to this server. A row stays when the move is done:
-- by it the server knows a name of its buckets that is elsewhere, and one of others' that is
-- here. peer is the other server. through, has_graves, grave_table and grave_pk are how far an
-- import has come; agreed is what both servers must have in common, scope_epoch the
-- workspace's when its export began; last_page is what the export ends with, kept until it is
-- forgotten.
create table sync_ext.move (
  workspace_id text collate "C" not null,
  move_id uuid not null,
  role text collate "C" not null,
  workspace_key bigint,
  peer text collate "C",
  through bigint not null default 0,
  has_graves boolean not null default false,
  grave_table text collate "C",
  grave_pk text collate "C",
  agreed json,
  scope_epoch bigint,
  last_page json,
  at timestamptz not null default pg_catalog.clock_timestamp(),
  constraint move_pkey primary key (workspace_id),
  constraint move_role_check check (role in ('departing', 'departed', 'arriving', 'arrived'))
);

-- Workspaces at which sync_gc has to look: a device that held it back there has moved on, or
-- is gone. Whoever acknowledges does not have the lock on the workspace's row, so adds one here.
create table sync_ext.unpinned_workspace (
  workspace_key bigint not null,
  unpinned_id uuid not null default pg_catalog.gen_random_uuid(),
  constraint unpinned_workspace_pkey primary key (workspace_key, unpinned_id)
);

-- pg_dump includes the contents of extension tables only if configured here. The
-- sequence is included so that a restored database continues its numbering.
select pg_catalog.pg_extension_config_dump('sync_ext.workspace', '');
select pg_catalog.pg_extension_config_dump('sync_ext.workspace_workspace_key_seq', '');
select pg_catalog.pg_extension_config_dump('sync_ext.synced_table', '');
select pg_catalog.pg_extension_config_dump('sync_ext.change_log', '');
select pg_catalog.pg_extension_config_dump('sync_ext.record', '');
select pg_catalog.pg_extension_config_dump('sync_ext.device_cursor', '');
select pg_catalog.pg_extension_config_dump('sync_ext.member', '');
select pg_catalog.pg_extension_config_dump('sync_ext.dropped_workspace', '');
select pg_catalog.pg_extension_config_dump('sync_ext.shard_bucket', '');
select pg_catalog.pg_extension_config_dump('sync_ext.move', '');
select pg_catalog.pg_extension_config_dump('sync_ext.unpinned_workspace', '');

comment on schema sync_ext is 'tables and views of the extension sync_ext';
comment on table sync_ext.workspace is 'workspaces, each with its head, horizon and how far GC has read';
comment on table sync_ext.synced_table is 'names that may be pushed, see sync_register_table';
comment on table sync_ext.change_log is 'the compacted log: ops by server_version';
comment on table sync_ext.record is 'the register of every record and the version of its newest entry, graves included';
comment on table sync_ext.device_cursor is 'the version up to which each device has seen everything';
comment on table sync_ext.member is 'users of workspaces and their roles, unless sync_ext.membership_function returns them';
comment on table sync_ext.dropped_workspace is 'dropped workspaces whose rows are not erased yet';
comment on table sync_ext.shard_bucket is 'the buckets of workspaces that this server owns, of several';
comment on table sync_ext.move is 'the last move of each workspace from or to this server';
comment on table sync_ext.unpinned_workspace is 'workspaces that a device may hold back from GC no longer';
