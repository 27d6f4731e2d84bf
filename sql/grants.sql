-- Only the owner may use anything until an administrator grants it. PUBLIC may execute
-- new functions by default, and default privileges, such as those that platforms set
-- for their API roles, may have granted rights to others or revoked them from the
-- owner. So the rights of each object are reset.
do $$
declare
  made record;
  grantee pg_catalog.oid;
begin
  for made in
    with member as (
      select d.classid, d.objid
      from pg_catalog.pg_depend as d
      join pg_catalog.pg_extension as e on e.oid operator(pg_catalog.=) d.refobjid
      where d.refclassid operator(pg_catalog.=) 'pg_catalog.pg_extension'::pg_catalog.regclass
        and d.deptype operator(pg_catalog.=) 'e'
        and e.extname operator(pg_catalog.=) 'sync_ext'
    )
    select 'schema' as kind, n.oid::pg_catalog.regnamespace::pg_catalog.text as name,
      n.nspowner as owner, n.nspacl as acl
    from member as m
    join pg_catalog.pg_namespace as n on n.oid operator(pg_catalog.=) m.objid
    where m.classid operator(pg_catalog.=) 'pg_catalog.pg_namespace'::pg_catalog.regclass
    union all
    select 'routine', p.oid::pg_catalog.regprocedure::pg_catalog.text, p.proowner, p.proacl
    from member as m
    join pg_catalog.pg_proc as p on p.oid operator(pg_catalog.=) m.objid
    where m.classid operator(pg_catalog.=) 'pg_catalog.pg_proc'::pg_catalog.regclass
    union all
    select case when c.relkind operator(pg_catalog.=) 'S' then 'sequence' else 'table' end,
      c.oid::pg_catalog.regclass::pg_catalog.text, c.relowner, c.relacl
    from member as m
    join pg_catalog.pg_class as c on c.oid operator(pg_catalog.=) m.objid
    where m.classid operator(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass
  loop
    execute pg_catalog.format('revoke all on %s %s from public cascade', made.kind, made.name);
    for grantee in
      select distinct a.grantee from pg_catalog.aclexplode(made.acl) as a
      where a.grantee operator(pg_catalog.<>) 0 and a.grantee operator(pg_catalog.<>) made.owner
    loop
      execute pg_catalog.format('revoke all on %s %s from %s cascade',
        made.kind, made.name, grantee::pg_catalog.regrole);
    end loop;
    execute pg_catalog.format('grant all on %s %s to %s',
      made.kind, made.name, made.owner::pg_catalog.regrole);
  end loop;
end
$$;

-- Views call functions with the rights of the role that reads the view. These functions
-- reveal only facts about the caller's own user, or about their argument. Triggers are
-- made with the rights of the table's owner. Procedures call the batches with the rights
-- of their caller; a batch checks that the caller is trusted and owns the table.
grant execute on function
  sync_ext.is_caller_known(),
  sync_ext.calling_user(),
  sync_ext.may_read(text),
  sync_ext.patched_names(json),
  sync_ext.scope_of(json, text),
  sync_ext.may_govern(text),
  sync_ext.require_owner(text),
  sync_ext.is_active(timestamptz, bigint, bigint),
  sync_ext.due_at(timestamptz),
  sync_ext.counters(),
  sync_ext.column_types(regclass),
  sync_ext.trigger_state(regclass),
  sync_ext.capture(),
  sync_ext.refuse_truncate(),
  sync_ext.backfill_batch(regclass, text, integer, json),
  sync_ext.repair_batch(regclass, text, text, integer, json)
to public;
grant execute on procedure sync_ext.run_batches(text, regclass, text, text, integer, interval, interval) to public;
