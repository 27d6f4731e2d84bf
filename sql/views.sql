-- For people. A record whose winner is a delete has no payload; a grave is a
-- tombstone whose log entry was purged.
--
-- A role that was granted SELECT on the views sees, with a user set, the
-- workspaces of that user and in them what is everybody's or the user's own;
-- without one, everything, or 42501 if sync_ext.require_user is on. They are
-- security barriers: no function of a query sees a row that its caller may not.

-- The current user, NULL for a trusted caller. Functions in a view are called
-- with the rights of who reads it, so both are everybody's; they tell callers
-- nothing but what concerns their own user.
create function sync_ext.calling_user() returns text
language c stable security definer parallel restricted
set search_path = pg_catalog, pg_temp
as 'MODULE_PATHNAME', 'calling_user_wrapper';

create function sync_ext.may_read(workspace_id text) returns boolean
language c stable security definer parallel restricted
set search_path = pg_catalog, pg_temp
as 'MODULE_PATHNAME', 'may_read_wrapper';

create view sync_ext.current_record with (security_barrier) as
select
  w.workspace_id,
  r.table_name,
  r.pk,
  case when r.deleted then null else l.payload end as payload,
  r.deleted,
  pg_catalog.json_build_object('clock', r.clock, 'hlc', r.hlc, 'opId', r.op_id) as revision,
  r.server_version
from sync_ext.record as r
join sync_ext.workspace as w using (workspace_key)
left join sync_ext.change_log as l using (workspace_key, server_version)
where (select sync_ext.calling_user() is null)
  or (r.owner in ('', (select sync_ext.calling_user())) and sync_ext.may_read(w.workspace_id));

create view sync_ext.tombstone with (security_barrier) as
select
  w.workspace_id,
  r.table_name,
  r.pk,
  r.server_version,
  l.created_at as deleted_at
from sync_ext.record as r
join sync_ext.workspace as w using (workspace_key)
left join sync_ext.change_log as l using (workspace_key, server_version)
where r.deleted
  and (
    (select sync_ext.calling_user() is null)
    or (r.owner in ('', (select sync_ext.calling_user())) and sync_ext.may_read(w.workspace_id))
  );

comment on function sync_ext.calling_user() is 'the user that the caller speaks for, null for a trusted caller';
comment on function sync_ext.may_read(text) is 'may the calling user pull from this workspace?';
comment on view sync_ext.current_record is 'one row per record; payload is null for tombstones and graves';
comment on view sync_ext.tombstone is 'records whose winner is a delete; deleted_at is null for a grave';

-- Default privileges may give PUBLIC what is created; ours is granted to nobody.
revoke all on schema sync_ext from public;
revoke all on all tables in schema sync_ext from public;
revoke all on all sequences in schema sync_ext from public;
-- The other way round: default privileges may have taken what the views need.
grant execute on function sync_ext.calling_user(), sync_ext.may_read(text) to public;
