//! Many streams and many pushes for minutes, with fsync on, while the database is stopped and
//! started: each op must be stored once and delivered once to every stream of its workspace,
//! in order, and the gateway's memory must not grow. The argument `short` runs a small form.

#[path = "../tests/support/mod.rs"]
mod support;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::SeqCst};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use support::connection::Connection;
use support::process::{Door, Gateway, until};
use support::stand::Stand;
use support::stream::{Event, Said, read};
use sync_ext_harness::batch::{op_id, put, versions};
use sync_ext_harness::cluster::{Cluster, Stop};

const DATABASE: &str = "soak";
const PUSHERS: usize = 32;
/// How long a client waits before it connects or pushes again.
const PAUSE: Duration = Duration::from_secs(1);
/// How long the database is gone each time.
const DOWN: Duration = Duration::from_secs(2);

struct Load {
    streams: usize,
    workspaces: usize,
    time: Duration,
    stops: &'static [Stop],
    /// In seconds: streams end at this age, and their clients connect again, all at once. The
    /// memory is first read after a few such times, because they enlarge it.
    stream_age: &'static str,
    /// Whether the time is long enough to judge the memory.
    bounds_memory: bool,
}

const LONG: Load = Load {
    streams: 2_000,
    workspaces: 200,
    time: Duration::from_secs(300),
    stops: &[Stop::Cleanly, Stop::Immediately],
    stream_age: "25",
    bounds_memory: true,
};

const SHORT: Load = Load {
    streams: 200,
    workspaces: 20,
    time: Duration::from_secs(15),
    stops: &[Stop::Immediately],
    stream_age: "4",
    bounds_memory: false,
};

/// What the threads of a soak share.
struct Soak<'a> {
    load: &'a Load,
    door: Door,
    is_over: AtomicBool,
    /// How far each stream is.
    cursors: Vec<AtomicI64>,
    events: AtomicU64,
    connections: AtomicU64,
    /// Streams that were cut, not ended by the gateway.
    cut: AtomicU64,
    next_op: AtomicU64,
    /// Pushes without an answer, or with 503, which are repeated.
    unanswered: AtomicU64,
}

/// An op that was pushed or stored: its workspace and version, by opId.
type Ops = HashMap<String, (String, i64)>;

fn main() -> Result<()> {
    let load = if std::env::args().any(|argument| argument == "short") { SHORT } else { LONG };
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    ensure!(most > 2 * load.streams as u64, "the file limit is too low: {most}");
    setrlimit(Resource::RLIMIT_NOFILE, most, most)?;
    let mut cluster = Cluster::start("gateway-soak", &["shared_preload_libraries=sync_ext"])?;
    let connections = (2 * load.streams).to_string();
    let settings = [
        ("GATEWAY_TRUSTED", "on"),
        ("GATEWAY_MAX_CONNECTIONS", &connections),
        ("GATEWAY_STREAM_AGE", load.stream_age),
    ];
    let Stand { gateway, mut admin, .. } = Stand::new(&cluster, DATABASE, &settings);
    let create =
        "select count(sync_create_workspace('w' || n, 'ann')) from generate_series(0, $1) n";
    admin.query_one(create, &[&(load.workspaces as i32 - 1)])?;
    drop(admin);
    run(&mut cluster, gateway, &load)
}

fn run(cluster: &mut Cluster, gateway: Gateway, load: &Load) -> Result<()> {
    let soak = &Soak {
        load,
        door: gateway.clone(),
        is_over: AtomicBool::new(false),
        cursors: (0..load.streams).map(|_| AtomicI64::new(0)).collect(),
        events: AtomicU64::new(0),
        connections: AtomicU64::new(0),
        cut: AtomicU64::new(0),
        next_op: AtomicU64::new(1),
        unanswered: AtomicU64::new(0),
    };
    thread::scope(|scope| {
        // On every way out it is dropped, which ends the streams' threads.
        let gateway = gateway;
        for number in 0..load.streams {
            scope.spawn(move || soak.follow(number));
        }
        gateway.until_streams(load.streams as u64);
        let start = Instant::now();
        let pushers: Vec<_> =
            (0..PUSHERS).map(|_| scope.spawn(move || soak.push_until(start + load.time))).collect();
        let until_share = |part: u32, of: u32| {
            sleep((start + load.time * part / of).saturating_duration_since(Instant::now()));
        };
        until_share(1, 5);
        let early = gateway.memory("VmRSS");
        let stops = load.stops.len() as u32;
        for (number, &stop) in (1..).zip(load.stops) {
            until_share(number, stops + 1);
            cluster.stop_server(stop)?;
            sleep(DOWN);
            cluster.start_server()?;
        }
        let pushed: Ops = pushers.into_iter().flat_map(|pusher| pusher.join().unwrap()).collect();
        let time = start.elapsed();

        let heads = heads(cluster)?;
        let stored = stored(cluster, &heads)?;
        assert!(stored == pushed, "what is stored is not what was pushed");
        until("the streams have come to the heads", || soak.are_at(&heads));
        // A second delivery would come later.
        sleep(PAUSE);
        gateway.until_streams(load.streams as u64);
        gateway.until_waiting(0);
        assert!(gateway.get("/metrics", None).body.contains("\nsync_ext_gateway_pool_used 0\n"));
        let (late, peak) = (gateway.memory("VmRSS"), gateway.memory("VmHWM"));
        soak.is_over.store(true, SeqCst);
        soak.tell(stored.len(), time);
        println!(
            "  the gateway's memory: {early} kB after {:.0} s, {peak} kB at most, \
             {late} kB at the end",
            (load.time / 5).as_secs_f64()
        );
        if load.bounds_memory {
            ensure!(late * 5 <= early * 6, "the gateway grows");
        }
        Ok(())
    })
}

impl Soak<'_> {
    /// Follows a workspace, from the start until the soak is over.
    fn follow(&self, number: usize) {
        let workspace = number % self.load.workspaces;
        let (cursor, mut proof) = (&self.cursors[number], String::new());
        loop {
            let at = cursor.load(SeqCst);
            let path = format!("/workspaces/w{workspace}/live?cursor={at}{proof}");
            let answer = Connection::open(&self.door).and_then(|new| new.stream(&path));
            let Ok((status, stream)) = answer else {
                return assert!(self.is_over.load(SeqCst), "{:?}", answer.err());
            };
            assert_eq!(status, 200);
            self.connections.fetch_add(1, SeqCst);
            read(stream, |said| {
                match said {
                    Said::Event(event) => proof = self.receive(cursor, &event),
                    Said::End { whole: false } => _ = self.cut.fetch_add(1, SeqCst),
                    Said::Comment(_) | Said::End { whole: true } => {}
                }
                true
            });
            if self.is_over.load(SeqCst) {
                return;
            }
            sleep(PAUSE);
        }
    }

    /// Demands the versions right after the cursor, and moves it. Returns the proof for the
    /// next request's query.
    fn receive(&self, cursor: &AtomicI64, event: &Event) -> String {
        let versions = event.versions();
        let last = cursor.load(SeqCst) + versions.len() as i64;
        assert!(versions.into_iter().eq(cursor.load(SeqCst) + 1..=last), "{event:?}");
        assert_eq!(event.cursor(), last);
        cursor.store(last, SeqCst);
        self.events.fetch_add(1, SeqCst);
        format!("&proof={}", event.json()["proof"].as_str().expect("a proof"))
    }

    /// Pushes one op after the other, each until it is answered.
    fn push_until(&self, end: Instant) -> Ops {
        let (mut connection, mut pushed) = (None, Ops::new());
        while Instant::now() < end {
            let id = self.next_op.fetch_add(1, SeqCst);
            // A multiplicative hash spreads them as well as chance.
            let workspace = (id.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as usize;
            let workspace = format!("w{}", workspace % self.load.workspaces);
            let path = format!("/workspaces/{workspace}/push");
            let body = format!("[{}]", put(id, &format!("r{}", id % 1_000), id));
            let mut version = None;
            until("the op is pushed", || {
                version = self.try_push(&mut connection, &path, &body);
                if version.is_none() {
                    self.unanswered.fetch_add(1, SeqCst);
                    sleep(PAUSE / 10);
                }
                version.is_some()
            });
            pushed.insert(op_id(id), (workspace, version.unwrap()));
        }
        pushed
    }

    /// The version, if there is an answer.
    fn try_push(&self, held: &mut Option<Connection>, path: &str, body: &str) -> Option<i64> {
        let mut connection = held.take().or_else(|| Connection::open(&self.door).ok())?;
        let answer = connection.post(path, body).ok()?;
        *held = Some(connection);
        match answer.status {
            200 => Some(versions(&answer.body, "results")[0]),
            503 => None,
            _ => panic!("pushing: {answer:?}"),
        }
    }

    fn are_at(&self, heads: &HashMap<String, i64>) -> bool {
        let at_head = |(number, cursor): (usize, &AtomicI64)| {
            cursor.load(SeqCst) == heads[&format!("w{}", number % self.load.workspaces)]
        };
        self.cursors.iter().enumerate().all(at_head)
    }

    fn tell(&self, stored: usize, time: Duration) {
        let Load { streams, workspaces, stops, .. } = self.load;
        let (delivered, seconds) =
            (self.cursors.iter().map(|at| at.load(SeqCst)).sum::<i64>(), time.as_secs_f64());
        println!(
            "{streams} streams of {workspaces} workspaces, {PUSHERS} pushers, {seconds:.0} s, the \
             database stopped {} times:",
            stops.len()
        );
        println!(
            "  {stored} ops pushed and stored once, {:.0}/s; {} pushes without an answer, repeated",
            stored as f64 / seconds,
            self.unanswered.load(SeqCst)
        );
        println!(
            "  {delivered} versions delivered in {} events, {:.0}/s, none lost, none twice; \
             {} reconnections, {} of them after a cut",
            self.events.load(SeqCst),
            self.events.load(SeqCst) as f64 / seconds,
            self.connections.load(SeqCst) - *streams as u64,
            self.cut.load(SeqCst)
        );
    }
}

fn heads(cluster: &Cluster) -> Result<HashMap<String, i64>> {
    let sql = "select workspace_id, head from sync_ext.workspace where workspace_id <> 'team'";
    let rows = cluster.connect(DATABASE)?.query(sql, &[])?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}

/// All stored ops. A workspace has a version once, by its primary key. So if none is above the
/// head, and there are as many as the heads add up to, none is missing.
fn stored(cluster: &Cluster, heads: &HashMap<String, i64>) -> Result<Ops> {
    let sql = "select op_id::text, workspace_id, server_version
                 from sync_ext.change_log join sync_ext.workspace using (workspace_key)";
    let rows = cluster.connect(DATABASE)?.query(sql, &[])?;
    let ops: Ops = rows.iter().map(|row| (row.get(0), (row.get(1), row.get(2)))).collect();
    assert_eq!(ops.len(), rows.len(), "an op is stored twice");
    assert!(ops.values().all(|(workspace, version)| (1..=heads[workspace]).contains(version)));
    assert_eq!(ops.len() as i64, heads.values().sum::<i64>(), "a version is missing");
    Ok(ops)
}
