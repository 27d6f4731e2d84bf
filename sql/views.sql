-- Views for people. A record whose winner is a delete has no payload; a grave is a
-- tombstone whose log entry was purged.
--
-- With a user set, a role with SELECT on the views sees that user's workspaces, and in
-- them shared records and the user's own. Without a user it sees everything, or gets
-- 42501 if sync_ext.require_user is on. The views are security barriers: no function of
-- a query sees a row that its caller may not see.
--
-- Views call functions with the rights of the role that reads the view, so PUBLIC may
-- execute these; they reveal only facts about the caller's own user.

-- True, or an error if sync_ext.require_user is on and no user is set. In a subquery of
-- its own, so that it is evaluated before any row is read: the error must not depend on
-- whether rows exist.
create function sync_ext.is_caller_known() returns boolean
language c stable parallel restricted
as 'MODULE_PATHNAME', 'is_caller_known_wrapper';

-- The current user, NULL for a trusted caller.
create function sync_ext.calling_user() returns text
language c stable parallel restricted
as 'MODULE_PATHNAME', 'calling_user_wrapper';

-- The cost makes the planner apply other conditions on the workspace first.
create function sync_ext.may_read(workspace_id text) returns boolean
language c stable parallel restricted cost 1000
as 'MODULE_PATHNAME', 'may_read_wrapper';

-- The names of the fields that a patch writes, as a JSON array. Functions of Postgres
-- fail on a patch with a value that no text can hold, such as "\u0000".
create function sync_ext.patched_names(patch json) returns json
language c immutable strict parallel safe
as 'MODULE_PATHNAME', 'patched_names_wrapper';

create view sync_ext.current_record with (security_barrier) as
select
  w.workspace_id,
  r.table_name,
  r.pk,
  case when r.deleted then null else l.payload end as payload,
  r.deleted,
  pg_catalog.json_build_object('clock', r.clock, 'hlc', r.hlc, 'opId', r.op_id) as revision,
  r.server_version,
  l.created_at as updated_at,
  case when r.deleted then null else l.fields end as fields,
  r.scope
from sync_ext.record as r
join sync_ext.workspace as w using (workspace_key)
left join sync_ext.change_log as l using (workspace_key, server_version)
where w.away is null
  and (select sync_ext.is_caller_known())
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
  and w.away is null
  and (select sync_ext.is_caller_known())
  and sync_ext.may_read(w.workspace_id)
  and ((select sync_ext.calling_user()) is null or r.owner in ('', (select sync_ext.calling_user())));

-- Every logged edit that its author may miss, beside the current winner of its record:
-- ops that lost, and ops that won at their turn but were overwritten by an op whose
-- author had not seen them. decided_by is NULL if the loser is the winner's own op,
-- sent again after its entry was purged. For a patch, lost_fields are those that it did
-- not win at its turn. winner_revision is the register's; the other columns of the winner
-- are those of the newest entry, perhaps a patch. An applied patch that was superseded in
-- its own call is not listed: what it lost is not stored.
create view sync_ext.conflict with (security_barrier) as
select
  w.workspace_id,
  l.table_name,
  l.pk,
  case
    when l.patch is not null then
      case
        when r.deleted then 'base'
        when (l.base ->> 'clock', l.base ->> 'hlc', l.base ->> 'opId') <> (r.clock::text, r.hlc, r.op_id::text) then 'base'
        else 'fields'
      end
    when l.clock <> r.clock then 'clock'
    when l.hlc <> r.hlc then 'hlc'
    when l.op_id <> r.op_id then 'opId'
  end as decided_by,
  e.overwrote is not null as overwritten,
  l.server_version as loser_version,
  l.operation as loser_operation,
  coalesce(l.patch, l.payload) as loser_payload,
  l.device_id as loser_device_id,
  l.created_at as loser_at,
  pg_catalog.json_build_object('clock', l.clock, 'hlc', l.hlc, 'opId', l.op_id) as loser_revision,
  r.server_version as winner_version,
  case when r.deleted then 'delete' else 'put' end as winner_operation,
  case when r.deleted then null else v.payload end as winner_payload,
  v.device_id as winner_device_id,
  v.created_at as winner_at,
  pg_catalog.json_build_object('clock', r.clock, 'hlc', r.hlc, 'opId', r.op_id) as winner_revision,
  lost.fields as lost_fields
from sync_ext.change_log as e
cross join lateral (
  select pg_catalog.array_agg(distinct name collate "C" order by name collate "C") as fields
  from pg_catalog.json_array_elements_text(sync_ext.patched_names(e.patch)) as name
  cross join lateral (select e.fields -> name as held) as f
  where not e.applied
    or (f.held ->> 'clock', f.held ->> 'hlc', f.held ->> 'opId') <> (e.clock::text, e.hlc, e.op_id::text)
) as lost
join sync_ext.change_log as l
  on l.workspace_key = e.workspace_key
  and l.server_version = case when e.overwrote is null then e.server_version else e.supersedes end
join sync_ext.record as r
  on r.workspace_key = l.workspace_key and r.table_name = l.table_name and r.pk = l.pk
join sync_ext.workspace as w on w.workspace_key = l.workspace_key
left join sync_ext.change_log as v
  on v.workspace_key = r.workspace_key and v.server_version = r.server_version
where (not e.applied or e.overwrote is not null or lost.fields is not null)
  and w.away is null
  and (select sync_ext.is_caller_known())
  and sync_ext.may_read(w.workspace_id)
  and ((select sync_ext.calling_user()) is null or r.owner in ('', (select sync_ext.calling_user())));

comment on function sync_ext.is_caller_known() is 'true, or an error if a user is required and none is set';
comment on function sync_ext.calling_user() is 'the user that the caller acts for, null for a trusted caller';
comment on function sync_ext.may_read(text) is 'whether the calling user may pull from this workspace';
comment on function sync_ext.patched_names(json) is 'the names of the fields that a patch writes';
comment on view sync_ext.current_record is 'one row per record; payload is null for tombstones and graves';
comment on view sync_ext.tombstone is 'records whose winner is a delete; deleted_at is null for a grave';
comment on view sync_ext.conflict is 'every logged op that lost or was overwritten unseen, with the winner of its record';
