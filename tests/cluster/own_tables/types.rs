//! Types: values arrive as they are meant, whatever the settings of the session, and come
//! back as one text.

use serde_json::{Value, json};

use super::{Own, codes, put};

const HOSTILE: &str = "set timezone = 'America/St_Johns'; set datestyle = 'SQL, DMY'; set intervalstyle = 'sql_standard';
    set bytea_output = 'escape'; set extra_float_digits = -15; set lc_monetary = 'C';
    set xmloption = document; set array_nulls = off; set quote_all_identifiers = on;";

/// Pushes a value under hostile settings; the image, after a second push of that image
/// left it as it is.
fn image(kind: &str, value: &str) -> Value {
    let mut own = Own::new(&format!(
        "create type mood as enum ('happy', 'a \"b\"'); create domain positive as numeric check (value > 0);
         create type point3 as (x integer, y text, at timestamptz);
         create table things (id text primary key, workspace_id text, v {kind}); select sync_attach_table('things', apply_search_path => 'public');
         {HOSTILE}"
    ));
    let push = |own: &mut Own, clock, value: &str| {
        let op = put("things", "a", clock, &format!(r#"{{"id":"a","v":{value}}}"#));
        let results = own.push(&[op]);
        assert_eq!(codes(&results), ["ok"], "{kind} {value}: {results:?}");
        results[0].clone()
    };
    push(&mut own, 1, value);
    let stored = own.payload("a").unwrap()["v"].clone();
    let again = push(&mut own, 2, &stored.to_string());
    assert!(again.get("payload").is_none(), "{kind}: {stored} does not come back: {again}");
    own.sql("reset all");
    stored
}

#[test]
fn values_are_read_and_written_the_same_under_any_settings() {
    for (kind, value, expected) in [
        ("date", r#""2001-02-03""#, json!("2001-02-03")),
        ("date", r#""0044-03-15 BC""#, json!("0044-03-15 BC")),
        ("date", r#""-infinity""#, json!("-infinity")),
        (
            "timestamptz",
            r#""2001-02-03T04:05:06.123456+01:00""#,
            json!("2001-02-03T03:05:06.123456+00:00"),
        ),
        ("timestamptz", r#""2001-02-03 04:05:06""#, json!("2001-02-03T04:05:06+00:00")),
        ("timestamptz", r#""infinity""#, json!("infinity")),
        ("timestamptz", r#""0044-03-15 12:00:00+00 BC""#, json!("0044-03-15T12:00:00+00:00 BC")),
        ("timestamp", r#""2001-02-03T04:05:06.5""#, json!("2001-02-03T04:05:06.5")),
        ("timestamp(0)", r#""2001-02-03T04:05:06.7""#, json!("2001-02-03T04:05:07")),
        ("time", r#""04:05:06""#, json!("04:05:06")),
        ("timetz", r#""04:05:06+01""#, json!("04:05:06+01")),
        ("interval", r#""1 year 2 days -00:00:03""#, json!("P1Y2DT-3S")),
        ("interval", r#""P1Y2M""#, json!("P1Y2M")),
        ("bytea", r#""\\x00ff""#, json!("\\x00ff")),
        ("float8", "0.1", json!(0.1)),
        ("float8", "1e300", json!(1e300)),
        ("float8", r#""NaN""#, json!("NaN")),
        ("float8", r#""-Infinity""#, json!("-Infinity")),
        ("float4", "0.1", json!(0.1)),
        ("tstzrange", r#""[2001-02-03 00:00+01,)""#, json!("[\"2001-02-02 23:00:00+00\",)")),
        ("daterange", r#""[2001-02-03,2001-02-05]""#, json!("[2001-02-03,2001-02-06)")),
        ("date[]", r#"["2001-02-03",null]"#, json!(["2001-02-03", null])),
        ("timestamptz[]", r#"["2001-02-03T00:00:00Z"]"#, json!(["2001-02-03T00:00:00+00:00"])),
        ("integer[][]", "[[1,2],[3,4]]", json!([[1, 2], [3, 4]])),
        ("text[]", r#"["a","NULL",null,"{\"b\"}"]"#, json!(["a", "NULL", null, "{\"b\"}"])),
        (
            "point3",
            r#"{"x":1,"y":"z","at":"2001-02-03T00:00:00Z"}"#,
            json!({"x": 1, "y": "z", "at": "2001-02-03T00:00:00+00:00"}),
        ),
        ("mood", r#""a \"b\"""#, json!("a \"b\"")),
        ("mood[]", r#"["happy"]"#, json!(["happy"])),
        ("money", r#""$1,234.50""#, json!("$1,234.50")),
        ("inet", r#""10.0.0.1/8""#, json!("10.0.0.1/8")),
        ("bit(3)", r#""101""#, json!("101")),
        (
            "uuid",
            r#""A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11""#,
            json!("a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
        ),
        ("boolean", r#""yes""#, json!(true)),
        ("char(4)", r#""ab""#, json!("ab  ")),
        ("smallint", r#""7""#, json!(7)),
        ("text", "17", json!("17")),
        ("text", r#"{"a": 1}"#, json!("{\"a\": 1}")),
        ("text", r#""\ud83d\ude00 é \\ \" \n""#, json!("😀 é \\ \" \n")),
        ("jsonb", r#"{"b":1,"a":[1.50,"\u00e9"]}"#, json!({"a": [1.50, "é"], "b": 1})),
        ("json", r#"[1, {"z":1,"z":2}]"#, json!([1, {"z": 2}])),
        ("xml", r#""<a/>""#, json!("<a/>")),
        ("xml", r#""a fragment""#, json!("a fragment")),
    ] {
        if kind == "xml" && !has_xml() {
            continue;
        }
        assert_eq!(image(kind, value), expected, "{kind} {value}");
    }
}

/// A Postgres may be built without XML.
fn has_xml() -> bool {
    Own::new("").stage.admin.batch_execute("select xml '<a/>'").is_ok()
}

/// A client with doubles would round them, and write the rounded value back.
#[test]
fn numbers_that_doubles_round_are_strings() {
    for (kind, value, expected) in [
        ("bigint", "9007199254740993", "9007199254740993"),
        ("bigint", r#""-9223372036854775808""#, "-9223372036854775808"),
        ("numeric", "12345678901234567890.123456789", "12345678901234567890.123456789"),
        ("numeric", r#""1.50""#, "1.50"),
        ("numeric", "1.50", "1.50"),
        ("numeric", "1e3", "1000"),
        ("numeric", r#""NaN""#, "NaN"),
        ("numeric", r#""-Infinity""#, "-Infinity"),
        ("numeric(4,1)", "12.34", "12.3"),
        ("positive", r#""7.0""#, "7.0"),
    ] {
        assert_eq!(image(kind, value), json!(expected), "{kind} {value}");
    }
}

#[test]
fn numbers_may_be_numbers() {
    let mut own = Own::new(
        "create table things (id text primary key, workspace_id text, i bigint, n numeric);
         select sync_attach_table('things', numbers => 'native')",
    );
    let results = own.push(&[
        put("things", "a", 1, r#"{"id":"a","i":9007199254740993,"n":1.50}"#),
        put("things", "b", 1, r#"{"id":"b","i":"7","n":"1e2"}"#),
    ]);
    assert!(results[0].get("payload").is_none());
    let sql = "select payload::text from sync_ext.current_record order by pk";
    let payloads = [r#"{"id":"a","i":9007199254740993,"n":1.50}"#, r#"{"id":"b","i":7,"n":100}"#];
    let stored: Vec<String> =
        own.stage.admin.query(sql, &[]).unwrap().iter().map(|row| row.get(0)).collect();
    assert_eq!(stored, payloads);
}

#[test]
fn null_in_json_is_null_in_sql_and_that_is_told() {
    let mut own = Own::new(
        "create table things (id text primary key, workspace_id text, j jsonb default '1', s json not null default '1');
         select sync_attach_table('things')",
    );
    let results = own.push(&[
        put("things", "a", 1, r#"{"j":null}"#),
        put("things", "b", 1, r#"{"j":[null],"s":{"a":null}}"#),
        put("things", "c", 1, r#"{"s":null}"#),
    ]);
    assert_eq!(codes(&results), ["ok", "ok", "CONSTRAINT 23502"]);
    assert_eq!(own.rows("select id, j is null from things order by 1"), ["(a,t)", "(b,f)"]);
}

/// Of a name that is given twice, the last one counts, as in a JSON table.
#[test]
fn of_equal_fields_the_last_one_counts() {
    let mut own = Own::new(
        "create table things (id text primary key, workspace_id text, v integer, \"é\" text); select sync_attach_table('things')",
    );
    own.push(&[put("things", "a", 1, r#"{"v":1,"\u0076":2,"\u00e9":"x","é":"y"}"#)]);
    assert_eq!(own.rows("select v, \"é\" from things"), ["(2,y)"]);
}

#[test]
fn very_long_values_come_back() {
    let long = "é".repeat(90_000);
    assert_eq!(image("text", &json!(long).to_string()), json!(long));
    let nested = format!("{}{}", "[".repeat(90), "]".repeat(90));
    assert_eq!(image("jsonb", &nested).to_string(), nested);
}
