//! The status page: HTML as a browser shows it, without scripts. All text from elsewhere
//! is escaped.

use std::fmt::{self, Display, Formatter, Write};

use axum::http::header::{
    ACCEPT, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;

use crate::caller::Caller;
use crate::calls::json;
use crate::chart;
use crate::failure::Failure;
use crate::metrics::{Durations, STEP};
use crate::server::Gateway;
use crate::servers::Server;

const STATUS: &str = "select sync_status()::text";
const CONFLICTS: &str = "select coalesce(json_agg(c), '[]')::text from (
    select workspace_id as \"workspaceId\", table_name as \"tableName\", pk,
           decided_by as \"decidedBy\", overwritten, loser_version as \"loserVersion\",
           loser_device_id as \"loserDevice\", winner_version as \"winnerVersion\",
           winner_device_id as \"winnerDevice\", count(*) over () as total,
           extract(epoch from loser_at) as seconds
      from sync_ext.conflict order by loser_at desc limit 20) c";
const STYLE: &str = include_str!("page.css");
/// Of many, those with the most to say.
const MOST_WORKSPACES: usize = 50;
const MOST_DEVICES: usize = 100;
const MOST_CONFLICTS: usize = 20;

#[derive(Deserialize)]
struct Status {
    workspaces: Vec<Workspace>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Workspace {
    workspace_id: String,
    server_version: i64,
    live_records: i64,
    tombstones: i64,
    graves: i64,
    log_rows: i64,
    log_bytes: i64,
    garbage_waiting: i64,
    pinned_at: Option<i64>,
    pinned_by: Option<String>,
    devices: Vec<Device>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Device {
    device_id: String,
    user_id: Option<String>,
    last_seen_version: i64,
    lag: i64,
    heartbeat_age_seconds: f64,
    active: bool,
    pins_gc: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Conflict {
    workspace_id: String,
    table_name: String,
    pk: String,
    decided_by: Option<String>,
    overwritten: bool,
    loser_version: i64,
    loser_device: Option<String>,
    winner_version: i64,
    winner_device: Option<String>,
    total: i64,
    /// Since 1970.
    seconds: f64,
}

/// For people; the reply of sync_status itself for who asks for JSON.
pub async fn show(caller: Caller, headers: HeaderMap) -> Result<Response, Failure> {
    let servers = &caller.gateway.servers;
    let accepted = headers.get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or("");
    if accepted.contains("application/json") {
        return Ok(json(caller.call_all(STATUS).await).into_response());
    }
    let (replies, missing) = of_those_up(&caller, STATUS).await?;
    let status: Status = parsed(&servers.merged(replies)?)?;
    let conflicts = match of_those_up(&caller, CONFLICTS).await {
        Ok((replies, _)) => Some(newest(&replies)?),
        Err(failure) if failure.status == StatusCode::FORBIDDEN => None,
        Err(failure) => return Err(failure),
    };
    let mut html = String::new();
    // Writing to a string does not fail.
    let _ = page(&mut html, &caller, &missing, status.workspaces, conflicts);
    let headers = [
        (CONTENT_TYPE, "text/html; charset=utf-8"),
        (
            CONTENT_SECURITY_POLICY,
            "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
        ),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (CACHE_CONTROL, "no-store"),
    ];
    Ok((headers, html).into_response())
}

/// With the numbers of their servers.
type Replies = Vec<(usize, String)>;

/// The replies of the servers, and the names of those that have none now.
async fn of_those_up(caller: &Caller, sql: &str) -> Result<(Replies, Vec<String>), Failure> {
    let (servers, user) = (&caller.gateway.servers, caller.user.as_deref());
    let (mut replies, mut missing, mut last) = (Vec::new(), Vec::new(), None);
    for (number, answer) in servers.call_each(user, sql).await.into_iter().enumerate() {
        match answer {
            Ok(reply) => replies.push((number, reply)),
            Err(failure) if failure.is_passing() => {
                missing.extend(servers[number].name.clone());
                last = Some(failure);
            }
            Err(failure) => return Err(failure),
        }
    }
    match last {
        Some(failure) if replies.is_empty() => Err(failure),
        _ => Ok((replies, missing)),
    }
}

/// The newest conflicts of all servers, and how many there are.
fn newest(replies: &Replies) -> Result<(Vec<Conflict>, usize), Failure> {
    let (mut conflicts, mut total) = (Vec::new(), 0);
    for (_, reply) in replies {
        let listed: Vec<Conflict> = parsed(reply)?;
        total += listed.first().map_or(0, |conflict| conflict.total as usize);
        conflicts.extend(listed);
    }
    conflicts.sort_by(|one, other| other.seconds.total_cmp(&one.seconds));
    conflicts.truncate(MOST_CONFLICTS);
    Ok((conflicts, total))
}

fn parsed<'r, T: Deserialize<'r>>(reply: &'r str) -> Result<T, Failure> {
    serde_json::from_str(reply).map_err(|error| Failure::internal("XX000", error))
}

/// Text from elsewhere, as it is.
struct Text<'t>(&'t str);

impl Display for Text<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for char in self.0.chars() {
            match char {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                // Would change the direction of what comes after it.
                '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => f.write_char('\u{fffd}')?,
                other => f.write_char(other)?,
            }
        }
        Ok(())
    }
}

fn page(
    html: &mut String,
    caller: &Caller,
    missing: &[String],
    workspaces: Vec<Workspace>,
    conflicts: Option<(Vec<Conflict>, usize)>,
) -> fmt::Result {
    let who = match &caller.user {
        Some(user) => format!("the workspaces that {} owns", Text(user)),
        None => "all workspaces".into(),
    };
    write!(
        html,
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <title>sync_ext status</title><style>{STYLE}</style></head><body>\
         <h1>sync_ext status</h1><p class=\"dim\">This gateway, and {who}</p><h2>Gateway</h2>"
    )?;
    gateway(html, &caller.gateway)?;
    if !missing.is_empty() {
        let names = missing.join(", ");
        write!(html, "<p class=\"warn\">Not shown, because no answer came: {}</p>", Text(&names))?;
    }
    of_workspaces(html, workspaces)?;
    of_conflicts(html, conflicts)?;
    html.write_str("</body></html>")
}

fn gateway(html: &mut String, gateway: &Gateway) -> fmt::Result {
    let mut cards = vec![
        ("Open streams", gateway.hub.streams().to_string()),
        ("Connections", format!("{} of {}", gateway.lobby.open(), gateway.config.max_connections)),
    ];
    let servers = &gateway.servers;
    if let [server] = &servers[..] {
        let [listening, used, waiting] = of_server(server);
        cards.insert(0, ("Notifications arrive", listening));
        cards.extend([("Database connections in use", used), ("Calls waiting for one", waiting)]);
    }
    html.write_str("<div class=\"row\">")?;
    for (name, value) in cards {
        write!(html, "<p class=\"card\"><b>{value}</b><span class=\"dim\">{name}</span></p>")?;
    }
    let history = gateway.metrics.history();
    let series = |of: &dyn Fn(&Durations) -> Option<f64>| history.iter().map(of).collect();
    let rates = series(&|step| Some(step.count() as f64 / STEP.as_secs_f64()));
    let (median, p95) = (series(&|step| step.quantile(0.5)), series(&|step| step.quantile(0.95)));
    let rate = chart::lines("Requests", &[("now", rates)], |rate| format!("{rate:.1}/s"));
    let latency =
        chart::lines("Time to an answer", &[("median", median), ("95 % below", p95)], |s| {
            format!("{:.1} ms", s * 1000.0)
        });
    write!(html, "</div><div class=\"row wide\">{rate}{latency}</div>")?;
    if servers.len() > 1 { of_servers(html, servers) } else { Ok(()) }
}

/// Whether its notifications arrive, its connections in use, and the calls that wait for one.
fn of_server(server: &Server) -> [String; 3] {
    let pool = server.database.pool();
    let used = pool.size.saturating_sub(pool.available);
    let listening = match server.is_listening() {
        true => "yes",
        false => "<span class=\"warn\">no: changes arrive late</span>",
    };
    [listening.to_owned(), format!("{used} of {}", pool.max_size), pool.waiting.to_string()]
}

fn of_servers(html: &mut String, servers: &[Server]) -> fmt::Result {
    write!(html, "<h2>Servers {}</h2>", shown(servers.len(), servers.len()))?;
    table(
        html,
        "~Server|~Notifications arrive|Connections in use|Calls waiting for one|Standbys up",
    )?;
    for server in servers {
        let [listening, used, waiting] = of_server(server);
        write!(
            html,
            "<tr><td class=\"text\">{}</td><td class=\"text\">{listening}</td><td>{used}</td>\
             <td>{waiting}</td><td>{} of {}</td></tr>",
            Text(server.name.as_deref().unwrap_or("")),
            server.standbys_up(),
            server.standbys.len(),
        )?;
    }
    html.write_str("</table></div>")
}

fn of_workspaces(html: &mut String, mut workspaces: Vec<Workspace>) -> fmt::Result {
    let count = workspaces.len();
    workspaces.sort_by_key(|workspace| (-workspace.garbage_waiting, -workspace.log_rows));
    workspaces.truncate(MOST_WORKSPACES);
    write!(html, "<h2>Workspaces {}</h2>", shown(workspaces.len(), count))?;
    table(
        html,
        "~Workspace|Version|Live|Tombstones|Graves|Log rows|Log size|Garbage|~GC waits for",
    )?;
    for workspace in &workspaces {
        let waits = match (&workspace.pinned_by, workspace.pinned_at) {
            (Some(device), Some(at)) => format!("{} at {}", Text(device), grouped(at)),
            _ => "<span class=\"dim\">no device</span>".into(),
        };
        write!(html, "<tr><td class=\"text\">{}</td>", Text(&workspace.workspace_id))?;
        for number in [
            workspace.server_version,
            workspace.live_records,
            workspace.tombstones,
            workspace.graves,
            workspace.log_rows,
        ] {
            write!(html, "<td>{}</td>", grouped(number))?;
        }
        let (size, garbage) = (bytes(workspace.log_bytes), grouped(workspace.garbage_waiting));
        write!(html, "<td>{size}</td><td>{garbage}</td><td class=\"text\">{waits}</td></tr>")?;
    }
    html.write_str("</table></div>")?;
    of_devices(html, &workspaces)
}

fn of_devices(html: &mut String, workspaces: &[Workspace]) -> fmt::Result {
    let of = |workspace| Workspace::devices_of(workspace);
    let mut devices: Vec<(&Workspace, &Device)> = workspaces.iter().flat_map(of).collect();
    let count = devices.len();
    devices.sort_by_key(|(_, device)| (!device.pins_gc, -device.lag));
    devices.truncate(MOST_DEVICES);
    write!(html, "<h2>Devices {}</h2>", shown(devices.len(), count))?;
    table(html, "~Device|~User|~Workspace|Cursor|Lag|~|Last heard of|~State")?;
    let most = devices.iter().map(|(_, device)| device.lag).max().unwrap_or(0).max(1);
    for (workspace, device) in devices {
        let state = match (device.pins_gc, device.active) {
            (true, _) => "<span class=\"warn tag\">holds GC back</span>",
            (false, true) => "active",
            (false, false) => "<span class=\"dim\">inactive</span>",
        };
        write!(
            html,
            "<tr><td class=\"text\">{}</td><td class=\"text\">{}</td><td class=\"text\">{}</td>\
             <td>{}</td><td>{}</td><td class=\"text\"><span class=\"bar\" \
             style=\"width:{}px\"></span></td><td>{}</td><td class=\"text\">{state}</td></tr>",
            Text(&device.device_id),
            Text(device.user_id.as_deref().unwrap_or("")),
            Text(&workspace.workspace_id),
            grouped(device.last_seen_version),
            grouped(device.lag),
            device.lag.max(0) * 80 / most,
            age(device.heartbeat_age_seconds),
        )?;
    }
    html.write_str("</table></div>")
}

impl Workspace {
    fn devices_of(&self) -> impl Iterator<Item = (&Workspace, &Device)> {
        self.devices.iter().map(move |device| (self, device))
    }
}

fn of_conflicts(html: &mut String, conflicts: Option<(Vec<Conflict>, usize)>) -> fmt::Result {
    let Some((conflicts, count)) = conflicts else {
        return html.write_str(
            "<h2>Conflicts</h2><p class=\"dim\">Not shown: the gateway's role may not read \
             sync_ext.conflict.</p>",
        );
    };
    write!(html, "<h2>Conflicts {}</h2>", shown(conflicts.len(), count))?;
    table(html, "~Workspace|~Table|~Record|~Lost|~To|~Decided by")?;
    for conflict in conflicts {
        let decided = match (conflict.overwritten, conflict.decided_by.as_deref()) {
            (true, _) => "overwritten unseen",
            (false, by) => by.unwrap_or("the same op"),
        };
        html.write_str("<tr>")?;
        let side = |version: i64, device: &Option<String>| {
            let device = device.as_deref().map(|device| format!(" of {device}"));
            format!("{version}{}", device.unwrap_or_default())
        };
        for text in [
            &conflict.workspace_id,
            &conflict.table_name,
            &conflict.pk,
            &side(conflict.loser_version, &conflict.loser_device),
            &side(conflict.winner_version, &conflict.winner_device),
            decided,
        ] {
            write!(html, "<td class=\"text\">{}</td>", Text(text))?;
        }
        html.write_str("</tr>")?;
    }
    html.write_str("</table></div>")
}

/// Its head; a `~` is before the names of columns of text.
fn table(html: &mut String, columns: &str) -> fmt::Result {
    html.write_str("<div class=\"box\"><table><tr>")?;
    for column in columns.split('|') {
        match column.strip_prefix('~') {
            Some(name) => write!(html, "<th class=\"text\">{name}</th>")?,
            None => write!(html, "<th>{column}</th>")?,
        }
    }
    html.write_str("</tr>")
}

fn shown(shown: usize, all: usize) -> String {
    let count = if shown < all { format!("{shown} of {all}") } else { all.to_string() };
    format!("<span class=\"dim\">{count}</span>")
}

/// Thousands apart.
fn grouped(number: i64) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (at, digit) in digits.char_indices() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            grouped.push('\u{202f}');
        }
        grouped.push(digit);
    }
    grouped
}

fn bytes(bytes: i64) -> String {
    match bytes as f64 {
        few if few < 1024.0 => format!("{bytes} B"),
        some if some < 1024.0 * 1024.0 => format!("{:.1} kB", some / 1024.0),
        many => format!("{:.1} MB", many / 1024.0 / 1024.0),
    }
}

fn age(seconds: f64) -> String {
    match seconds as i64 {
        few @ ..120 => format!("{few} s ago"),
        some @ 120..7200 => format!("{} min ago", some / 60),
        many @ 7200..172_800 => format!("{} h ago", many / 3600),
        days => format!("{} days ago", days / 86400),
    }
}
