//! The nginx of gateway/deploy before a gateway, with a certificate made for it.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use jsonwebtoken::Algorithm::HS256;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rcgen::{CertifiedKey, generate_simple_self_signed};
use serde_json::json;
use sync_ext_harness::batch::{push, put};
use sync_ext_harness::cluster::Cluster;

use crate::support::issuer::{claims, sign_by_secret};
use crate::support::process::{Door, Gateway, until};
use crate::support::stand::{SERVER, Stand};

const SITE: &str = include_str!("../../deploy/nginx.conf");
const SECRET: &str = "a secret of at least 32 characters";
/// More than HTTP/1.1 gives a browser.
const STREAMS: usize = 8;

#[test]
fn nginx_passes_streams_on_at_once() {
    for (program, option) in [("nginx", "-v"), ("curl", "-V")] {
        if Command::new(program).arg(option).output().is_err() {
            println!("not run: no {program}");
            return;
        }
    }
    let cluster = Cluster::start("gateway-nginx", &SERVER).unwrap();
    let mut stand = Stand::new(&cluster, "nginx", &[]);
    let gateway = Gateway::start(&stand.url(), &[("GATEWAY_JWT_SECRET", SECRET)]);
    let nginx = Nginx::before(&gateway);
    let ann = sign_by_secret(HS256, SECRET.as_bytes(), &claims(json!({})));
    let ann = format!("authorization: Bearer {ann}");
    until("nginx serves", || nginx.ask("/workspaces", &ann).starts_with("200"));

    let mut streams = nginx.curl();
    // Events that do not come would be waited for.
    streams.args(["--max-time", "60", "--parallel", "--parallel-max", "20", "--header", &ann]);
    for _ in 0..STREAMS {
        streams.arg(nginx.url("/live?workspace=team"));
    }
    let mut streams = streams.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    gateway.until_streams(STREAMS as u64);
    let mut lines = BufReader::new(streams.stdout.take().unwrap()).lines();
    for id in 1..=3 {
        push(&mut stand.admin, "team", &[put(id, "a", id)]);
        let told =
            lines.by_ref().map(Result::unwrap).filter(|line| *line == format!("id: team={id}"));
        assert_eq!(told.take(STREAMS).count(), STREAMS, "while the streams go on");
    }
    assert_eq!(nginx.ask("/workspaces", &ann), "200 2", "another request gets through");
    streams.kill().unwrap();
    streams.wait().unwrap();
    gateway.until_streams(0);
    until("nginx has logged them", || nginx.connections("/live").len() == STREAMS);
    let mut connections = nginx.connections("/live");
    connections.dedup();
    assert_eq!(connections.len(), 1, "they shared one");

    // What a client says of itself does not arrive; what is not for it is not there.
    assert_eq!(nginx.ask("/workspaces", "x-user-id: ann"), "401 2");
    for path in ["/metrics", "/health"] {
        assert_eq!(nginx.ask(path, &ann), "404 2");
        assert_ne!(gateway.get(path, None).status, 404);
    }
}

struct Nginx {
    process: Child,
    folder: PathBuf,
    port: u16,
}

impl Nginx {
    /// The site as it is, but for its addresses and certificate.
    fn before(gateway: &Door) -> Nginx {
        let folder = std::env::temp_dir().join(format!("nginx-{}", std::process::id()));
        fs::create_dir_all(folder.join("logs")).unwrap();
        let CertifiedKey { cert, signing_key } =
            generate_simple_self_signed(["sync.example".to_owned()]).unwrap();
        fs::write(folder.join("site.crt"), cert.pem()).unwrap();
        fs::write(folder.join("site.key"), signing_key.serialize_pem()).unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut site = SITE.to_owned();
        for (example, ours) in [
            ("server 127.0.0.1:8080;", format!("server {};", gateway.address())),
            ("listen 443 ", format!("listen 127.0.0.1:{port} ")),
            ("/etc/ssl/sync.example.", format!("{}/site.", folder.display())),
        ] {
            assert!(site.contains(example), "{example}");
            site = site.replace(example, &ours);
        }
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|name| format!("{name}_temp_path {name};\n"))
            .concat();
        let whole = format!(
            "daemon off;\nmaster_process off;\nerror_log stderr;\npid nginx.pid;\nevents {{}}\n\
             http {{\n\
             log_format connections '$uri $connection';\naccess_log log connections;\n{temporary}{site}\n}}\n"
        );
        fs::write(folder.join("nginx.conf"), whole).unwrap();
        let process = Command::new("nginx")
            .arg("-p")
            .arg(&folder)
            .args(["-e", "stderr", "-c", "nginx.conf"])
            .spawn()
            .unwrap();
        Nginx { process, folder, port }
    }

    fn url(&self, path: &str) -> String {
        format!("https://sync.example:{}{path}", self.port)
    }

    fn curl(&self) -> Command {
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--no-buffer", "--http2", "--cacert"])
            .arg(self.folder.join("site.crt"))
            .args(["--resolve", &format!("sync.example:{}:127.0.0.1", self.port)]);
        curl
    }

    /// That of each request for this path that has ended.
    fn connections(&self, path: &str) -> Vec<String> {
        let log = fs::read_to_string(self.folder.join("log")).unwrap_or_default();
        let lines = log.lines().filter_map(|line| line.strip_prefix(path));
        lines.map(str::to_owned).collect()
    }

    /// The status, and the version of HTTP.
    fn ask(&self, path: &str, header: &str) -> String {
        let format = ["--output", "/dev/null", "--write-out", "%{http_code} %{http_version}"];
        let mut curl = self.curl();
        let answer = curl.args(format).args(["--header", header]).arg(self.url(path)).output();
        String::from_utf8(answer.unwrap().stdout).unwrap()
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = kill(Pid::from_raw(self.process.id() as i32), Signal::SIGTERM);
        let _ = self.process.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}
