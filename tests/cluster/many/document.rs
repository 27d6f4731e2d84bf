//! docs/scaling.md, executed from bare servers on: its blocks in order, each where the second
//! word of its fence says, and what they print compared with the block that follows. With
//! SYNC_EXT_ACCEPT set, what differs is written there instead.

use std::fs;
use std::path::Path;

use regex::Regex;
use sync_ext_harness::bouncer::Bouncer;
use sync_ext_harness::cluster::Cluster;
use sync_ext_harness::document::print;
use sync_ext_harness::replica::until_replayed;
use sync_ext_harness::router::install;

use super::Servers;

struct World {
    servers: Servers,
    standby: Option<Cluster>,
    bouncer: Option<Bouncer>,
}

#[test]
fn the_guide_sets_up_several_servers() {
    let Some(servers) = Servers::start("guide", 3) else { return };
    for cluster in &servers.shards {
        cluster.connect("postgres").unwrap().batch_execute("create database app").unwrap();
    }
    servers.router.connect("postgres").unwrap().batch_execute("create database router").unwrap();
    let mut world = World { servers, standby: None, bouncer: None };

    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/scaling.md");
    let text = fs::read_to_string(&path).unwrap();
    let (mut accepted, mut executed) = (String::new(), 0);
    // The language of the block that a line is in, the block so far, and what the last one
    // printed.
    let (mut fence, mut block, mut printed) = (None, String::new(), String::new());
    for line in text.split_inclusive('\n') {
        match (line.strip_prefix("```").map(str::trim_end), fence) {
            (None, Some(_)) => block += line,
            (Some(opened), None) => fence = Some(opened),
            (Some(_), Some("text")) => {
                let is_accepted = std::env::var_os("SYNC_EXT_ACCEPT").is_some();
                assert!(is_accepted || printed == block, "{printed}\ninstead of\n{block}");
                accepted += &std::mem::take(&mut printed);
                (fence, block) = (None, String::new());
            }
            (Some(_), Some(place)) => {
                assert_eq!(printed.trim(), "", "and no block of text follows");
                printed = world.execute(place, &block);
                executed += 1;
                accepted += &std::mem::take(&mut block);
                fence = None;
            }
            (None, None) => {}
        }
        if fence.is_none() || line.starts_with("```") {
            accepted += line;
        }
    }
    assert!(executed > 12, "{executed} blocks");
    if accepted != text {
        fs::write(path, accepted).unwrap();
    }
}

impl World {
    /// What the block prints.
    fn execute(&mut self, fence: &str, block: &str) -> String {
        let router = &self.servers.router;
        match fence {
            "sh router" => {
                assert!(block.contains("/contrib/sync_ext/router.sql"));
                install(router, "router").unwrap();
                String::new()
            }
            // Executed by the tests of `moves`; here only what it is called with.
            "sh tools" => {
                let of_script = Regex::new(r"contrib/sync_ext/(\w+\.sh)").unwrap();
                let script = &of_script.captures(block).unwrap()[1];
                let (_, options) = block.split_once(".sh").unwrap();
                let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tools");
                let script = fs::read_to_string(tools.join(script)).unwrap();
                let usage: Vec<&str> =
                    script.lines().take_while(|line| line.starts_with('#')).collect();
                for option in Regex::new(r"--[a-z][a-z-]+").unwrap().find_iter(options) {
                    assert!(usage.join("\n").contains(option.as_str()), "{}", option.as_str());
                }
                String::new()
            }
            "ini" => {
                self.bouncer = Bouncer::with(|port| {
                    let users = std::env::temp_dir().join(format!("pgbouncer-{port}.users"));
                    fs::write(&users, "\"postgres\" \"\"\n\"backend\" \"\"\n\"web\" \"\"\n")
                        .unwrap();
                    let ini = self.here(block).replace("6432", &port.to_string());
                    format!(
                        "{ini}unix_socket_dir =\nauth_type = trust\nauth_file = {}\n",
                        users.display()
                    )
                });
                String::new()
            }
            "sql router" => {
                if block.contains("sync_reads") && self.standby.is_none() {
                    self.add_standby();
                }
                print(&self.servers.router, "router", &self.here(block)).unwrap()
            }
            "sql shards" => {
                let shards = self.servers.shards.iter();
                let printed = shards.map(|shard| print(shard, "app", &self.here(block)).unwrap());
                let printed: Vec<String> = printed.collect();
                assert!(printed.iter().all(|other| *other == printed[0]), "{printed:?}");
                printed[0].clone()
            }
            other => {
                let shard = other.strip_prefix("sql shard ").and_then(|number| number.parse().ok());
                let shard: usize = shard.unwrap_or_else(|| panic!("where? {other}"));
                print(&self.servers.shards[shard], "app", &self.here(block)).unwrap()
            }
        }
    }

    fn add_standby(&mut self) {
        let standby = self.servers.shards[0].standby("guide-standby").unwrap();
        let mut primary = self.servers.shards[0].connect("app").unwrap();
        until_replayed(&mut primary, &mut standby.connect("app").unwrap());
        self.standby = Some(standby);
    }

    /// With the hosts and ports of these servers.
    fn here(&self, block: &str) -> String {
        let named = |name: String, cluster: &Cluster| {
            let [(_, host), (_, port), ..] = cluster.environment("", "");
            (format!("host={name}.internal "), format!("host={host} port={port} "))
        };
        let shards = self.servers.shards.iter().enumerate();
        let mut hosts: Vec<(String, String)> =
            shards.map(|(number, shard)| named(format!("shard-{number}"), shard)).collect();
        hosts.extend(
            self.standby.iter().map(|standby| named("shard-0-standby".to_owned(), standby)),
        );
        hosts.extend(
            self.bouncer.iter().map(|b| ("port=6432".to_owned(), format!("port={}", b.port))),
        );
        hosts.iter().fold(block.to_owned(), |block, (name, here)| block.replace(name, here))
    }
}
