//! Hostile hands at the engine's socket: what is asked wrongly is refused as JSON before
//! anything is done, and no client can starve the others.

use std::time::Duration;

use kms_sync::service::attach::reach;
use kms_sync::service::remote::Unreached;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use super::documented::Curl;
use super::yard::{PATIENCE, Yard, socket_of, sure};

const PATH: &str = "/api/v1/secret-syncs/aws-secrets-manager";

/// Sends bytes on a connection of its own and reads until the other side closes.
async fn raw(yard: &Yard, bytes: &[u8]) -> String {
    let mut stream = UnixStream::connect(socket_of(yard)).await.expect("a connection");
    // The other side may answer and close before it has taken everything.
    let _ = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("an end");
    String::from_utf8_lossy(&answer).into_owned()
}

/// The JSON of a raw answer with `content-length`.
fn body(answer: &str) -> Value {
    let text = answer.split_once("\r\n\r\n").map(|(_, b)| b).unwrap_or_default();
    serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {answer}"))
}

async fn synced(yard: &Yard) -> String {
    yard.rig.set("KEY", "one");
    yard.create(&yard.document("web", yard.place(), "/app", false, None)).await;
    yard.rig.run(&["sync", "web"]).await.expect(0);
    let shown = yard.rig.run(&["show", "web", "--json"]).await.expect(0);
    shown["secretSync"]["id"].as_str().expect("an id").to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mistyped_query_is_refused_and_nothing_is_done() {
    let yard = Yard::aws().await;
    let id = synced(&yard).await;
    let _engine = yard.engine(&[]).await;
    let curl = Curl::new(&yard);
    let delete = |query: &str| ("DELETE", format!("{PATH}/{id}?{query}"));
    let get = |path: &str| ("GET", path.to_string());
    let post = |path: &str| ("POST", format!("{PATH}/{id}/{path}"));
    let mut asked = Vec::new();
    for word in ["TRUE", "True", "1", "yes", "banana", "", "%20true", "true,false"] {
        asked.push((delete(&format!("removeSecrets={word}")), "removeSecrets", "choice"));
    }
    asked.extend([
        (delete("removeSecrets"), "removeSecrets", "choice"),
        (delete("removeSecrets=true&removeSecrets=true"), "removeSecrets", "unique"),
        (delete("removeSecrets=false&removeSecrets=true"), "removeSecrets", "unique"),
        (delete("removesecrets=true"), "removesecrets", "unknown-field"),
        (delete("remove_secrets=true"), "remove_secrets", "unknown-field"),
        (delete("force=1"), "force", "unknown-field"),
        (post("import-secrets?importBehavior=source"), "importBehavior", "choice"),
        (post("import-secrets?importBehaviour=prioritize-source"), "importBehaviour", "unknown-field"),
        (post("sync-secrets?importBehavior=prioritize-source"), "importBehavior", "unknown-field"),
        (post("sync-secrets?allowDelete=true"), "allowDelete", "unknown-field"),
        (post("remove-secrets?dryRun=true"), "dryRun", "unknown-field"),
        (post("cancel?x"), "x", "unknown-field"),
        (get("/api/v1/secret-syncs?projectID=x"), "projectID", "unknown-field"),
        (get("/api/v1/secret-syncs?projectId="), "projectId", "required"),
        (get("/api/v1/secret-syncs?projectId=a&projectId=b"), "projectId", "unique"),
        (get(&format!("{PATH}?kind=x")), "kind", "unknown-field"),
        (get(&format!("{PATH}/{id}?x=1")), "x", "unknown-field"),
        (get(&format!("{PATH}/sync-name/web?x=1")), "x", "unknown-field"),
        (get("/api/v1/secret-syncs/options?x=1"), "x", "unknown-field"),
        (get("/api/v1/app-connections?x=1"), "x", "unknown-field"),
    ]);
    for ((method, path), field, rule) in asked {
        let (status, answer) = curl.send(method, &path, "", "").await;
        assert_eq!((status, &answer["error"]), (422, &json!("ValidationFailure")), "{method} {path}: {answer:#}");
        assert_eq!((&answer["message"][0]["path"], &answer["message"][0]["code"]), (&json!([field]), &json!(rule)), "{method} {path}: {answer:#}");
    }
    // What a body says is not carried out without it either.
    for (path, text) in [("sync-secrets", "{\"allowDelete\":true}"), ("remove-secrets", "[]"), ("import-secrets", "{\"importBehavior\":\"x\"}")] {
        let (status, answer) = curl.send("POST", &format!("{PATH}/{id}/{path}"), text, "application/json").await;
        assert_eq!(status, 422, "{path}: {answer:#}");
    }
    let (status, answer) = curl.send("DELETE", &format!("{PATH}/{id}"), "{\"removeSecrets\":true}", "application/json").await;
    assert_eq!((status, &answer["message"][0]["path"]), (422, &json!(["removeSecrets"])), "{answer:#}");
    // Ids and names are meant as they are written.
    for path in
        [format!("{PATH}/WEB"), format!("{PATH}/%20web"), format!("{PATH}/web%00"), format!("{PATH}/..%2fweb"), format!("{PATH}/sync-name/{id}")]
    {
        let (status, answer) = curl.send(if path.contains("sync-name") { "GET" } else { "DELETE" }, &path, "", "").await;
        assert_eq!((status, &answer["error"]), (404, &json!("NotFound")), "{path}: {answer:#}");
    }
    let (status, _) = curl.get(&format!("{PATH}/sync-name/web?projectId=another")).await;
    assert_eq!(status, 404);
    let history = yard.rig.run(&["history", "web", "--json"]).await.expect(0);
    assert_eq!(history["runs"].as_array().map(Vec::len), Some(1), "{history:#}");
    assert_eq!((yard.store().syncs().len(), yard.place().values().len()), (1, 1));

    // Another sync that is named like this one's id is not meant by the id.
    yard.create(&yard.document(&id, yard.place(), "/app", false, Some("x_{{secretKey}}"))).await;
    let (status, answer) = curl.send("DELETE", &format!("{PATH}/{}?remove%53ecrets=%74rue", id.replace('-', "%2D")), "", "").await;
    assert_eq!((status, &answer["secretSync"]["name"]), (200, &json!("web")), "{answer:#}");
    assert_eq!((yard.store().syncs().len(), yard.place().values().len()), (1, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_are_json_on_every_route() {
    let yard = Yard::aws().await;
    let _engine = yard.engine(&[]).await;
    let curl = Curl::new(&yard);
    for (method, path, status) in [
        ("PUT", PATH, 405),
        ("DELETE", "/api/v1/secret-syncs", 405),
        ("OPTIONS", "/api/v1/secret-syncs", 405),
        ("TRACE", "/api/status", 405),
        ("GET", "/v1/service/syncs", 405),
        ("POST", "/v1/events", 405),
        ("GET", "/v1/nothing", 404),
        ("GET", "/api/v1/secret-syncs/aws-secrets-manager/x/y/z", 404),
        ("GET", "/api/v1/secret-syncs/%ff", 400),
        ("POST", "/v1/service/%ff", 400),
        ("POST", "/v1/service/syncs", 415),
        ("POST", "/v1/service/no_such", 422),
    ] {
        let kind = if path.ends_with("no_such") { "application/json" } else { "" };
        let method = reqwest::Method::from_bytes(method.as_bytes()).expect("a method");
        let request = curl.0.request(method.clone(), format!("http://localhost{path}")).body("[]");
        let request = if kind.is_empty() { request } else { request.header("content-type", kind) };
        let answer = request.send().await.expect("an answer");
        let (got, allow) = (answer.status().as_u16(), answer.headers().get("allow").is_some());
        assert_eq!(answer.headers()["content-type"], "application/json", "{method} {path}");
        let answer: Value = answer.json().await.expect("JSON");
        assert_eq!((got, allow), (status, status == 405), "{method} {path}: {answer:#}");
        assert!(answer["message"].as_str().is_some_and(|m| !m.is_empty()), "{method} {path}: {answer:#}");
    }
    // Too large, announced and not announced; on the documented routes and on ours.
    for path in [PATH, "/v1/service/create_sync"] {
        let post = format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nConnection: close\r\n");
        let answer = raw(&yard, format!("{post}Content-Length: 99999999\r\n\r\n").as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
        assert!(body(&answer)["message"].as_str().is_some_and(|m| m.contains("larger than")), "{answer}");
        let chunk = format!("10000\r\n{}\r\n", " ".repeat(0x10000)).repeat(33);
        let answer = raw(&yard, format!("{post}Transfer-Encoding: chunked\r\n\r\n{chunk}0\r\n\r\n").as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
        body(&answer);
    }
    // HEAD is GET without the body; two requests share a connection, also when sent at once.
    let two = "HEAD /api/v1/secret-syncs HTTP/1.1\r\nHost: x\r\n\r\nGET /api/v1/nothing HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let answer = raw(&yard, two.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    let second = answer.split_once("\r\n\r\n").map(|(_, rest)| rest).expect("two answers");
    assert!(second.starts_with("HTTP/1.1 404 ") && body(second)["statusCode"] == 404, "{answer}");
    // A head without end, and what is no HTTP at all.
    let answer = raw(&yard, format!("GET /api/status HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "x".repeat(200_000)).as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
    let answer = raw(&yard, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    let (status, _) = curl.get("/api/v1/secret-syncs/?projectId=x").await;
    assert_eq!(status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn too_many_connections_are_refused_and_the_engine_goes_on() {
    let yard = Yard::aws().await;
    let mut engine = yard.engine(&[]).await;
    let mut idle = Vec::new();
    let mut refused = Vec::new();
    for _ in 0..300 {
        idle.push(UnixStream::connect(socket_of(&yard)).await.expect("a connection"));
    }
    for stream in &mut idle {
        let mut answer = vec![0; 4096];
        if let Ok(Ok(n)) = tokio::time::timeout(Duration::from_millis(5), stream.read(&mut answer)).await {
            refused.push(String::from_utf8_lossy(&answer[..n]).into_owned());
        }
    }
    assert!(refused.len() >= 100, "{}", refused.len());
    assert!(refused[0].starts_with("HTTP/1.1 503 "), "{}", refused[0]);
    assert_eq!(body(&refused[0])["error"], "Service Unavailable");
    drop(idle);
    sure("an answer", || futures::executor::block_on(reach(&yard.dirs())).is_ok()).await;
    assert!(engine.runs());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_that_meets_a_full_socket_says_so_and_advises_no_kill() {
    let yard = Yard::aws().await;
    let _ = synced(&yard).await;
    let mut engine = yard.engine(&[]).await;
    let mut idle = Vec::new();
    for _ in 0..128 {
        idle.push(UnixStream::connect(socket_of(&yard)).await.expect("a connection"));
    }
    let full = Err(Unreached::Full("There are 128 connections already: close some, or try again.".into()));
    sure("a refusal", || futures::executor::block_on(reach(&yard.dirs())).map(|_| ()) == full).await;
    let (sync, disable) = tokio::join!(yard.rig.run(&["sync", "web"]), yard.rig.run(&["disable", "web"]));
    for answer in [sync, disable] {
        assert_eq!(answer.code, 1, "{}", answer.stderr);
        assert!(answer.stderr.contains("takes no more connections. There are 128 connections already"), "{}", answer.stderr);
        assert!(!answer.stderr.contains("kill") && !answer.stderr.contains("has not answered"), "{}", answer.stderr);
    }
    // Who waits for one of them to close gets in.
    let waiting = yard.spawn(&["sync", "web"]);
    waiting.says("waiting: ").await;
    drop(idle);
    let mut waiting = waiting;
    assert_eq!(waiting.end().await.code(), Some(0), "{:?}", waiting.lines());
    assert!(engine.runs());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watcher_that_never_reads_costs_no_memory() {
    let yard = Yard::aws().await;
    let _ = synced(&yard).await;
    let engine = yard.engine(&[]).await;
    let mut deaf = Vec::new();
    for _ in 0..20 {
        let mut stream = UnixStream::connect(socket_of(&yard)).await.expect("a connection");
        stream.write_all(b"GET /v1/events HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("a request");
        deaf.push(stream);
    }
    let curl = Curl::new(&yard);
    let flip = async |times: usize| {
        for i in 0..times {
            let on = format!("{{\"isEnabled\":{}}}", i % 2 == 0);
            let (status, answer) = curl.send("PATCH", &format!("{PATH}/web"), &on, "application/json").await;
            assert!(status == 200 || status == 400, "{answer:#}");
        }
    };
    flip(100).await;
    let before = engine.memory();
    flip(1500).await;
    let after = engine.memory();
    assert!(after < before + 24 * 1024, "{before} KiB, then {after} KiB");
    // One of them wakes up: it has the board, and what it missed does not matter.
    let mut first = vec![0; 1 << 16];
    let n = deaf[0].read(&mut first).await.expect("the board");
    assert!(String::from_utf8_lossy(&first[..n]).contains("event: board"));
}
