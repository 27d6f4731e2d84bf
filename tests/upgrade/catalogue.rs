//! What the extension has in the catalogue of a database, object by object.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use postgres::{Client, GenericClient};

/// The definition of each object, by its kind and name.
pub type Catalogue = BTreeMap<(String, String), String>;

const OBJECTS: &str = include_str!("catalogue.sql");

pub fn of(client: &mut impl GenericClient) -> Result<Catalogue> {
    // Settings are there once the library is loaded.
    client.batch_execute("load 'sync_ext'")?;
    let mut catalogue = Catalogue::new();
    for row in client.query(OBJECTS, &[])? {
        let (kind, name, definition): (String, String, String) =
            (row.get(0), row.get(1), row.get(2));
        let known = ["function", "procedure", "table", "view", "sequence", "schema"];
        ensure!(
            kind != "member" || known.iter().any(|known| name.starts_with(known)),
            "a member of a kind whose definition is not compared: {name}"
        );
        let before = catalogue.insert((kind, name.clone()), definition);
        ensure!(before.is_none(), "two objects are named {name}");
    }
    Ok(catalogue)
}

/// The number of objects of each kind, if both have the same.
pub fn require_equal(found: &Catalogue, fresh: &Catalogue) -> Result<String> {
    let mut differences = Vec::new();
    for object in found.keys().chain(fresh.keys()) {
        let (found, fresh) = (found.get(object), fresh.get(object));
        if found != fresh {
            differences.push(format!("{object:?}: {found:#?}\ninstead of {fresh:#?}"));
        }
    }
    differences.sort();
    differences.dedup();
    ensure!(
        differences.is_empty(),
        "{} objects differ:\n{}",
        differences.len(),
        differences.join("\n")
    );
    let mut counts = BTreeMap::<&str, usize>::new();
    fresh.keys().for_each(|(kind, _)| *counts.entry(kind).or_default() += 1);
    let counts: Vec<String> =
        counts.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
    Ok(format!("{} objects are equal ({})", fresh.len(), counts.join(", ")))
}

/// Changes of every kind, each of which the comparison must see.
const CHANGES: [&str; 24] = [
    "comment on function sync_push(text, json) is 'other'",
    "comment on column sync_ext.record.owner is 'other'",
    "alter function sync_pull volatile",
    "alter function sync_hlc_now() set search_path = public",
    "alter function sync_hlc_now() owner to backend",
    "grant execute on function sync_gc(text, interval, integer) to public",
    "revoke execute on function sync_ext.calling_user() from public",
    "grant usage on schema sync_ext to public",
    "grant select on sync_ext.conflict to public",
    "alter table sync_ext.member alter role set default 'viewer'",
    "alter table sync_ext.record alter owner drop not null",
    "alter table sync_ext.change_log add column extra text",
    "alter table sync_ext.member drop constraint member_role_check",
    "alter table sync_ext.record set (fillfactor = 90)",
    "alter table sync_ext.change_log replica identity full",
    "alter table sync_ext.member enable row level security",
    "drop index sync_ext.member_user_id_workspace_id_idx",
    "alter view sync_ext.tombstone set (security_barrier = false)",
    "alter view sync_ext.tombstone rename column deleted_at to deleted",
    "alter sequence sync_ext.workspace_workspace_key_seq increment 2",
    "create trigger other before truncate on sync_ext.record execute function sync_ext.refuse_truncate()",
    "alter extension sync_ext drop function sync_hlc_now()",
    "update pg_extension set extconfig = extconfig[1:2], extcondition = extcondition[1:2]
      where extname = 'sync_ext'",
    "delete from pg_init_privs where objoid = 'sync_push(text, json)'::regprocedure",
];

/// Makes each change, and takes it back.
pub fn require_sharp(client: &mut Client, fresh: &Catalogue) -> Result<()> {
    for change in CHANGES {
        let mut transaction = client.transaction()?;
        transaction.batch_execute(change)?;
        ensure!(of(&mut transaction)? != *fresh, "the comparison does not see: {change}");
        transaction.rollback()?;
    }
    Ok(())
}
