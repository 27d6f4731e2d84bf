-- What may surprise about an attached table is said when it is attached.
\ir ../prelude.sql
create table people (id integer primary key, workspace_id text not null, unique (id, workspace_id));
select sync_attach_table('people');
create table shops (id integer primary key);
create table offices (id integer primary key);
select sync_attach_table('offices', workspace_id => 'w');
create table visits (
  id integer generated always as identity primary key,
  workspace_id text,
  number integer unique,
  place integer,
  person integer references people,
  guest integer,
  shop integer references shops,
  office integer references offices,
  before integer references visits,
  unique (workspace_id, place) deferrable initially deferred,
  foreign key (guest, workspace_id) references people (id, workspace_id)
);
create function nothing() returns trigger language plpgsql as $$ begin return null; end $$;
create trigger audit after insert on visits for each row execute function nothing();
create trigger always_audit after insert on visits for each row execute function nothing();
alter table visits enable always trigger always_audit;
select sync_attach_table('visits');
-- A serial is numbered by the server too. Of one workspace no key can leave it.
create table rooms (id serial primary key, name text unique, office integer references offices, next integer references rooms);
select sync_attach_table('rooms', workspace_id => 'w');
create table desks (id integer primary key, office integer references offices);
select sync_attach_table('desks', workspace_id => 'v');
