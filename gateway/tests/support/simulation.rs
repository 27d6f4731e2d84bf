//! The simulation of moves, with sessions through a gateway that is killed as well.

use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use anyhow::{Result, bail};
use serde_json::{Value, json};
use sync_ext_harness::device::Device;
use sync_ext_proof::common::tally::Tally;
use sync_ext_proof::moves::session::Session;
use sync_ext_proof::moves::{self, DATABASE, Ended, Servers};

use super::process::{Door, Gateway};

/// How long a gateway lives.
const LIFE: Duration = Duration::from_secs(3);

/// Runs it from this seed for so long. An error is a violation.
pub fn run(servers: &Servers, seed: u64, time: Duration) -> Result<Tally> {
    servers.tell_map()?;
    let urls = servers.clusters.iter().enumerate().map(|(number, cluster)| {
        let url = cluster.connection_string("postgres", DATABASE);
        json!({"name": moves::name(number), "url": url})
    });
    let (urls, map) = (Value::Array(urls.collect()).to_string(), servers.map_file());
    let settings = [
        ("DATABASE_URLS", &*urls),
        ("GATEWAY_MAP", map.to_str().expect("its name is text")),
        ("GATEWAY_TRUSTED", "on"),
    ];
    let mut gateway = Gateway::start("", &settings);
    let door: &Door = &gateway.clone();
    thread::scope(|scope| {
        let (over, is_over) = channel::<()>();
        let killer = scope.spawn(move || {
            let mut kills = 0;
            while is_over.recv_timeout(LIFE) == Err(RecvTimeoutError::Timeout) {
                gateway.kill();
                gateway = gateway.start_again("", &settings);
                kills += 1;
            }
            kills
        });
        let ran = moves::run(servers, seed, time, Some(&|| Box::new(door.clone())));
        drop(over);
        let mut tally = ran?;
        tally.add("gateways killed", killer.join().expect("it does not panic"));
        Ok(tally)
    })
}

impl Session for Door {
    fn push(&mut self, device: &Device, ops: &str) -> Result<String> {
        reply(self, device, "push", ops)
    }

    fn pull(&mut self, device: &Device, limit: i32) -> Result<String> {
        let Device { cursor, proof, .. } = device;
        reply(
            self,
            device,
            "pull",
            &json!({"cursor": cursor, "pageLimit": limit, "proof": proof}).to_string(),
        )
    }

    fn acknowledge(&mut self, device: &Device) -> Result<()> {
        let body = json!({"deviceId": device.id, "version": device.cursor});
        reply(self, device, "cursor", &body.to_string()).map(drop)
    }

    fn workspaces(&mut self) -> Result<String> {
        Ok(self.get("/workspaces", None).body)
    }
}

fn reply(door: &Door, device: &Device, call: &str, body: &str) -> Result<String> {
    let path = format!("/workspaces/{}/{call}", device.workspace);
    match door.try_post(&path, None, body) {
        Ok(answer) if answer.status == 200 => Ok(answer.body),
        Ok(answer) if answer.status == 503 && answer.code() == "SX004" => bail!(Ended::Elsewhere),
        Ok(answer) if answer.status == 503 => bail!(Ended::Cut),
        Ok(answer) => bail!("{path}: {answer:?}"),
        // The gateway was killed.
        Err(_) => bail!(Ended::Cut),
    }
}
