//! The examples of README.md and of docs/, executed. With SYNC_EXT_ACCEPT set their
//! output is written into the documents instead; read the diff.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;
use postgres::types::Type;
use regex::Regex;
use sync_ext_harness::cluster::Cluster;
use sync_ext_harness::document::Document;

/// Each document, the database for its examples and how many it has at least.
const DOCUMENTS: [(&str, &str, usize); 15] = [
    ("README.md", "tour", 5),
    ("docs/access.md", "access", 4),
    ("docs/clients.md", "clients", 7),
    ("docs/design.md", "design", 0),
    ("docs/functions.md", "functions", 2),
    ("docs/glossary.md", "glossary", 0),
    ("docs/operations.md", "operations", 9),
    ("docs/own-tables.md", "own_tables", 2),
    ("docs/patches.md", "patches", 5),
    ("docs/protocol.md", "protocol", 19),
    ("docs/rxdb.md", "rxdb", 0),
    ("docs/scopes.md", "scopes", 4),
    ("docs/scaling.md", "scaling", 0),
    ("docs/sizing.md", "sizing", 0),
    ("docs/tanstack-db.md", "tanstack_db", 0),
];

#[test]
fn documents_print_what_they_say() {
    // A worker would send hints of its own in between.
    let settings = ["fsync=off", "shared_preload_libraries=sync_ext", "sync_ext.notify=off"];
    let cluster = Cluster::start("readme", &settings).unwrap();
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
        .filter(|path| path.ends_with(".md"))
        .collect();
    let executed: BTreeSet<String> =
        DOCUMENTS.iter().skip(1).map(|(path, ..)| path.to_string()).collect();
    assert_eq!(written, executed);
}

#[test]
fn links_lead_to_files_and_headings() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let links = links(&root).unwrap();
    let broken: Vec<&Link> = links.iter().filter(|link| !link.leads_somewhere(&root)).collect();
    assert!(broken.is_empty(), "{broken:#?}");
    for (from, least) in [("README.md", 10), ("SECURITY.md", 1), ("docs", 50), ("tests", 1)] {
        let followed = links.iter().filter(|link| link.from.starts_with(from)).count();
        assert!(followed >= least, "{from} has {followed} links");
    }
}

#[test]
fn a_link_that_leads_nowhere_is_found() {
    let root = std::env::temp_dir().join(format!("sync_ext-links-{}", std::process::id()));
    fs::create_dir_all(root.join("docs")).unwrap();
    fs::create_dir_all(root.join("target")).unwrap();
    let good = "[](docs/b.md) [](docs) [](docs/b.md#two-words) [](#one) [](https://a.b/c.md)";
    let bad = "[](docs/c.md) [](b.md) [](docs/b.md#one) [](docs#one) [](#two-words)";
    let a = format!("# One\n{good}\n{bad}\n```sh\n# Two words\n[](not/a/link)\n```\n");
    fs::write(root.join("a.md"), a).unwrap();
    let b = "## `Two` words!\n[](../a.md#one) [over\nlines](../docs/b.md)\n[](docs/b.md)\n";
    fs::write(root.join("docs/b.md"), b).unwrap();
    fs::write(root.join("target/c.md"), "[](nowhere.md)").unwrap();
    let links = links(&root).unwrap();
    let broken = links.iter().filter(|link| !link.leads_somewhere(&root));
    let broken: BTreeSet<(&str, &str)> =
        broken.map(|link| (link.from.to_str().unwrap(), link.target.as_str())).collect();
    let expected = ["docs/c.md", "b.md", "docs/b.md#one", "docs#one", "#two-words"];
    let mut expected = BTreeSet::from(expected.map(|target| ("a.md", target)));
    expected.insert(("docs/b.md", "docs/b.md"));
    assert_eq!((broken, links.len()), (expected, 12));
    fs::remove_dir_all(root).unwrap();
}

/// A link within the project.
#[derive(Debug)]
struct Link {
    /// The document in which it stands, by its path from the root.
    from: PathBuf,
    target: String,
}

impl Link {
    fn leads_somewhere(&self, root: &Path) -> bool {
        let (path, anchor) = self.target.split_once('#').unwrap_or((&self.target, ""));
        let from = root.join(&self.from);
        let target = if path.is_empty() { from } else { from.parent().unwrap_or(root).join(path) };
        if anchor.is_empty() {
            return target.exists();
        }
        fs::read_to_string(target).is_ok_and(|text| anchors(&text).any(|known| known == anchor))
    }
}

/// Those of all documents, outside of what is built.
fn links(root: &Path) -> Result<Vec<Link>> {
    let link = Regex::new(r"\]\(([^)\s]+)\)")?;
    let (mut links, mut folders) = (Vec::new(), vec![root.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let is_ours = !["target", "node_modules"].contains(&&*name) && !name.starts_with('.');
            if path.is_dir() && is_ours {
                folders.push(path);
            } else if name.ends_with(".md") {
                let (text, from) = (prose(&fs::read_to_string(&path)?), path.strip_prefix(root)?);
                let targets = link.captures_iter(&text).map(|found| found[1].to_owned());
                let inside = targets.filter(|target| !target.contains("://"));
                links.extend(inside.map(|target| Link { from: from.to_owned(), target }));
            }
        }
    }
    Ok(links)
}

/// As they are made of headings: letters, digits and hyphens stay.
fn anchors(text: &str) -> impl Iterator<Item = String> {
    let prose = prose(text);
    let headings = prose.lines().filter(|line| line.starts_with('#')).map(|line| {
        let heading = line.trim_start_matches('#').trim().to_lowercase().replace(' ', "-");
        heading.chars().filter(|c| c.is_alphanumeric() || "-_".contains(*c)).collect()
    });
    headings.collect::<Vec<String>>().into_iter()
}

/// The text without its blocks of code.
fn prose(text: &str) -> String {
    let mut in_block = false;
    let lines = text.lines().filter(|line| {
        let is_fence = line.starts_with("```");
        in_block ^= is_fence;
        !in_block && !is_fence
    });
    lines.collect::<Vec<_>>().join("\n")
}
