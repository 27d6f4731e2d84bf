-- A table of the app is attached, looked at, detached and attached again.
\ir ../prelude.sql
create table tasks (
  id uuid primary key,
  workspace_id text not null,
  title text not null,
  done boolean not null default false,
  "gone at" timestamptz,
  made_by text,
  words integer generated always as (length(title)) stored
);
set search_path = "$user", public, extensions;
select sync_attach_table('tasks', deleted_column => 'gone at', owner_column => 'made_by', patches => true);
reset search_path;
\x on
select * from sync_ext.attached_table;
select pk_field, column_types, apply_search_path, backfilled_through from sync_ext.synced_table where table_name = 'tasks';
\x off
-- The triggers are there, and TRUNCATE is refused.
select pg_get_triggerdef(oid), tgenabled from pg_trigger where tgrelid = 'tasks'::regclass order by 1;
insert into tasks values ('00000000-0000-4000-8000-000000000001', 'w', 'milk');
truncate tasks;
\echo :LAST_ERROR_SQLSTATE
create table lists (id integer primary key);
alter table tasks add column list integer references lists;
truncate lists cascade;
alter table tasks drop column list;
select count(*) from tasks;

-- A name is attached to one table, and a table under one name.
select sync_attach_table('tasks', 'other');
\echo :LAST_ERROR_SQLSTATE
create table more (id text primary key, workspace_id text not null);
select sync_attach_table('more', 'tasks');
\echo :LAST_ERROR_SQLSTATE
select sync_register_table('tasks');
\echo :LAST_ERROR_SQLSTATE

-- What the view says of triggers and columns.
alter table tasks disable trigger sync_ext_capture;
select trigger, columns_changed from sync_ext.attached_table;
alter table tasks enable always trigger sync_ext_capture;
select trigger from sync_ext.attached_table;
alter table tasks enable replica trigger sync_ext_truncate;
select trigger from sync_ext.attached_table;
drop trigger sync_ext_truncate on tasks;
select trigger from sync_ext.attached_table;
alter table tasks add column due date;
select columns_changed from sync_ext.attached_table;
alter table tasks drop column due;
select columns_changed from sync_ext.attached_table;
alter table tasks alter column made_by type varchar(99);
select columns_changed from sync_ext.attached_table;
alter table tasks rename to todos;
select "table", table_name from sync_ext.attached_table;
set sync_ext.user_id = 'ann';
select count(*) from sync_ext.attached_table;
reset sync_ext.user_id;

-- Detached it is a JSON table, and can be attached again, with the columns as they are.
select sync_detach_table('todos');
select count(*) from pg_trigger where tgrelid = 'todos'::regclass;
select to_jsonb(t) - 'registered_at' from sync_ext.synced_table as t where table_name = 'tasks';
select sync_detach_table('todos');
\echo :LAST_ERROR_SQLSTATE
truncate todos;
-- (Its private records stay private.)
select sync_attach_table('todos', 'tasks');
\echo :LAST_ERROR_SQLSTATE
select sync_attach_table('todos', 'tasks', owner_column => 'made_by');
select "table", table_name, patches, trigger, columns_changed, backfilled from sync_ext.attached_table;

-- Chosen columns, under other names; a table of one workspace; a key of several columns.
create table lines ("order" integer, line integer, workspace_id bigint not null, note text, hidden regtype, primary key (line, "order"));
select sync_attach_table('lines', 'order_lines', columns => '{"lineNo": "line", "orderNo": "order", "text": "note"}',
  workspace_id => 'shop', direction => 'down', apply_as => 'owner', numbers => 'native', apply_search_path => 'pg_catalog, "App"');
alter table lines alter column workspace_id set default 0;
select sync_attach_table('lines', 'order_lines', columns => '{"lineNo": "line", "orderNo": "order", "text": "note"}',
  workspace_id => 'shop', direction => 'down', apply_as => 'owner', numbers => 'native', apply_search_path => 'pg_catalog, "App"');
\x on
select * from sync_ext.attached_table where table_name = 'order_lines';
select pk_field, apply_search_path from sync_ext.synced_table where table_name = 'order_lines';
\x off

-- Devices only read it.
select push_op(1, 'put', '["1","2"]', 1, '{"lineNo": 1}', 'order_lines') ->> 'error';
-- Unregistering detaches; of a table that was dropped, too.
select sync_unregister_table('order_lines');
select count(*) from pg_trigger where tgrelid = 'lines'::regclass and not tgisinternal;
drop table todos;
select "table" = 0, table_name, trigger, columns_changed from sync_ext.attached_table;
select sync_unregister_table('tasks');
select table_name from sync_ext.synced_table;

-- A rollback undoes it all.
begin;
select sync_attach_table('more');
rollback;
select count(*) from pg_trigger where tgrelid = 'more'::regclass;
select count(*) from sync_ext.attached_table;
-- In a transaction that made the table.
begin;
create table young (id integer primary key, workspace_id uuid not null);
select sync_attach_table('young');
commit;
select table_name, trigger from sync_ext.attached_table;
