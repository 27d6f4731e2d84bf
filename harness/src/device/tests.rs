use super::*;

const REVISION: &str = r#"{"clock":1,"hlc":"h","opId":"a"}"#;

/// The number of ops that lost to a delete, if `winner` is in the result of an op of
/// version 5.
fn lost(winner: &str) -> usize {
    let mut device = Device::new("phone", "team");
    device.outbox.push(Pending {
        json: String::new(),
        table: "notes".to_owned(),
        pk: "n".to_owned(),
        revision: serde_json::from_str(REVISION).unwrap(),
        told: None,
    });
    let result = r#"{"opId":"a","success":true,"serverVersion":5,"applied":false"#;
    let reply = format!("{{\"results\":[{result},\"replayed\":true{winner}}}]}}");
    device.push_answered(&["a".to_owned()], &reply).unwrap().1.len()
}

#[test]
fn an_op_that_lost_to_a_delete_is_returned_with_the_latest_op_of_its_record() {
    let mut device = Device::new("phone", "team");
    for (op_id, pk, clock) in [("a", "n", 1), ("b", "n", 2), ("c", "m", 3)] {
        let (table, pk) = ("notes".to_owned(), pk.to_owned());
        let revision = Revision { clock, hlc: "h".to_owned(), op_id: op_id.to_owned() };
        device.outbox.push(Pending { json: String::new(), table, pk, revision, told: None });
    }
    let winner = format!(r#"{{"kind":"delete","serverVersion":4,"revision":{REVISION}}}"#);
    let result = format!(r#"{{"success":true,"serverVersion":5,"winner":{winner}}}"#);
    let reply = format!(r#"{{"results":[{result}]}}"#);
    let (_, lost) = device.push_answered(&["a".to_owned()], &reply).unwrap();
    assert_eq!(lost[0].latest.revision.op_id, "b");
}

#[test]
fn an_op_lost_to_a_delete_only_where_the_delete_came_first() {
    let winner = |kind: &str, version: i64| {
        let kind = format!("\"kind\":\"{kind}\",\"serverVersion\":{version}");
        format!(",\"winner\":{{{kind},\"revision\":{REVISION}}}")
    };
    assert_eq!(lost(&winner("delete", 4)), 1);
    assert_eq!(lost(&winner("delete", 6)), 0);
    assert_eq!(lost(&winner("put", 4)), 0);
    assert_eq!(lost(""), 0);
}
