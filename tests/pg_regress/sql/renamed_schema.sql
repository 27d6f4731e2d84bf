-- The schema of the functions may be renamed: nothing goes by its name.
\pset format unaligned
\pset tuples_only on
create schema api;
create extension sync_ext schema api;
select api.sync_register_table('notes');
alter schema api rename to "API v1";
-- What somebody plants under the old name is not found.
create schema api;
create function api.sync_gc(text, interval, integer) returns json language plpgsql as
  $$ begin raise 'planted'; end $$;
call "API v1".sync_gc_all();
select "API v1".sync_status() -> 'workspaces';
select count(*) from sync_ext.current_record;
