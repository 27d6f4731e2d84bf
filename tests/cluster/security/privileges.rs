//! Default privileges, as platforms set them for their API roles: installing grants
//! nobody anything, nor does restoring a dump.

use postgres::Client;
use sync_ext_harness::database::Database;
use sync_ext_harness::dump::dump;

use super::furnished;

/// Every kind of default privilege, for roles and for everybody, with and without a
/// schema; and what takes the owner's own away.
const HOSTILE: &str = "
    create schema api;
    alter default privileges grant all on functions to anon;
    alter default privileges grant all on tables to anon with grant option;
    alter default privileges grant all on sequences to anon, public;
    alter default privileges grant all on schemas to anon;
    alter default privileges grant select on tables to public;
    alter default privileges revoke all on tables from postgres;
    alter default privileges revoke all on functions from postgres;
    alter default privileges in schema public grant all on functions to anon, \"An on\";
    alter default privileges in schema public grant all on tables to anon;
    alter default privileges in schema api grant execute on functions to anon, public";

/// The objects of the extension: who may do what, and what would be usual.
const OBJECTS: &str = "
    with member as (
      select d.classid, d.objid from pg_depend d
      join pg_extension e on e.oid = d.refobjid and e.extname = 'sync_ext'
      where d.deptype = 'e' and d.refclassid = 'pg_extension'::regclass),
    object (name, owner, given, usual) as (
      select n.nspname::text, n.nspowner, n.nspacl, acldefault('n', n.nspowner)
        from member m join pg_namespace n on n.oid = m.objid and m.classid = 'pg_namespace'::regclass
      union all
      select p.proname, p.proowner, p.proacl, acldefault('f', p.proowner)
        from member m join pg_proc p on p.oid = m.objid and m.classid = 'pg_proc'::regclass
      union all
      select c.relname, c.relowner, c.relacl,
          acldefault((case c.relkind when 'S' then 's' else 'r' end)::\"char\", c.relowner)
        from member m join pg_class c on c.oid = m.objid and m.classid = 'pg_class'::regclass)";

/// What anybody but the owner may do with one of them: who, what, on which.
const GRANTED: &str = "
    select array(
      select format('%s on %s for %s', x.privilege_type, o.name,
          case when x.grantee = 0 then 'public' else x.grantee::regrole::text end)
      from object as o, aclexplode(coalesce(o.given, o.usual)) as x
      where x.grantee <> o.owner
      order by 1)";

/// What the owner usually may and may not. A superuser may nevertheless, but need
/// not stay one.
const LOST: &str = "
    select array(
      select format('%s on %s', x.privilege_type, o.name)
      from object as o, aclexplode(o.usual) as x
      where x.grantee = o.owner and (x.grantee, x.privilege_type) not in (
        select y.grantee, y.privilege_type from aclexplode(coalesce(o.given, o.usual)) as y)
      order by 1)";

/// What the views call is everybody's, and what triggers and procedures call.
const MEANT: [&str; 17] = [
    "EXECUTE on backfill_batch for public",
    "EXECUTE on calling_user for public",
    "EXECUTE on capture for public",
    "EXECUTE on column_types for public",
    "EXECUTE on counters for public",
    "EXECUTE on due_at for public",
    "EXECUTE on is_active for public",
    "EXECUTE on is_caller_known for public",
    "EXECUTE on may_govern for public",
    "EXECUTE on may_read for public",
    "EXECUTE on patched_names for public",
    "EXECUTE on refuse_truncate for public",
    "EXECUTE on repair_batch for public",
    "EXECUTE on require_owner for public",
    "EXECUTE on run_batches for public",
    "EXECUTE on scope_of for public",
    "EXECUTE on trigger_state for public",
];

fn granted(client: &mut Client) -> Vec<String> {
    client.query_one(&format!("{OBJECTS} {GRANTED}"), &[]).unwrap().get(0)
}

fn lost(client: &mut Client) -> Vec<String> {
    client.query_one(&format!("{OBJECTS} {LOST}"), &[]).unwrap().get(0)
}

/// Without the extension.
fn hostile() -> Database {
    let database = Database::empty();
    for role in ["anon", "\"An on\""] {
        database.ensure_role(role);
    }
    database.session().batch_execute(HOSTILE).unwrap();
    database
}

#[test]
fn default_privileges_grant_nothing() {
    for schema in ["public", "api"] {
        let database = hostile();
        let mut client = database.session();
        client.batch_execute(&format!("create extension sync_ext schema {schema}")).unwrap();
        assert_eq!(granted(&mut client), MEANT, "{schema}");
        // The owner's own rights were taken away, too.
        assert_eq!(lost(&mut client), [""; 0], "{schema}");
        let call = format!("select {schema}.sync_register_table('notes')");
        client.batch_execute(&call).unwrap();
    }
}

#[test]
fn a_restored_dump_grants_what_was_granted() {
    let before = furnished();
    let granted_before = granted(&mut before.session());
    assert!(granted_before.len() > MEANT.len(), "{granted_before:?}");
    let after = hostile();
    dump(&before).restore_into(&after);
    assert_eq!(granted(&mut after.session()), granted_before);
}
