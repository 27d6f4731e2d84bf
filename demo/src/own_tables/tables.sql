-- The tables of an app for to-do lists, and what it demands of them.
create table lists (
  id text primary key,
  workspace_id text not null,
  title text not null,
  unique (workspace_id, title),
  unique (workspace_id, id)
);

-- A list that moves to another workspace takes its todos and comments with it.
create table todos (
  id text primary key,
  workspace_id text not null,
  list_id text not null,
  title text not null,
  priority integer not null default 3 check (priority between 1 and 5),
  done boolean not null default false,
  updated_at timestamptz not null default now(),
  unique (workspace_id, id),
  foreign key (workspace_id, list_id) references lists (workspace_id, id)
    on update cascade on delete cascade
);

create table comments (
  id text primary key,
  workspace_id text not null,
  todo_id text not null,
  body text not null,
  hidden boolean not null default false,
  foreign key (workspace_id, todo_id) references todos (workspace_id, id)
    on update cascade on delete cascade
);

create index on todos (workspace_id, list_id);
create index on comments (workspace_id, todo_id);

create function touch() returns trigger language plpgsql as $$ begin
  new.updated_at := clock_timestamp();
  return new;
end $$;
create trigger touch before insert or update on todos for each row execute function touch();

-- What a moderator hides, devices cannot change; nor can they hide anything themselves.
create role device login;
grant select, insert, update, delete on lists, todos, comments to device;
alter table comments enable row level security;
create policy shown on comments to device using (not hidden);

grant execute on function
  sync_push(text, json),
  sync_pull to device;

set client_min_messages = warning;
select
  sync_attach_table('lists'),
  sync_attach_table('todos', patches => true),
  sync_attach_table('comments', reads => 'workspace');
