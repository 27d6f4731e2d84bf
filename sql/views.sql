-- For people. A record whose winner is a delete has no payload; a grave is a
-- tombstone whose log entry was purged.
--
-- A role that was granted SELECT on the views sees, with a user set, the
-- workspaces of that user and in them what is everybody's or the user's own;
-- without one, everything, or 42501 if sync_ext.require_user is on. They are
-- security barriers: no function of a query sees a row that its caller may not.
--
-- Functions in a view are called with the rights of who reads it, so these are
-- everybody's; they tell callers nothing but what concerns their own user.

-- True, or an error where sync_ext.require_user is on and no user is set. In a
-- subquery of its own it is asked before anything is read: whether it is must
-- not tell whether something was found.
create function sync_ext.is_caller_known() returns boolean
language c stable security definer parallel restricted
set search_path = pg_catalog, pg_temp
as 'MODULE_PATHNAME', 'is_caller_known_wrapper';

-- The current user, NULL for a trusted caller.
create function sync_ext.calling_user() returns text
language c stable security definer parallel restricted
set search_path = pg_catalog, pg_temp
as 'MODULE_PATHNAME', 'calling_user_wrapper';

-- Dear, so that the planner asks for the workspaces that are wanted, if it can
-- tell, and not for all.
create function sync_ext.may_read(workspace_id text) returns boolean
language c stable security definer parallel restricted cost 1000
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
  r.server_version,
  l.created_at as updated_at
from sync_ext.record as r
join sync_ext.workspace as w using (workspace_key)
left join sync_ext.change_log as l using (workspace_key, server_version)
where (select sync_ext.is_caller_known())
  and sync_ext.may_read(w.workspace_id)
  and ((select sync_ext.calling_user()) is null or r.owner in ('', (select sync_ext.calling_user())));

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
  and (select sync_ext.is_caller_known())
  and sync_ext.may_read(w.workspace_id)
  and ((select sync_ext.calling_user()) is null or r.owner in ('', (select sync_ext.calling_user())));

comment on function sync_ext.is_caller_known() is 'true, or an error where a user is required and none is set';
comment on function sync_ext.calling_user() is 'the user that the caller speaks for, null for a trusted caller';
comment on function sync_ext.may_read(text) is 'may the calling user pull from this workspace?';
comment on view sync_ext.current_record is 'one row per record; payload is null for tombstones and graves';
comment on view sync_ext.tombstone is 'records whose winner is a delete; deleted_at is null for a grave';
