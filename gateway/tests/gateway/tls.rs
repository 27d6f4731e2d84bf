//! TLS between the gateway and the database.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use sync_ext_harness::batch::put;
use sync_ext_harness::cluster::Cluster;

use crate::support::process::{Gateway, until};
use crate::support::stand::{SERVER, Stand};

const PUSH: &str = "/workspaces/team/push";

#[test]
fn connections_to_the_database_are_encrypted() {
    let settings = [&SERVER[..], &["listen_addresses=127.0.0.1"]].concat();
    let cluster = Cluster::start("gateway-tls", &settings).unwrap();
    let mut stand = Stand::new(&cluster, "tls", &[]);
    let (trusted, other) = (Authority::new("trusted"), Authority::new("other"));
    trusted.certify(&cluster.data_dir(), "localhost");
    if let Err(error) = stand.admin.batch_execute("alter system set ssl = on") {
        println!("not run: this Postgres has no TLS: {error}");
        return;
    }
    stand.admin.batch_execute("select pg_reload_conf()").unwrap();
    until("the server takes TLS", || {
        let on: String = stand.session().query_one("show ssl", &[]).unwrap().get(0);
        on == "on"
    });

    let [_, (_, port), ..] = cluster.environment("gateway", "tls");
    let url = |host: &str, mode: &str| {
        format!("postgres://gateway@{host}:{port}/tls?sslmode={mode}&hostaddr=127.0.0.1")
    };
    let body = format!("[{}]", put(1, "a", 1));
    for mode in ["require", "verify-full"] {
        let gateway = Gateway::start(&url("localhost", mode), &trusted.setting());
        assert_eq!(gateway.post(PUSH, Some("ann"), &body).status, 200);
        let encrypted = "select bool_and(ssl) and count(*) > 1 from pg_stat_ssl
                         join pg_stat_activity using (pid)
                         where application_name like 'sync_ext_gateway%' and client_port > 0";
        assert!(stand.admin.query_one(encrypted, &[]).unwrap().get::<_, bool>(0));
    }
    for (host, authority) in [("localhost", &other), ("elsewhere", &trusted)] {
        let url = url(host, "require");
        let gateway = Gateway::spawn(&url, "127.0.0.1:0", &authority.setting());
        let answer = gateway.post(PUSH, Some("ann"), &body);
        assert_eq!((answer.status, &*answer.code()), (503, "08001"));
        assert!(gateway.log().contains("invalid peer certificate"), "{}", gateway.log());
    }
    // One that does not take TLS gets nothing.
    stand.admin.batch_execute("alter system set ssl = off").unwrap();
    stand.admin.batch_execute("select pg_reload_conf()").unwrap();
    until("the server takes no TLS", || {
        let on: String = stand.session().query_one("show ssl", &[]).unwrap().get(0);
        on == "off"
    });
    let gateway = Gateway::spawn(&url("localhost", "require"), "127.0.0.1:0", &trusted.setting());
    assert_eq!(gateway.post(PUSH, Some("ann"), &body).code(), "08001");
    let gateway = Gateway::start(&url("localhost", "prefer"), &[]);
    assert_eq!(gateway.post(PUSH, Some("ann"), &body).status, 200);
}

/// Who signs certificates; its own is in a file.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    file: PathBuf,
}

impl Authority {
    fn new(name: &str) -> Authority {
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let file = std::env::temp_dir().join(format!("ca-{}-{name}.pem", std::process::id()));
        fs::write(&file, issuer.pem()).unwrap();
        Authority { issuer, file }
    }

    fn setting(&self) -> [(&str, &str); 1] {
        [("GATEWAY_DATABASE_CA", self.file.to_str().unwrap())]
    }

    /// Makes the files that Postgres looks for.
    fn certify(&self, data: &Path, host: &str) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new([host.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let owner = fs::metadata(data).unwrap();
        for (name, text) in [("server.crt", certificate.pem()), ("server.key", key.serialize_pem())]
        {
            let file = data.join(name);
            fs::write(&file, text).unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
            chown(&file, Some(owner.uid()), Some(owner.gid())).unwrap();
        }
    }
}

impl Drop for Authority {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.file);
    }
}
