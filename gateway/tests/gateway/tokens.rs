//! Tokens that name the users, and each reason why one is refused.

use std::fs;

use jsonwebtoken::Algorithm::{ES256, HS256, HS384, RS256};
use serde_json::{Value, json};
use sync_ext_harness::cluster::Cluster;

use crate::support::issuer::{Key, Publisher, claims, in_seconds, set_of, sign_by_secret};
use crate::support::process::{Answer, Door, Gateway, agent};
use crate::support::stand::{SERVER, Stand};
use crate::support::stream::{Live, Said};

const SECRET: &str = "a secret of at least 32 characters";
const PULL: &str = "/workspaces/team/pull";
const FOR_ALL: [(&str, &str); 2] =
    [("GATEWAY_JWT_ISSUER", "login"), ("GATEWAY_JWT_AUDIENCE", "sync")];

#[test]
fn tokens_name_the_users() {
    let cluster = Cluster::start("gateway-tokens", &SERVER).unwrap();
    let stand = Stand::new(&cluster, "tokens", &[]);
    tokens_by_a_secret(&stand);
    a_claim_and_a_cookie_may_be_chosen(&stand);
    tokens_by_keys_of_a_file(&stand);
    keys_that_change_are_read_again(&stand);
    keys_over_https_are_those_of_who_is_certified(&stand);
    a_stream_ends_with_its_token(&stand);
    without_keys_nobody_is_refused_for_good(&stand);
}

fn start(stand: &Stand, settings: &[(&str, &str)]) -> Gateway {
    Gateway::start(&stand.url(), &[&FOR_ALL[..], settings].concat())
}

fn pull_with(door: &Door, headers: &[(&str, &str)]) -> Answer {
    let json = [("content-type", "application/json")];
    let headers = json.iter().chain(headers).map(|(name, value)| (*name, value.as_bytes()));
    door.post_with(PULL, headers, b"{}").unwrap()
}

fn pull(door: &Door, token: &str) -> Answer {
    pull_with(door, &[("authorization", &format!("Bearer {token}"))])
}

fn refused(answer: Answer, detail: &str) {
    assert_eq!((answer.status, &*answer.code()), (401, "28000"), "{detail}");
    assert_eq!(answer.json()["error"]["detail"], detail);
}

fn tokens_by_a_secret(stand: &Stand) {
    let gateway = start(stand, &[("GATEWAY_JWT_SECRET", SECRET)]);
    let sign = |changes: Value| sign_by_secret(HS256, SECRET.as_bytes(), &claims(changes));
    for allowed in [
        json!({}),
        json!({"nbf": in_seconds(-600)}),
        // Clocks differ.
        json!({"nbf": in_seconds(5), "exp": in_seconds(-5)}),
        json!({"aud": ["other", "sync"]}),
    ] {
        let answer = pull(&gateway, &sign(allowed.clone()));
        assert_eq!(answer.status, 200, "{allowed}");
    }
    // The user is the token's: eve is no member.
    assert_eq!(pull(&gateway, &sign(json!({"sub": "eve"}))).code(), "42501");

    for (changes, detail) in [
        (json!({"exp": in_seconds(-60)}), "It has expired."),
        (json!({"exp": null}), "It has no exp."),
        (json!({"nbf": in_seconds(60)}), "It does not hold yet."),
        (json!({"aud": "other"}), "Its aud is another one."),
        (json!({"aud": null}), "It has no aud."),
        (json!({"iss": "other"}), "Its iss is another one."),
        (json!({"iss": null}), "It has no iss."),
        (json!({"sub": null}), "It names no user: sub is missing."),
        (json!({"sub": ""}), "It names no user: sub is missing."),
        (json!({"sub": 7}), "It names no user: sub is missing."),
    ] {
        refused(pull(&gateway, &sign(changes)), detail);
    }
    for changes in [json!({"exp": "tomorrow"}), json!({"nbf": "tomorrow"})] {
        assert_eq!(pull(&gateway, &sign(changes)).status, 401);
    }
    let other = sign_by_secret(HS256, b"another secret", &claims(json!({})));
    refused(pull(&gateway, &other), "Its signature is wrong.");
    let other = sign_by_secret(HS384, SECRET.as_bytes(), &claims(json!({})));
    refused(pull(&gateway, &other), "Its algorithm is not that of the key.");
    // {"alg":"none"}, without a signature.
    let whole = sign(json!({}));
    let claims = whole.split('.').nth(1).unwrap();
    for token in [&*format!("eyJhbGciOiJub25lIn0.{claims}."), "nonsense"] {
        refused(pull(&gateway, token), "It is malformed.");
    }
    refused(pull_with(&gateway, &[("x-user-id", "ann")]), "There is no token.");
    let basic = pull_with(&gateway, &[("authorization", "Basic YW5uOng=")]);
    refused(basic, "The Authorization header is not a Bearer token.");
    // No cookie is asked for.
    let cookie = format!("token={whole}");
    refused(pull_with(&gateway, &[("cookie", &cookie)]), "There is no token.");
}

fn a_claim_and_a_cookie_may_be_chosen(stand: &Stand) {
    let settings = [
        ("GATEWAY_JWT_SECRET", SECRET),
        ("GATEWAY_JWT_USER_CLAIM", "email"),
        ("GATEWAY_JWT_COOKIE", "session"),
    ];
    let gateway = start(stand, &settings);
    let sign = |changes: Value| sign_by_secret(HS256, SECRET.as_bytes(), &claims(changes));
    let token = sign(json!({"sub": "eve", "email": "ann"}));
    assert_eq!(pull(&gateway, &token).status, 200);
    let cookie = format!("theme=dark; session={token}");
    assert_eq!(pull_with(&gateway, &[("cookie", &cookie)]).status, 200);
    refused(pull(&gateway, &sign(json!({}))), "It names no user: email is missing.");
    refused(pull_with(&gateway, &[("cookie", "session=x")]), "It is malformed.");
}

fn tokens_by_keys_of_a_file(stand: &Stand) {
    let (rsa, curve, stranger) =
        (Key::new("rsa", RS256), Key::new("curve", ES256), Key::new("rsa", RS256));
    let file = std::env::temp_dir().join(format!("keys-{}.json", std::process::id()));
    fs::write(&file, set_of(&[&rsa, &curve])).unwrap();
    let gateway = start(stand, &[("GATEWAY_JWT_KEYS", file.to_str().unwrap())]);
    for key in [&rsa, &curve] {
        assert_eq!(pull(&gateway, &key.sign(&claims(json!({})))).status, 200, "{}", key.name);
        let expired = key.sign(&claims(json!({"exp": in_seconds(-60)})));
        refused(pull(&gateway, &expired), "It has expired.");
    }
    refused(pull(&gateway, &stranger.sign(&claims(json!({})))), "Its signature is wrong.");
    let unknown = Key::new("unknown", ES256);
    refused(pull(&gateway, &unknown.sign(&claims(json!({})))), "Its key is unknown.");
    // The name of one kind on a token of the other.
    let crossed = Key::new("rsa", ES256);
    let detail = "Its algorithm is not that of the key.";
    refused(pull(&gateway, &crossed.sign(&claims(json!({})))), detail);

    // A public key is no secret.
    fs::write(&file, set_of(&[&rsa])).unwrap();
    let gateway = start(stand, &[("GATEWAY_JWT_KEYS", file.to_str().unwrap())]);
    for public in [rsa.pair.public_key_pem(), rsa.public()["n"].to_string()] {
        let token = sign_by_secret(HS256, public.as_bytes(), &claims(json!({})));
        refused(pull(&gateway, &token), detail);
    }
    fs::remove_file(&file).unwrap();
}

fn keys_that_change_are_read_again(stand: &Stand) {
    let (old, new) = (Key::new("old", ES256), Key::new("new", ES256));
    let publisher = Publisher::of(&[&old]);
    let rarely =
        start(stand, &[("GATEWAY_JWT_KEYS", &publisher.url), ("GATEWAY_JWT_KEYS_INTERVAL", "600")]);
    let often = start(
        stand,
        &[("GATEWAY_JWT_KEYS", &publisher.url), ("GATEWAY_JWT_KEYS_INTERVAL", "0.000001")],
    );
    let [by_old, by_new] = [&old, &new].map(|key| key.sign(&claims(json!({}))));
    for gateway in [&rarely, &often] {
        assert_eq!(pull(gateway, &by_old).status, 200);
    }
    assert_eq!(publisher.reads(), 2, "each once, when it started");
    publisher.show(Some(&[&new]));
    for _ in 0..5 {
        refused(pull(&rarely, &by_new), "Its key is unknown.");
    }
    assert_eq!(publisher.reads(), 2);
    assert_eq!(pull(&often, &by_new).status, 200);
    assert_eq!(publisher.reads(), 3);
    // A known key costs nothing; one that is gone does not hold.
    assert_eq!(pull(&often, &by_new).status, 200);
    assert_eq!(publisher.reads(), 3);
    refused(pull(&often, &by_old), "Its key is unknown.");
    publisher.show(None);
    refused(pull(&often, &by_old), "Its key is unknown.");
    assert_eq!(pull(&often, &by_new).status, 200);
    assert!(often.log().contains("no keys"), "{}", often.log());
}

fn keys_over_https_are_those_of_who_is_certified(stand: &Stand) {
    let key = Key::new("key", ES256);
    let (publisher, certificate) = Publisher::over_tls(&[&key]);
    let file = std::env::temp_dir().join(format!("roots-{}.pem", std::process::id()));
    fs::write(&file, certificate).unwrap();
    let token = key.sign(&claims(json!({})));
    let keys = ("GATEWAY_JWT_KEYS", &*publisher.url);
    // Where the system's roots are.
    let gateway = start(stand, &[keys, ("SSL_CERT_FILE", file.to_str().unwrap())]);
    assert_eq!(pull(&gateway, &token).status, 200);
    fs::remove_file(&file).unwrap();
    assert_eq!(pull(&start(stand, &[keys]), &token).code(), "08001");
}

fn a_stream_ends_with_its_token(stand: &Stand) {
    let gateway =
        start(stand, &[("GATEWAY_JWT_SECRET", SECRET), ("GATEWAY_JWT_COOKIE", "session")]);
    for path in ["/workspaces/team/live", "/live"] {
        let claims = claims(json!({"exp": in_seconds(-8)}));
        let token = sign_by_secret(HS256, SECRET.as_bytes(), &claims);
        let cookie = format!("session={token}");
        let request = agent().get(format!("{}{path}", gateway.url)).header("cookie", cookie);
        let live = Live::of(request.call().unwrap());
        assert_eq!(live.said(), Said::End { whole: true });
    }
}

fn without_keys_nobody_is_refused_for_good(stand: &Stand) {
    let gateway = start(stand, &[("GATEWAY_JWT_KEYS", "/nowhere/keys.json")]);
    let key = Key::new("key", ES256);
    let answer = pull(&gateway, &key.sign(&claims(json!({}))));
    assert_eq!((answer.status, &*answer.code()), (503, "08001"));
}
