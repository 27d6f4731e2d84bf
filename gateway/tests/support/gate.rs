//! A gate between the gateway and the database, at which a LISTEN can be held.

use std::fs;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;

use sync_ext_harness::cluster::Cluster;

use super::process::PATIENCE;

/// Stands where libpq and its like look for a server.
pub struct Gate {
    folder: PathBuf,
    database: String,
    passage: Arc<Mutex<()>>,
    arrived: Receiver<()>,
}

impl Gate {
    pub fn before(cluster: &Cluster, database: &str) -> Gate {
        let [(_, host), (_, port), ..] = cluster.environment("gateway", database);
        let socket = format!(".s.PGSQL.{port}");
        let folder = std::env::temp_dir().join(format!("gate-{}-{database}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
        let listener = UnixListener::bind(folder.join(&socket)).unwrap();
        let server = Path::new(&host).join(socket);
        let database = format!("port={port} user=gateway dbname={database}");
        let (passage, (sender, arrived)) = (Arc::new(Mutex::new(())), channel());
        let keys = passage.clone();
        thread::spawn(move || {
            while let Ok((client, _)) = listener.accept() {
                pass(client, &server, keys.clone(), sender.clone());
            }
        });
        Gate { folder, database, passage, arrived }
    }

    /// Where one passes it.
    pub fn url(&self) -> String {
        format!("host='{}' {}", self.folder.display(), self.database)
    }

    /// Every LISTEN waits until this is dropped.
    pub fn close(&self) -> MutexGuard<'_, ()> {
        // Those that have passed already.
        while self.arrived.try_recv().is_ok() {}
        self.passage.lock().unwrap()
    }

    pub fn until_one_waits(&self) {
        self.arrived.recv_timeout(PATIENCE).expect("a LISTEN comes to the gate");
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn pass(client: UnixStream, server: &Path, passage: Arc<Mutex<()>>, arrived: Sender<()>) {
    let Ok(server) = UnixStream::connect(server) else { return };
    let (from_client, from_server) = (client.try_clone().unwrap(), server.try_clone().unwrap());
    thread::spawn(move || {
        forward(from_client, server, |message| {
            if message.windows(8).any(|bytes| bytes == b"listen \"") {
                let _ = arrived.send(());
                drop(passage.lock().unwrap());
            }
        });
    });
    thread::spawn(move || forward(from_server, client, |_| {}));
}

/// Passes on what is said, until one of the two ends it.
fn forward(mut from: UnixStream, mut to: UnixStream, look_at: impl Fn(&[u8])) {
    let mut buffer = [0; 8_192];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        look_at(&buffer[..length]);
        if to.write_all(&buffer[..length]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
    let _ = from.shutdown(Shutdown::Both);
}
