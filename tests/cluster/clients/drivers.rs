//! Drivers that apps use: node-postgres, psycopg 3 and sqlx, each as the README says.
//! Every one does the same, tests/clients/ and `sqlx` below, and tells what it saw.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::str::FromStr;
use std::time::Duration;

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use sqlx::postgres::{PgConnectOptions, PgListener};
use sqlx::types::Json;
use sqlx::{PgPool, Row};
use sync_ext_harness::database::Database;

const DEADLINE: Duration = Duration::from_secs(30);

fn world() -> Database {
    let database = Database::new();
    database.ensure_role("driver");
    let set = format!(
        "select sync_register_table('notes'), sync_register_table('files');
         alter database {} set sync_ext.notify = hint;
         grant execute on function sync_push, sync_pull, sync_update_cursor to driver",
        database.name
    );
    database.session().batch_execute(&set).unwrap();
    database
}

fn fetched(what: &str) -> PathBuf {
    let fetched = path("../../target/clients").join(what);
    assert!(fetched.exists(), "no drivers: run scripts/setup.sh tests");
    fetched
}

#[test]
fn node_postgres_pushes_pulls_and_is_notified() {
    let mut node = Command::new("node");
    node.env("NODE_PATH", fetched("node/node_modules"));
    node.arg(path("../clients/node/client.js"));
    judge("node", &said_by(node, "node", &world()));
}

#[test]
fn psycopg_pushes_pulls_and_is_notified() {
    let mut python = Command::new(fetched("python/bin/python"));
    python.arg(path("../clients/python/client.py"));
    judge("python", &said_by(python, "python", &world()));
}

#[test]
fn sqlx_pushes_pulls_and_is_notified() {
    judge("sqlx", &sqlx("sqlx", &world()));
}

fn path(from_here: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(from_here)
}

fn ops() -> PathBuf {
    path("../clients/ops.json")
}

/// Runs a program for a workspace of its own.
fn said_by(mut program: Command, workspace: &str, database: &Database) -> Value {
    program.envs(database.cluster.environment("driver", &database.name));
    let output = program.arg(workspace).arg(ops()).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{workspace}: {errors}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// What every driver must have seen.
fn judge(workspace: &str, seen: &Value) {
    let result = |id, version| {
        let op_id = format!("00000000-0000-4000-8000-{id:012}");
        json!({"opId": op_id, "success": true, "serverVersion": version, "applied": true,
               "created": true})
    };
    let pushed = |version| json!({"results": [result(version, version)], "serverVersion": version});
    assert_eq!(seen["pushed"], json!([pushed(1), pushed(2)]));
    let mut replayed = pushed(2);
    let replay = replayed["results"][0].as_object_mut().unwrap();
    replay.remove("created");
    replay.insert("replayed".to_owned(), true.into());
    assert_eq!(seen["replayed"], replayed);
    assert_eq!(seen["told"], json!(["sync_ext", {"workspaceId": workspace, "serverVersion": 1}]));

    // Byte for byte, as the file has it.
    let ops = std::fs::read_to_string(ops()).unwrap();
    let (_, payload) = ops.split_once("\"payload\": ").unwrap();
    let (payload, _) = payload.split_once(",\n").unwrap();
    let text = seen["text"].as_str().unwrap();
    assert!(text.contains(&format!("\"payload\":{payload},\"stamp\"")), "{text}");

    // As the driver reads it: the same but for the payloads.
    let change = |version, pk, device, hlc, clock: u64| {
        let op_id = format!("00000000-0000-4000-8000-{version:012}");
        let stamp = json!({"clock": clock, "hlc": hlc, "deviceId": device, "opId": op_id});
        json!({"serverVersion": version, "tableName": "notes", "pk": pk, "op": "put",
               "applied": true, "stamp": stamp})
    };
    let pulled = &seen["pulled"];
    let proof = pulled["proof"].as_str().unwrap();
    let changes = [change(1, "n1", "a", "h", (1 << 53) - 1), change(2, "ä", workspace, "ä", 1)];
    let expected = json!({"changes": changes, "nextCursor": 2, "hasMore": false,
        "serverVersion": 2, "oldestRetainedVersion": 1, "requiresSnapshot": false, "proof": proof});
    assert_eq!(*pulled, expected);
    assert!(text.ends_with(&format!("\"proof\":\"{proof}\"}}")), "{text}");
    let [plain, escaped] =
        [r#"{"text":"\"ä\" \\ 🐘"}"#, r#"{"text": "\"\u00e4\" \\ \ud83d\udc18"}"#];
    assert!(text.contains(plain) || text.contains(escaped), "{text}");

    assert_eq!(seen["counts"], json!([2, 0, 2, 2]));
    let acknowledged = json!({"deviceId": workspace, "lastSeenVersion": 2, "advanced": true,
        "serverVersion": 2, "oldestRetainedVersion": 1});
    assert_eq!(seen["acknowledged"], acknowledged);
    let error = json!({"code": "22023", "message": "invalid cursor", "detail": "It is -1.",
        "hint": "Pass 0 at first, then the nextCursor of the last pull."});
    assert_eq!(seen["error"], error);
}

/// As an app should read a page: payloads as they are. serde_json's Value has no
/// place for 1e400.
#[derive(Deserialize)]
struct Page {
    changes: Vec<BTreeMap<String, Box<RawValue>>>,
    #[serde(flatten)]
    rest: BTreeMap<String, Value>,
}

impl Page {
    fn without_payloads(mut self) -> Value {
        self.changes.iter_mut().for_each(|change| drop(change.remove("payload")));
        let mut page = json!(self.rest);
        page["changes"] = json!(self.changes);
        page
    }
}

async fn pool(database: &Database) -> PgPool {
    let mut options = PgConnectOptions::new_without_pgpass();
    for (name, value) in database.cluster.environment("driver", &database.name) {
        options = match name {
            "PGHOST" => options.socket(value),
            "PGPORT" => options.port(u16::from_str(&value).unwrap()),
            "PGUSER" => options.username(&value),
            "PGDATABASE" => options.database(&value),
            _ => options,
        };
    }
    PgPool::connect_with(options).await.unwrap()
}

#[tokio::main(flavor = "current_thread")]
async fn sqlx(workspace: &str, database: &Database) -> Value {
    let pool = pool(database).await;
    let mut listener = PgListener::connect_with(&pool).await.unwrap();
    listener.listen("sync_ext").await.unwrap();
    let push = async |ops: String| -> Value {
        let sql = "SELECT sync_push($1, $2::json)";
        sqlx::query_scalar(sql).bind(workspace).bind(ops).fetch_one(&pool).await.unwrap()
    };

    let mut pushed = vec![push(std::fs::read_to_string(ops()).unwrap()).await];
    let hint = tokio::time::timeout(DEADLINE, listener.recv()).await.unwrap().unwrap();
    let told: Value = serde_json::from_str(hint.payload()).unwrap();
    let stamp = json!({"deviceId": "sqlx", "opId": "00000000-0000-4000-8000-000000000002",
        "hlc": "ä", "clock": 1});
    let op = json!({"tableName": "notes", "operation": "put", "pk": "ä",
        "payload": {"text": "\"ä\" \\ 🐘"}, "stamp": stamp});
    pushed.push(push(json!([op]).to_string()).await);
    let replayed = push(json!([op]).to_string()).await;

    let sql = "SELECT sync_pull($1, $2, $3, $4, $5, $6)";
    let pull = sqlx::query(sql).bind(workspace).bind(0i64).bind(None::<i32>);
    let pull = pull.bind(None::<Vec<String>>).bind(None::<bool>).bind(None::<String>);
    let row = pull.fetch_one(&pool).await.unwrap();
    let Json(text): Json<Box<RawValue>> = row.get(0);
    let Json(page): Json<Page> = row.get(0);
    let pulled = page.without_payloads();
    let proof = pulled["proof"].as_str();
    let mut counts = Vec::new();
    for tables in [Some(vec!["notes", "files"]), Some(vec!["files"]), Some(vec![]), None] {
        let query = sqlx::query_scalar(sql).bind(workspace).bind(0i64).bind(10);
        let query = query.bind(tables).bind(false).bind(proof);
        let Json(page): Json<Page> = query.fetch_one(&pool).await.unwrap();
        counts.push(page.changes.len());
    }
    let acknowledge = sqlx::query_scalar("SELECT sync_update_cursor($1, $2, $3)");
    let acknowledge = acknowledge.bind(workspace).bind("sqlx").bind(pulled["nextCursor"].as_i64());
    let acknowledged: Value = acknowledge.fetch_one(&pool).await.unwrap();
    let refused = sqlx::query("SELECT sync_pull($1, $2)").bind(workspace).bind(-1i64);
    let error = refused.fetch_one(&pool).await.unwrap_err().into_database_error().unwrap();
    let error = error.downcast::<sqlx::postgres::PgDatabaseError>();
    json!({
        "pushed": pushed,
        "told": [hint.channel(), told],
        "replayed": replayed,
        "text": text.get(),
        "pulled": pulled,
        "counts": counts,
        "acknowledged": acknowledged,
        "error": {"code": error.code(), "message": error.message(), "detail": error.detail(),
            "hint": error.hint()},
    })
}
