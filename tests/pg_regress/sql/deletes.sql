-- A delete is an op like any other: it wins or loses by its revision. What
-- remains of the record is a tombstone, and a newer put brings it back.
\ir ../prelude.sql
create function push(op integer, operation text, clock integer, payload json default null) returns jsonb language sql as $$
  select push_op(op, operation, 'a', clock, payload)::jsonb #- '{winner,serverDeletedAt}'
$$;

-- A delete of a record that nobody has put makes a tombstone.
select push(1, 'delete', 5);
-- An older put loses to it and is told so, without a payload.
select push(2, 'put', 4, '{"n": 4}');
-- A newer put brings the record back.
select push(3, 'put', 6, '{"n": 6}');
-- An older delete loses to that.
select push(4, 'delete', 5);
-- A newer delete wins; it may carry a payload, which is history only.
select push(5, 'delete', 7, '{"why": "cleanup"}');
-- A replay of a delete with "payload": null is a delete without one.
select push(1, 'delete', 5, 'null');

select server_version, operation, payload, applied, supersedes from sync_ext.change_log order by 1;
-- A tombstone has no payload here, whatever its entry carries.
select table_name, pk, payload is null, deleted, server_version from sync_ext.current_record;
select workspace_id, table_name, pk, server_version, deleted_at = (select created_at from sync_ext.change_log where server_version = 5) from sync_ext.tombstone;

-- serverDeletedAt is when the server logged the delete, in epoch seconds.
select (sync_push('w', '[{"tableName": "notes", "operation": "put", "pk": "a", "payload": {},
    "stamp": {"deviceId": "d", "opId": "00000000-0000-4000-8000-000000000009", "hlc": "h", "clock": 1}}]'::json)::jsonb
  #>> '{results,0,winner,serverDeletedAt}')::numeric
  = (select floor(extract(epoch from deleted_at)) from sync_ext.tombstone);
