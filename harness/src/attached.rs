//! Attached tables and the log, compared: written from the contract alone.

use std::collections::BTreeMap;

use postgres::{Client, GenericClient};
use serde_json::Value;

/// What is wrong between the attached tables and the log: a live record that is not the
/// image of its row, a record without a row, a row without a record, versions that are
/// not 1..head. For a session with default settings, in a database without GC.
pub fn differences(client: &mut Client) -> Vec<String> {
    let mut transaction = client.build_transaction();
    transaction = transaction.isolation_level(postgres::IsolationLevel::RepeatableRead);
    let mut client = transaction.start().unwrap();
    client
        .batch_execute("set local timezone = 'UTC'; set local intervalstyle = 'iso_8601'")
        .unwrap();
    let mut found = gaps(&mut client);
    let sql = "select relation::oid, relation::text, table_name
                 from sync_ext.synced_table join pg_class c on c.oid = relation order by table_name";
    for row in client.query(sql, &[]).unwrap() {
        let (oid, relation, name): (u32, String, String) = (row.get(0), row.get(1), row.get(2));
        let sql = comparison(&mut client, oid, &relation, &name);
        found.extend(client.query(&sql, &[]).unwrap().iter().map(|row| row.get::<_, String>(0)));
    }
    found
}

/// Panics if there are any.
pub fn require_equal(client: &mut Client) {
    let found = differences(client);
    assert!(found.is_empty(), "{found:#?}");
}

fn gaps(client: &mut impl GenericClient) -> Vec<String> {
    let sql = "select format('%s: %s entries, %s to %s, head %s',
                             w.workspace_id, count(l), min(l.server_version), max(l.server_version), w.head)
                 from sync_ext.workspace w left join sync_ext.change_log l using (workspace_key)
                group by w.workspace_id, w.head
               having count(l) <> w.head or coalesce(min(l.server_version), 1) <> 1
                   or coalesce(max(l.server_version), 0) <> w.head";
    client.query(sql, &[]).unwrap().iter().map(|row| row.get(0)).collect()
}

/// The statement that lists the differences of one table.
fn comparison(client: &mut impl GenericClient, oid: u32, relation: &str, name: &str) -> String {
    let sql =
        "select workspace_column, workspace_id, deleted_column, fields::text, owner_field, numbers
                 from sync_ext.synced_table where relation = $1";
    let row = client.query_one(sql, &[&oid]).unwrap();
    let [workspace_column, workspace_id, deleted, _, owner_field, numbers]: [Option<String>; 6] =
        std::array::from_fn(|at| row.get(at));
    let fields: Value = serde_json::from_str(&row.get::<_, String>(3)).unwrap();
    let types = types(client, oid);
    let is_safe = numbers.as_deref() == Some("safe");
    let value = |column: &str| match types.get(column).map(String::as_str) {
        Some("bigint" | "numeric") if is_safe => format!("to_jsonb(t.{}::text)", quoted(column)),
        _ => format!("to_jsonb(t.{})", quoted(column)),
    };
    let columns: Vec<(&String, &str)> =
        fields.as_object().unwrap().iter().map(|(f, c)| (f, c.as_str().unwrap())).collect();
    let image: Vec<String> = columns
        .iter()
        .filter(|(_, column)| types.contains_key(*column))
        .map(|(field, column)| format!("{}, {}", literal(field), value(column)))
        .collect();
    let pk: Vec<String> = key(client, oid);
    let pk = match pk.as_slice() {
        [only] => format!("to_jsonb(t.{}) #>> '{{}}'", quoted(only)),
        several => {
            let text = |part: &String| format!("to_jsonb(t.{}) #>> '{{}}'", quoted(part));
            let parts: Vec<_> = several.iter().map(text).collect();
            format!("array_to_json(array[{}])::text", parts.join(", "))
        }
    };
    let workspace = match (&workspace_id, &workspace_column) {
        (Some(workspace_id), _) => literal(workspace_id),
        (None, column) => format!("t.{}::text", quoted(column.as_ref().unwrap())),
    };
    let mut live = vec![format!("{workspace} is not null")];
    if let Some(column) = deleted {
        let is_boolean = client
            .query_one(
                "select format_type(case when t.typtype = 'd' then t.typbasetype else t.oid end, null) = 'boolean'
                   from pg_attribute a join pg_type t on t.oid = a.atttypid
                  where a.attrelid = $1 and a.attname = $2",
                &[&oid, &column],
            )
            .unwrap()
            .get(0);
        live.push(match is_boolean {
            true => format!("t.{} is not true", quoted(&column)),
            false => format!("t.{} is null", quoted(&column)),
        });
    }
    let owner = owner_field.and_then(|field| fields[field].as_str().map(str::to_owned));
    live.extend(owner.map(|column| format!("t.{} is not null", quoted(&column))));
    format!(
        "with r as (select {workspace} as w, {pk} as pk, jsonb_build_object({image}) as image
                      from {relation} t where {live}),
              l as (select workspace_id as w, pk, payload::jsonb - 'workspace_id' as payload
                      from sync_ext.current_record where table_name = {name} and not deleted),
              d as (select coalesce(r.w, l.w) as w, coalesce(r.pk, l.pk) as pk, r.image, l.payload
                      from r full join l on r.w = l.w collate \"C\" and r.pk = l.pk collate \"C\")
         select format('{relation} %s %s: row %s, record %s', w, pk, image, payload) from d
          where image is null or payload is null
             or (select jsonb_object_agg(key, value) from jsonb_each(image) where value <> 'null')
                is distinct from
                (select jsonb_object_agg(key, value) from jsonb_each(payload) where value <> 'null')
          order by 1",
        image = image.join(", "),
        live = live.join(" and "),
        name = literal(name),
    )
}

/// Each column's type, below domains and without its length.
fn types(client: &mut impl GenericClient, oid: u32) -> BTreeMap<String, String> {
    let sql = "select a.attname::text,
                      format_type(case when t.typtype = 'd' then t.typbasetype else t.oid end, null)
                 from pg_attribute a join pg_type t on t.oid = a.atttypid
                where a.attrelid = $1 and a.attnum > 0 and not a.attisdropped";
    client.query(sql, &[&oid]).unwrap().iter().map(|row| (row.get(0), row.get(1))).collect()
}

fn key(client: &mut impl GenericClient, oid: u32) -> Vec<String> {
    let sql = "select a.attname::text from pg_index i
                 cross join unnest(i.indkey::int2[]) with ordinality k (attnum, place)
                 join pg_attribute a on a.attrelid = i.indrelid and a.attnum = k.attnum
                where i.indrelid = $1 and i.indisprimary and k.place <= i.indnkeyatts order by k.place";
    client.query(sql, &[&oid]).unwrap().iter().map(|row| row.get(0)).collect()
}

fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
