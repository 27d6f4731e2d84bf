//! Changes to the tables: additional indexes and columns.

#[pgrx::pg_schema]
mod tests {
    use pgrx::prelude::*;

    use crate::tests::{push, put, register, text};

    #[pg_test]
    fn additional_indexes_are_maintained() {
        register();
        for index in [
            "create index own_plain on sync_ext.record (server_version)",
            "create index own_expression on sync_ext.change_log ((payload ->> 'n'))",
            "create index own_partial on sync_ext.record (pk) where not deleted",
            "create index own_brin on sync_ext.record using brin (clock)",
        ] {
            Spi::run(index).expect("creates an index");
        }
        push("w", &[put(1, "a", 1), put(2, "b", 1)]);
        push("w", &[put(3, "a", 2), put(4, "c", 1)]);
        Spi::run("set local enable_seqscan = off").expect("sets");
        for (sql, expected) in [
            (
                "select string_agg(pk, '' order by pk) from sync_ext.record where server_version = 3",
                "a",
            ),
            ("select count(*)::text from sync_ext.record where server_version > 0", "3"),
            ("select count(*)::text from sync_ext.change_log where payload ->> 'n' = '1'", "3"),
            (
                "select string_agg(pk, '' order by pk) from sync_ext.record where not deleted and pk > 'a'",
                "bc",
            ),
            ("select pk from sync_ext.record where clock = 2", "a"),
        ] {
            assert_eq!(text(sql, &[]), expected, "{sql}");
        }
    }

    #[pg_test]
    fn additional_columns_are_null_in_new_rows_and_kept_in_old_ones() {
        register();
        push("w", &[put(1, "a", 1)]);
        text("select sync_update_cursor('w', 'd', 1)::text", &[]);
        for table in ["workspace", "change_log", "record", "device_cursor"] {
            Spi::run(&format!("alter table sync_ext.{table} add column note text default 'n'"))
                .expect("adds a column");
        }
        assert!(push("w", &[put(2, "a", 2), put(3, "b", 1)]).contains("\"serverVersion\":3"));
        text("select sync_update_cursor('w', 'd', 3)::text", &[]);
        for (table, order, expected) in [
            ("workspace", "workspace_key", "n"),
            ("change_log", "server_version", "n,-,-"),
            ("record", "pk", "n,-"),
            ("device_cursor", "device_id", "n"),
        ] {
            let sql = format!(
                "select string_agg(coalesce(note, '-'), ',' order by {order}) from sync_ext.{table}"
            );
            assert_eq!(text(&sql, &[]), expected, "{table}");
        }
        assert_eq!(text("select json_array_length(sync_pull('w') -> 'changes')::text", &[]), "3");
    }

    #[pg_test]
    fn updates_of_records_and_counters_are_hot() {
        register();
        let ops = |round: u32| -> Vec<String> {
            (0..20).map(|n| put(round * 100 + n, &format!("pk-{n}"), round)).collect()
        };
        push("w", &ops(1));
        push("w", &ops(2));
        let hot = |table: &str| {
            let sql = "select n_tup_hot_upd || ' of ' || n_tup_upd from pg_stat_xact_all_tables
                        where schemaname = 'sync_ext' and relname = $1";
            text(sql, &[table.into()])
        };
        assert_eq!(hot("record"), "20 of 20");
        assert_eq!(hot("workspace"), "2 of 2");
    }
}
