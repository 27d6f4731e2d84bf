//! What devices of earlier versions say is answered as then. `tests/wire` has a recording of
//! each version; with SYNC_EXT_RECORD set the script is recorded as the version of today.

mod script;

use serde_json::Value;
use sync_ext_harness::database::Database;
use sync_ext_harness::wire::{self, Said};

#[test]
fn recorded_requests_are_answered_as_then() {
    if std::env::var_os("SYNC_EXT_RECORD").is_some() {
        let said = script::said(&mut Database::empty().session());
        has_all_kinds(&said);
        wire::record(env!("CARGO_PKG_VERSION"), "sql.json", &said).unwrap();
    }
    let recordings = wire::recordings("sql.json").unwrap();
    assert!(!recordings.is_empty());
    for (path, said) in recordings {
        let database = Database::empty();
        let mut client = database.session();
        wire::replay(&said, |request| wire::execute(&mut client, request))
            .unwrap_or_else(|error| panic!("{}: {error:#}", path.display()));
    }
}

/// A recording is of every kind of result, reason and error that a device knows.
fn has_all_kinds(said: &[Said]) {
    let mut values = Vec::new();
    said.iter().for_each(|said| collect(&said.reply, &mut values));
    let has = |key: &str, value: &str| values.contains(&(key.to_owned(), value.to_owned()));
    for (key, expected) in [
        (
            "errorCode",
            "VALIDATION_ERROR OVERSIZED CONFLICT UNAUTHORIZED BASE_MISSING RECORD_CONFLICT FIELD_CONFLICT REJECTED CONSTRAINT READ_ONLY",
        ),
        ("reason", "unknown_workspace history_diverged cursor_ahead cursor_expired"),
        ("sqlState", "SX001 SX003 22023 22P02 25006 42501 54000 55000 23503 23514"),
        ("kind", "put delete row tombstone"),
        ("op", "put patch delete"),
    ] {
        for value in expected.split(' ') {
            assert!(has(key, value), "{key} is never {value}");
        }
    }
    for key in
        ["applied", "created", "replayed", "hasMore", "requiresSnapshot", "retry", "advanced"]
    {
        assert!(has(key, "true"), "{key} is never true");
    }
    for key in [
        "overwrote",
        "lost",
        "fields",
        "patch",
        "serverDeletedAt",
        "nextPageToken",
        "proof",
        "current",
    ] {
        assert!(values.iter().any(|(found, value)| found == key && value != "null"), "no {key}");
    }
}

/// Keys with their values.
fn collect(value: &Value, into: &mut Vec<(String, String)>) {
    match value {
        Value::Array(all) => all.iter().for_each(|value| collect(value, into)),
        Value::Object(all) => {
            for (key, value) in all {
                let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                into.push((key.clone(), text));
                collect(value, into);
            }
        }
        _ => {}
    }
}
