use super::*;

fn parse(ops: &str, max_ops: usize) -> Result<Vec<Parsed<'_>>, SyncError> {
    super::parse(ops, max_ops, || ())
}

const OP_ID: &str = "00000000-0000-4000-8000-00000000000A";

const LIMITS: Limits<'static> = Limits {
    workspace_id: "w",
    max_payload_bytes: 100,
    max_payload_depth: 2,
    max_hlc_millis: None,
    max_row_clock: 0,
};

fn one(json: &str) -> Result<Op<'_>, Refusal> {
    let element = OP.read(json);
    item(element).1
}

fn refusal(json: &str) -> Refusal {
    one(json).map(|op| panic!("accepted: {op:?}")).unwrap_or_else(|refusal| refusal)
}

/// A valid op with `key` replaced by `raw` (removed if empty).
fn with(key: &str, raw: &str) -> String {
    let op_id = format!("\"{OP_ID}\"");
    let mut op = String::from("{");
    for (name, value) in [
        ("tableName", "\"t\""),
        ("operation", "\"put\""),
        ("pk", "\"p\""),
        ("payload", "{}"),
        ("deviceId", "\"d\""),
        ("opId", op_id.as_str()),
        ("hlc", "\"h\""),
        ("clock", "1"),
    ] {
        let value = if name == key { raw } else { value };
        if !value.is_empty() {
            op.push_str(&format!("\"{name}\":{value},"));
        }
    }
    op.push_str("\"status\":\"pending\"}");
    op
}

#[test]
fn every_field_has_its_form() {
    let cases: [(&str, &[&str], Refusal); 8] = [
        ("operation", &["", "null", "\"PUT\"", "\"upsert\"", "1", "{}"], Refusal::Operation),
        (
            "tableName",
            &["", "null", "\"\"", "1", "[]", "true"],
            Refusal::Text { field: "tableName", max: 128 },
        ),
        ("pk", &["", "\"\"", "7"], Refusal::Text { field: "pk", max: 1024 }),
        ("payload", &["", "null", "1", "[]", "\"{}\""], Refusal::PutPayload),
        ("deviceId", &["", "\"\"", "{}"], Refusal::Text { field: "deviceId", max: 256 }),
        (
            "opId",
            &[
                "",
                "null",
                "5",
                "\"\"",
                "\"not-a-uuid\"",
                "\"00000000000040008000000000000001\"",
                "\"{00000000-0000-4000-8000-000000000001}\"",
                "\"urn:uuid:00000000-0000-4000-8000-000000000001\"",
                "\"00000000-0000-4000-8000-00000000000g\"",
                "\"0000000000-00-4000-8000-000000000001\"",
            ],
            Refusal::OpId,
        ),
        ("hlc", &["", "\"\"", "1"], Refusal::Text { field: "hlc", max: 512 }),
        ("clock", &["", "null", "-1", "1.0", "1e3", "\"1\"", "9007199254740992"], Refusal::Clock),
    ];
    for (key, values, expected) in cases {
        for raw in values {
            assert_eq!(refusal(&with(key, raw)), expected, "{key}: {raw}");
        }
    }
}

#[test]
fn lengths_are_in_bytes_of_the_decoded_text() {
    for (key, max) in [("tableName", 128), ("pk", 1024), ("deviceId", 256), ("hlc", 512)] {
        let text =
            |bytes: usize| format!("\"{}{}\"", "\\u00e9".repeat(bytes / 2), "a".repeat(bytes % 2));
        assert!(one(&with(key, &text(max))).is_ok(), "{key}");
        assert!(matches!(refusal(&with(key, &text(max + 1))), Refusal::Text { .. }), "{key}");
    }
}

#[test]
fn no_nul_and_no_lone_surrogate_in_names() {
    for key in ["tableName", "pk", "deviceId", "hlc"] {
        for raw in ["\"a\\u0000\"", "\"\\ud800\"", "\"\\udc00\\ud800\""] {
            assert!(matches!(refusal(&with(key, raw)), Refusal::Characters { .. }), "{key} {raw}");
        }
    }
    assert!(one(&with("payload", r#"{"a":"\u0000\ud800"}"#)).is_ok(), "a payload may have them");
}

#[test]
fn a_delete_may_have_a_payload_and_null_is_none() {
    let delete = |payload: &str| with("payload", payload).replace("\"put\"", "\"delete\"");
    for (payload, expected) in [("", None), ("null", None), ("{\"a\":1}", Some("{\"a\":1}"))] {
        let json = delete(payload);
        assert_eq!(one(&json).unwrap().payload, expected);
    }
    for payload in ["1", "[]", "\"x\"", "false"] {
        assert_eq!(refusal(&delete(payload)), Refusal::DeletePayload);
    }
}

#[test]
fn the_stamp_goes_before_flat_keys_and_camel_case_before_snake_case() {
    let json = format!(
        r#"{{"table_name":"snake","tableName":"camel","operation":"put","pk":"p","payload":{{}},
            "device_id":"flat","hlc":"flat","clock":1,"opId":"x",
            "stamp":{{"device_id":"snake","deviceId":"camel","op_id":"{OP_ID}","clock":2}}}}"#
    );
    let op = one(&json).unwrap();
    assert_eq!(op.key.table, "camel");
    assert_eq!(op.device_id, "camel");
    assert_eq!(op.revision.clock, 2, "of the stamp");
    assert_eq!(op.revision.hlc, "flat", "the stamp has none");
    assert_eq!(op.op_id(), Uuid::try_parse(OP_ID).unwrap());
}

#[test]
fn a_stamp_that_is_no_object_is_ignored() {
    let json = with("", "").replace("\"status\"", "\"stamp\":[{\"clock\":9}],\"status\"");
    assert_eq!(one(&json).unwrap().revision.clock, 1);
}

#[test]
fn a_key_given_twice_counts_by_its_last() {
    let json = with("", "").replace("\"status\"", "\"clock\":7,\"status\"");
    assert_eq!(one(&json).unwrap().revision.clock, 7);
}

#[test]
fn the_payload_stays_as_it_was_received() {
    let payload = "{ \"n\" : 1.10e400,\n\"é\":\"\\u0000\" }";
    let json = with("payload", payload);
    assert_eq!(one(&json).unwrap().payload, Some(payload));
}

#[test]
fn a_bad_item_leaves_its_neighbours_alone() {
    let batch =
        format!("[{}, 1e999, \"x\", null, [], {{}}, {}]", with("", ""), with("clock", "x()"));
    assert!(parse(&batch, 10).is_err(), "not JSON at all");
    let batch =
        format!("[{}, 1e999, \"x\", null, [], {{}}, {}]", with("", ""), with("pk", "\"q\""));
    let items = parse(&batch, 10).unwrap();
    let good: Vec<bool> = items.iter().map(|item| item.1.is_ok()).collect();
    assert_eq!(good, [true, false, false, false, false, false, true]);
}

#[test]
fn the_op_id_is_echoed_as_given() {
    for raw in ["5", "null", "{\"a\":1}", "\"\\u0041\""] {
        let batch = format!("[{}]", with("opId", raw));
        assert_eq!(parse(&batch, 1).unwrap()[0].0, Some(raw));
    }
    assert_eq!(parse("[{}]", 1).unwrap()[0].0, None);
}

#[test]
fn a_parent_is_an_op_id_or_none_and_may_be_absent() {
    let with_parent = |raw: &str| with("opId", &format!("\"{OP_ID}\",\"parent\":{raw}"));
    let parent = |raw: &str| one(&with_parent(raw)).map(|op| op.parent);
    let seen = Parent::Op(OP_ID.parse().unwrap());
    assert_eq!(one(&with("", "")).unwrap().parent, None);
    assert_eq!(parent("null").unwrap(), None);
    assert_eq!(parent("\"none\"").unwrap(), Some(Parent::None));
    assert_eq!(parent(r#""non\u0065""#).unwrap(), Some(Parent::None));
    assert_eq!(parent(&format!("\"{OP_ID}\"")).unwrap(), Some(seen));
    assert_eq!(parent(&format!("\"{}\"", OP_ID.to_lowercase())).unwrap(), Some(seen));
    for raw in ["\"\"", "\"None\"", "1", "{}", "[]", "true", "\"x\"", "\"none \""] {
        assert_eq!(parent(raw), Err(Refusal::Parent), "{raw}");
    }
}

#[test]
fn whole_batches_are_refused_by_shape_and_count() {
    for json in ["{}", "null", "1", "\"[]\""] {
        assert!(matches!(parse(json, 10), Err(SyncError::OpsNotAnArray)), "{json}");
    }
    assert!(parse(" [] ", 0).unwrap().is_empty());
    assert!(matches!(parse("[1,{}]", 1), Err(SyncError::TooManyOps { max: 1 })));
    assert!(matches!(parse("[{},{}]", 1), Err(SyncError::TooManyOps { max: 1 })));
    let many = format!("[{}]", vec!["{}"; 1_000_000].join(","));
    assert!(matches!(parse(&many, 1000), Err(SyncError::TooManyOps { max: 1000 })));
}

#[test]
fn each_is_called_before_each_op() {
    let asked = std::cell::Cell::new(0);
    let each = || asked.set(asked.get() + 1);
    assert_eq!(super::parse("[{},{},{}]", 10, each).unwrap().len(), 3);
    assert!(asked.replace(0) >= 3);
    // Also if one of them is not an object and all are read again.
    assert_eq!(super::parse("[{},1,{}]", 10, each).unwrap().len(), 3);
    assert!(asked.get() >= 3);
}

#[test]
fn what_a_payload_facts_of_itself() {
    let table = |pk_field: &str, owner_field: Option<&str>| SyncedTable {
        pk_field: pk_field.to_owned(),
        owner_field: owner_field.map(str::to_owned),
        scope_field: None,
        patches: true,
    };
    let notes = table("id", None);
    let facts = |payload| payload_facts(payload, &notes, "7", LIMITS);
    assert!(facts(r#"{"a":{}}"#).is_shallow && !facts(r#"{"a":{"b":{}}}"#).is_shallow);
    assert_eq!(facts("{}").pk_matches, None);
    assert_eq!(facts(r#"{"id":"7"}"#).pk_matches, Some(true));
    assert_eq!(facts(r#"{"id":7}"#).pk_matches, Some(true));
    assert_eq!(facts(r#"{"id":"8","id":"7"}"#).pk_matches, Some(true));
    for payload in [r#"{"id":"8"}"#, r#"{"id":7.0}"#, r#"{"id":null}"#, r#"{"id":["7"]}"#] {
        assert_eq!(facts(payload).pk_matches, Some(false), "{payload}");
    }
    assert_eq!(facts(r#"{"workspace_id":"w"}"#).workspace_matches, Some(true));
    assert_eq!(facts(r#"{"workspace_id":"v"}"#).workspace_matches, Some(false));
    let both = payload_facts(r#"{"workspace_id":"w"}"#, &table("workspace_id", None), "7", LIMITS);
    assert_eq!((both.pk_matches, both.workspace_matches), (Some(false), Some(true)));
    // The pk of several columns is in no field.
    let several = payload_facts(r#"{"":"8"}"#, &table("", None), "7", LIMITS);
    assert_eq!(several.pk_matches, None);
    assert_eq!(facts(r#"{"by":"ann"}"#).owner, OwnerField::Unasked);
    let private = table("id", Some("by"));
    let owned = payload_facts(r#"{"by":"ann","id":"7"}"#, &private, "7", LIMITS);
    assert_eq!((owned.pk_matches, owned.owner), (Some(true), OwnerField::User("ann".into())));
    assert_eq!(payload_facts("{}", &private, "7", LIMITS).owner, OwnerField::Absent);
}

const BASE: &str = r#"{"clock":0,"hlc":"h","opId":"00000000-0000-4000-8000-000000000001"}"#;

/// A good patch with one key replaced (left out if empty).
fn patch_with(key: &str, raw: &str) -> String {
    let members = [("operation", "\"patch\""), ("payload", r#"{"a":1}"#), ("base", BASE)];
    let members = members.map(|(name, value)| (name, if name == key { raw } else { value }));
    let mut op = with("operation", "");
    op.pop();
    for (name, value) in members.into_iter().filter(|(_, value)| !value.is_empty()) {
        op.push_str(&format!(",\"{name}\":{value}"));
    }
    if !["operation", "payload", "base"].contains(&key) {
        op.push_str(&format!(",\"{key}\":{raw}"));
    }
    op + "}"
}

#[test]
fn a_patch_has_fields_and_the_put_that_it_edits() {
    let json = patch_with("payload", r#"{"b":{"x": 1},"\u0061":null,"b":2}"#);
    let op = one(&json).unwrap();
    let patch = op.patch.unwrap();
    let fields: Vec<_> = patch.fields.iter().map(|(name, value)| (&**name, *value)).collect();
    assert_eq!(fields, [("a", "null"), ("b", "2")], "of equal names the last one counts");
    assert_eq!(patch.base.clock, 0);
    for payload in ["", "null", "1", "[]", "{}"] {
        assert_eq!(refusal(&patch_with("payload", payload)), Refusal::PatchPayload, "{payload}");
    }
    let field = "the name of a patched field";
    let long = format!("{{\"{}\":1}}", "a".repeat(129));
    for payload in [r#"{"":1}"#, &long] {
        assert_eq!(refusal(&patch_with("payload", payload)), Refusal::Text { field, max: 128 });
    }
    for payload in [r#"{"\u0000":1}"#, r#"{"\ud800":1}"#] {
        assert_eq!(refusal(&patch_with("payload", payload)), Refusal::Characters { field });
    }
}

#[test]
fn what_a_patch_says_of_a_parent_is_ignored() {
    for parent in ["1", "\"none\"", "{}"] {
        assert_eq!(one(&patch_with("parent", parent)).unwrap().parent, None, "{parent}");
    }
}

#[test]
fn a_base_is_a_revision_below_the_patch() {
    for base in [
        "",
        "null",
        "{}",
        "\"none\"",
        r#"{"clock":"0","hlc":"h","opId":"00000000-0000-4000-8000-000000000001"}"#,
        r#"{"clock":0,"hlc":"","opId":"00000000-0000-4000-8000-000000000001"}"#,
        r#"{"clock":0,"hlc":"h","opId":"1"}"#,
        r#"{"clock":0,"hlc":"h"}"#,
    ] {
        assert_eq!(refusal(&patch_with("base", base)), Refusal::Base, "{base}");
        let mut put = with("", "");
        put.insert_str(1, &format!("\"base\":{},", if base.is_empty() { "0" } else { base }));
        assert!(one(&put).is_ok(), "ignored on a put");
    }
    let snake = BASE.replace("opId", "op_id");
    assert!(one(&patch_with("base", &snake)).is_ok());
    for (clock, op_id, is_below) in [(1, 1, true), (1, 9, true), (1, 10, false), (2, 1, false)] {
        let id = uuid::Uuid::from_u128(0x4000_8000_0000_0000_0000 + op_id);
        let base = format!(r#"{{"clock":{clock},"hlc":"h","opId":"{id}"}}"#);
        let found = one(&patch_with("base", &base)).map(|_| ());
        assert_eq!(found, if is_below { Ok(()) } else { Err(Refusal::BaseAbove) }, "{base}");
    }
}

#[test]
fn a_condition_is_an_op_none_or_fields_of_a_patch() {
    let id = uuid::Uuid::try_parse(OP_ID).unwrap();
    let quoted = format!("\"{OP_ID}\"");
    let fields = format!(r#"{{"a":{quoted},"b":null,"c":{quoted},"c":null}}"#);
    for (raw, expected) in [
        ("null", None),
        ("{}", None),
        (r#"{"a":null}"#, None),
        (r#"{"":null}"#, None),
        ("\"none\"", Some(Expected::None)),
        (&quoted, Some(Expected::Op(id))),
        (&fields, Some(Expected::Fields(vec![("a".into(), id)]))),
    ] {
        let patch = patch_with("expected", raw);
        let found = one(&patch).unwrap().expected;
        assert_eq!(found.as_deref(), expected.as_ref(), "{raw}");
        let mut put = with("", "");
        put.insert_str(1, &format!("\"expected\":{raw},"));
        match raw.starts_with('{') {
            true => assert_eq!(refusal(&put), Refusal::Expected, "{raw}"),
            false => assert_eq!(one(&put).unwrap().expected.as_deref(), expected.as_ref(), "{raw}"),
        }
    }
    for raw in
        ["1", "[]", "true", "\"None\"", r#"{"a":"none"}"#, r#"{"a":1}"#, r#"{"\ud800":null}"#]
    {
        assert_eq!(refusal(&patch_with("expected", raw)), Refusal::Expected, "{raw}");
    }
}
