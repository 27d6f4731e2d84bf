//! Writes from SQL among the pushes of devices, against the model of the contract: the
//! item, and at the end every row, are those of a push of the same op with the stamp of
//! somebody who has seen the record.

use postgres::Client;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use serde_json::Value;
use sync_ext_harness::batch::{delete, op, op_id, put, with};
use sync_ext_harness::database::Database;
use sync_ext_model::reply::{read, timeless};
use sync_ext_model::rows::{STORED_LOG, STORED_REST, difference};
use sync_ext_model::{Revision, Server};

use crate::patching::allow_patches;

const STEPS: u64 = 400;

fn any_pk(random: &mut StdRng) -> &'static str {
    ["a", "b", "c", "d"].choose(random).unwrap()
}

/// The record's register, and the highest clock known of it.
fn seen(model: &Server, pk: &str) -> Option<(Revision, i64)> {
    let state = model.workspaces.get("w")?;
    let record = state.records.get(&("notes".to_owned(), pk.to_owned()))?;
    let fields = state.fields(record);
    let clocks = fields.values().map(|by| by.clock);
    Some((record.revision.clone(), clocks.fold(record.revision.clock, i64::max)))
}

/// An op of a device, which need not have seen the record.
fn push(client: &mut Client, model: &mut Server, random: &mut StdRng, id: u64) {
    let (pk, clock) = (any_pk(random), random.random_range(1..60));
    let pushed = match (random.random_range(0..8), seen(model, pk)) {
        (0, _) => delete(id, pk, clock),
        (1..=4, Some((register, _))) => {
            let field = ["x", "y", "z"].choose(random).unwrap();
            let payload = format!("{{\"{field}\":{id}}}");
            let patch = op(id, pk, register.clock as u64 + clock, "patch", &payload);
            with(&patch, "base", &register.json().to_string())
        }
        _ => put(id, pk, clock),
    };
    let ops = format!("[{pushed}]");
    let sql = "select sync_push('w', $1::text::json)::text";
    let reply: String = client.query_one(sql, &[&ops]).unwrap().get(0);
    let expected = model.push(None, "w", &ops, 0).unwrap();
    assert_eq!(timeless(read(&reply).unwrap()), timeless(expected), "{pushed}");
}

/// A write from SQL. Returns the item.
fn write(client: &mut Client, model: &mut Server, random: &mut StdRng, id: u64) -> Value {
    let pk = any_pk(random);
    let operation = *["put", "patch", "patch", "delete"].choose(random).unwrap();
    let payload = match operation {
        "patch" => format!("{{\"{}\":{id}}}", ["x", "y", "z"].choose(random).unwrap()),
        _ => format!("{{ \"n\" : {id} }}"),
    };
    let payload = (operation != "delete").then_some(payload);
    let item: String = match &payload {
        Some(payload) => {
            let sql = format!("select sync_{operation}('w', 'notes', $1, $2::text::json)::text");
            client.query_one(&sql, &[&pk, payload]).unwrap().get(0)
        }
        None => {
            client.query_one("select sync_delete('w', 'notes', $1)::text", &[&pk]).unwrap().get(0)
        }
    };
    let item = read(&item).unwrap();

    let (base, clock) = seen(model, pk).map_or_else(
        || (Revision { clock: 0, hlc: "0".to_owned(), op_id: op_id(0) }, 1),
        |(register, clock)| (register, clock + 1),
    );
    let sql = "select hlc from sync_ext.change_log where op_id = $1::text::uuid
                and clock = $2 and device_id = '$server'";
    let id = item["opId"].as_str().unwrap();
    let stored = client.query_opt(sql, &[&id, &clock]).unwrap();
    assert_eq!(stored.is_some(), item["success"] == true, "{item}");
    let hlc = stored.map_or_else(|| "h".to_owned(), |row| row.get(0));
    // As it was written, with its white space.
    let payload = payload.unwrap_or_else(|| "null".to_owned());
    let op = format!(
        r#"[{{"tableName":"notes","operation":"{operation}","pk":"{pk}","payload":{payload},
             "base":{},"stamp":{{"clock":{clock},"hlc":"{hlc}","deviceId":"$server","opId":"{id}"}}}}]"#,
        base.json()
    );
    let expected = model.push(None, "w", &op, 0).unwrap();
    assert_eq!(timeless(item.clone()), timeless(expected["results"][0].clone()), "{op}");
    item
}

#[test]
fn a_write_from_sql_is_a_push_of_somebody_who_has_seen_the_record() {
    let database = Database::new();
    let client = &mut database.session();
    allow_patches(client);
    let mut model = Server::default();
    model.register(None, "notes", "id", None, true).unwrap();
    let mut random = StdRng::seed_from_u64(1);
    let (mut applied, mut lost, mut refused) = (0, 0, 0);
    for id in 1..=STEPS {
        if random.random_bool(0.5) {
            push(client, &mut model, &mut random, id);
            continue;
        }
        let item = write(client, &mut model, &mut random, id);
        match (item["applied"].as_bool(), item["winner"]["kind"].as_str()) {
            (Some(true), None) => applied += 1,
            (Some(false), Some("delete")) => lost += 1,
            (None, None) => refused += 1,
            _ => panic!("only a delete is not beaten, by a patch: {item}"),
        }
    }
    assert!(applied > 100 && lost > 10 && refused > 0, "{applied} {lost} {refused}");

    let (all, no_times) = (None::<String>, None::<i64>);
    let mut rows = client.query(STORED_LOG, &[&all, &0_i64, &no_times]).unwrap();
    rows.append(&mut client.query(STORED_REST, &[&no_times]).unwrap());
    let mut stored: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    stored.sort_unstable();
    assert_eq!(difference(&stored, &model.lines(false)), None);
}
