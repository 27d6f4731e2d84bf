//! The examples of README.md and of docs/, executed. With SYNC_EXT_ACCEPT set their
//! output is written into the documents instead; read the diff.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use postgres::types::Type;
use regex::Regex;
use sync_ext_cluster::cluster::Cluster;
use sync_ext_cluster::document::Document;

/// Each document, the database for its examples and how many it has at least.
const DOCUMENTS: [(&str, &str, usize); 6] = [
    ("README.md", "tour", 5),
    ("docs/access.md", "access", 4),
    ("docs/clients.md", "clients", 7),
    ("docs/functions.md", "functions", 2),
    ("docs/operations.md", "operations", 9),
    ("docs/protocol.md", "protocol", 19),
];

#[test]
fn documents_print_what_they_say() {
    let cluster =
        Cluster::start("readme", &["fsync=off", "shared_preload_libraries=sync_ext"]).unwrap();
    let accepts = std::env::var_os("SYNC_EXT_ACCEPT").is_some();
    let counts = DOCUMENTS.map(|(path, database, _)| {
        Document::read(path).unwrap().execute(&cluster, database, accepts).unwrap()
    });
    for ((path, _, least), count) in DOCUMENTS.iter().zip(counts) {
        assert!(count >= *least, "{path} has {count} examples");
    }
    an_exporter_gets_the_metrics_that_its_queries_name(&cluster);
}

/// The custom queries for an exporter, as the role and on the workspace that
/// docs/operations.md made before.
fn an_exporter_gets_the_metrics_that_its_queries_name(cluster: &Cluster) {
    let mut client = cluster.connect("operations").unwrap();
    client.batch_execute("set role exporter").unwrap();
    let document = Document::read("docs/operations.md").unwrap();
    let queries: Vec<&str> = document.block("yaml").unwrap().split("\n\n").collect();
    assert!(queries.len() >= 3);
    for yaml in queries {
        let (_, query) = yaml.split_once("  query: \"").unwrap();
        let (query, metrics) = query.split_once("\"\n  metrics:\n").unwrap();
        let mut usages = Vec::new();
        for metric in metrics.split("    - ").skip(1) {
            let (name, usage) = metric.split_once(":\n        usage: \"").unwrap();
            let (usage, description) = usage.split_once("\"\n        description: \"").unwrap();
            assert!(description.len() > 1, "{metric}");
            usages.push((name, usage));
        }
        let rows = client.query(query, &[]).unwrap();
        assert!(!rows.is_empty(), "nothing to tell: {query}");
        let names: Vec<&str> = rows[0].columns().iter().map(|column| column.name()).collect();
        assert_eq!(names, usages.iter().map(|(name, _)| *name).collect::<Vec<_>>());
        for ((_, usage), column) in usages.iter().zip(rows[0].columns()) {
            let is_number = [Type::INT8, Type::NUMERIC].contains(column.type_());
            match *usage {
                "LABEL" => assert_eq!(*column.type_(), Type::TEXT, "{column:?}"),
                "GAUGE" | "COUNTER" => assert!(is_number, "{column:?}"),
                other => panic!("no usage: {other}"),
            }
        }
    }
}

#[test]
fn no_document_is_left_out() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs");
    let written: BTreeSet<String> = fs::read_dir(docs)
        .unwrap()
        .map(|entry| format!("docs/{}", entry.unwrap().file_name().to_string_lossy()))
        .collect();
    let executed: BTreeSet<String> =
        DOCUMENTS.iter().skip(1).map(|(path, ..)| path.to_string()).collect();
    assert_eq!(written, executed);
}

#[test]
fn links_between_documents_lead_to_a_heading() {
    let texts: BTreeMap<&str, String> = DOCUMENTS
        .iter()
        .filter_map(|(path, ..)| path.strip_prefix("docs/").map(|name| (name, path)))
        .map(|(name, path)| (name, Document::read(path).unwrap().text().to_owned()))
        .collect();
    let link = Regex::new(r"\]\(([a-z]+\.md)?(?:#([^)]+))?\)").unwrap();
    let mut followed = 0;
    for (name, text) in &texts {
        for found in link.captures_iter(text) {
            let target = found.get(1).map_or(*name, |target| target.as_str());
            let heading = found.get(2).map(|anchor| anchor.as_str());
            let text = texts.get(target).unwrap_or_else(|| panic!("{name}: {target}"));
            let is_there = heading.is_none_or(|anchor| anchors(text).any(|known| known == anchor));
            assert!(is_there, "{name}: {}", &found[0]);
            followed += 1;
        }
    }
    assert!(followed > 30, "{followed} links");
}

/// As they are made of headings: letters, digits and hyphens stay.
fn anchors(text: &str) -> impl Iterator<Item = String> {
    text.lines().filter(|line| line.starts_with('#')).map(|line| {
        let heading = line.trim_start_matches('#').trim().to_lowercase().replace(' ', "-");
        heading.chars().filter(|c| c.is_alphanumeric() || "-_".contains(*c)).collect()
    })
}
