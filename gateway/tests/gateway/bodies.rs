//! Bodies that are too large, arrive too slowly, or are not asked for: what is answered,
//! and that the answer arrives.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use sync_ext_harness::batch::put;
use sync_ext_harness::cluster::Cluster;

use crate::support::process::{Answer, Door, PATIENCE, until};
use crate::support::stand::{SERVER, Stand};

/// More than sockets hold, so that a client notices if nobody reads on.
const LIMIT: usize = 4_000_000;

#[test]
fn bodies_are_bounded() {
    let cluster = Cluster::start("gateway-bodies", &SERVER).unwrap();
    let limit = LIMIT.to_string();
    let settings = [
        ("GATEWAY_TRUSTED", "on"),
        ("GATEWAY_MAX_BODY_BYTES", limit.as_str()),
        ("GATEWAY_BODY_TIMEOUT", "600"),
    ];
    let stand = Stand::new(&cluster, "large", &settings);
    a_client_that_sends_all_of_a_large_body_gets_its_413(&stand.gateway);
    a_large_body_is_not_asked_for(&stand.gateway);
    a_body_within_the_limit_is_asked_for(&stand.gateway);
    a_body_without_end_is_cut_off(&stand.gateway);
    a_body_that_is_not_said_to_be_json_is_415(&stand.gateway);

    let settings = [&settings[..2], &[("GATEWAY_BODY_TIMEOUT", "0.5")]].concat();
    let stand = Stand::new(&cluster, "slow", &settings);
    a_slowly_sent_body_is_408(&stand.gateway);
    a_large_body_that_stops_arriving_is_413(&stand.gateway);
}

/// Sends the header of a push.
fn begin(door: &Door, headers: &str) -> TcpStream {
    let mut stream = TcpStream::connect(door.address()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(
        stream,
        "POST /workspaces/team/push HTTP/1.1\r\nhost: gateway\r\n\
         content-type: application/json\r\n{headers}\r\n\r\n"
    )
    .unwrap();
    stream
}

/// The answer to a push that was begun.
fn answer(stream: impl Read) -> Answer {
    let mut lines = BufReader::new(stream);
    let (mut line, mut status, mut length) = (String::new(), 0, 0);
    while line != "\r\n" {
        line.clear();
        lines.read_line(&mut line).unwrap();
        if let Some(rest) = line.strip_prefix("HTTP/1.1 ") {
            status = rest[..3].parse().unwrap();
        } else if let Some(rest) = line.strip_prefix("content-length: ") {
            length = rest.trim_end().parse().unwrap();
        }
    }
    let mut body = vec![0; length];
    lines.read_exact(&mut body).unwrap();
    Answer { status, body: String::from_utf8(body).unwrap() }
}

fn is_too_large(answer: &Answer) {
    assert_eq!((answer.status, &*answer.code()), (413, "54000"), "{answer:?}");
}

fn a_client_that_sends_all_of_a_large_body_gets_its_413(door: &Door) {
    for length in [LIMIT + 1, 2 * LIMIT, 4 * LIMIT] {
        is_too_large(&door.post("/workspaces/team/push", None, &" ".repeat(length)));

        let mut stream = begin(door, "transfer-encoding: chunked");
        write!(stream, "{length:x}\r\n{}\r\n0\r\n\r\n", " ".repeat(length)).unwrap();
        is_too_large(&answer(&stream));
    }
    let ops = format!("[{}]{}", put(1, "a", 1), " ".repeat(LIMIT));
    let answer = door.post("/workspaces/team/push", None, &ops[..LIMIT]);
    assert_eq!(answer.status, 200, "{answer:?}");
}

/// Of one who asks first whether it may be sent.
fn a_large_body_is_not_asked_for(door: &Door) {
    let expect = format!("expect: 100-continue\r\ncontent-length: {}", LIMIT + 1);
    is_too_large(&answer(&begin(door, &expect)));
}

fn a_body_within_the_limit_is_asked_for(door: &Door) {
    let body = format!("[{}]", put(2, "b", 1));
    let expect = format!("expect: 100-continue\r\ncontent-length: {}", body.len());
    let mut stream = begin(door, &expect);
    assert_eq!(answer(&stream).status, 100);
    stream.write_all(body.as_bytes()).unwrap();
    assert_eq!(answer(&stream).status, 200);
}

fn a_body_without_end_is_cut_off(door: &Door) {
    let mut stream = begin(door, "transfer-encoding: chunked");
    let chunk = format!("{LIMIT:x}\r\n{}\r\n", " ".repeat(LIMIT));
    until("nobody reads on", || stream.write_all(chunk.as_bytes()).is_err());
}

/// As a page of another site can send it.
fn a_body_that_is_not_said_to_be_json_is_415(door: &Door) {
    let ops = format!("[{}]", put(3, "c", 1));
    let exchange = format!(r#"{{"deviceId":"d","cursor":0,"ops":{ops}}}"#);
    let post = |what: &str, media_type: &str, body: &str| {
        let headers = [("content-type", media_type.as_bytes())];
        let headers = headers.into_iter().filter(|_| !media_type.is_empty());
        door.post_with(&format!("/workspaces/team/{what}"), headers, body.as_bytes()).unwrap()
    };
    for (what, body) in [
        ("push", &*ops),
        ("pull", "{}"),
        ("snapshot", "{}"),
        ("cursor", r#"{"deviceId":"d","version":0}"#),
        ("exchange", &exchange),
    ] {
        for media_type in [
            "",
            "text/plain",
            "text/plain; x=application/json",
            "text/plain, application/json",
            "application/x-www-form-urlencoded",
            "multipart/form-data; boundary=application/json",
            "application/jsonp",
        ] {
            let answer = post(what, media_type, body);
            assert_eq!((answer.status, &*answer.code()), (415, "0A000"), "{what} {media_type}");
        }
        for media_type in [
            "application/json",
            "Application/JSON",
            "application/json;charset=UTF-8",
            "application/json ; x=y",
        ] {
            let answer = post(what, media_type, body);
            assert_eq!(answer.status, 200, "{what} {media_type}: {answer:?}");
        }
    }
}

/// However evenly: the time is that of the whole body.
fn a_slowly_sent_body_is_408(door: &Door) {
    let mut stream = begin(door, "content-length: 1000000");
    stream.set_read_timeout(Some(Duration::from_millis(10))).unwrap();
    until("it is answered", || {
        // Fails if it was answered a moment ago.
        let _ = stream.write_all(b" ");
        match stream.peek(&mut [0]) {
            Ok(length) => length > 0,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::WouldBlock);
                false
            }
        }
    });
    let answer = answer(&stream);
    assert_eq!((answer.status, &*answer.code()), (408, "57014"), "{answer:?}");
}

fn a_large_body_that_stops_arriving_is_413(door: &Door) {
    let mut stream = begin(door, &format!("content-length: {}", 4 * LIMIT));
    stream.write_all(" ".repeat(LIMIT + 1).as_bytes()).unwrap();
    is_too_large(&answer(&stream));
}
