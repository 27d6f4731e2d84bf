-- Workspaces, members, and users who call: every error with its SQLSTATE, and
-- the usual course of things.
\ir ../prelude.sql

-- A workspace begins with an owner, who makes others members.
select sync_create_workspace('team', 'ann');
set sync_ext.user_id = 'ann';
select sync_set_member('team', 'bob', 'editor');
select sync_set_member('team', 'vic', 'viewer');
-- Once more changes the role.
select sync_set_member('team', 'bob', 'viewer'), sync_set_member('team', 'bob', 'editor');
select sync_list_workspaces();
select sync_push('team', '[{"tableName": "notes", "operation": "put", "pk": "a", "payload": {},
  "stamp": {"deviceId": "d", "opId": "00000000-0000-4000-8000-000000000001", "hlc": "h", "clock": 1}}]'::json);
set sync_ext.user_id = 'vic';
select sync_list_workspaces();
select sync_pull('team') ->> 'nextCursor';
select sync_update_cursor('team', 'd', 1) ->> 'advanced';
set sync_ext.user_id = 'bob';
select sync_update_cursor('team', 'd', 0) ->> 'advanced';
-- A user makes workspaces of their own.
select sync_create_workspace('bobs', 'bob');
-- It has nothing yet, and stays when all that is pushed to it is refused.
select sync_push('bobs', '[{"tableName": "nothing", "operation": "delete", "pk": "a",
  "stamp": {"deviceId": "d", "opId": "00000000-0000-4000-8000-000000000009", "hlc": "h", "clock": 1}}]'::json) -> 'results' -> 0 ->> 'errorCode';
select sync_list_workspaces();
reset sync_ext.user_id;
select sync_list_workspaces();
select workspace_id, user_id, role from sync_ext.member order by 1, 2;
select device_id, user_id, last_seen_version from sync_ext.device_cursor order by 1, 2;

-- Who is removed is a stranger, and their devices are forgotten.
select sync_remove_member('team', 'vic');
select device_id, user_id, last_seen_version from sync_ext.device_cursor order by 1, 2;
set sync_ext.user_id = 'vic';
select sync_list_workspaces();
select sync_pull('team');
\echo :LAST_ERROR_SQLSTATE
reset sync_ext.user_id;
-- Once more does nothing, nor does an unknown user or workspace.
select sync_remove_member('team', 'vic'), sync_remove_member('team', 'nobody'), sync_remove_member('nowhere', 'vic');

-- What a role may not do is told with the role; to strangers nothing is.
set sync_ext.user_id = 'bob';
select sync_set_member('team', 'bob', 'owner');
\echo :LAST_ERROR_SQLSTATE
select sync_remove_member('team', 'ann');
\echo :LAST_ERROR_SQLSTATE
select sync_drop_workspace('team');
\echo :LAST_ERROR_SQLSTATE
select sync_gc('team');
\echo :LAST_ERROR_SQLSTATE
select sync_gc();
\echo :LAST_ERROR_SQLSTATE
select sync_register_table('t');
\echo :LAST_ERROR_SQLSTATE
select sync_unregister_table('notes');
\echo :LAST_ERROR_SQLSTATE
select sync_create_workspace('anns', 'ann');
\echo :LAST_ERROR_SQLSTATE
set sync_ext.user_id = 'eve';
select sync_push('team', '[]'::json);
\echo :LAST_ERROR_SQLSTATE
select sync_push('nowhere', '[]'::json);
\echo :LAST_ERROR_SQLSTATE
-- Also before what else is wrong with a call.
select sync_push('team', '{}'::json);
\echo :LAST_ERROR_SQLSTATE
select sync_update_cursor('team', 'd', 99);
\echo :LAST_ERROR_SQLSTATE
select sync_set_member('nowhere', 'eve', 'owner');
\echo :LAST_ERROR_SQLSTATE
reset sync_ext.user_id;

-- workspace_id
select sync_create_workspace(null, 'ann');
\echo :LAST_ERROR_SQLSTATE
select sync_create_workspace('', 'ann');
\echo :LAST_ERROR_SQLSTATE
select sync_create_workspace(repeat('w', 257), 'ann');
\echo :LAST_ERROR_SQLSTATE
select sync_drop_workspace(null);
\echo :LAST_ERROR_SQLSTATE
select sync_set_member('', 'ann', 'owner');
\echo :LAST_ERROR_SQLSTATE
select sync_remove_member('', 'ann');
\echo :LAST_ERROR_SQLSTATE

-- user_id
select sync_create_workspace('w', null);
\echo :LAST_ERROR_SQLSTATE
select sync_create_workspace('w', '');
\echo :LAST_ERROR_SQLSTATE
select sync_create_workspace('w', repeat('u', 257));
\echo :LAST_ERROR_SQLSTATE
select sync_set_member('team', '', 'owner');
\echo :LAST_ERROR_SQLSTATE
select sync_remove_member('team', null);
\echo :LAST_ERROR_SQLSTATE
select set_config('sync_ext.user_id', repeat('u', 257), false) is null;
select sync_pull('team');
\echo :LAST_ERROR_SQLSTATE
select sync_list_workspaces();
\echo :LAST_ERROR_SQLSTATE
-- The empty one is none: trusted.
set sync_ext.user_id = '';
select json_array_length(sync_list_workspaces() -> 'workspaces');
reset sync_ext.user_id;

-- role
select sync_set_member('team', 'eve', null);
\echo :LAST_ERROR_SQLSTATE
select sync_set_member('team', 'eve', 'Owner');
\echo :LAST_ERROR_SQLSTATE
select sync_set_member('team', 'eve', '');
\echo :LAST_ERROR_SQLSTATE

-- batch_size
select sync_drop_workspace('team', 0);
\echo :LAST_ERROR_SQLSTATE
select sync_drop_workspace('team', null);
\echo :LAST_ERROR_SQLSTATE

-- A name that is taken, one that is not there.
select sync_create_workspace('team', 'eve');
\echo :LAST_ERROR_SQLSTATE
select sync_set_member('nowhere', 'ann', 'owner');
\echo :LAST_ERROR_SQLSTATE
select sync_drop_workspace('nowhere');
set sync_ext.user_id = 'bob';
select sync_create_workspace('team', 'bob');
\echo :LAST_ERROR_SQLSTATE
set sync_ext.user_id = 'eve';
select sync_create_workspace('team', 'eve');
\echo :LAST_ERROR_SQLSTATE
reset sync_ext.user_id;

-- The last owner stays one, whoever asks.
select sync_remove_member('team', 'ann');
\echo :LAST_ERROR_SQLSTATE
select sync_set_member('team', 'ann', 'editor');
\echo :LAST_ERROR_SQLSTATE
set sync_ext.user_id = 'ann';
select sync_remove_member('team', 'ann');
\echo :LAST_ERROR_SQLSTATE
-- Being made one again changes nothing; with another owner, the first may go.
select sync_set_member('team', 'ann', 'owner'), sync_set_member('team', 'bob', 'owner');
select sync_remove_member('team', 'ann');
select sync_set_member('team', 'ann', 'owner');
\echo :LAST_ERROR_SQLSTATE
reset sync_ext.user_id;
select user_id, role from sync_ext.member where workspace_id = 'team' order by 1;

-- Users told by JWT claims. A setting of ours goes before them.
set request.jwt.claims = '{"role": "web", "sub": "bob"}';
select sync_list_workspaces();
set sync_ext.user_id = 'eve';
select sync_list_workspaces();
reset sync_ext.user_id;
set request.jwt.claims = '';
select json_array_length(sync_list_workspaces() -> 'workspaces');
-- Claims without a user are a trusted caller's; claims that cannot be read are not.
set request.jwt.claims = '{"role": "service"}';
select json_array_length(sync_list_workspaces() -> 'workspaces');
set request.jwt.claims = '{"sub": "bob"';
select sync_list_workspaces();
\echo :LAST_ERROR_SQLSTATE
set request.jwt.claims = '{"sub": null}';
select sync_push('team', '[]'::json);
\echo :LAST_ERROR_SQLSTATE
set request.jwt.claims = '{"sub": ""}';
select sync_gc();
\echo :LAST_ERROR_SQLSTATE
set request.jwt.claims = '["bob"]';
select sync_register_table('t');
\echo :LAST_ERROR_SQLSTATE
reset request.jwt.claims;

-- Where a user is required.
set sync_ext.require_user = on;
select sync_push('team', '[]'::json);
\echo :LAST_ERROR_SQLSTATE
select sync_gc();
\echo :LAST_ERROR_SQLSTATE
select count(*) from sync_ext.current_record;
\echo :LAST_ERROR_SQLSTATE
set request.jwt.claims = '{"role": "anon"}';
select sync_list_workspaces();
\echo :LAST_ERROR_SQLSTATE
set request.jwt.claims = '{"sub": "bob"}';
select json_array_length(sync_list_workspaces() -> 'workspaces');
select workspace_id, pk from sync_ext.current_record;
reset request.jwt.claims;
reset sync_ext.require_user;

-- owner_field
select sync_register_table('diary', 'id', 'id');
\echo :LAST_ERROR_SQLSTATE
select sync_register_table('diary', owner_field => 'workspace_id');
\echo :LAST_ERROR_SQLSTATE
select sync_register_table('diary', owner_field => '');
\echo :LAST_ERROR_SQLSTATE
select sync_register_table('diary', owner_field => repeat('f', 129));
\echo :LAST_ERROR_SQLSTATE
select table_name, pk_field, owner_field from sync_ext.synced_table order by 1;
select sync_register_table('diary', owner_field => 'by');
select table_name, pk_field, owner_field from sync_ext.synced_table order by 1;

-- A private record: the owner is filled in, and nobody else's word counts.
set sync_ext.user_id = 'bob';
select sync_push('team', '[{"tableName": "diary", "operation": "put", "pk": "d", "payload": {"id": "d"},
  "stamp": {"deviceId": "d", "opId": "00000000-0000-4000-8000-000000000002", "hlc": "h", "clock": 1}}]'::json);
select sync_pull('team', 1) -> 'changes' -> 0 ->> 'payload';
select sync_set_member('team', 'eve', 'editor');
set sync_ext.user_id = 'eve';
\set private '[{"tableName": "diary", "operation": "delete", "pk": "d", "stamp": {"deviceId": "e", "opId": "00000000-0000-4000-8000-000000000003", "hlc": "h", "clock": 9}}, {"tableName": "diary", "operation": "put", "pk": "x", "payload": {"by": "bob"}, "stamp": {"deviceId": "e", "opId": "00000000-0000-4000-8000-000000000004", "hlc": "h", "clock": 1}}, {"tableName": "notes", "operation": "put", "pk": "x", "payload": {}, "stamp": {"deviceId": "e", "opId": "00000000-0000-4000-8000-000000000002", "hlc": "h", "clock": 1}}]'
select jsonb_pretty(sync_push('team', :'private'::json)::jsonb);
select sync_pull('team', 1)::jsonb - 'proof';
select sync_update_cursor('team', 'e', 2) ->> 'advanced';
select table_name, pk from sync_ext.current_record;
reset sync_ext.user_id;
-- A trusted caller tells the owner of a new record.
select sync_push('team', '[{"tableName": "diary", "operation": "put", "pk": "y", "payload": {},
  "stamp": {"deviceId": "d", "opId": "00000000-0000-4000-8000-000000000005", "hlc": "h", "clock": 1}}]'::json);
-- An owner_field is not taken away by registering once more. Without it new
-- records are everybody's; old ones keep their owner.
select sync_register_table('diary');
\echo :LAST_ERROR_SQLSTATE
select sync_unregister_table('diary'), sync_register_table('diary');
select table_name, pk_field, owner_field from sync_ext.synced_table order by 1;
set sync_ext.user_id = 'eve';
select jsonb_path_query(sync_push('team', :'private'::json)::jsonb, '$.results[*].errorCode');
select sync_pull('team', 1) -> 'changes' -> 0 ->> 'pk';
reset sync_ext.user_id;

-- Members kept elsewhere.
create table membership (member text, workspace text, role text);
insert into membership values ('bob', 'team', 'viewer'), ('ann', 'team', 'owner'), ('eve', 'team', 'boss'), ('ann', 'later', 'editor');
create function role_of(text, text) returns text stable language sql
  as 'select role from public.membership where member = $1 and workspace = $2';
set sync_ext.membership_function = 'public.role_of';
set sync_ext.user_id = 'bob';
select sync_pull('team') ->> 'nextCursor';
select sync_push('team', '[]'::json);
\echo :LAST_ERROR_SQLSTATE
select sync_list_workspaces();
set sync_ext.user_id = 'vic';
select sync_pull('team');
\echo :LAST_ERROR_SQLSTATE
select sync_pull('nowhere');
\echo :LAST_ERROR_SQLSTATE
-- What is no role.
set sync_ext.user_id = 'eve';
select sync_pull('team');
\echo :LAST_ERROR_SQLSTATE
-- Whoever asks, members are not ours to make; their devices are ours to forget.
set sync_ext.user_id = 'ann';
select sync_set_member('team', 'vic', 'viewer');
\echo :LAST_ERROR_SQLSTATE
select sync_create_workspace('anns', 'ann');
\echo :LAST_ERROR_SQLSTATE
select sync_remove_member('team', 'eve');
-- Where the function says so, a user's push makes a workspace.
select sync_push('later', '[{"tableName": "notes", "operation": "put", "pk": "a", "payload": {},
  "stamp": {"deviceId": "d", "opId": "00000000-0000-4000-8000-000000000001", "hlc": "h", "clock": 1}}]'::json) ->> 'serverVersion';
reset sync_ext.user_id;
select sync_set_member('team', 'vic', 'viewer');
\echo :LAST_ERROR_SQLSTATE
select sync_create_workspace('anns', 'ann');
\echo :LAST_ERROR_SQLSTATE
select device_id, user_id from sync_ext.device_cursor order by 1, 2;
-- A function that is not there, or on no path of ours, or fails.
set sync_ext.user_id = 'ann';
set sync_ext.membership_function = 'public.nothing';
select sync_pull('team');
\echo :LAST_ERROR_SQLSTATE
set sync_ext.membership_function = 'role_of';
select sync_pull('team');
\echo :LAST_ERROR_SQLSTATE
set sync_ext.membership_function = 'not a.name, but (a)';
select sync_pull('team');
\echo :LAST_ERROR_SQLSTATE
create function failing(text, text) returns text language plpgsql
  as $$ begin raise exception 'the app says no' using detail = 'Why.', hint = 'What now.'; end $$;
set sync_ext.membership_function = 'public.failing';
\set SHOW_CONTEXT never
select sync_pull('team');
\echo :LAST_ERROR_SQLSTATE
-- With a code of the app's own, which stays no internal error of ours.
create or replace function failing(text, text) returns text language plpgsql
  as $$ begin raise exception 'not today' using errcode = 'PT403'; end $$;
select sync_pull('team');
\echo :LAST_ERROR_SQLSTATE
-- One that returns a set: a role, none, too many.
create function several(text, text) returns table (role text) language sql
  as $$ select 'viewer' from generate_series(1, case $1 when 'ann' then 1 when 'bob' then 2 else 0 end) $$;
set sync_ext.membership_function = 'public.several';
select sync_pull('team') ->> 'nextCursor';
set sync_ext.user_id = 'bob';
select sync_pull('team');
\echo :LAST_ERROR_SQLSTATE
set sync_ext.user_id = 'eve';
select sync_pull('team');
\echo :LAST_ERROR_SQLSTATE
-- One that somebody else may change is not called with the session's rights.
create role app_owner;
grant create on schema public to app_owner;
alter function several owner to app_owner;
set sync_ext.user_id = 'ann';
select sync_pull('team');
\echo :LAST_ERROR_SQLSTATE
drop function several;
drop owned by app_owner;
drop role app_owner;
reset sync_ext.membership_function;
reset sync_ext.user_id;

-- A dropped workspace is gone for its members; what nobody can reach is erased
-- as far as the batch goes.
set sync_ext.user_id = 'bob';
select sync_drop_workspace('team', 1);
select sync_list_workspaces();
select sync_pull('team');
\echo :LAST_ERROR_SQLSTATE
select sync_drop_workspace('team');
\echo :LAST_ERROR_SQLSTATE
reset sync_ext.user_id;
select sync_pull('team', 2) ->> 'reason';
select sync_gc();
select sync_gc();
-- Its name begins anew.
set sync_ext.user_id = 'eve';
select sync_create_workspace('team', 'eve');
select sync_list_workspaces();
reset sync_ext.user_id;
select sync_pull('team', 2) ->> 'reason';
select workspace_id, user_id, role from sync_ext.member order by 1, 2;
select count(*) from sync_ext.dropped_workspace;

-- Who is in a workspace: told to its owners; a role, to whose it is, too.
select sync_set_member('team', 'ann', 'editor');
select sync_set_member('team', 'vic', 'viewer');
select sync_list_members('team');
select sync_list_members('nowhere');
select sync_get_role('team', 'ann'), sync_get_role('team', 'nobody'), sync_get_role('nowhere', 'ann'), sync_get_role('team');
set sync_ext.user_id = 'eve';
select sync_list_members('team');
select sync_get_role('team'), sync_get_role('team', 'eve'), sync_get_role('team', 'ann'), sync_get_role('team', 'nobody');
set sync_ext.user_id = 'ann';
select sync_list_members('team');
\echo :LAST_ERROR_SQLSTATE
select sync_get_role('team'), sync_get_role('team', 'ann'), sync_get_role('nowhere');
select sync_get_role('team', 'eve');
\echo :LAST_ERROR_SQLSTATE
select sync_get_role('team', 'nobody');
\echo :LAST_ERROR_SQLSTATE
select sync_get_role('nowhere', 'eve');
\echo :LAST_ERROR_SQLSTATE
reset sync_ext.user_id;
select sync_get_role(null, 'ann');
\echo :LAST_ERROR_SQLSTATE
select sync_get_role('team', '');
\echo :LAST_ERROR_SQLSTATE
select sync_list_members('');
\echo :LAST_ERROR_SQLSTATE

-- A lost device: its user's to forget, an owner's, and a trusted caller's.
set sync_ext.user_id = 'ann';
select sync_update_cursor('team', 'phone', 0) ->> 'advanced';
set sync_ext.user_id = 'vic';
select sync_update_cursor('team', 'phone', 0) ->> 'advanced';
select sync_forget_device('team', 'phone');
select sync_forget_device('team', 'phone');
select sync_forget_device('nowhere', 'phone');
\echo :LAST_ERROR_SQLSTATE
select sync_update_cursor('team', 'phone', 0) ->> 'advanced';
reset sync_ext.user_id;
select device_id, user_id from sync_ext.device_cursor order by 1, 2;
set sync_ext.user_id = 'eve';
select sync_forget_device('team', 'phone');
reset sync_ext.user_id;
select count(*) from sync_ext.device_cursor;
select sync_update_cursor('team', 'tablet', 0) ->> 'advanced';
select sync_forget_device('team', 'tablet'), sync_forget_device('nowhere', 'tablet');
select sync_forget_device('team', null);
\echo :LAST_ERROR_SQLSTATE
select sync_forget_device('', 'tablet');
\echo :LAST_ERROR_SQLSTATE

-- Where writing is not possible.
begin read only;
select sync_forget_device('team', 'phone');
\echo :LAST_ERROR_SQLSTATE
rollback;
begin read only;
select sync_create_workspace('w', 'ann');
\echo :LAST_ERROR_SQLSTATE
rollback;
begin read only;
select sync_drop_workspace('team');
\echo :LAST_ERROR_SQLSTATE
rollback;
begin read only;
select sync_set_member('team', 'ann', 'viewer');
\echo :LAST_ERROR_SQLSTATE
rollback;
begin read only;
select sync_remove_member('team', 'ann');
\echo :LAST_ERROR_SQLSTATE
rollback;
begin read only;
select json_array_length(sync_list_workspaces() -> 'workspaces');
rollback;
