-- Scopes: a reader follows a part of a workspace.
\ir ../prelude.sql
select sync_register_table('tasks', patches => true, scope_field => 'project');
create function task(op integer, operation text, pk text, clock integer, payload json default null) returns text language sql as $$
  select push_op(op, operation, pk, clock, payload, 'tasks')::jsonb - 'opId' #- '{winner,revision}'
$$;
-- Of a put with clock 1.
create function patch(op integer, pk text, clock integer, put integer, payload json) returns text language sql as $$
  select coalesce(item ->> 'errorCode', item ->> 'applied') from (select sync_push('w', json_build_array(an_op(op, 'patch', pk, clock, payload, 'tasks')::jsonb
    || jsonb_build_object('base', an_op(put, 'put', pk, 1) -> 'stamp'))::json) -> 'results' -> 0 as item) as reply
$$;
create function told(reply json) returns text language sql as $$
  select coalesce(reply ->> 'reason', (select string_agg(concat(c ->> 'serverVersion', ' ', coalesce(c ->> 'op', c ->> 'kind'), ' ', c ->> 'pk',
      case c ->> 'applied' when 'false' then ' lost' end, ' in "' || (c ->> 'scope') || '"', ' of ' || left(ltrim(c -> 'base' ->> 'opId', '0'), 1),
      case when c -> 'payload' is not null and c ->> 'op' = 'leave' then ' WITH PAYLOAD' end), ', ')
    from json_array_elements(coalesce(reply -> 'changes', reply -> 'items')) as c), 'nothing')
$$;
create view log as select server_version, pk, operation, applied, scope, left_scope from sync_ext.change_log order by 1;

-- What a scope may be.
select task(1, 'put', 'a', 1, '{"project": 5}');
select task(1, 'put', 'a', 1, '{"project": ["x"]}');
select task(1, 'put', 'a', 1, '{"project": "\u0000"}');
select task(1, 'put', 'a', 1, '{"project": "\ud800"}');
select task(1, 'put', 'a', 1, json_build_object('project', repeat('é', 128) || 'x'));
select patch(1, 'a', 2, 9, '{"project": true}');
select task(1, 'put', 'a', 1, json_build_object('project', repeat('é', 128)));
select task(2, 'put', 'a', 2, '{"project": 1, "pro\u006aect": "x"}'), task(3, 'put', 'b', 1, '{"project": null}'), task(4, 'put', 'c', 1, '{}'),
  push_op(5, 'put', 'n', 1) ->> 'applied', task(6, 'delete', 'never live', 1);
select server_version, pk, operation, applied, left(scope, 1) as scope, octet_length(left_scope) from log;
select pk, left(scope, 5) as scope, deleted from sync_ext.current_record;

-- Inside and outside. Order, duplicates and NULLs mean nothing.
select told(sync_pull('w', scopes => '{x}'));
select told(sync_pull('w', scopes => '{"", NULL, x, ""}'));
select told(sync_pull('w', scopes => '{}'));
select told(sync_pull('w', scopes => '{NULL}'));
select told(sync_pull('w')), sync_pull('w')::text like '%scope%';
select told(sync_pull('w', scopes => '{x}', tables => '{notes}')), told(sync_pull('w', scopes => '{x}', tables => '{tasks}'));
select sync_pull('w', scopes => array(select n::text from generate_series(1, 1001) n));

-- Moves by a put, by a patch that wins the field and by one that does not; a loser; a delete
-- and a put that brings the record back elsewhere.
select task(10, 'put', 'm', 1, '{"project": "x"}'), patch(11, 'm', 3, 10, '{"project": "y", "t": 1}'),
  patch(12, 'm', 2, 10, '{"project": "z"}'), patch(13, 'm', 2, 10, '{"project": "z", "u": 1}'), task(14, 'put', 'm', 0, '{"project": "z"}'),
  task(15, 'delete', 'm', 4), task(16, 'put', 'm', 5, '{}');
select * from log where pk = 'm';
select told(sync_pull('w', 6, scopes => '{x}'));
select told(sync_pull('w', 6, scopes => '{y}'));
select told(sync_pull('w', 6, scopes => '{x,y}'));
select told(sync_pull('w', 6, scopes => '{z}'));
select sync_pull('w', 7, 1, scopes => '{x}') -> 'changes';
-- latest: leaves of superseded entries too, unless the record is inside.
select told(sync_pull('w', 6, scopes => '{x}', latest => true));
select told(sync_pull('w', 6, scopes => '{x,""}', latest => true));
select told(sync_exchange('w', 'd', 6, '[]', scopes => '{y}', latest => true) -> 'pull');

-- A batch: superseded patches have both scopes.
select json_array_length(sync_push('w', json_build_array(an_op(20, 'put', 'p', 1, '{"project": "x"}', 'tasks'),
  an_op(21, 'patch', 'p', 2, '{"project": "y"}', 'tasks')::jsonb || jsonb_build_object('base', an_op(20, 'put', 'p', 1) -> 'stamp'),
  an_op(22, 'patch', 'p', 3, '{"project": "z"}', 'tasks')::jsonb || jsonb_build_object('base', an_op(20, 'put', 'p', 1) -> 'stamp'))) -> 'results');
select * from log where pk = 'p';

-- A proof belongs to its list.
select sync_pull('w', scopes => '{x}') ->> 'proof' as x, sync_pull('w') ->> 'proof' as everything \gset
select told(sync_pull('w', 13, scopes => '{x,x}', proof => :'x'));
select told(sync_pull('w', 13, scopes => '{y}', proof => :'x')), told(sync_pull('w', 13, proof => :'x')), told(sync_pull('w', 13, scopes => '{x}', proof => :'everything'));
select told(sync_pull('w', 99, scopes => '{y}', proof => :'x'));

-- Snapshots, in order of scope, table and pk; what has no scope comes last.
select task(30, 'put', 'd', 1, '{"project": "x"}'), task(31, 'put', 'e', 1, '{"project": "y"}'), task(32, 'delete', 'e', 2);
select told(sync_snapshot('w', scopes => '{z,x,""}')), told(sync_snapshot('w', scopes => '{y}')), told(sync_snapshot('w', scopes => '{}'));
select told(sync_snapshot('w', scopes => '{x}', tables => '{notes}')), told(sync_snapshot('w', scopes => '{x}', tables => '{tasks}'));
create function pages(list text[], have text[] default null, state text default null) returns setof text language plpgsql as $$
declare page json;
begin
  loop
    page := sync_snapshot('w', page ->> 'nextPageToken', 1, null, list, have, state);
    return next told(page);
    exit when page ->> 'nextPageToken' is null;
  end loop;
end
$$;
select pages('{x,"",z}');
-- What a changed list adds; the last page's proof is that of the new list.
select pages('{x,y,z}', '{x}', sync_pull('w', scopes => '{x}') ->> 'proof');
select sync_snapshot('w', scopes => '{x,y}', have => '{y,x}') ->> 'proof' = sync_pull('w', scopes => '{x,y}') ->> 'proof';
select sync_snapshot('w', scopes => '{y}', have => '{x}', proof => sync_pull('w', scopes => '{y}') ->> 'proof');
select sync_snapshot('w', scopes => '{y}', have => '{x}', proof => :'everything');
select sync_snapshot('w', have => '{x}');
select sync_snapshot('w', scopes => '{x}', proof => :'x');
select sync_snapshot('w', proof => :'x');
select sync_snapshot('w', sync_snapshot('w', null, 1, scopes => '{x,z}') ->> 'nextPageToken', scopes => '{x}');
select sync_snapshot('w', sync_snapshot('w', null, 1, scopes => '{x,z}') ->> 'nextPageToken');

-- The scope field changes.
select sync_register_table('tasks', patches => true);
select sync_register_table('tasks', patches => true, scope_field => '');
select sync_register_table('tasks', patches => true, scope_field => 'id');
select sync_register_table('tasks', 'project', patches => true);
call sync_set_scope_field('tasks', 'id');
call sync_set_scope_field('other', 'x');
select sync_pull('w', scopes => '{x}') ->> 'proof' as x, sync_snapshot('w', null, 1, scopes => '{x}') ->> 'nextPageToken' as page \gset
call sync_set_scope_field('tasks', 't');
select told(sync_pull('w', 13, scopes => '{x}', proof => :'x'));
select sync_snapshot('w', :'page', scopes => '{x}');
select sync_snapshot('w', scopes => '{x,y}', have => '{x}', proof => :'x');
select task(40, 'put', 'd', 2, '{"t": "x"}');
select told(sync_pull('w', scopes => '{x}')), told(sync_snapshot('w', scopes => '{x}'));
select pk, scope, deleted from sync_ext.current_record where scope is distinct from '';
call sync_set_scope_field('tasks', null);
select told(sync_pull('w', scopes => '{}', latest => true)) = told(sync_pull('w', latest => true));
call sync_set_scope_field('tasks', 'project');
select told(sync_snapshot('w', scopes => '{x}'));
select sync_unregister_table('tasks');

-- A purged leave is as a purged delete: who has not seen it begins anew.
select sync_register_table('moved', scope_field => 'project');
select sync_push('v', json_build_array(an_op(50, 'put', 'a', 1, '{"project": "x"}', 'moved'), an_op(51, 'put', 'a', 2, '{"project": "y"}', 'moved'),
  an_op(52, 'put', 'a', 3, '{"project": "y"}', 'moved'), an_op(53, 'put', 'b', 1, '{"project": "y"}', 'moved'))) ->> 'serverVersion';
update sync_ext.change_log set created_at = created_at - interval '31 days';
select sync_gc('v')::jsonb - 'workspaces' - 'devicesDeleted';
select horizon from sync_ext.workspace where workspace_id = 'v';
select told(sync_pull('v', 1, scopes => '{x}')), told(sync_pull('v', 2, scopes => '{x}'));

select o ->> 'serverVersion' as version, o ->> 'scope' as scope, o ->> 'leftScope' as left_scope
  from json_array_elements(sync_explain('v', 'moved', 'a') -> 'ops') as o;
select sync_explain('v', 'moved', 'a') -> 'winner' ->> 'scope';

-- Private records keep away from others whatever they follow.
select sync_register_table('diary', owner_field => 'by', scope_field => 'by');
select sync_create_workspace('u', 'ann'), sync_set_member('u', 'bob', 'editor');
set sync_ext.user_id = 'ann';
select sync_push('u', json_build_array(an_op(60, 'put', 'a', 1, '{"by": "ann"}', 'diary'), an_op(61, 'put', 'b', 1, '{}', 'diary'))) -> 'results' -> 1 ->> 'applied';
select told(sync_pull('u', scopes => '{ann}'));
set sync_ext.user_id = 'bob';
select told(sync_pull('u', scopes => '{ann}')), told(sync_snapshot('u', scopes => '{ann}'));
reset sync_ext.user_id;

-- The rows of an attached table. A trigger may move them.
create table item (id text primary key, workspace_id text not null, list text, n integer, at uuid);
select sync_attach_table('item', scope_column => 'n');
select sync_attach_table('item', scope_column => 'id');
select sync_attach_table('item', scope_column => 'missing');
select sync_attach_table('item', scope_column => 'list', patches => true);
select table_name, scope_column from sync_ext.attached_table;
insert into item values ('a', 't', 'x'), ('b', 't', null);
update item set list = 'y' where id = 'a';
select told(sync_pull('t', scopes => '{x}')), told(sync_pull('t', scopes => '{y}')), told(sync_pull('t', scopes => '{""}'));
create function lower_list() returns trigger language plpgsql as $$ begin new.list := lower(new.list); return new; end $$;
create trigger lower_list before insert or update on item for each row execute function lower_list();
select sync_push('t', json_build_array(an_op(70, 'put', 'c', 1, '{"list": "Z"}', 'item'))) -> 'results' -> 0 -> 'payload';
select told(sync_pull('t', 3, scopes => '{z}')), told(sync_pull('t', 3, scopes => '{Z}'));
insert into item values ('d', 't', repeat('x', 257));
call sync_set_scope_field('item', 'n');
call sync_set_scope_field('item', 'at');
insert into item values ('e', 't', 'x', 1, '00000000-0000-0000-0000-00000000000e');
select told(sync_pull('t', scopes => '{00000000-0000-0000-0000-00000000000e}'));
