-- An attached table is backfilled; then what capture did not see is found by a check,
-- and repaired toward the log.
\ir ../prelude.sql
create table tasks (id text primary key, workspace_id text, title text, made_by text, gone_at timestamptz);
insert into tasks values
  ('a', 'w', 'milk', 'ann', null), ('b', 'w', 'eggs', 'ann', null), ('c', 'v', 'tea', 'bob', null),
  ('gone', 'w', 'old', 'ann', '2026-01-01'), ('nobodys', 'w', 'x', null, null), ('nowhere', null, 'x', 'ann', null);
create view log as
  select workspace_id as workspace, l.server_version as version, l.operation as op, l.pk, l.payload, l.clock, l.owner
  from sync_ext.change_log as l join sync_ext.workspace using (workspace_key) order by 1, 2;

-- Not attached yet.
select sync_check_table('tasks');
\echo :LAST_ERROR_SQLSTATE
call sync_backfill_table('tasks');
\echo :LAST_ERROR_SQLSTATE

select sync_attach_table('tasks', owner_column => 'made_by', deleted_column => 'gone_at');

-- Rows that are no record are none: soft-deleted, without owner, without workspace.
select sync_check_table('tasks');
-- A device's edit and one of the server's come before the backfill.
select push_op(1, 'put', 'b', 7, '{"id":"b","title":"eggs","made_by":"ann"}', 'tasks') -> 'serverVersion';
update tasks set title = 'tea, hot' where id = 'c';
-- A batch per CALL: the first ends the time.
call sync_backfill_table('tasks', null, 2, '0');
select backfilled, backfilled_through from sync_ext.synced_table where relation is not null;
-- One workspace alone does not touch this.
call sync_backfill_table('tasks', 'v');
select backfilled, backfilled_through from sync_ext.synced_table where relation is not null;
-- It goes on, and then is done.
call sync_backfill_table('tasks', null, 2);
select backfilled, backfilled_through from sync_ext.synced_table where relation is not null;
call sync_backfill_table('tasks');
-- A backfilled record loses to any edit of a device.
select * from log;
select push_op(2, 'put', 'a', 0, '{"id":"a","title":"oat milk","made_by":"ann"}', 'tasks', 'zz') -> 'applied';
select title from tasks where id = 'a';
select sync_check_table('tasks');

-- What capture does not see.
alter table tasks disable trigger sync_ext_capture;
insert into tasks values ('d', 'w', 'salt', 'ann');
update tasks set title = 'two eggs' where id = 'b';
delete from tasks where id = 'c';
alter table tasks add column done boolean default false;
-- As if the new column had been attached; sessions read that again when a relation changes.
update sync_ext.synced_table set fields = '{"id":"id","title":"title","made_by":"made_by","done":"done"}' where relation is not null;
alter table tasks alter column done set not null;
select sync_check_table('tasks');
select sync_check_table('tasks', 'v');
select sync_check_table('tasks', 'unknown');
select sync_check_table('tasks', max_differences => 1);
select sync_check_table('tasks', max_differences => 0) -> 'differencesTotal';
drop trigger sync_ext_capture on tasks;
select sync_check_table('tasks', max_differences => 0) -> 'trigger';
select trigger from sync_ext.attached_table;
create trigger sync_ext_capture after insert or update or delete on tasks for each row execute function sync_ext.capture();

-- Repaired one workspace at a time, in the smallest batches.
call sync_repair_table('tasks', 'log', 'v', 1);
select sync_check_table('tasks') -> 'differences';
call sync_repair_table('tasks', 'log', batch_size => 1);
select sync_check_table('tasks') -> 'differences';
-- Repaired records win over what they replace.
select * from log where workspace = 'v' or version > 3;
-- A column less: the records have a field too many. Soft-deleted is deleted.
alter table tasks drop column done;
update sync_ext.synced_table set fields = '{"id":"id","title":"title","made_by":"made_by"}' where relation is not null;
set sync_ext.capture = off;
update tasks set gone_at = '2026-01-02' where id = 'd';
reset sync_ext.capture;
alter table tasks alter column title set not null;
select sync_check_table('tasks');
call sync_repair_table('tasks', 'log');
select sync_check_table('tasks', 'w');
select sync_explain('w', 'tasks', 'd') ->> 'state';

-- A record that no row can be.
create table events (day date, part integer, title text, primary key (day, part));
select sync_attach_table('events', workspace_id => 'all');
insert into events values ('2026-02-28', 1, 'x'), ('infinity', 2, 'y'), ('0044-03-15 BC', -1, 'z');
set sync_ext.capture = off;
insert into events select day, part + n, title from events, generate_series(10, 12) as n where day <> 'infinity';
reset sync_ext.capture;
-- Records from before it was attached may have any pk.
create function other_pks() returns integer language sql as $$
  with named (pk, n) as (
    select * from unnest(array['["2026-02-30","1"]', '["2026-2-28","1"]', '2026-02-28', '["2026-02-28"]', '["2026-02-28","x"]', '["2026-02-28","01"]'])
      with ordinality
  )
  select json_array_length(sync_push('all', json_agg(an_op(n::integer, 'put', pk, 1, '{}', 'events'))) -> 'results') from named
$$;
select sync_detach_table('events');
select other_pks();
select sync_attach_table('events', workspace_id => 'all');
select sync_check_table('events');
call sync_repair_table('events', 'log', batch_size => 3);
select sync_check_table('events');

-- Arguments.
select sync_check_table(null);
\echo :LAST_ERROR_SQLSTATE
select sync_check_table('tasks', '');
\echo :LAST_ERROR_SQLSTATE
select sync_check_table('tasks', max_differences => null);
\echo :LAST_ERROR_SQLSTATE
select sync_check_table('tasks', max_differences => -1);
\echo :LAST_ERROR_SQLSTATE
call sync_repair_table('tasks', 'rows');
\echo :LAST_ERROR_SQLSTATE
call sync_repair_table('tasks', null);
\echo :LAST_ERROR_SQLSTATE
call sync_repair_table('tasks', 'table');
\echo :LAST_ERROR_SQLSTATE
call sync_repair_table('tasks', 'log', batch_size => 0);
\echo :LAST_ERROR_SQLSTATE
call sync_repair_table('push_op_is_no_table', 'log');
\echo :LAST_ERROR_SQLSTATE
select sync_ext.repair_batch('tasks', 'log', null, 1, '{"row":{}}');
\echo :LAST_ERROR_SQLSTATE
select sync_ext.backfill_batch('events', 'all', 1, '{"row":{"pk":"[1]"}}');
\echo :LAST_ERROR_SQLSTATE
begin;
call sync_repair_table('tasks', 'log');
\echo :LAST_ERROR_SQLSTATE
rollback;

-- Who: trusted callers; those that write own the table.
begin;
set local sync_ext.user_id = 'ann';
select sync_check_table('tasks');
rollback;
\echo :LAST_ERROR_SQLSTATE
begin;
set local sync_ext.user_id = 'ann';
select sync_ext.backfill_batch('tasks', null, 1, null);
rollback;
\echo :LAST_ERROR_SQLSTATE
begin;
create role sync_ext_repairer;
grant usage on schema sync_ext, public to sync_ext_repairer;
grant execute on all functions in schema sync_ext, public to sync_ext_repairer;
savepoint s;
set local role sync_ext_repairer;
select sync_check_table('events', max_differences => 0);
select sync_ext.repair_batch('events', 'log', null, 1, null);
rollback to s;
\echo :LAST_ERROR_SQLSTATE
alter table events owner to sync_ext_repairer;
set local role sync_ext_repairer;
select sync_ext.repair_batch('events', 'log', null, 1, null);
rollback;

-- A table that is gone.
set sync_ext.capture = off;
create table missing (id text primary key, workspace_id text);
select sync_attach_table('missing');
create temp table attached as select 'missing'::regclass::oid as relation;
drop table missing;
select sync_check_table(relation) from attached;
\echo :LAST_ERROR_SQLSTATE
select sync_ext.repair_batch(relation, 'log', null, 1, null) from attached;
\echo :LAST_ERROR_SQLSTATE
