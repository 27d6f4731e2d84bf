-- For people. A record whose winner is a delete has no payload; a grave is a
-- tombstone whose log entry was purged.

create view sync_ext.current_record as
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
left join sync_ext.change_log as l using (workspace_key, server_version);

create view sync_ext.tombstone as
select
  w.workspace_id,
  r.table_name,
  r.pk,
  r.server_version,
  l.created_at as deleted_at
from sync_ext.record as r
join sync_ext.workspace as w using (workspace_key)
left join sync_ext.change_log as l using (workspace_key, server_version)
where r.deleted;

comment on view sync_ext.current_record is 'one row per record; payload is null for tombstones and graves';
comment on view sync_ext.tombstone is 'records whose winner is a delete; deleted_at is null for a grave';

-- Default privileges may give PUBLIC what is created; ours is granted to nobody.
revoke all on schema sync_ext from public;
revoke all on all tables in schema sync_ext from public;
revoke all on all sequences in schema sync_ext from public;
