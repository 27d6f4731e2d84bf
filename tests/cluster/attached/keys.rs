//! Primary keys of every type, in batches of one row: a walk goes on after each of them,
//! and finds a record's row by its text.

use sync_ext_harness::database::Database;
use sync_ext_harness::device::call;

use super::{assert_same, run};

/// The columns of the key, and what their values are.
const KEYS: [(&str, &str, &str); 13] = [
    ("k smallint", "k", "select generate_series(-2, 3)::smallint"),
    ("k integer", "k", "select * from unnest(array[-2147483648, -1, 0, 9, 10, 2147483647])"),
    ("k bigint", "k", "select * from unnest(array[-9223372036854775807, -1, 0, 9, 10, 9223372036854775807])"),
    ("k boolean", "k", "values (true), (false)"),
    ("k uuid", "k", "select lpad(n::text, 32, 'a')::uuid from generate_series(7, 12) as n"),
    ("k text", "k", "select * from unnest(array['a', 'B', 'b', 'é', 'Z', ' ', '\"', '\\', '[\"a\"]', E'\\n'])"),
    ("k text collate \"und-x-icu\"", "k", "select * from unnest(array['a', 'B', 'b', 'é', 'Z', 'z', 'ä'])"),
    ("k varchar(3) collate \"POSIX\"", "k", "select * from unnest(array['a', 'B', 'b', 'é'])"),
    ("k mood", "k", "select unnest(enum_range(null::mood))"),
    ("k date", "k", "select * from unnest(array['-infinity', '0044-03-15 BC', '2026-02-03', '2026-03-02', 'infinity']::date[])"),
    ("k timestamptz", "k", "select '2026-03-29 00:59:59.999999+00'::timestamptz + n * interval '1 microsecond' from generate_series(1, 5) as n"),
    ("k even", "k", "select generate_series(-4, 4, 2)"),
    (
        "k text collate \"und-x-icu\", l integer, m timestamp",
        "k, m, l",
        "select k, l, '2026-03-02 01:00'::timestamp + n * interval '1 hour'
           from unnest(array['a', 'B', 'b']) as k, generate_series(-1, 1) as l, generate_series(1, 2) as n",
    ),
];

#[test]
fn keys_of_every_type_are_walked_and_found() {
    let database = Database::new();
    let mut admin = database.session();
    admin
        .batch_execute(
            "create type mood as enum ('zest', 'calm', 'Angst');
             create domain even as integer check (value % 2 = 0)",
        )
        .unwrap();
    // A Postgres may be built without ICU.
    let icu = "select count(*)::text from pg_collation where collname = 'und-x-icu'";
    let collation =
        if call(&mut admin, icu, &[]).unwrap() == "0" { "ucs_basic" } else { "und-x-icu" };
    for (place, (columns, key, values)) in KEYS.iter().enumerate() {
        let columns = columns.replace("und-x-icu", collation);
        let table = format!("t{place}");
        let sql = format!(
            "create table {table} ({columns}, note text, primary key ({key}));
             insert into {table} {values};
             select sync_attach_table('{table}', workspace_id => 'all')"
        );
        admin.batch_execute(&sql).unwrap_or_else(|error| panic!("{columns}: {error:?}"));
        // How a session writes its own values does not matter.
        let hostile = if place % 2 == 0 { "German, DMY" } else { "SQL, MDY" };
        let sql = format!(
            "set datestyle = '{hostile}'; set timezone = 'Asia/Tokyo';
             call sync_backfill_table('{table}', batch_size => 1);
             set datestyle = default; set timezone = 'America/St_Johns'"
        );
        run(&mut admin, &sql);
        assert_same(&mut admin, &table);
        // The first half is deleted unseen; of the rest the notes are new.
        let sql = format!(
            "set sync_ext.capture = off;
             delete from {table} where ctid in
               (select ctid from {table} order by {key} limit (select count(*) / 2 from {table}));
             update {table} set note = 'x';
             reset sync_ext.capture;
             set datestyle = '{hostile}'"
        );
        admin.batch_execute(&sql).unwrap();
        let records = format!(
            "select concat(count(*), ' ', (select count(*) from {table})) from sync_ext.current_record
              where table_name = '{table}'"
        );
        let before: String = admin.query_one(&records, &[]).unwrap().get(0);
        let (all, rows) = before.split_once(' ').unwrap();
        assert_ne!(all, rows, "{columns}");
        let reply = super::check(&mut admin, &table);
        assert_eq!(reply["differencesTotal"].to_string(), all, "{columns}: {reply}");
        let sql = format!("call sync_repair_table('{table}', 'log', batch_size => 1)");
        admin.batch_execute(&sql).unwrap_or_else(|error| panic!("{columns}: {error:?}"));
        assert_same(&mut admin, &table);
    }
}
