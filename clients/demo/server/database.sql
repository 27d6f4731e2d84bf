-- The app's own tables, as its backend has them.
create table lists (
  id uuid primary key default gen_random_uuid(),
  workspace_id text not null default 'home',
  project text not null default 'Home',
  title text not null check (title <> ''),
  created_at timestamptz not null default clock_timestamp(),
  unique (workspace_id, id)
);
create table todos (
  id uuid primary key default gen_random_uuid(),
  workspace_id text not null default 'home',
  project text not null default 'Home',
  list_id uuid not null,
  title text not null constraint title_is_short check (length(title) between 1 and 60),
  done boolean not null default false,
  created_at timestamptz not null default clock_timestamp(),
  foreign key (workspace_id, list_id) references lists (workspace_id, id) on delete cascade
);
create index on todos (workspace_id, list_id);

-- Devices may read and write them, field by field.
select sync_attach_table('lists', patches => true), sync_attach_table('todos', patches => true);
-- They follow some projects, or all.
call sync_set_scope_field('lists', 'project');
call sync_set_scope_field('todos', 'project');

-- The gateway's role, which acts for the user that each request names.
create role gateway login;
alter role gateway set sync_ext.require_user = on;
grant select, insert, update, delete on lists, todos to gateway;
grant execute on function
  sync_push(text, json),
  sync_pull,
  sync_snapshot,
  sync_update_cursor(text, text, bigint) to gateway;

select sync_create_workspace('home', 'ann'), sync_set_member('home', 'bob', 'editor');

insert into lists (title, project) values ('Groceries', 'Home'), ('Weekend', 'Home'), ('Launch', 'Office');
insert into todos (list_id, title, done)
  select id, todo, todo = 'Coffee' from lists, unnest(array['Milk', 'Bread', 'Six eggs', 'Coffee', 'Tomatoes', 'Lemons']) as todo
  where title = 'Groceries';
insert into todos (list_id, title)
  select id, todo from lists, unnest(array['Fix the bicycle', 'Call grandma']) as todo
  where title = 'Weekend';
insert into todos (list_id, project, title)
  select id, project, todo from lists, unnest(array['Draft the notes', 'Book a room', 'Invite the testers']) as todo
  where title = 'Launch';
