//! Pages of other sites (CORS).

use sync_ext_harness::cluster::Cluster;
use ureq::http::{HeaderMap, Request};

use crate::support::process::{Gateway, agent};
use crate::support::stand::{SERVER, Stand};

const APP: &str = "https://app.example";

#[test]
fn pages_of_listed_origins_may_call() {
    let cluster = Cluster::start("gateway-origins", &SERVER).unwrap();
    let stand = Stand::new(&cluster, "origins", &[]);
    let none = preflight(&stand.gateway, APP);
    assert_eq!(none.get("access-control-allow-origin"), None);

    let settings = [("GATEWAY_ALLOW_ORIGIN", "https://other.example,https://app.example")];
    let gateway = Gateway::start(&stand.url(), &settings);
    let listed = preflight(&gateway, APP);
    assert_eq!(listed["access-control-allow-origin"], APP);
    assert_eq!(listed["access-control-allow-credentials"], "true");
    for (header, values) in [
        ("access-control-allow-methods", ["GET", "POST", "PUT", "DELETE"]),
        ("access-control-allow-headers", ["authorization", "content-type", "last-event-id", ""]),
    ] {
        let allowed = listed[header].to_str().unwrap();
        assert!(values.iter().all(|value| allowed.contains(value)), "{allowed}");
        // Who may set it is trusted.
        assert!(!allowed.contains("x-user-id"), "{allowed}");
    }
    assert_eq!(get(&gateway, APP)["access-control-allow-origin"], APP);
    for headers in [preflight(&gateway, "https://evil.example"), get(&gateway, "null")] {
        assert_eq!(headers.get("access-control-allow-origin"), None);
    }

    let gateway = Gateway::start(&stand.url(), &[("GATEWAY_ALLOW_ORIGIN", "*")]);
    let any = get(&gateway, APP);
    assert_eq!(any["access-control-allow-origin"], "*");
    assert_eq!(any.get("access-control-allow-credentials"), None);
}

fn preflight(gateway: &Gateway, origin: &str) -> HeaderMap {
    let request = Request::options(format!("{}/workspaces/team/push", gateway.url))
        .header("origin", origin)
        .header("access-control-request-method", "POST")
        .header("access-control-request-headers", "content-type");
    agent().run(request.body(()).unwrap()).unwrap().headers().clone()
}

fn get(gateway: &Gateway, origin: &str) -> HeaderMap {
    let request = agent().get(format!("{}/health", gateway.url)).header("origin", origin);
    request.call().unwrap().headers().clone()
}
