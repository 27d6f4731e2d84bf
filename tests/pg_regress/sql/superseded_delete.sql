-- A delete that a newer put has superseded is history like any other: GC
-- purges it without raising the horizon, so nobody must start from a snapshot.
\ir ../prelude.sql
create function push(op integer, operation text, pk text, clock integer) returns text language sql as $$
  select push_op(op, operation, pk, clock) ->> 'serverVersion'
$$;
select push(1, 'put', 'a', 1), push(2, 'delete', 'a', 2), push(3, 'put', 'a', 3), push(4, 'put', 'b', 1);
update sync_ext.change_log set created_at = created_at - interval '40 days';

-- GC reads the delete and stops: who superseded it is read later.
select sync_gc('w', batch_size => 2);
select server_version, operation from sync_ext.change_log order by 1;
select head, horizon, gc_through from sync_ext.workspace;
select sync_gc('w');
select server_version, operation from sync_ext.change_log order by 1;
select head, horizon, gc_through from sync_ext.workspace;

-- A device that has seen nothing gets all that is left.
select sync_pull('w')::jsonb - 'proof' #- '{changes}';
select c ->> 'serverVersion', c ->> 'pk' from json_array_elements(sync_pull('w') -> 'changes') c;
