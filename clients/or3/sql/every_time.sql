-- Run after the numbered files, each time. Registering a table again changes nothing.

select
  sync_register_table('threads'),
  sync_register_table('messages'),
  sync_register_table('projects'),
  sync_register_table('posts'),
  sync_register_table('kv'),
  sync_register_table('file_meta', pk_field => 'hash'),
  -- Each user's own.
  sync_register_table('notifications', owner_field => 'user_id');

-- What the role of the setting or3.grantee needs, if it names one: the functions that the
-- app calls, the view in which it finds purged deletes, and the tables above.
do $$
declare
  grantee text := nullif(current_setting('or3.grantee', true), '');
begin
  if grantee is null then
    return;
  end if;
  execute format(
    'grant execute on function sync_push, sync_pull, sync_snapshot, sync_update_cursor, sync_gc,
       sync_create_workspace, sync_set_member, sync_remove_member, sync_list_members,
       sync_get_role, sync_list_workspaces to %I', grantee);
  execute format('grant usage on schema sync_ext, or3 to %I', grantee);
  execute format('grant select on sync_ext.current_record, or3.migration to %I', grantee);
  execute format(
    'grant select, insert, update, delete on or3.app_user, or3.account, or3.workspace,
       or3.former_member, or3.invite, or3.device, or3.upload_intent to %I', grantee);
end
$$;
