//! What clients of earlier versions say is answered as then: `tests/wire` has a recording of
//! each version. With SYNC_EXT_RECORD set the script below is recorded as that of today.

use serde_json::{Value, json};
use sync_ext_harness::batch::{delete, put};
use sync_ext_harness::cluster::Cluster;
use sync_ext_harness::wire::{self, Said};

use crate::support::process::Gateway;
use crate::support::stand::{SERVER, Stand};

const NAME: &str = "http.json";

#[test]
fn recorded_requests_are_answered_as_then() {
    let cluster = Cluster::start("gateway-wire", &SERVER).unwrap();
    if std::env::var_os("SYNC_EXT_RECORD").is_some() {
        let stand = Stand::new(&cluster, "recorded", &[]);
        let said = Client { gateway: &stand.gateway, said: Vec::new() }.speak();
        let statuses: Vec<&Value> = said.iter().map(|said| &said.reply["status"]).collect();
        for status in [200, 400, 401, 403, 404, 405, 409] {
            assert!(statuses.contains(&&json!(status)), "nothing is answered by {status}");
        }
        wire::record(env!("CARGO_PKG_VERSION"), NAME, &said).unwrap();
    }
    let recordings = wire::recordings(NAME).unwrap();
    assert!(!recordings.is_empty());
    for (number, (path, said)) in recordings.into_iter().enumerate() {
        let database = format!("replayed_{number}");
        let stand = Stand::new(&cluster, &database, &[]);
        wire::replay(&said, |request| answer(&stand.gateway, request))
            .unwrap_or_else(|error| panic!("{}: {error:#}", path.display()));
    }
}

fn answer(gateway: &Gateway, request: &Value) -> Value {
    let (path, user) = (request["path"].as_str().unwrap(), request["user"].as_str());
    let answer = match request["body"].as_str() {
        Some(body) => gateway.post(path, user, body),
        None => gateway.get(path, user),
    };
    let body = serde_json::from_str(&answer.body).unwrap_or(Value::String(answer.body));
    json!({"status": answer.status, "body": body})
}

struct Client<'g> {
    gateway: &'g Gateway,
    said: Vec<Said>,
}

impl Client<'_> {
    fn say(&mut self, path: &str, user: Option<&str>, body: Option<&str>) -> Value {
        let request = json!({"path": path, "user": user, "body": body});
        let reply = answer(self.gateway, &request);
        self.said.push(Said { request, reply: reply.clone() });
        reply["body"].clone()
    }

    fn post(&mut self, what: &str, user: &str, body: Value) -> Value {
        self.say(&format!("/workspaces/team/{what}"), Some(user), Some(&body.to_string()))
    }

    fn push(&mut self, user: &str, ops: &[String]) -> Value {
        let body = format!("[{}]", ops.join(","));
        self.say("/workspaces/team/push", Some(user), Some(&body))
    }

    fn speak(mut self) -> Vec<Said> {
        let diary = put(4, "d", 1).replace("notes", "diary");
        self.push("ann", &[put(1, "a", 1), put(2, "b", 1), put(3, "c", 1), diary]);
        self.push("bob", &[put(0, "a", 1), put(1, "a", 1), delete(5, "b", 2), "{}".to_owned()]);
        let page = self.post("pull", "bob", json!({"cursor": 0, "pageLimit": 2}));
        let (cursor, proof) = (&page["nextCursor"], &page["proof"]);
        self.post(
            "pull",
            "bob",
            json!({"cursor": cursor, "proof": proof, "tables": ["notes"], "latest": true}),
        );
        self.post("pull", "vic", json!({"cursor": 99}));
        self.post("pull", "vic", json!({}));
        let first = self.post("snapshot", "vic", json!({"pageLimit": 1}));
        self.post("snapshot", "vic", json!({"pageLimit": 9, "pageToken": first["nextPageToken"]}));
        self.post("snapshot", "ann", json!({"pageToken": "s1.x"}));
        self.post("cursor", "bob", json!({"deviceId": "laptop", "version": 4}));
        self.post("cursor", "bob", json!({"deviceId": "laptop", "version": 99}));
        let op: Value = serde_json::from_str(&put(6, "e", 1)).unwrap();
        let exchange = json!({"deviceId": "laptop", "cursor": 4, "ops": [op], "proof": proof});
        self.post("exchange", "bob", exchange.clone());
        self.post("exchange", "vic", exchange);
        self.push("vic", &[]);
        self.push("eve", &[]);
        for body in ["", "[", "{}", "[7]"] {
            self.say("/workspaces/team/push", Some("ann"), Some(body));
        }
        self.post("pull", "ann", json!({"cursor": "1"}));
        self.post("pull", "ann", json!({"unknown": 1}));
        self.say("/workspaces/team/pull", None, Some("{}"));
        self.say("/workspaces/team/pull", Some("ann"), None);
        self.say("/workspaces/team/gc", Some("ann"), None);
        self.say("/workspaces", Some("ann"), None);
        self.say("/workspaces/team/members", Some("ann"), None);
        self.say("/workspaces/team/members", Some("vic"), None);
        self.say("/workspaces/team/explain?table=notes&pk=b", Some("ann"), None);
        self.said
    }
}
