-- Every refusal of sync_attach_table and sync_detach_table. Nothing is stored by one.
\ir ../prelude.sql
create table good (id uuid primary key, workspace_id text not null, title text);

-- Arguments.
select sync_attach_table(null);
\echo :LAST_ERROR_SQLSTATE
select sync_detach_table(null);
\echo :LAST_ERROR_SQLSTATE
select sync_attach_table(1::oid::regclass);
\echo :LAST_ERROR_SQLSTATE
select sync_detach_table(1::oid::regclass);
\echo :LAST_ERROR_SQLSTATE
select sync_detach_table('good');
\echo :LAST_ERROR_SQLSTATE
select sync_attach_table('good', '');
\echo :LAST_ERROR_SQLSTATE
select sync_attach_table('good', repeat('t', 129));
\echo :LAST_ERROR_SQLSTATE
select sync_attach_table('good', direction => 'up');
\echo :LAST_ERROR_SQLSTATE
select sync_attach_table('good', direction => null);
\echo :LAST_ERROR_SQLSTATE
select sync_attach_table('good', apply_as => 'me');
\echo :LAST_ERROR_SQLSTATE
select sync_attach_table('good', numbers => 'text');
\echo :LAST_ERROR_SQLSTATE
select sync_attach_table('good', reads => 'all');
\echo :LAST_ERROR_SQLSTATE
select sync_attach_table('good', apply_search_path => 'a,,b');
\echo :LAST_ERROR_SQLSTATE

-- Kinds of relations.
create view a_view as select * from good;
select sync_attach_table('a_view');
\echo :LAST_ERROR_SQLSTATE
create materialized view a_matview as select * from good;
select sync_attach_table('a_matview');
\echo :LAST_ERROR_SQLSTATE
create sequence a_sequence;
select sync_attach_table('a_sequence');
\echo :LAST_ERROR_SQLSTATE
create foreign data wrapper nothing;
create server nowhere foreign data wrapper nothing;
create foreign table a_foreign_table (id uuid, workspace_id text) server nowhere;
select sync_attach_table('a_foreign_table');
\echo :LAST_ERROR_SQLSTATE
create temp table a_temp_table (like good including all);
select sync_attach_table('a_temp_table');
\echo :LAST_ERROR_SQLSTATE
create unlogged table an_unlogged_table (like good including all);
select sync_attach_table('an_unlogged_table');
\echo :LAST_ERROR_SQLSTATE
select sync_attach_table('pg_class');
\echo :LAST_ERROR_SQLSTATE
select sync_attach_table('information_schema.sql_features');
\echo :LAST_ERROR_SQLSTATE
select sync_attach_table('sync_ext.change_log');
\echo :LAST_ERROR_SQLSTATE
create table parted (id uuid primary key, workspace_id text) partition by hash (id);
create table a_part partition of parted for values with (modulus 1, remainder 0);
select sync_attach_table('parted');
\echo :LAST_ERROR_SQLSTATE
select sync_attach_table('a_part');
\echo :LAST_ERROR_SQLSTATE
create table parent (like good including all);
create table child (primary key (id)) inherits (parent);
select sync_attach_table('parent');
\echo :LAST_ERROR_SQLSTATE
select sync_attach_table('child');
\echo :LAST_ERROR_SQLSTATE
create table ruled (like good including all);
create rule nothing as on delete to ruled do instead nothing;
select sync_attach_table('ruled');
\echo :LAST_ERROR_SQLSTATE

-- Primary keys.
create table keyless (id uuid unique not null, workspace_id text);
select sync_attach_table('keyless');
\echo :LAST_ERROR_SQLSTATE
create table late (id uuid primary key deferrable, workspace_id text);
select sync_attach_table('late');
\echo :LAST_ERROR_SQLSTATE
create domain price as numeric;
create type pair as (a integer, b integer);
create domain small_number as integer check (value < 10);
create type mood as enum ('ok', 'bad');
create table keys (id integer, workspace_id text not null);
create procedure try_key(type text) language plpgsql as $$
declare
  told text;
  state text;
begin
  execute format('alter table keys drop column id, add column id %s primary key', type);
  begin
    perform sync_attach_table('keys');
    perform sync_detach_table('keys');
    raise info '%: fine', type;
  exception when others then
    get stacked diagnostics told = pg_exception_detail, state = returned_sqlstate;
    raise info '%: % % %', type, state, sqlerrm, told;
  end;
end
$$;
\set VERBOSITY terse
call try_key('numeric');
call try_key('price');
call try_key('float8');
call try_key('char(3)');
call try_key('name');
call try_key('interval');
call try_key('time');
call try_key('jsonb');
call try_key('bytea');
call try_key('inet');
call try_key('integer[]');
call try_key('pair');
call try_key('integer generated always as (1) stored');
call try_key('smallint');
call try_key('bigint');
call try_key('uuid');
call try_key('boolean');
call try_key('text');
call try_key('varchar(9)');
call try_key('text collate "C"');
call try_key('mood');
call try_key('date');
call try_key('timestamp');
call try_key('timestamptz');
call try_key('small_number');
\set VERBOSITY default
create table by_workspace (workspace_id text, id uuid, primary key (workspace_id, id));
select sync_attach_table('by_workspace');
\echo :LAST_ERROR_SQLSTATE

-- Columns of the workspace, the owner and deletion.
create table plain (id uuid primary key, title text, n numeric, at timestamptz not null, flag boolean,
  twice text generated always as (title) stored);
select sync_attach_table('plain');
\echo :LAST_ERROR_SQLSTATE
select sync_attach_table('plain', workspace_column => null);
\echo :LAST_ERROR_SQLSTATE
select sync_attach_table('plain', workspace_column => 'n');
\echo :LAST_ERROR_SQLSTATE
select sync_attach_table('plain', workspace_column => 'twice');
\echo :LAST_ERROR_SQLSTATE
select sync_attach_table('plain', workspace_column => 'id');
\echo :LAST_ERROR_SQLSTATE
select sync_attach_table('plain', workspace_id => '');
\echo :LAST_ERROR_SQLSTATE
select sync_attach_table('plain', workspace_id => repeat('w', 257));
\echo :LAST_ERROR_SQLSTATE
select sync_attach_table('good', workspace_id => 'w');
\echo :LAST_ERROR_SQLSTATE
select sync_attach_table('plain', workspace_id => 'w', owner_column => 'owner');
\echo :LAST_ERROR_SQLSTATE
select sync_attach_table('plain', workspace_id => 'w', owner_column => 'flag');
\echo :LAST_ERROR_SQLSTATE
select sync_attach_table('plain', workspace_id => 'w', owner_column => 'id');
\echo :LAST_ERROR_SQLSTATE
select sync_attach_table('plain', workspace_id => 'w', owner_column => 'twice');
\echo :LAST_ERROR_SQLSTATE
select sync_attach_table('plain', workspace_id => 'w', columns => '{"id": "id", "at": "at"}', owner_column => 'title');
\echo :LAST_ERROR_SQLSTATE
select sync_attach_table('plain', workspace_id => 'w', deleted_column => 'gone');
\echo :LAST_ERROR_SQLSTATE
select sync_attach_table('plain', workspace_id => 'w', deleted_column => 'title');
\echo :LAST_ERROR_SQLSTATE
select sync_attach_table('plain', workspace_id => 'w', deleted_column => 'at');
\echo :LAST_ERROR_SQLSTATE
select sync_attach_table('plain', workspace_column => 'title', deleted_column => 'title');
\echo :LAST_ERROR_SQLSTATE

-- Which columns.
select sync_attach_table('good', columns => 'null');
\echo :LAST_ERROR_SQLSTATE
select sync_attach_table('good', columns => '["id"]');
\echo :LAST_ERROR_SQLSTATE
select sync_attach_table('good', columns => '{"id": 1}');
\echo :LAST_ERROR_SQLSTATE
select sync_attach_table('good', columns => '{"id": "id", "name": "name"}');
\echo :LAST_ERROR_SQLSTATE
select sync_attach_table('good', columns => '{"id": "id", "": "title"}');
\echo :LAST_ERROR_SQLSTATE
select sync_attach_table('good', columns => jsonb_build_object('id', 'id', repeat('f', 129), 'title'));
\echo :LAST_ERROR_SQLSTATE
select sync_attach_table('good', columns => '{"id": "id", "key": "id"}');
\echo :LAST_ERROR_SQLSTATE
select sync_attach_table('good', columns => '{"id": "id", "ws": "workspace_id"}');
\echo :LAST_ERROR_SQLSTATE
select sync_attach_table('plain', workspace_id => 'w', columns => '{"id": "id", "at": "at", "gone": "flag"}', deleted_column => 'flag');
\echo :LAST_ERROR_SQLSTATE
select sync_attach_table('good', columns => '{"id": "id", "workspace_id": "title"}');
\echo :LAST_ERROR_SQLSTATE
select sync_attach_table('good', columns => '{"title": "title"}');
\echo :LAST_ERROR_SQLSTATE
select sync_attach_table('plain', workspace_id => 'w', columns => '{"id": "id"}');
\echo :LAST_ERROR_SQLSTATE
create domain required as text not null;
create table demanding (id uuid primary key, workspace_id text, a required, b integer not null default 1,
  c integer generated always as identity, d integer not null generated always as (1) stored);
select sync_attach_table('demanding', columns => '{"id": "id"}');
\echo :LAST_ERROR_SQLSTATE

-- Types that do not come back from JSON.
create table odd (id uuid primary key, workspace_id text not null, fine text[], x integer);
create procedure try_column(type text) language plpgsql as $$
declare
  told text;
begin
  execute format('alter table odd drop column x, add column x %s', type);
  begin
    perform sync_attach_table('odd');
    perform sync_detach_table('odd');
    raise info '%: fine', type;
  exception when feature_not_supported then
    get stacked diagnostics told = pg_exception_detail;
    raise info '%: % %', type, sqlerrm, told;
  end;
end
$$;
\set VERBOSITY terse
-- A base type with a cast to json, as hstore has; such a cast of a composite type is not used.
set client_min_messages = warning;
create type shelf;
create function shelf_in(cstring) returns shelf language internal immutable strict as 'textin';
create function shelf_out(shelf) returns cstring language internal immutable strict as 'textout';
create type shelf (input = shelf_in, output = shelf_out, like = text);
create function shelf_json(shelf) returns json language sql as $$ select '{}'::json $$;
create cast (shelf as json) with function shelf_json(shelf);
reset client_min_messages;
create function pair_json(pair) returns json language sql as $$ select '{}'::json $$;
create cast (pair as json) with function pair_json(pair);
create domain shelf_domain as shelf;
create type holder as (a integer, b shelf_domain[]);
create type reg_range as range (subtype = regtype);
call try_column('shelf');
call try_column('shelf[]');
call try_column('shelf_domain');
call try_column('holder');
call try_column('holder[]');
call try_column('pair');
call try_column('regclass');
call try_column('regtype[]');
call try_column('reg_range');
call try_column('pg_node_tree');
call try_column('int2vector');
call try_column('xml');
call try_column('json');
call try_column('tsvector');
call try_column('int4range');
call try_column('numeric(9,2)[]');
call try_column('mood');
\set VERBOSITY default
alter table odd drop column x, add column x shelf;
select sync_attach_table('odd');
\echo :LAST_ERROR_SQLSTATE
select sync_attach_table('odd', columns => '{"id": "id", "fine": "fine"}');

-- Row security.
create table secured (like good including all);
alter table secured enable row level security;
select sync_attach_table('secured');
\echo :LAST_ERROR_SQLSTATE
select sync_attach_table('secured', reads => 'workspace');

-- A trigger of that name.
create function nothing() returns trigger language plpgsql as $$ begin return null; end $$;
create trigger sync_ext_capture after insert on good execute function nothing();
select sync_attach_table('good');
\echo :LAST_ERROR_SQLSTATE
drop trigger sync_ext_capture on good;

-- An owner field that is there is not forgotten.
select sync_register_table('good', owner_field => 'title');
select sync_attach_table('good');
\echo :LAST_ERROR_SQLSTATE

-- Who: as for ALTER TABLE, and no user.
create role attach_owner;
create role attach_member in role attach_owner;
create role attach_stranger;
grant execute on all functions in schema public to attach_owner, attach_stranger, attach_member;
create schema closed;
create table closed.mine (like good including all);
alter table closed.mine owner to attach_owner;
set role attach_stranger;
select sync_attach_table((select oid from pg_class where relname = 'mine')::regclass);
\echo :LAST_ERROR_SQLSTATE
select sync_detach_table('odd');
\echo :LAST_ERROR_SQLSTATE
select sync_unregister_table('odd');
\echo :LAST_ERROR_SQLSTATE
set role attach_member;
set sync_ext.user_id = 'ann';
select sync_attach_table((select oid from pg_class where relname = 'mine')::regclass);
\echo :LAST_ERROR_SQLSTATE
select sync_detach_table((select oid from pg_class where relname = 'mine')::regclass);
\echo :LAST_ERROR_SQLSTATE
reset sync_ext.user_id;
select sync_attach_table((select oid from pg_class where relname = 'mine')::regclass);
reset role;
-- Within a function it is the function's role that counts.
create function attach_mine() returns void language sql security definer as $$ select public.sync_attach_table('closed.mine') $$;
grant usage on schema closed to attach_stranger;
alter function attach_mine() owner to attach_stranger;
select sync_detach_table('closed.mine');
select attach_mine();
\echo :LAST_ERROR_SQLSTATE
begin read only;
select sync_attach_table('closed.mine');
\echo :LAST_ERROR_SQLSTATE
rollback;
begin read only;
select sync_detach_table('odd');
\echo :LAST_ERROR_SQLSTATE
rollback;

-- Only two of all these are attached, and only they have triggers.
select "table" from sync_ext.attached_table order by 1;
select tgrelid::regclass, tgname from pg_trigger where tgname like 'sync_ext%' order by 1, 2;
drop owned by attach_owner, attach_member, attach_stranger cascade;
drop role attach_owner, attach_member, attach_stranger;
