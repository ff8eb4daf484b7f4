//! Lost answers, throttling, cancelling, many keys at once.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::http::HeaderMap;
use axum::response::IntoResponse as _;
use futures::future::join_all;
use kms_sync::destination::Op;
use kms_sync::http::{Cx, ErrorKind};
use kms_sync::model::plan::Action;
use kms_sync::sandbox::host::{Effect, Fault, Host};

use super::{apply, bench, connect, credentials, desired, itemised, resolved};

#[tokio::test]
async fn a_lost_answer_makes_nothing_twice() {
    let bench = bench().await;
    let lost = |on: &str| bench.host.faults.add(Fault::next(on, 1, Effect::LostAnswer));
    // Create: the retry token gives the same secret.
    lost("POST /20180608/secrets");
    bench.create("A", "one").await;
    assert_eq!(bench.state.secrets().len(), 1);
    assert_eq!(bench.host.log.count("POST /20180608/secrets"), 2);
    // Update: the second look finds the effect, no second version.
    let entry = bench.entry("A").await;
    lost("PUT ");
    let written = bench.apply(Action::Update, "A", Some("two"), Some(&entry)).await.expect("updated");
    assert!(!written.untouched);
    assert_eq!(bench.state.secret("A").expect("there").versions.len(), 2);
    // Schedule and cancel likewise.
    lost("scheduleDeletion");
    bench.apply(Action::Delete, "A", None, Some(&entry)).await.expect("scheduled");
    assert_eq!(bench.state.secret("A").expect("there").state, "PENDING_DELETION");
    let pending = bench.entry("A").await;
    lost("cancelDeletion");
    bench.apply(Action::Restore, "A", Some("two"), Some(&pending)).await.expect("restored");
    assert_eq!(bench.state.secret("A").expect("there").state, "ACTIVE");
    assert_eq!(bench.state.secret("A").expect("there").versions.len(), 2);
    assert_eq!(bench.host.log.count("cancelDeletion"), 1);
}

#[tokio::test]
async fn a_write_that_never_arrived_is_sent_again() {
    let bench = bench().await;
    bench.create("A", "one").await;
    let entry = bench.entry("A").await;
    bench.host.faults.add(Fault::next("PUT ", 1, Effect::Reset));
    bench.apply(Action::Update, "A", Some("two"), Some(&entry)).await.expect("updated");
    bench.host.faults.add(Fault::next("PUT ", 1, Effect::status(500, "{}")));
    bench.apply(Action::Update, "A", Some("three"), Some(&entry)).await.expect("updated");
    assert_eq!(bench.state.value("A").as_deref(), Some("three"));
    assert_eq!(bench.state.secret("A").expect("there").versions.len(), 3);
    bench.host.faults.add(Fault::next("scheduleDeletion", 1, Effect::status(502, "<html>")));
    bench.apply(Action::Delete, "A", None, Some(&entry)).await.expect("scheduled");
    assert_eq!(bench.state.secret("A").expect("there").state, "PENDING_DELETION");
}

/// A context that notes how long each look at a write of unknown effect is put off.
fn watched() -> (Cx, Arc<Mutex<Vec<i64>>>) {
    let pauses = Arc::new(Mutex::new(Vec::new()));
    let keep = pauses.clone();
    let note = move |waiting: Option<kms_sync::model::board::Waiting>| {
        if let Some(waiting) = waiting.filter(|w| w.reason.contains("not known") || w.reason.contains("503")) {
            let until = waiting.until.expect("a wait with an end");
            keep.lock().expect("lock").push(until.duration_since(jiff::Timestamp::now()).as_millis() as i64);
        }
    };
    (Cx::new(tokio_util::sync::CancellationToken::new(), Arc::new(note)), pauses)
}

#[tokio::test]
async fn a_write_that_was_done_and_answered_with_503_is_looked_at_when_the_service_says() {
    let bench = bench().await;
    let (cx, pauses) = watched();
    let target = bench.open().await;
    let busy = |on: &str| bench.host.faults.add(Fault::next(on, 1, Effect::done_but_busy("2")));
    let apply = async |action: Action, value: Option<&str>, entry: Option<&kms_sync::destination::Entry>| {
        apply(&cx, &*target, action, "A", value, entry).await
    };
    let versions = || bench.state.secret("A").expect("there").versions.len();
    busy("POST /20180608/secrets");
    let made = apply(Action::Create, Some("one"), None).await.expect("created");
    assert!(!made.untouched && made.id.is_some() && made.stamp.is_some());
    assert_eq!((bench.state.secrets().len(), versions()), (1, 1));
    let entry = bench.entry("A").await;
    busy("PUT ");
    let written = apply(Action::Update, Some("two"), Some(&entry)).await.expect("updated");
    assert!(!written.untouched, "it was this run's write");
    assert_eq!((bench.state.value("A").as_deref(), versions(), bench.host.log.count("PUT ")), (Some("two"), 2, 1));
    busy("scheduleDeletion");
    let entry = bench.entry("A").await;
    let gone = apply(Action::Delete, None, Some(&entry)).await.expect("scheduled");
    assert!(!gone.untouched);
    assert_eq!((bench.state.secret("A").expect("kept").state.as_str(), bench.host.log.count("scheduleDeletion")), ("PENDING_DELETION", 1));
    busy("cancelDeletion");
    let entry = bench.entry("A").await;
    let back = apply(Action::Restore, Some("two"), Some(&entry)).await.expect("restored");
    assert!(!back.untouched);
    assert_eq!((bench.state.secret("A").expect("there").state.as_str(), versions(), bench.host.log.count("cancelDeletion")), ("ACTIVE", 2, 1));
    let pauses = pauses.lock().expect("lock").clone();
    assert_eq!(pauses.len(), 4, "{pauses:?}");
    assert!(pauses.iter().all(|ms| (1_500..=2_000).contains(ms)), "as long as Retry-After asks: {pauses:?}");
}

#[tokio::test]
async fn a_creation_of_ours_is_known_where_the_service_forgets_retry_tokens() {
    for delay in [0, 700] {
        let bench = bench().await;
        bench.state.set_delay(Duration::from_millis(delay));
        bench.state.forget_tokens(true);
        bench.host.faults.add(Fault::next("POST /20180608/secrets", 1, Effect::LostAnswer));
        let made = bench.apply(Action::Create, "A", Some("one"), None).await.expect("known by its tag");
        let secret = bench.state.secret("A").expect("there");
        assert_eq!((bench.state.secrets().len(), secret.versions.len(), secret.state.as_str()), (1, 1, "ACTIVE"));
        assert_eq!((made.id.as_deref(), made.stamp.is_some()), (Some(secret.id.as_str()), true));
        assert_eq!(bench.host.log.count("POST /20180608/secrets"), 2);
    }
}

#[tokio::test]
async fn a_killed_run_s_token_gives_the_same_secret() {
    let bench = bench().await;
    let (target, want) = (bench.open().await, desired("A", "one"));
    let token = uuid::Uuid::new_v4().to_string();
    let op =
        Op { action: Action::Create, key: "A", entry: None, row: None, desired: Some(&want), value_differs: true, token: &token, approved: false };
    let first = itemised(&*target).apply(&bench.cx, &op).await.expect("created");
    let second = itemised(&*target).apply(&bench.cx, &op).await.expect("replayed");
    assert_eq!(first.id, second.id);
    assert_eq!(bench.state.secrets().len(), 1);
    // The secret is gone: the token is void, and a new one is drawn.
    bench.state.edit("A", |s| s.state = "DELETED".into());
    let third = itemised(&*target).apply(&bench.cx, &op).await.expect("created anew");
    assert_ne!(first.id, third.id);
}

#[tokio::test]
async fn many_keys_share_their_waiting() {
    let bench = bench().await;
    bench.state.set_delay(Duration::from_millis(900));
    let target = bench.open().await;
    let keys: Vec<String> = (0..60).map(|n| format!("K{n}")).collect();
    let begun = Instant::now();
    let results = join_all(keys.iter().map(|k| apply(&bench.cx, &*target, Action::Create, k, Some("v"), None))).await;
    assert!(results.iter().all(Result::is_ok));
    assert_eq!(bench.host.log.count("POST /20180608/secrets"), 60);
    let looks = bench.host.log.lines().len() - 60;
    assert!(looks <= 20, "60 keys took {looks} looks: {:?}", bench.host.log.by_method());
    assert!(begun.elapsed() < Duration::from_secs(20));
    let entries = bench.list().await.expect("listed").entries;
    assert!(entries.iter().all(|e| e.state == kms_sync::destination::EntryState::Active));
}

#[tokio::test]
async fn a_throttling_storm_is_survived() {
    let bench = bench().await;
    for n in 0..24 {
        bench.state.put(&format!("K{n}"), b"v");
    }
    let entries = bench.list().await.expect("listed").entries;
    let target = bench.open().await;
    bench.state.set_rate(Some(12));
    let results = join_all(entries.iter().map(|e| apply(&bench.cx, &*target, Action::Delete, &e.key, None, Some(e)))).await;
    for result in &results {
        assert!(result.is_ok(), "{:?}", result.as_ref().err().map(ToString::to_string));
    }
    bench.state.set_rate(None);
    assert!(bench.state.secrets().iter().all(|s| s.state == "PENDING_DELETION"));
    assert!(bench.cx.meter().snapshot().retries > 0, "there was a storm");
}

#[tokio::test]
async fn cancelling_ends_the_waits() {
    let bench = bench().await;
    bench.state.set_delay(Duration::from_secs(3600));
    let cx = Cx::quiet();
    let target = bench.open().await;
    let (stop, state) = (cx.cancel_token().clone(), bench.state.clone());
    let watcher = tokio::spawn(async move {
        while state.secret("A").is_none() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        stop.cancel();
    });
    let begun = Instant::now();
    let written = apply(&cx, &*target, Action::Create, "A", Some("v"), None).await.expect("it was created, and that is told");
    assert!(written.note.is_some_and(|n| n.contains("CREATING")));
    assert_eq!(written.id, bench.state.secret("A").map(|s| s.id));
    let error = apply(&cx, &*target, Action::Create, "B", Some("v"), None).await.expect_err("nothing new is begun");
    assert_eq!(error.kind, ErrorKind::Cancelled);
    assert!(bench.state.secret("B").is_none());
    assert!(begun.elapsed() < Duration::from_secs(5));
    watcher.await.expect("joined");
}

#[tokio::test]
async fn every_attempt_is_signed_anew() {
    let seen: Arc<Mutex<Vec<(String, String, String)>>> = Arc::default();
    let keep = seen.clone();
    let answer = move |headers: HeaderMap| {
        let keep = keep.clone();
        async move {
            let text = |n: &str| headers.get(n).and_then(|v| v.to_str().ok()).unwrap_or_default().to_string();
            let mut seen = keep.lock().expect("lock");
            seen.push((text("date"), text("authorization"), text("opc-request-id")));
            if seen.len() == 1 {
                return (axum::http::StatusCode::SERVICE_UNAVAILABLE, [("retry-after", "1.1")], "{}").into_response();
            }
            axum::Json(serde_json::json!({"name": "x"})).into_response()
        }
    };
    let host = Host::start(axum::Router::new().fallback(answer), None).await.expect("a port");
    let session = connect(resolved("access-key", &credentials(), serde_json::json!({ "endpoint": host.url }))).expect("session");
    session.test(&Cx::quiet(), None).await.expect("the second attempt");
    let seen = seen.lock().expect("lock").clone();
    assert_ne!(seen[0].0, seen[1].0, "the date is that of the attempt");
    assert_ne!(seen[0].1, seen[1].1);
    assert_eq!(seen[0].2, seen[1].2, "one request id over the attempts of one call");
    assert_eq!(seen[0].2.len(), 32);
}

#[tokio::test]
async fn values_and_keys_stay_out_of_errors() {
    let bench = bench().await;
    let value = "sup3r-s3cret-canary";
    let want = kms_sync::model::SecretValue::new(value);
    bench.cx.redactor().learn(&want);
    let echo = format!("{{\"code\":\"InvalidParameter\",\"message\":\"bad content {value} c3VwM3ItczNjcmV0LWNhbmFyeQ==\"}}");
    bench.host.faults.add(Fault::next("POST /20180608/secrets", 1, Effect::status(400, echo)));
    let error = bench.apply(Action::Create, "A", Some(value), None).await.expect_err("refused");
    let text = format!("{error} {error:?}");
    assert!(text.contains("***") && !text.contains("canary") && !text.contains("c3VwM3I"), "{text}");
}

/// An answer with a content type and, perhaps, an encoding.
fn page(status: u16, kind: &str, encoding: Option<&str>, body: &str) -> Effect {
    let headers = [("content-type", Some(kind)), ("content-encoding", encoding)];
    let headers = headers.into_iter().filter_map(|(name, value)| Some((name.to_string(), value?.to_string()))).collect();
    Effect::Answer { status, headers, body: body.to_string() }
}

#[tokio::test(start_paused = true)]
async fn answers_of_something_in_between() {
    let bench = bench().await;
    let html = "<html><head><title>Proxy</title></head><body>Please sign in</body></html>";
    for (effect, kind, words) in [
        (page(200, "text/html", None, html), ErrorKind::NotTheService, vec!["not JSON", "proxy"]),
        (page(200, "application/json", None, html), ErrorKind::NotTheService, vec!["not JSON"]),
        (page(200, "application/json", Some("gzip"), "\u{1f}\u{b}\u{8}"), ErrorKind::NotTheService, vec!["compressed (gzip)", "proxy"]),
        (page(200, "application/json", None, "{\"items\":[]}"), ErrorKind::NotTheService, vec!["not the JSON"]),
        (page(400, "application/json", None, "{\"message\":\"odd\"}"), ErrorKind::Invalid, vec!["400", "odd"]),
        (page(400, "application/json", None, ""), ErrorKind::Invalid, vec!["was refused"]),
        (page(403, "text/html", None, html), ErrorKind::Permission, vec!["SECRET_INSPECT", "Please sign in"]),
        (page(404, "text/html", None, html), ErrorKind::NotTheService, vec!["endpoints"]),
        (page(409, "application/json", None, "{}"), ErrorKind::Conflict, vec!["409"]),
        (page(418, "text/plain", None, "short and stout"), ErrorKind::NotTheService, vec!["short and stout", "proxy"]),
        (page(500, "application/json", Some("gzip"), "\u{1f}\u{b}\u{8}"), ErrorKind::Transient, vec!["compressed with gzip"]),
        (page(503, "text/html", None, html), ErrorKind::Transient, vec!["503", "Please sign in"]),
    ] {
        bench.host.faults.add(Fault::always("GET /20180608/secrets", 1.0, effect));
        let error = bench.list().await.expect_err("no list");
        assert_eq!(error.kind, kind, "{error}");
        for word in words {
            assert!(error.text().contains(word), "{word}: {error}");
        }
        assert!(!error.text().contains('<') && !error.text().contains('\u{1f}'), "{error}");
        bench.host.faults.clear();
    }
    // A proxy's hiccup, and the list is there.
    bench.host.faults.add(Fault::next("GET /20180608/secrets", 3, page(503, "text/html", None, html)));
    assert_eq!(bench.list().await.expect("listed").entries.len(), 0);
    // A write that a proxy answered is looked for, and sent again when it never arrived.
    for status in [502, 200] {
        let (key, old) = (format!("A{status}"), "one");
        bench.create(&key, old).await;
        let entry = bench.entry(&key).await;
        bench.host.log.clear();
        bench.host.faults.add(Fault::next("PUT ", 1, page(status, "text/html", None, html)));
        let written = bench.apply(Action::Update, &key, Some("two"), Some(&entry)).await.expect("written");
        assert!(!written.untouched && written.stamp.is_some_and(|s| s.starts_with("2@")), "{status}");
        assert_eq!((bench.host.log.count("PUT "), bench.state.value(&key).as_deref()), (2, Some("two")), "{status}");
    }
    // And while the proxy is in the way nothing counts as done.
    bench.create("B", "one").await;
    let entry = bench.entry("B").await;
    for (on, action, value) in
        [("PUT ", Action::Update, Some("two")), ("scheduleDeletion", Action::Delete, None), ("POST /20180608/secrets", Action::Create, Some("n"))]
    {
        bench.host.faults.add(Fault::always(on, 1.0, page(200, "text/html", None, html)));
        let (key, entry) = if action == Action::Create { ("NEW", None) } else { ("B", Some(&entry)) };
        let error = bench.apply(action, key, value, entry).await.expect_err("a proxy's page is no success");
        assert_eq!(error.kind, ErrorKind::NotTheService, "{on}: {error}");
        assert!(error.ambiguous, "{on}");
        bench.host.faults.clear();
    }
    assert_eq!((bench.state.value("B").as_deref(), bench.state.secret("NEW").is_none()), (Some("one"), true));
}

#[tokio::test]
async fn syncs_of_one_connection_share_its_pace() {
    let bench = bench().await;
    bench.state.put("A", b"v");
    let (one, other) = (bench.open().await, bench.open().await);
    let entry = bench.entry("A").await;
    let before = bench.session.budget().expect("a pace");
    assert!(before.starts_with("500 reads/s, 500 writes/s"), "{before}");
    let refusal = serde_json::json!({"code": "TooManyRequests", "message": "User-rate limit exceeded."}).to_string();
    bench.host.faults.add(Fault::next("PUT ", 1, Effect::status(429, refusal)));
    let (begun, target) = (Instant::now(), &*one);
    let writing = async {
        let written = apply(&bench.cx, target, Action::Update, "A", Some("new"), Some(&entry)).await;
        written.expect("written in the end");
    };
    // The other one's write, begun while the first is held, is held with it.
    let held = async {
        while bench.host.log.count("PUT ") == 0 {
            tokio::task::yield_now().await;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        apply(&bench.cx, &*other, Action::Create, "B", Some("v"), None).await.expect("created");
    };
    tokio::join!(writing, held);
    assert!(begun.elapsed() >= Duration::from_secs(1), "both waited: {:?}", begun.elapsed());
    let after = bench.session.budget().expect("a pace");
    assert!(after.starts_with("500 reads/s, 250 writes/s"), "{after}");
}
