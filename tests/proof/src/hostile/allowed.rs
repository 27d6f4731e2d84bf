//! Which error may end a call, and why.

use anyhow::{Context, Result, bail, ensure};

/// SQLSTATEs that a caller may meet in a hostile run, each with its reason and
/// what a batch that meets it is counted as. Everything else is a violation,
/// above all XX000, XX001, XX002 and 58*.
const ALLOWED: [(&str, &str, &str); 11] = [
    (
        "22023",
        "the contract's: an argument that it forbids, ops that are no array",
        "batches ended by 22023",
    ),
    ("54000", "the contract's: too many ops in one push", "batches ended by 54000"),
    ("22P02", "Postgres': ops is no JSON", "batches ended by 22P02"),
    ("22021", "Postgres': bytes that are no UTF-8, or a NUL in a text", "batches ended by 22021"),
    (
        "54001",
        "Postgres': its JSON parser recurses and meets max_stack_depth",
        "batches ended by 54001",
    ),
    ("55000", "the contract's: the last owner who would go", ""),
    ("SX001", "the contract's: a snapshot that cannot go on, forged", ""),
    ("SX003", "the contract's: a version above the head", ""),
    ("42501", "the contract's: a user who may not", ""),
    ("42704", "the contract's: no such workspace", ""),
    ("42710", "the contract's: a workspace that there is", ""),
];

pub fn counted_as(code: &str) -> &'static str {
    ALLOWED.iter().find(|(allowed, ..)| *allowed == code).map_or("", |(.., counted)| counted)
}

pub fn codes() -> Vec<&'static str> {
    ALLOWED.iter().map(|(code, ..)| *code).collect()
}

/// The SQLSTATE of an error, if it may be met at all.
pub fn code(error: &postgres::Error) -> Result<String> {
    let Some(error) = error.as_db_error() else {
        bail!("the connection was lost: {error}");
    };
    let code = error.code().code();
    ensure!(
        ALLOWED.iter().any(|(allowed, ..)| *allowed == code),
        "{code} is nothing that a caller may meet: {error:?}"
    );
    let is_ours = ["22023", "55000", "42501", "42704", "42710", "SX001", "SX003"].contains(&code);
    if is_ours || error.message() == "too many ops in one push" {
        error.detail().or(error.hint()).context("an error of the contract has a DETAIL or HINT")?;
    }
    Ok(code.to_owned())
}
