//! The gateway beside a throw-away cluster, until Ctrl-C.

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sync_ext_harness::cluster::Cluster;

#[path = "../tests/support/team.rs"]
mod team;

fn main() -> Result<()> {
    let (interrupt, interrupted) = channel();
    ctrlc::set_handler(move || {
        let _ = interrupt.send(());
    })?;
    println!("starting a throw-away cluster");
    let cluster = Cluster::start("gateway", &[])?;
    team::prepare(&mut cluster.create_database("app")?, "app")?;
    let mut gateway = start_gateway(&cluster.connection_string("gateway", "app"))?;
    let result =
        serve(&mut gateway, || match interrupted.recv_timeout(Duration::from_millis(100)) {
            Err(RecvTimeoutError::Timeout) => false,
            Ok(()) | Err(RecvTimeoutError::Disconnected) => true,
        });
    kill(Pid::from_raw(gateway.id() as i32), Signal::SIGTERM)?;
    gateway.wait()?;
    result
}

/// In a group of its own: Ctrl-C is for us, who then stop one after the other.
fn start_gateway(url: &str) -> Result<Child> {
    let programs = std::env::current_exe()?;
    let programs = programs.ancestors().nth(2).context("no folder of programs")?;
    Command::new(programs.join("sync_ext_gateway"))
        .env("DATABASE_URL", url)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .process_group(0)
        .spawn()
        .context("cannot start the gateway")
}

fn serve(gateway: &mut Child, mut is_over: impl FnMut() -> bool) -> Result<()> {
    let mut url = String::new();
    BufReader::new(gateway.stdout.take().context("its output")?).read_line(&mut url)?;
    if url.is_empty() {
        bail!("the gateway did not start");
    }
    let url = format!("{}/workspaces/team", url.trim_end());
    println!(
        "\nThe gateway serves the team of ann, bob and vic (who may only read). Watch as ann:\n\n  \
         curl -N -H 'x-user-id: ann' {url}/live\n\n\
         and push as bob, from another terminal, as often as you like:\n\n  \
         curl -H 'x-user-id: bob' -H 'content-type: application/json' {url}/push -d '[{{\"tableName\":\"notes\",\"operation\":\"put\",\
         \"pk\":\"n1\",\"payload\":{{\"text\":\"milk\"}},\"stamp\":{{\"deviceId\":\"phone\",\
         \"opId\":\"'$(cat /proc/sys/kernel/random/uuid)'\",\"hlc\":\"h\",\
         \"clock\":'$(date +%s)'}}}}]'\n\n\
         Ctrl-C stops it and removes everything."
    );
    while !is_over() {
        if let Some(status) = gateway.try_wait()? {
            bail!("the gateway ended: {status}");
        }
    }
    Ok(())
}
