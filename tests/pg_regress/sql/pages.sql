-- Lists of workspaces by pages: in byte order of their names, from one token to the next.
\ir ../prelude.sql
select sync_create_workspace(name, 'ann') from unnest(array['c', 'a', 'd', 'B', 'e']) as name;
select sync_set_member('c', 'bob', 'viewer'), sync_set_member('e', 'bob', 'owner'), sync_set_member('B', 'bob', 'editor');

-- Without a limit all, in the order of their creation.
select sync_list_workspaces();
-- Pages; the last one has no token, whether it is full or not.
select sync_list_workspaces(page_limit => 2);
select sync_list_workspaces('a', 2);
select sync_list_workspaces('a', 4);
select sync_list_workspaces('d', 4);
-- A workspace that was listed last may be gone.
select sync_list_workspaces('b', 1);
-- The rest without a limit; nothing after the last; limits are clamped.
select sync_list_workspaces('c');
select sync_list_workspaces('e', 2);
select sync_list_workspaces(page_limit => 0), sync_list_workspaces(page_limit => -1) ->> 'nextPageToken';
set sync_ext.max_page_limit = 3;
select sync_list_workspaces(null, 5) ->> 'nextPageToken', sync_status(null, null, 5) ->> 'nextPageToken';
reset sync_ext.max_page_limit;

-- Of a user.
set sync_ext.user_id = 'bob';
select sync_list_workspaces(page_limit => 2);
select sync_list_workspaces('c', 2);
select sync_list_workspaces('x', 2);
reset sync_ext.user_id;

-- With a membership function.
create function who(u text, w text) returns text language sql as $$
  select 'viewer' where u = 'vic' and w in ('a', 'd')
$$;
set sync_ext.membership_function = 'public.who';
set sync_ext.user_id = 'vic';
select sync_list_workspaces();
select sync_list_workspaces(page_limit => 1);
select sync_list_workspaces('a', 1);
reset sync_ext.user_id;
reset sync_ext.membership_function;

-- The status by pages: for a user of those that they own.
create function names(status json) returns text language sql as $$
  select concat((select string_agg(w ->> 'workspaceId', ' ') from json_array_elements(status -> 'workspaces') w),
    ', then ', status -> 'nextPageToken')
$$;
select names(sync_status()), names(sync_status(page_limit => 2)), names(sync_status(null, 'a', 2)), names(sync_status(null, 'd', 2)), names(sync_status(null, 'd', 1));
select names(sync_status(null, 'x', 2)), names(sync_status('a', null, 2)), names(sync_status('a', 'd')), names(sync_status(page_token => 'c'));
set sync_ext.user_id = 'ann';
select names(sync_status(page_limit => 4));
select names(sync_status(null, 'd', 4));
set sync_ext.user_id = 'bob';
select names(sync_status(page_limit => 1));
select names(sync_status('a', page_limit => 1));
