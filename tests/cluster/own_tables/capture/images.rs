//! Payloads and keys of every type, whatever the session's settings.

use sync_ext_harness::steps::outcome;

use super::{compare, ops, ops_of, stage};

const HOSTILE: &str = "set datestyle = 'SQL, DMY'; set timezone = 'Asia/Kathmandu';
  set intervalstyle = sql_standard; set bytea_output = escape; set extra_float_digits = -15;
  set search_path = pg_temp; set lc_monetary = 'C'; set xmlbinary = hex;";

#[test]
fn a_payload_does_not_depend_on_settings() {
    let mut stage = stage(
        "-- A Postgres may be built without XML.
         do $$ begin
           perform xml '<a/>';
           create domain markup as xml;
         exception when feature_not_supported then
           create domain markup as text;
         end $$;
         create type mood as enum ('so so');
         create type pair as (at timestamptz, f float8);
         create domain money_amount as numeric(9, 2) check (value >= 0);
         create table kinds (
           id int primary key, workspace_id text, b boolean, i2 int2, i8 int8, n numeric, f4 float4, f8 float8,
           t text, v varchar(9), c char(4), u uuid, d date, ts timestamp, tz timestamptz, ti time,
           tt timetz, iv interval, by bytea, j json, jb jsonb, e mood, p pair, dom money_amount,
           ia int[], tsa timestamptz[], dr daterange, tr tstzrange, ip inet, bi bit(3), x markup,
           pt point, tv tsvector, m money, ivs interval[], bys bytea[], f8s float8[], oids oid);
         select sync_attach_table('kinds')",
    );
    let mut hostile = stage.session();
    let insert = "insert into public.kinds values (1, 'w', true, 7, 9007199254740993, 1.50, 0.1, 0.1::float8 + 0.2,
        e'a\"\\\\\\n\\u00e9\\U0001F600', 'v', 'c', 'A0EE0000-0000-4000-8000-00000000000A', '2024-02-01',
        '2024-02-01 03:04:05.678', '2024-02-01 03:04:05.678+00', '03:04', '03:04+02', '1 year 2 days 03:04:05',
        '\\xdead00', '{\"a\": 1.0,  \"a\": 2}', '{\"b\":[1, null]}', 'so so', row('2024-02-01 00:00+00', 1e-7),
        12.5, '{1,null}', '{2024-02-01 00:00+00}', '[2024-02-01,2024-03-01)',
        '[2024-02-01 00:00+00,)', '10.0.0.1/8', b'101', '<a/>', '(1,2)', 'a b', '1.25',
        '{1 day}', '{\"\\\\xff\"}', '{0.3,1e300,NaN,Infinity}', 7)";
    hostile
        .batch_execute(&format!("{HOSTILE}; {}", insert.replace("'so so'", "'so so'::public.mood")))
        .unwrap();
    compare(&mut stage.admin);
    // For another session the row is the same, though it is written anew.
    assert_eq!(
        ops_of(&mut stage.admin, "update kinds set i2 = i2 + 1; update kinds set i2 = 7"),
        [""; 0]
    );
    let all = ops(&mut stage.admin, "w");
    for text in [
        r#""i8":"9007199254740993","n":"1.50","f4":0.1,"f8":0.30000000000000004"#,
        r#""t":"a\"\\\né😀""#,
        r#""ts":"2024-02-01T03:04:05.678","tz":"2024-02-01T03:04:05.678+00:00""#,
        r#""iv":"P1Y2DT3H4M5S","by":"\\xdead00","j":{"a": 1.0,  "a": 2}"#,
        r#""p":{"at":"2024-02-01T00:00:00+00:00","f":1e-07},"dom":"12.50""#,
        r#""dr":"[2024-02-01,2024-03-01)","tr":"[\"2024-02-01 00:00:00+00\",)""#,
        r#""m":"$1.25""#,
        r#""f8s":[0.3,1e+300,"NaN","Infinity"]"#,
    ] {
        assert!(all[0].contains(text), "no {text} in {}", all[0]);
    }
}

#[test]
fn settings_of_the_transaction_stay_as_they_are() {
    let mut stage = stage(
        "create table spans (id int primary key, workspace_id text, s interval);
         select sync_attach_table('spans')",
    );
    let sql = "set intervalstyle = sql_standard; begin; set local datestyle = 'SQL, DMY';
               insert into spans values (1, 'w', '1 day'); savepoint s;
               set timezone = 'Asia/Kathmandu'; release s; commit";
    stage.admin.batch_execute(sql).unwrap();
    for (name, expected) in [
        ("intervalstyle", "sql_standard"),
        ("timezone", "Asia/Kathmandu"),
        ("datestyle", "ISO, MDY"),
    ] {
        assert_eq!(outcome(&mut stage.admin, &format!("show {name}")).unwrap(), expected);
    }
    compare(&mut stage.admin);
}

#[test]
fn keys_of_every_type_are_found_whatever_the_settings() {
    for (kind, values) in [
        ("int2", ["7", "-7", "0"]),
        ("int8", ["9223372036854775807", "-1", "12"]),
        (
            "uuid",
            [
                "A0EE0000-0000-4000-8000-00000000000A",
                "{11111111-1111-4111-8111-111111111111}",
                "22222222222242228222222222222222",
            ],
        ),
        ("text", ["a\"b\\", "é😀 ", "[1]"]),
        ("varchar(9)", ["a", " ", "7"]),
        ("boolean", ["t", "f", "yes"]),
        ("mood", ["so so", "fine", "ok"]),
        ("domain_of_int", ["1", "2", "3"]),
        ("domain_of_mood", ["so so", "fine", "ok"]),
        ("date", ["2024-02-01", "12024-02-01", "0044-03-15 BC"]),
        ("date", ["infinity", "-infinity", "0001-01-02"]),
        ("timestamp", ["2024-02-01 03:04:05.678901", "0044-03-15 00:00 BC", "infinity"]),
        ("timestamptz", ["2024-02-01 03:04:05.678901+00", "12024-02-01 00:00-07", "-infinity"]),
    ] {
        let mut stage = stage(&format!(
            "create type mood as enum ('so so', 'fine', 'ok');
             create domain domain_of_int as int check (value > 0);
             create domain domain_of_mood as mood;
             create table keyed (id {kind} primary key, workspace_id text, n int);
             select sync_attach_table('keyed')"
        ));
        let mut hostile = stage.session();
        hostile.batch_execute(HOSTILE).unwrap();
        for (n, value) in values.iter().enumerate() {
            if kind == "boolean" && n == 2 {
                continue;
            }
            let insert = format!("insert into public.keyed values ($${value}$$, 'w', {n})");
            hostile
                .batch_execute(&format!(
                    "set datestyle = iso; {insert}; set datestyle = 'SQL, DMY'"
                ))
                .unwrap();
        }
        compare(&mut stage.admin);
        hostile.batch_execute("update public.keyed set n = n + 1").unwrap();
        compare(&mut stage.admin);
        let before = ops(&mut stage.admin, "w").len();
        assert_eq!(before, if kind == "boolean" { 4 } else { 6 }, "{kind}");
        hostile.batch_execute("delete from public.keyed").unwrap();
        compare(&mut stage.admin);
        let after = ops(&mut stage.admin, "w");
        assert!(after[before..].iter().all(|op| op.starts_with("delete ")), "{kind}: {after:?}");
        assert_eq!(after.len(), before + before / 2, "{kind}");
    }
}

#[test]
fn a_key_of_several_columns_is_an_array_of_texts() {
    let mut stage = stage(
        "create type mood as enum ('so so');
         create table keyed (n int, workspace_id text, at date, mood mood, note text,
           primary key (mood, at, note, n));
         select sync_attach_table('keyed')",
    );
    let insert = "insert into keyed values (7, 'w', '2024-02-01', 'so so', 'a\"b')";
    let pk = r#"["so so","2024-02-01","a\"b","7"]"#;
    let payload = r#"{"n":7,"at":"2024-02-01","mood":"so so","note":"a\"b"}"#;
    assert_eq!(ops_of(&mut stage.admin, insert), [format!("put {pk} {payload}")]);
    assert_eq!(ops_of(&mut stage.admin, "update keyed set n = 8").len(), 2);
    assert_eq!(ops_of(&mut stage.admin, "delete from keyed").len(), 1);
}

#[test]
fn workspaces_of_every_type_are_the_texts_of_the_column() {
    for (kind, value, text) in [
        ("int", "007", "7"),
        ("uuid", "A0EE0000-0000-4000-8000-00000000000A", "a0ee0000-0000-4000-8000-00000000000a"),
        ("varchar", "w w", "w w"),
    ] {
        let mut stage = stage(&format!(
            "create table rows (id int primary key, workspace_id {kind});
             select sync_attach_table('rows'); insert into rows values (1, '{value}')"
        ));
        assert_eq!(ops(&mut stage.admin, text), [r#"put 1 {"id":1}"#]);
        compare(&mut stage.admin);
    }
}

#[test]
fn large_values_that_are_stored_apart_are_captured_whole() {
    let mut stage = stage(
        "create table texts (id int primary key, workspace_id text, body text, n int);
         alter table texts alter column body set storage external;
         select sync_attach_table('texts');
         insert into texts select n, 'w', repeat('é' || n, 100000), 0 from generate_series(1, 5) n",
    );
    stage.admin.batch_execute("update texts set n = 1").unwrap();
    compare(&mut stage.admin);
    let sql = "select bool_and(octet_length(payload::text) > 200000) from sync_ext.change_log";
    assert_eq!(outcome(&mut stage.admin, sql).unwrap(), "t");
}
