//! Documents with executed examples: each `sql` block runs through psql, in a database
//! for the document, and its output is compared with the `text` or `json` block that
//! follows.
//!
//! In a `json` block replies are formatted, so white space between their tokens does
//! not matter; everything else does.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use anyhow::{Context, Result, ensure};
use regex::Regex;

use crate::cluster::Cluster;

const SQL: &str = "```sql\n";
const END: &str = "```\n";
const TEXT: &str = "```\n```text\n";
const JSON: &str = "```\n```json\n";

/// Stands for a time.
const TIME: &str = "TIME";

/// Only replies, one per line.
const BARE: &str = "\\pset format unaligned\n\\pset tuples_only on\n";

/// A document of this repository, by its path from the root.
pub struct Document {
    path: PathBuf,
    text: String,
}

impl Document {
    pub fn read(path: &str) -> Result<Document> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path);
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        Ok(Document { path, text })
    }

    pub fn text(&self) -> &str {
        &self.text
    }

    /// The text between the first line that is `fence` and the end of that block.
    pub fn block(&self, fence: &str) -> Result<&str> {
        let found = self.text.split_once(&format!("\n```{fence}\n")).map(|(_, after)| after);
        let (block, _) = found.and_then(|after| after.split_once(END)).context("no such block")?;
        Ok(block)
    }

    /// The SQL of the example that contains `text`.
    pub fn example(&self, text: &str) -> Result<&str> {
        let examples = self.text.split(SQL).skip(1).filter_map(|after| after.split_once(END));
        let mut sql = examples.map(|(sql, _)| sql);
        sql.find(|sql| sql.contains(text)).context("no such example")
    }

    /// Executes the examples; returns their number. With `accepts`, output that differs
    /// is written into the document instead of being an error.
    pub fn execute(&self, cluster: &Cluster, database: &str, accepts: bool) -> Result<usize> {
        let create = format!("create database {database}");
        cluster.connect("postgres")?.batch_execute(&create)?;
        let (mut settings, mut accepted) = (String::new(), String::new());
        let (mut rest, mut count) = (self.text.as_str(), 0);
        while let Some((before, after)) = rest.split_once(SQL) {
            let Block { sql, fence, expected, after } = Block::read(after)?;
            count += 1;
            let bare = if fence == JSON { BARE } else { "" };
            let printed = print(cluster, database, &format!("{settings}{bare}{sql}"))?;
            ensure!(
                fence == JSON || !normalized(expected).contains(TIME),
                "{}, example {count}: the width of a time varies, and a table's with it",
                self.path.display()
            );
            let (is_same, printed) = if fence == JSON {
                (
                    normalized(&compact(&printed)) == normalized(&compact(expected)),
                    laid_out(&printed),
                )
            } else {
                (normalized(&printed) == normalized(expected), printed)
            };
            ensure!(
                is_same || accepts,
                "{}, example {count}:\n{sql}prints\n{printed}instead of\n{expected}",
                self.path.display()
            );
            let output = if is_same { expected } else { &printed };
            accepted += &[before, SQL, sql, fence, output, END].concat();
            // \pset lasts for a session, so each session begins with the earlier ones.
            let lasting = sql.lines().filter(|line| line.starts_with("\\pset"));
            settings.extend(lasting.map(|line| format!("{line}\n")));
            rest = after;
        }
        accepted += rest;
        if accepted != self.text {
            fs::write(&self.path, accepted)?;
        }
        Ok(count)
    }
}

/// An example and its output.
struct Block<'a> {
    sql: &'a str,
    fence: &'static str,
    expected: &'a str,
    after: &'a str,
}

impl Block<'_> {
    fn read(text: &str) -> Result<Block<'_>> {
        let (sql, _) = text.split_once(END).context("an example ends")?;
        let after = &text[sql.len()..];
        let fence = [TEXT, JSON].into_iter().find(|fence| after.starts_with(fence));
        let fence = fence.with_context(|| format!("output follows the example:\n{sql}"))?;
        let (expected, after) =
            after[fence.len()..].split_once(END).context("the output of an example ends")?;
        Ok(Block { sql, fence, expected, after })
    }
}

/// The output of psql.
pub fn print(cluster: &Cluster, database: &str, sql: &str) -> Result<String> {
    let script = format!("sync_ext-{database}-{}.sql", std::process::id());
    let script = std::env::temp_dir().join(script);
    fs::write(&script, sql)?;
    let printed = cluster.psql_quietly(database, &script)?;
    fs::remove_file(&script)?;
    Ok(printed.trim_end_matches('\n').to_owned() + "\n")
}

/// Replaces what varies from run to run: digests, page tokens, times, the random name
/// of a snapshot, the age of a heartbeat and the id of a process.
fn normalized(output: &str) -> String {
    static VARYING: LazyLock<Vec<(Regex, &str)>> = LazyLock::new(|| {
        [
            (r"\b(p[12])\.([0-9a-f]+)\.[0-9a-f]{32}\b", "$1.$2.DIGEST"),
            (r"\bs1\.[0-9a-f]{32}\.[0-9a-f]+\b", "s1.TOKEN"),
            (r"\b1[0-9]{9}\b", "SECONDS"),
            (r"\b20\d\d-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?\+00(:00)?", TIME),
            (r#"("snapshotId": ?)"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}""#, "$1\"UUID\""),
            (r#"("heartbeatAgeSeconds": ?)[0-9]+\b"#, "${1}AGE"),
            (r"\bwith PID [0-9]+\b", "with PID N"),
        ]
        .into_iter()
        .map(|(pattern, equal)| (Regex::new(pattern).unwrap(), equal))
        .collect()
    });
    let one = |text: String, (pattern, equal): &(Regex, &str)| {
        pattern.replace_all(&text, *equal).into_owned()
    };
    VARYING.iter().fold(output.to_owned(), one)
}

/// Formats the lines that are JSON over several lines.
fn laid_out(output: &str) -> String {
    let mut out = String::new();
    for line in compact(output).lines().filter(|line| !line.is_empty()) {
        lay_out(line, 0, 0, &mut out);
        out.push('\n');
    }
    out
}

const WIDTH: usize = 96;

/// A value that begins at `column`. A value that is too long for its line continues
/// below: an object with as many members per line as fit, an array with one element per
/// line, indented a little more than `margin`.
fn lay_out(value: &str, column: usize, margin: usize, out: &mut String) {
    let flat = spaced(value);
    let opening = value.chars().next().unwrap_or(' ');
    if column + width(&flat) <= WIDTH || !matches!(opening, '{' | '[') {
        out.push_str(&flat);
        return;
    }
    let inner = if opening == '{' { column + 1 } else { margin + 1 };
    let mut at = if opening == '{' { inner } else { WIDTH };
    out.push(opening);
    for (place, member) in members(&value[1..value.len() - 1]).into_iter().enumerate() {
        let (key, member) = if opening == '{' { split_key(member) } else { ("", member) };
        let key = spaced(key);
        let taken = width(&key) + width(&spaced(member));
        if place > 0 {
            out.push(',');
        }
        if at + taken + 2 > WIDTH && (place > 0 || opening == '[') {
            out.push('\n');
            out.push_str(&" ".repeat(inner));
            at = inner;
        } else if place > 0 {
            out.push(' ');
            at += 1;
        }
        out.push_str(&key);
        lay_out(member, at + width(&key), inner, out);
        // A value over several lines, and an element of an array, ends its line.
        at = if at + taken > WIDTH || opening == '[' { WIDTH } else { at + taken + 1 };
    }
    out.push_str(&value[value.len() - 1..]);
}

fn width(text: &str) -> usize {
    text.chars().count()
}

/// Each character, and whether it is in a string.
fn in_strings(json: &str) -> impl Iterator<Item = (usize, char, bool)> {
    let (mut inside, mut escaped) = (false, false);
    json.char_indices().map(move |(place, character)| {
        let was_inside = inside;
        match character {
            _ if escaped => escaped = false,
            '\\' => escaped = inside,
            '"' => inside = !inside,
            // No string extends over lines; and not all output is JSON.
            '\n' => inside = false,
            _ => {}
        }
        (place, character, was_inside)
    })
}

/// Removes the white space between tokens; each value that is not inside another gets a
/// line of its own.
fn compact(output: &str) -> String {
    let (mut out, mut depth) = (String::new(), 0);
    for (_, character, inside) in in_strings(output) {
        match character {
            '{' | '[' if !inside => depth += 1,
            '}' | ']' if !inside => depth -= 1,
            _ => {}
        }
        if inside || !character.is_whitespace() || (character == '\n' && depth == 0) {
            out.push(character);
        }
    }
    let lines: Vec<&str> = out.lines().filter(|line| !line.is_empty()).collect();
    lines.join("\n")
}

fn spaced(compact: &str) -> String {
    let mut out = String::new();
    for (_, character, inside) in in_strings(compact) {
        out.push(character);
        if !inside && matches!(character, ',' | ':') {
            out.push(' ');
        }
    }
    out
}

/// The members of an array or object, given the text between its brackets.
fn members(inner: &str) -> Vec<&str> {
    let (mut members, mut depth, mut start) = (Vec::new(), 0, 0);
    for (place, character, inside) in in_strings(inner) {
        match character {
            '{' | '[' if !inside => depth += 1,
            '}' | ']' if !inside => depth -= 1,
            ',' if !inside && depth == 0 => {
                members.push(&inner[start..place]);
                start = place + 1;
            }
            _ => {}
        }
    }
    members.push(&inner[start..]);
    members
}

/// A member's key with its colon, and its value.
fn split_key(member: &str) -> (&str, &str) {
    let colon = in_strings(member).find(|(_, character, inside)| *character == ':' && !inside);
    member.split_at(colon.map_or(0, |(place, ..)| place + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_varies_is_made_equal() {
        let digest = "0943e289d10d5db3bebf674d639f9f7e";
        for (one, other) in [
            (
                format!("\"p1.1f.{digest}\""),
                "\"p1.1f.00000000000000000000000000000000\"".to_owned(),
            ),
            (format!("s1.{digest}.7b22"), format!("s1.{digest}.7b")),
            (
                "\"serverDeletedAt\":1795206673}".to_owned(),
                "\"serverDeletedAt\":1795206674}".to_owned(),
            ),
            ("2026-11-20T21:48:28.767797+00:00".to_owned(), "2026-11-21 00:00:00+00".to_owned()),
            ("with PID 12.".to_owned(), "with PID 345.".to_owned()),
        ] {
            assert_eq!(normalized(&one), normalized(&other));
            assert_ne!(normalized(&one), one);
        }
        for (one, other) in [
            (format!("p1.1.{digest}"), format!("p1.2.{digest}")),
            ("1767225600000:0000:phone".to_owned(), "1767225600001:0000:phone".to_owned()),
            ("\"serverVersion\":1".to_owned(), "\"serverVersion\":2".to_owned()),
            (
                "\"opId\":\"6f1c8a52-4d51-4a57-9f5c-0a3f1f6f0001\"".to_owned(),
                "\"opId\":\"6f1c8a52-4d51-4a57-9f5c-0a3f1f6f0002\"".to_owned(),
            ),
        ] {
            assert_ne!(normalized(&one), normalized(&other));
        }
    }

    #[test]
    fn laying_out_changes_white_space_between_tokens_alone() {
        let long = "x".repeat(90);
        let reply = format!(
            "{{\"a b\" : [ {{\"k\":\"x, {{ \\\" y\"}},[]],\n \"c\":{{ }},\"d\":\"{long}\"}}\n\n{{}}\n"
        );
        let expected = format!(
            "{{\"a b\": [{{\"k\": \"x, {{ \\\" y\"}}, []], \"c\": {{}},\n \"d\": \"{long}\"}}\n{{}}\n"
        );
        assert_eq!(laid_out(&reply), expected);
        assert_eq!(compact(&reply), compact(&expected));
        assert_ne!(compact("{\"a\":\"x y\"}"), compact("{\"a\":\"xy\"}"));
        assert_ne!(compact("{}\n{}"), compact("{}"));
        assert_eq!(compact("ERROR:  don't\"\n{ }"), "ERROR:don't\"\n{}");
    }

    #[test]
    fn an_example_without_output_is_an_error() {
        let block = Block::read("select 1;\n```\n```json\n1\n```\nmore").unwrap();
        assert_eq!((block.sql, block.expected, block.after), ("select 1;\n", "1\n", "more"));
        assert!(Block::read("select 1;\n```\n\n```text\n1\n```\n").is_err());
        assert!(Block::read("select 1;\n```\n```text\n1\n").is_err());
    }
}
