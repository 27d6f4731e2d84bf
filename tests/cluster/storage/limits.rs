//! What does not fit is refused, clearly; and no reply is much larger than what was
//! asked.

use postgres::error::SqlState;
use sync_ext_harness::batch::{self, op, push, versions};
use sync_ext_harness::device::{Answered, Device, call};
use sync_ext_harness::steps::Stage;

/// Small losers to a large winner, which is told once.
#[test]
fn a_large_winner_does_not_make_a_reply_large() {
    let mut stage = Stage::new();
    let client = &mut stage.admin;
    let large = format!("{{\"text\":\"{}\"}}", "x".repeat(262_000));
    assert_eq!(push(client, "w", &[op(1, "a", 9, "put", &large)]), [1]);

    let losers: Vec<String> = (2..1002).map(|id| op(id, "a", 1, "put", "{}")).collect();
    let ops = format!("[{}]", losers.join(","));
    let told = call(client, "select sync_push('w', $1::text::json)::text", &[&ops]).unwrap();
    assert_eq!(told.matches(&large).count(), 1);
    assert!(told.len() < large.len() + 2 * ops.len(), "{} for {}", told.len(), ops.len());

    // Forty records as large: as many winners as a page holds, the rest by the pull.
    let many: Vec<String> =
        (0..40).map(|n| op(2000 + n, &format!("m-{n}"), 9, "put", &large)).collect();
    push(client, "w", &many);
    let losers: Vec<String> =
        (0..40).map(|n| op(3000 + n, &format!("m-{n}"), 1, "put", "{}")).collect();
    let ops = format!("[{}]", losers.join(","));
    let told = call(client, "select sync_push('w', $1::text::json)::text", &[&ops]).unwrap();
    assert_eq!(told.matches(&large).count(), 8 * 1024 * 1024 / large.len());
    assert_eq!(versions(&told, "results").len(), 40);
}

/// However often a record was written.
#[test]
fn an_explanation_has_the_newest_ops_and_payloads_within_a_page() {
    let mut stage = Stage::new();
    let client = &mut stage.admin;
    client.batch_execute("load 'sync_ext'; set sync_ext.max_page_bytes = '64kB'").unwrap();
    let payload = format!("{{\"text\":\"{}\"}}", "x".repeat(2_000));
    let ops: Vec<String> = (1..=1200).map(|id| op(id, "a", id, "put", &payload)).collect();
    for batch in ops.chunks(600) {
        push(client, "w", batch);
    }
    let sql = "select octet_length(e::text), (e ->> 'opsLogged')::int,
                 json_array_length(e -> 'ops'), (e #>> '{ops,0,serverVersion}')::int,
                 (select count(*) from json_array_elements(e -> 'ops') o
                   where o ->> 'payload' is not null)::int,
                 (e #> '{ops,-1,payload}' is not null and e #>> '{ops,-1,payloadBytes}' = '2011')
               from sync_explain('w', 'notes', 'a') as e";
    let row = client.query_one(sql, &[]).unwrap();
    let [bytes, logged, listed, first, with_payload] =
        [0, 1, 2, 3, 4].map(|i| row.get::<_, i32>(i));
    assert_eq!((logged, listed, first), (1200, 1000, 201));
    assert_eq!(with_payload, 32, "of 2,011 bytes in 65,536");
    assert!(row.get::<_, bool>(5), "the newest has its payload");
    assert!(bytes < 600_000, "{bytes}");
}

/// A batch that is refused as a whole is halved until what it is refused for is
/// alone; that is final, and the others arrive.
#[test]
fn a_device_gets_rid_of_what_no_server_takes() {
    let mut stage = Stage::new();
    let client = &mut stage.admin;
    let mut device = Device::new("phone", "w");
    for id in 1..=7 {
        device.put(id, &format!("n-{id}"));
    }
    // More than Postgres' own parser takes.
    let deep = format!("{{\"v\":{}{}}}", "[".repeat(50_000), "]".repeat(50_000));
    device.outbox[4].json = op(5, "n-5", 1, "put", &deep);
    let alone = format!("[{}]", device.outbox[4].json);
    let error = client.query("select sync_push('w', $1::text::json)", &[&alone]).unwrap_err();
    assert_eq!(error.code(), Some(&SqlState::STATEMENT_TOO_COMPLEX));

    client.batch_execute("set sync_ext.max_ops_per_push = 2").unwrap();
    let answered = device.push(client).unwrap();
    assert_eq!(answered, Answered { applied: 6, refused: 1, ..Answered::default() });
    assert!(device.outbox.iter().all(|op| op.revision.op_id != batch::op_id(5)));
    device.pull(client, 100, false).unwrap();
    assert!(device.outbox.is_empty());
    assert_eq!(device.synced.len(), 6);
}
