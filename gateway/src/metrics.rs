//! What the gateway does, in numbers: for Prometheus, and for the status page.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::extract::{MatchedPath, Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderName, Method};
use axum::middleware::Next;
use axum::response::Response;
use futures_util::future::join_all;
use tokio::time::{Instant, interval, timeout};

use crate::server::Gateway;
use crate::servers::Server;

/// Upper bounds of the buckets, in seconds; above the last one is one more.
const BOUNDS: [f64; 14] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
/// How often the history gets a sample, and for how long they are kept: ten minutes.
pub const STEP: Duration = Duration::from_secs(5);
const SAMPLES: usize = 120;
const PROBE: Duration = Duration::from_secs(1);

#[derive(Default)]
pub struct Metrics {
    requests: Mutex<BTreeMap<Kind, Durations>>,
    /// Of all requests together, up to then.
    history: Mutex<VecDeque<Durations>>,
}

/// Few: paths are those of the routes, not of the requests.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Kind {
    method: &'static str,
    path: String,
    status: u16,
}

#[derive(Clone, Default)]
pub struct Durations {
    /// How many took as long as each bucket says, the last one longer than all.
    buckets: [u64; BOUNDS.len() + 1],
    seconds: f64,
}

impl Durations {
    fn add(&mut self, seconds: f64) {
        let bucket = BOUNDS.partition_point(|bound| *bound < seconds);
        self.buckets[bucket] += 1;
        self.seconds += seconds;
    }

    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    fn add_all(&mut self, other: &Durations) {
        for (mine, others) in self.buckets.iter_mut().zip(other.buckets) {
            *mine += others;
        }
        self.seconds += other.seconds;
    }

    fn since(&self, earlier: &Durations) -> Durations {
        let mut since = self.clone();
        for (mine, others) in since.buckets.iter_mut().zip(earlier.buckets) {
            *mine -= others;
        }
        since.seconds -= earlier.seconds;
        since
    }

    /// What this share of the requests stayed below, as if those of a bucket were spread
    /// evenly in it; `None` without requests.
    pub fn quantile(&self, share: f64) -> Option<f64> {
        let (mut below, wanted) = (0.0, self.count() as f64 * share);
        for (bucket, count) in self.buckets.iter().map(|count| *count as f64).enumerate() {
            if count > 0.0 && below + count >= wanted {
                let from = if bucket == 0 { 0.0 } else { BOUNDS[bucket - 1] };
                let to = BOUNDS[bucket.min(BOUNDS.len() - 1)];
                return Some(from + (to - from) * (wanted - below) / count);
            }
            below += count;
        }
        None
    }
}

impl Metrics {
    /// Takes samples as long as the gateway runs.
    pub async fn keep_history(&self) {
        let mut ticks = interval(STEP);
        loop {
            ticks.tick().await;
            self.sample();
        }
    }

    fn sample(&self) {
        let mut all = Durations::default();
        locked(&self.requests).values().for_each(|durations| all.add_all(durations));
        let mut history = locked(&self.history);
        if history.len() > SAMPLES {
            history.pop_front();
        }
        history.push_back(all);
    }

    /// What was done in each step, the newest last.
    pub fn history(&self) -> Vec<Durations> {
        let history = locked(&self.history);
        history.iter().zip(history.iter().skip(1)).map(|(from, to)| to.since(from)).collect()
    }

    fn add(&self, kind: Kind, elapsed: Duration) {
        locked(&self.requests).entry(kind).or_default().add(elapsed.as_secs_f64());
    }

    fn write_requests(&self, text: &mut String) {
        let name = "sync_ext_gateway_request_duration_seconds";
        head(text, name, "histogram", "Time until an answer begins.");
        for (kind, durations) in locked(&self.requests).iter() {
            let Kind { method, path, status } = kind;
            let labels = format!("method=\"{method}\",path=\"{path}\",status=\"{status}\"");
            let mut below = 0;
            for (bound, count) in BOUNDS.iter().zip(durations.buckets) {
                below += count;
                let _ = writeln!(text, "{name}_bucket{{{labels},le=\"{bound}\"}} {below}");
            }
            let count = durations.count();
            let _ = writeln!(text, "{name}_bucket{{{labels},le=\"+Inf\"}} {count}");
            let _ = writeln!(text, "{name}_sum{{{labels}}} {}", durations.seconds);
            let _ = writeln!(text, "{name}_count{{{labels}}} {count}");
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn head(text: &mut String, name: &str, kind: &str, help: &str) {
    let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
}

/// Measures a request until its answer begins: a stream is answered at once.
pub async fn measure(
    State(gateway): State<Arc<Gateway>>,
    request: Request,
    next: Next,
) -> Response {
    let path = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
    let (method, path) = (name(request.method()), path.unwrap_or("none").to_owned());
    let begin = Instant::now();
    let response = next.run(request).await;
    let status = response.status().as_u16();
    gateway.metrics.add(Kind { method, path, status }, begin.elapsed());
    response
}

/// Anybody can make up methods.
fn name(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        Method::HEAD => "HEAD",
        _ => "other",
    }
}

/// A name, its kind, its help, and a value.
type Figure = (&'static str, &'static str, &'static str, u64);

/// In the text format of Prometheus.
pub async fn show(
    State(gateway): State<Arc<Gateway>>,
) -> ([(HeaderName, &'static str); 1], String) {
    let (hub, lobby, servers) = (&gateway.hub, &gateway.lobby, &gateway.servers);
    let mut figures = vec![
        ("streams", "gauge", "Open streams.", hub.streams() as u64),
        ("connections", "gauge", "Open connections of clients.", lobby.open() as u64),
        ("connections_max", "gauge", "Their maximum.", gateway.config.max_connections as u64),
        (
            "connections_given_up_total",
            "counter",
            "Connections closed at the maximum, while no request was at work on them.",
            lobby.given_up(),
        ),
    ];
    if let Some(watch) = &servers.map {
        let (readings, failures) = watch.readings();
        figures.extend([
            ("map", "gauge", "Whether there is a map.", watch.map().is_some().into()),
            ("map_readings_total", "counter", "Readings of the map.", readings),
            ("map_failures_total", "counter", "Those that gave none.", failures),
        ]);
    }
    let mut text = String::new();
    gateway.metrics.write_requests(&mut text);
    for figure in figures {
        write(&mut text, &[("", figure)]);
    }
    let of_servers = join_all(servers.iter().map(of_server)).await;
    let labels: Vec<String> = servers.iter().map(label).collect();
    for number in 0..of_servers[0].len() {
        let figures = of_servers.iter().map(|figures| figures[number]);
        write(&mut text, &labels.iter().map(String::as_str).zip(figures).collect::<Vec<_>>());
    }
    ([(CONTENT_TYPE, "text/plain; version=0.0.4")], text)
}

fn label(server: &Server) -> String {
    server.name.as_ref().map(|name| format!("{{server=\"{name}\"}}")).unwrap_or_default()
}

/// The values of one figure, each with its labels.
fn write(text: &mut String, values: &[(&str, Figure)]) {
    let (_, (name, kind, help, _)) = values[0];
    let name = format!("sync_ext_gateway_{name}");
    head(text, &name, kind, help);
    for (labels, (.., value)) in values {
        let _ = writeln!(text, "{name}{labels} {value}");
    }
}

/// The same for each.
async fn of_server(server: &Server) -> Vec<Figure> {
    let pool = server.database.pool();
    let used = pool.size.saturating_sub(pool.available);
    let is_up = is_database_up(server).await;
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let mut figures = vec![
        ("pool_used", "gauge", "Connections to the database in use.", used as u64),
        ("pool_max", "gauge", "Their maximum.", pool.max_size as u64),
        ("pool_waiting", "gauge", "Calls that wait for one.", pool.waiting as u64),
        ("listening", "gauge", "Whether notifications arrive.", server.is_listening().into()),
        ("database_up", "gauge", "Whether the database answers.", is_up.into()),
    ];
    if server.name.is_some() {
        figures.extend([
            (
                "elsewhere_total",
                "counter",
                "Answers that a workspace is elsewhere.",
                count(&server.elsewhere),
            ),
            ("standbys", "gauge", "Its standbys.", server.standbys.len() as u64),
            ("standbys_up", "gauge", "Those that answer.", server.standbys_up() as u64),
            ("standby_reads_total", "counter", "Reads on standbys.", count(&server.standby_reads)),
            (
                "standby_fallbacks_total",
                "counter",
                "Those that the primary had to make again.",
                count(&server.standby_fallbacks),
            ),
        ]);
    }
    figures
}

/// A busy pool says nothing of the database: who listens hears from it all the time.
async fn is_database_up(server: &Server) -> bool {
    let probe = server.database.call(None, "select ''", &[]);
    server.is_listening() || timeout(PROBE, probe).await.is_ok_and(|answer| answer.is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_lie_within_their_bucket() {
        let mut durations = Durations::default();
        assert_eq!(durations.quantile(0.5), None);
        for seconds in [0.3, 0.6, 0.6, 60.0] {
            durations.add(seconds);
        }
        let quantiles = [0.25, 0.5, 0.75, 1.0].map(|share| durations.quantile(share));
        assert_eq!(quantiles, [0.5, 0.75, 1.0, 10.0].map(Some));
    }

    #[test]
    fn history_is_of_each_step_and_bounded() {
        let metrics = Metrics::default();
        let kind = || Kind { method: "GET", path: "/health".into(), status: 200 };
        for count in 0..SAMPLES + 10 {
            (0..count).for_each(|_| metrics.add(kind(), Duration::from_millis(3)));
            metrics.sample();
        }
        let counts: Vec<u64> = metrics.history().iter().map(Durations::count).collect();
        assert_eq!(counts, (10..SAMPLES as u64 + 10).collect::<Vec<u64>>());
    }
}
