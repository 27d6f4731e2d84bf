-- Every object of the extension, with its parts: kind, name, definition. Rights and
-- comments are part of a definition.
with extension as (
  select * from pg_extension where extname = 'sync_ext'
), member as (
  select d.classid, d.objid, o.type, o.identity
  from extension as e
  join pg_depend as d on d.refclassid = 'pg_extension'::regclass and d.refobjid = e.oid and d.deptype = 'e'
  cross join pg_identify_object(d.classid, d.objid, 0) as o
  -- pg_upgrade makes members of the types of rows too, and of their arrays.
  where d.classid <> 'pg_type'::regclass
    or not exists (
      select from pg_type as t
      join pg_type as r on r.typrelid <> 0 and r.oid in (t.oid, t.typelem)
      where t.oid = d.objid
    )
), relation as (
  select c.*, c.oid::regclass::text as name
  from member as m
  join pg_class as c on m.classid = 'pg_class'::regclass and c.oid = m.objid
), rights (class, of, owner, given, usual) as (
  select p.tableoid, p.oid, p.proowner, p.proacl, acldefault('f', p.proowner) from pg_proc as p
  union all
  select n.tableoid, n.oid, n.nspowner, n.nspacl, acldefault('n', n.nspowner) from pg_namespace as n
  union all
  select c.tableoid, c.oid, c.relowner, c.relacl,
    acldefault(case when c.relkind = 'S' then 's' else 'r' end::"char", c.relowner)
  from pg_class as c
), object (kind, name, definition) as (
  select 'member', concat(m.type, ' ', m.identity), concat_ws(
    E'\n',
    obj_description(m.objid, m.classid::regclass::text::name),
    r.owner::regrole,
    (select string_agg(a::text, ' ' order by a::text) from aclexplode(coalesce(r.given, r.usual)) as a),
    -- With which pg_dump compares.
    (select string_agg(a::text, ' ' order by a::text) from aclexplode(coalesce(i.initprivs, r.usual)) as a)
  )
  from member as m
  left join rights as r on r.class = m.classid and r.of = m.objid
  left join pg_init_privs as i on i.classoid = m.classid and i.objoid = m.objid and i.objsubid = 0
  union all
  select 'routine', p.oid::regprocedure::text, pg_get_functiondef(p.oid)
  from member as m
  join pg_proc as p on m.classid = 'pg_proc'::regclass and p.oid = m.objid
  union all
  select 'relation', r.name, concat_ws(
    ' ', r.relkind, r.relpersistence, r.reloptions, r.relreplident, r.relrowsecurity, r.relforcerowsecurity,
    r.reltablespace, (select amname from pg_am where oid = r.relam)
  )
  from relation as r
  union all
  select 'view', r.name, pg_get_viewdef(r.oid) from relation as r where r.relkind = 'v'
  union all
  select 'column', concat(r.name, '.', a.attname), concat_ws(
    ' ', row_number() over (partition by r.oid order by a.attnum), format_type(a.atttypid, a.atttypmod),
    a.attnotnull, a.attcollation::regcollation, a.attidentity, a.attgenerated, a.attstorage, a.attcompression,
    a.attstattarget, o.options, a.attacl, pg_get_expr(d.adbin, d.adrelid), col_description(r.oid, a.attnum)
  )
  from relation as r
  join pg_attribute as a on a.attrelid = r.oid and a.attnum > 0 and not a.attisdropped
  left join pg_attrdef as d on d.adrelid = r.oid and d.adnum = a.attnum
  -- Minor releases since November 2026 note there when a column was changed.
  cross join lateral (
    select string_agg(option, ' ') from unnest(a.attoptions) as option where option not like 'pg\_attver=%'
  ) as o (options)
  union all
  select 'constraint', concat(r.name, ' ', c.conname), concat_ws(
    ' ', c.contype, pg_get_constraintdef(c.oid), c.condeferrable, c.condeferred, c.convalidated,
    obj_description(c.oid, 'pg_constraint')
  )
  from relation as r
  join pg_constraint as c on c.conrelid = r.oid
  union all
  select 'index', i.indexrelid::regclass::text, concat_ws(
    ' ', pg_get_indexdef(i.indexrelid), i.indisprimary, i.indisunique, i.indisvalid, i.indisclustered,
    i.indisreplident, obj_description(i.indexrelid, 'pg_class')
  )
  from relation as r
  join pg_index as i on i.indrelid = r.oid
  union all
  select 'trigger', concat(r.name, ' ', t.tgname), concat_ws(' ', pg_get_triggerdef(t.oid), t.tgenabled)
  from relation as r
  join pg_trigger as t on t.tgrelid = r.oid and not t.tgisinternal
  union all
  select 'rule', concat(r.name, ' ', w.rulename), concat_ws(' ', pg_get_ruledef(w.oid), w.ev_enabled)
  from relation as r
  join pg_rewrite as w on w.ev_class = r.oid
  union all
  select 'policy', concat(r.name, ' ', p.polname), p.polcmd::text
  from relation as r
  join pg_policy as p on p.polrelid = r.oid
  union all
  select 'sequence', r.name, concat_ws(
    ' ', s.seqtypid::regtype, s.seqstart, s.seqincrement, s.seqmax, s.seqmin, s.seqcache, s.seqcycle,
    (select concat(d.refobjid::regclass, '.', d.refobjsubid, d.deptype) from pg_depend as d
     where d.classid = 'pg_class'::regclass and d.objid = r.oid and d.refobjsubid > 0)
  )
  from relation as r
  join pg_sequence as s on s.seqrelid = r.oid
  union all
  select 'dumped table', t.config::regclass::text, concat('where ', e.extcondition[t.place])
  from extension as e
  cross join unnest(e.extconfig) with ordinality as t (config, place)
  union all
  select 'event trigger', t.evtname::text, concat_ws(' ', t.evtevent, t.evtfoid::regprocedure, t.evtenabled, t.evttags)
  from pg_event_trigger as t
  union all
  select 'extension', e.extname::text, concat_ws(
    ' ', e.extversion, e.extowner::regrole, e.extnamespace::regnamespace, e.extrelocatable,
    obj_description(e.oid, 'pg_extension')
  )
  from extension as e
  union all
  select 'setting', s.name, concat_ws(
    ' ', s.vartype, s.context, s.unit, s.boot_val, s.min_val, s.max_val, s.enumvals, s.short_desc, s.extra_desc
  )
  from pg_settings as s
  where s.name like 'sync\_ext.%'
)
select kind, name, definition from object
