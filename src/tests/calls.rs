//! Calls in unusual contexts.

#[pgrx::pg_schema]
mod tests {
    use pgrx::prelude::*;

    use crate::tests::{push, put, register, text};

    /// Runs a PL/pgSQL block and ignores its notices.
    fn block(body: &str) {
        Spi::run(&format!("do $do$ begin {body} end $do$")).expect("the block runs");
    }

    #[pg_test]
    fn an_error_caught_by_the_caller_leaves_the_session_fine() {
        register();
        push("w", &[put(1, "a", 1)]);
        // An error of the extension, an error of Postgres raised during a call, and one
        // raised while a push held its workspace's lock: each in a subtransaction.
        block(
            "begin perform sync_push('w', '{}'); exception when invalid_parameter_value then null; end;
             begin perform sync_update_cursor('w', 'd', 5); exception when sqlstate 'SX003' then null; end;
             begin perform sync_push('w', '[1'); exception when invalid_text_representation then null; end;",
        );
        Spi::run("create unique index on sync_ext.record ((clock / 10))")
            .expect("creates an index");
        let ops = format!("[{}]", put(2, "b", 1));
        block(&format!(
            "begin perform sync_push('w', '{ops}'); raise 'the index lets it through';
             exception when unique_violation then null; end;",
        ));
        assert_eq!(text("select head::text from sync_ext.workspace", &[]), "1");
        // The same while a large push has a subtransaction of its own, of the block's,
        // or none.
        let large: Vec<String> = (0..9).map(|n| put(100 + n, &format!("l-{n}"), 1)).collect();
        let large = format!("[{}]", large.join(","));
        block(&format!(
            "begin insert into sync_ext.synced_table values ('kept'); perform sync_push('w', '{large}'); raise 'the index lets it through';
             exception when unique_violation then null; end;
             insert into sync_ext.synced_table values ('after');",
        ));
        let names =
            "select string_agg(table_name, ' ' order by table_name) from sync_ext.synced_table";
        assert_eq!(text(names, &[]), "after notes");
        assert_eq!(text("select count(*)::text from sync_ext.change_log", &[]), "1");
        Spi::run("drop index sync_ext.record_expr_idx").expect("drops the index");
        assert!(push("w", &[put(2, "b", 1)]).contains("\"serverVersion\":2,\"applied\":true"));
    }

    #[pg_test]
    fn a_large_push_is_right_when_it_presumed_wrong() {
        register();
        let batch = |from: u32, clock: u32| -> Vec<String> {
            (0..10).map(|n| put(from + n, &format!("n-{n}"), clock)).collect()
        };
        push("w", &[put(1, "n-7", 1), put(2, "other", 1)]);
        // As while an index is rebuilt concurrently.
        Spi::run(
            "create unique index on sync_ext.record (workspace_key, table_name, pk);
            create unique index on sync_ext.change_log (workspace_key, op_id)",
        )
        .expect("creates twins");
        // A record that was created before; then the opId of another record's op; then
        // a replay in the middle; then an unregistered table.
        let reply = push("w", &batch(100, 1));
        assert_eq!(reply.matches("\"success\":true").count(), 10);
        assert!(reply.ends_with("\"serverVersion\":12}"), "{reply}");
        let mut conflict = batch(200, 2);
        conflict[5] = put(2, "n-5", 2);
        let reply = push("w", &conflict);
        assert_eq!(reply.matches("CONFLICT").count(), 1);
        assert!(reply.ends_with("\"serverVersion\":21}"), "{reply}");
        let mut replay = batch(300, 3);
        replay[4] = put(104, "n-4", 1);
        let reply = push("w", &replay);
        assert!(
            reply.contains("\"serverVersion\":7,\"applied\":false,\"replayed\":true"),
            "{reply}"
        );
        assert!(reply.ends_with("\"serverVersion\":30}"), "{reply}");
        Spi::run("select sync_unregister_table('notes')").expect("unregisters");
        let mut gone = batch(400, 1);
        gone[3] = put(103, "n-3", 1);
        let reply = push("w", &gone);
        assert_eq!(reply.matches("VALIDATION_ERROR").count(), 9);
        assert_eq!(reply.matches("\"replayed\":true").count(), 1);
        let sound = "select (count(*) = 30 and min(server_version) = 1 and max(server_version) = 30)::text from sync_ext.change_log";
        assert_eq!(text(sound, &[]), "true");
        assert_eq!(text("select count(*)::text from sync_ext.record", &[]), "11");
    }

    #[pg_test]
    fn very_many_pushes_in_one_transaction_do_not_pile_up_subtransactions() {
        register();
        for n in 0..100 {
            let batch: Vec<String> =
                (0..8).map(|m| put(n * 8 + m, &format!("{n}-{m}"), 1)).collect();
            push("w", &batch);
        }
        assert_eq!(text("select head::text from sync_ext.workspace", &[]), "800");
        // Rows carry the id of the transaction that wrote them, also of a
        // subtransaction.
        let writers = "select count(distinct xmin::text)::text from sync_ext.change_log";
        assert_eq!(text(writers, &[]), "33");
    }

    #[pg_test]
    fn a_push_per_row_of_a_query_sees_the_pushes_before() {
        register();
        let heads = text(
            "select string_agg(sync_push('w', format(
               '[{\"tableName\":\"notes\",\"operation\":\"put\",\"pk\":\"a\",\"payload\":{},\"stamp\":{\"deviceId\":\"d\",
                 \"opId\":\"%s-0000-4000-8000-000000000000\",\"hlc\":\"h\",\"clock\":%s}}]',
               lpad(n::text, 8, '0'), n)::json) ->> 'serverVersion', ' ' order by n)
             from generate_series(1, 50) n",
            &[],
        );
        let expected: Vec<String> = (1..=50).map(|n| n.to_string()).collect();
        assert_eq!(heads, expected.join(" "));
        assert_eq!(text("select count(*)::text from sync_ext.record", &[]), "1");
    }

    #[pg_test]
    fn retention_counts_months_as_30_days_and_bears_any_length() {
        register();
        push("w", &[put(1, "a", 1), put(2, "a", 2), put(3, "a", 3)]);
        let scanned = |retention: &str| {
            text("select sync_gc('w', $1::text::interval) ->> 'scanned'", &[retention.into()])
        };
        Spi::run("update sync_ext.change_log set created_at = now() - interval '45 days'")
            .expect("ages the log");
        assert_eq!(scanned("2 months"), "0");
        assert_eq!(scanned("178000000 years"), "0");
        assert_eq!(scanned("1 month 15 days 1 hour"), "0");
        assert_eq!(scanned("1 month 14 days 23 hours"), "2");
    }

    #[pg_test]
    fn a_filter_may_name_a_thousand_tables() {
        register();
        push("w", &[put(1, "a", 1), put(2, "b", 1)]);
        let names = "array(select 't' || n from generate_series(1, 999) n) || '{notes}'";
        for (sql, expected) in [
            (
                format!(
                    "select json_array_length(sync_snapshot('w', tables => {names}) -> 'items')"
                ),
                "2",
            ),
            (
                format!("select json_array_length(sync_pull('w', tables => {names}) -> 'changes')"),
                "2",
            ),
        ] {
            assert_eq!(text(&format!("{sql}::text"), &[]), expected);
        }
    }

    #[pg_test]
    fn a_page_holds_a_payload_larger_than_its_bytes() {
        register();
        let large =
            put(1, "a", 1).replace("{\"n\":1}", &format!("{{\"n\":\"{}\"}}", "x".repeat(200_000)));
        push("w", &[large, put(2, "b", 1)]);
        Spi::run("set sync_ext.max_page_bytes = '1kB'").expect("sets");
        assert_eq!(text("select sync_pull('w') ->> 'nextCursor'", &[]), "1");
        assert_eq!(text("select sync_pull('w', 1) ->> 'nextCursor'", &[]), "2");
        let items = "select json_array_length(sync_snapshot('w') -> 'items')::text";
        assert_eq!(text(items, &[]), "1");
    }

    #[pg_test]
    fn a_push_finds_known_records_wherever_they_lie_among_new_ones() {
        register();
        const NAMES: u32 = 40;
        let all = |from: u32| -> Vec<String> {
            (0..NAMES).map(|n| put(from + n, &format!("n-{n:02}"), 1)).collect()
        };
        for one in 0..NAMES {
            for other in one..NAMES {
                let (workspace, batch) = (format!("w-{one}-{other}"), all(1000));
                let known =
                    [put(1, &format!("n-{one:02}"), 0), put(2, &format!("n-{other:02}"), 0)];
                push(&workspace, &known);
                push(&workspace, &batch);
                let superseding = text(
                    "select string_agg(pk, ' ' order by pk) from sync_ext.change_log
                       join sync_ext.workspace using (workspace_key)
                       where workspace_id = $1 and clock = 1 and supersedes is not null",
                    &[workspace.as_str().into()],
                );
                let mut expected = vec![format!("n-{one:02}"), format!("n-{other:02}")];
                expected.dedup();
                assert_eq!(superseding, expected.join(" "));
            }
        }
    }
}
