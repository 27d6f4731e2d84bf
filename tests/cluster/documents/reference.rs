//! docs/functions.md names what there is: functions with their arguments, views with
//! their columns, settings with their defaults, errors with their messages.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use postgres::Client;
use regex::Regex;
use sync_ext_harness::database::Database;
use sync_ext_harness::document::Document;

#[test]
fn the_reference_names_what_there_is() {
    let database = Database::new();
    let mut client = database.session();
    client.batch_execute("load 'sync_ext'").unwrap();
    let document = Document::read("docs/functions.md").unwrap();
    let reference = document.text();
    assert_eq!(headings(reference, '('), functions(&mut client));
    let views = headings(reference, '.');
    assert_eq!(
        views,
        names(
            &mut client,
            "select c.oid::regclass::text from pg_class c
        where c.relkind = 'v' and c.relnamespace = 'sync_ext'::regnamespace"
        )
    );
    for view in views {
        assert_eq!(documented_columns(reference, &view), columns(&mut client, &view), "{view}");
    }
    assert_eq!(documented_settings(reference), settings(&mut client));
    assert_eq!(documented_counters(reference), counters());
}

/// Every refusal of sync_attach_table and sync_detach_table stands in the table of those.
#[test]
fn the_guide_to_own_tables_names_every_refusal() {
    let document = Document::read("docs/own-tables.md").unwrap();
    let messages = of_source("core/src/rules/attach_error.rs", r##"#\[error\("([^"]+)"\)\]"##);
    assert!(messages.len() > 25, "{messages:?}");
    let rows = table(document.text(), "## What attach refuses");
    let named: Vec<&str> = rows.iter().map(|row| row[1].as_str()).collect();
    for message in messages {
        let message = message.replace("{name}", "…");
        assert!(named.contains(&message.as_str()), "not named: {message}");
    }
    let notices = of_source("core/src/rules/attach_notice.rs", r#"^ +"([a-z][A-Za-z -]+)",$"#);
    assert!(notices.len() > 5, "{notices:?}");
    let rows = table(document.text(), "### Notices");
    assert_eq!(rows.iter().map(|row| row[0].clone()).collect::<Vec<_>>(), notices);
}

/// Every message of ours stands in the table of errors.
#[test]
fn the_reference_names_every_error() {
    let document = Document::read("docs/functions.md").unwrap();
    let (_, errors) = document.text().split_once("\n## Errors\n").unwrap();
    let mut messages = of_source("core/src/error.rs", r##"#\[error\("([^"]+)"\)\]"##);
    assert!(messages.len() > 30, "{messages:?}");
    messages.extend(of_source("core/src/rules/capture.rs", r##"#\[error\("([^"]+)"\)\]"##));
    messages.extend(of_source("core/src/rules/repair.rs", r##"#\[error\("([^"]+)"\)\]"##));
    messages.extend(of_source("sql/moves.sql", "raise exception '([^']+)'"));
    for message in messages {
        let (before, after) = message.split_once("{argument}").unwrap_or((&message, ""));
        let is_told = errors.lines().filter(|line| line.starts_with("| ")).any(|line| {
            let told = line.split(" | ").nth(1).unwrap_or("");
            told.split(", ").any(|told| {
                told == message
                    || !before.is_empty()
                        && message != before
                        && told.starts_with(before)
                        && told.ends_with(after)
            })
        });
        assert!(is_told, "not told: {message}");
    }
}

/// The third-level headings in which this character comes first of the two.
fn headings(reference: &str, character: char) -> BTreeSet<String> {
    reference
        .lines()
        .filter_map(|line| line.strip_prefix("### "))
        .filter(|heading| heading.find(['(', '.']) == heading.find(character))
        .map(str::to_owned)
        .collect()
}

fn names(client: &mut Client, sql: &str) -> BTreeSet<String> {
    client.query(sql, &[]).unwrap().iter().map(|row| row.get(0)).collect()
}

/// Those of the extension outside of its own schema, as one would declare them.
fn functions(client: &mut Client) -> BTreeSet<String> {
    names(
        client,
        r"select p.proname || '(' || regexp_replace(pg_get_function_arguments(p.oid),
                   '::[a-z]+( [a-z]+)*(\[\])?|\mIN ', '', 'g') || ')'
            from pg_proc p join pg_depend d on d.objid = p.oid
            join pg_extension e on e.oid = d.refobjid
           where d.deptype = 'e' and e.extname = 'sync_ext' and p.pronamespace <> 'sync_ext'::regnamespace",
    )
}

/// The rows of the first table after this line, without markup.
fn table(reference: &str, line: &str) -> Vec<Vec<String>> {
    let (_, after) = reference.split_once(&format!("\n{line}\n")).unwrap();
    after
        .lines()
        .skip_while(|line| !line.starts_with("| "))
        .take_while(|line| line.starts_with("| "))
        .skip(2)
        .map(|row| {
            let cells = row.trim_matches('|').split('|');
            cells.map(|cell| cell.trim().replace('`', "")).collect()
        })
        .collect()
}

fn documented_columns(reference: &str, view: &str) -> Vec<String> {
    let rows = table(reference, &format!("### {view}"));
    rows.iter().map(|row| format!("{} {}", row[0], row[1])).collect()
}

fn columns(client: &mut Client, view: &str) -> Vec<String> {
    let sql = "select attname || ' ' || format_type(atttypid, atttypmod) from pg_attribute
                where attrelid = $1::text::regclass and attnum > 0 order by attnum";
    client.query(sql, &[&view]).unwrap().iter().map(|row| row.get(0)).collect()
}

fn documented_settings(reference: &str) -> BTreeSet<String> {
    let rows = table(reference, "## Settings");
    rows.iter().map(|row| format!("{} {}", row[0], row[1])).collect()
}

fn settings(client: &mut Client) -> BTreeSet<String> {
    // The server has some that differ.
    let defaults = "select set_config(name, coalesce(boot_val, ''), false) from pg_settings
                     where name like 'sync\\_ext.%'";
    client.batch_execute(defaults).unwrap();
    let sql = "select name || ' ' || current_setting(name) from pg_settings
                where name like 'sync\\_ext.%'";
    names(client, sql)
}

fn documented_counters(reference: &str) -> BTreeSet<String> {
    let (_, after) = reference.split_once("| counter | counts |").unwrap();
    let rows = after.lines().skip(2).take_while(|line| line.starts_with("| "));
    let names = rows.flat_map(|row| {
        let names = row.trim_start_matches("| ").split(" | ").next().unwrap_or("");
        names.split(", ").map(|name| name.replace('`', "")).collect::<Vec<_>>()
    });
    names.collect()
}

fn counters() -> BTreeSet<String> {
    of_source("src/store/counters.rs", r#"\(\w+, "(\w+)"\)"#).into_iter().collect()
}

/// What the pattern finds in a file of the extension.
fn of_source(path: &str, pattern: &str) -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path);
    let text = fs::read_to_string(path).unwrap();
    let pattern = Regex::new(&format!("(?m){pattern}")).unwrap();
    pattern.captures_iter(&text).map(|found| found[1].to_owned()).collect()
}
