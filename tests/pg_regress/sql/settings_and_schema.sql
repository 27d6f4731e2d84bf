-- Where things live.
\pset format unaligned
\pset tuples_only on
-- The functions land in the schema that CREATE EXTENSION chooses.
create schema api;
create extension sync_ext schema api;
select api.sync_register_table('notes');
select n.nspname, count(*) from pg_proc p join pg_namespace n on n.oid = p.pronamespace where p.proname like 'sync\_%' group by 1;
alter extension sync_ext set schema public;
\echo :LAST_ERROR_SQLSTATE
drop extension sync_ext;

-- A schema that somebody put there first is not adopted.
create schema sync_ext;
\set SHOW_CONTEXT never
create extension sync_ext;
\echo :LAST_ERROR_SQLSTATE
drop schema sync_ext;
drop schema api;

-- Payloads are UTF-8: a database of another encoding is refused.
select current_database() as here \gset
create database golden_ascii encoding 'SQL_ASCII' template template0;
\c golden_ascii
create extension sync_ext;
\echo :LAST_ERROR_SQLSTATE
\c :here
drop database golden_ascii;

-- Dropping the extension takes its tables along.
create extension sync_ext;
drop extension sync_ext;
select count(*) from pg_namespace where nspname = 'sync_ext';

create extension sync_ext;
-- pg_upgrade refuses tables with a column of such a type, except regclass, regrole and regtype.
select attrelid::regclass, attname, atttypid::regtype from pg_attribute join pg_class c on c.oid = attrelid
  where relkind = 'r' and relnamespace = 'sync_ext'::regnamespace and atttypid::regtype::text ~ '^reg' order by 1, 2;
\d sync_ext.workspace
\d sync_ext.synced_table
\d sync_ext.change_log
\d sync_ext.record
\d sync_ext.device_cursor
