//! What goes wrong on the way: throttling, lost answers, wrong answers, other writers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::extract::Request;
use axum::middleware::Next;
use kms_sync::http::{Cx, ErrorKind};
use kms_sync::sandbox::aws::{self, ACCESS_KEY_ID, KMS_ALIAS, SECRET_ACCESS_KEY, State};
use kms_sync::sandbox::host::{Effect, Fault, Host};
use serde_json::json;

use super::direct::{Direct, calls, connection};
use super::lab::{Lab, REGION, many};

fn refusal(status: u16, code: &str, headers: &[(&str, &str)]) -> Effect {
    let headers = headers.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
    Effect::Answer { status, headers, body: json!({"__type": code, "message": "Rate exceeded"}).to_string() }
}

#[tokio::test]
async fn throttling_is_waited_out_in_milliseconds() {
    let lab = Lab::new().await;
    let mut sync = lab.sync(json!({}));
    sync.run_full(&many(50), &[]).await.clean();
    let changed: Vec<_> = many(50).into_iter().map(|(k, _)| (k, "w".to_string())).collect();
    lab.host.faults.add(Fault::next("PutSecretValue", 1, refusal(400, "ThrottlingException", &[("x-amz-retry-after", "300")])).after(2));
    let begun = std::time::Instant::now();
    let report = sync.run_full(&changed, &[]).await.clean();
    assert!((300..30_000).contains(&(begun.elapsed().as_millis() as u64)), "{:?}", begun.elapsed());
    assert_eq!((report.count("update"), report.requests.retries), (50, 1));
    assert!(report.requests.waited_ms >= 250, "the wait is visible: {}", report.requests.waited_ms);
    assert!((0..50).all(|i| lab.view(&format!("K{i:03}")).versions == 2), "no duplicates");
    assert!(sync.session.budget().is_some_and(|b| b.contains("PutSecretValue")));
}

#[tokio::test]
async fn a_storm_is_survived() {
    let lab = Lab::new().await;
    lab.host.faults.add(Fault::always("CreateSecret", 0.15, Effect::status(503, "<html>busy</html>")));
    lab.host.faults.add(Fault::always("CreateSecret", 0.05, Effect::LostAnswer));
    lab.host.faults.add(Fault::always("CreateSecret", 0.05, Effect::HalfBody));
    lab.host.faults.add(Fault::always("ListSecrets", 0.2, Effect::Reset));
    let mut sync = lab.sync(json!({}));
    sync.run_full(&many(60), &[]).await;
    lab.host.faults.clear();
    sync.run_full(&many(60), &[]).await.clean();
    assert!((0..60).all(|i| lab.view(&format!("K{i:03}")).versions == 1));
    assert_eq!(sync.run_full(&many(60), &[]).await.clean().unchanged, 60);
}

#[tokio::test]
async fn a_full_quota_is_not_retried() {
    let lab = Lab::new().await;
    lab.host.faults.add(Fault::always("CreateSecret", 1.0, refusal(400, "LimitExceededException", &[])));
    let report = lab.sync(json!({})).run(&[("A", "1")]).await;
    assert_eq!((report.failed["A"].kind, report.calls()["CreateSecret"]), (ErrorKind::Quota, 1));
}

#[tokio::test]
async fn a_lost_answer_leaves_one_version() {
    let lab = Lab::new().await;
    let mut sync = lab.sync(json!({}));
    for (on, options, value) in [("CreateSecret", None, "1"), ("PutSecretValue", None, "2"), ("UpdateSecret", Some(KMS_ALIAS), "3")] {
        if let Some(key) = options {
            sync.option("keyId", json!(key));
        }
        lab.host.faults.add(Fault::next(on, 1, Effect::LostAnswer));
        let report = sync.run(&[("A", value)]).await.clean();
        assert_eq!((report.calls()[on], report.requests.retries), (2, 1), "{on}");
        assert_eq!(lab.value("A").as_deref(), Some(value));
        assert_eq!(lab.view("A").versions.to_string(), value, "one version per value");
        assert_eq!(sync.run(&[("A", value)]).await.clean().calls(), calls(json!({"ListSecrets": 1})));
    }
    lab.host.faults.add(Fault::next("DeleteSecret", 1, Effect::LostAnswer));
    sync.run(&[]).await.clean();
    assert!(lab.view("A").deleted);
    lab.host.faults.add(Fault::next("RestoreSecret", 1, Effect::LostAnswer));
    sync.run(&[("A", "3")]).await.clean();
    assert_eq!(lab.value("A").as_deref(), Some("3"));
}

/// A service whose first PutSecretValue is carried out, answered with a failure, and at once
/// overwritten by another hand.
async fn overtaken_service() -> (Host, State) {
    let state = State::default();
    let (other, first) = (state.clone(), Arc::new(AtomicBool::new(true)));
    let layer = axum::middleware::from_fn(move |request: Request, next: Next| {
        let (other, first) = (other.clone(), first.clone());
        async move {
            let put = request.headers().get("x-amz-target").is_some_and(|t| t == "secretsmanager.PutSecretValue");
            let response = next.run(request).await;
            if put && first.swap(false, Ordering::Relaxed) {
                other.edit(REGION, "A", "theirs");
                let mut failed = axum::response::Response::new(axum::body::Body::empty());
                *failed.status_mut() = axum::http::StatusCode::INTERNAL_SERVER_ERROR;
                return failed;
            }
            response
        }
    });
    let host = Host::start(aws::router(state.clone()).layer(layer), None).await.expect("the sandbox starts");
    (host, state)
}

#[tokio::test]
async fn another_writer_in_between_is_a_conflict_not_a_success() {
    let (host, state) = overtaken_service().await;
    let credentials = json!({"accessKeyId": ACCESS_KEY_ID, "secretAccessKey": SECRET_ACCESS_KEY});
    let config = json!({"region": REGION, "mappingBehavior": "one-to-one"});
    let mut sync = Direct::new(connection("access-key", credentials, json!({"endpoint": host.url})), config, json!({}));
    sync.run(&[("A", "1")]).await.clean();
    let report = sync.run(&[("A", "2")]).await;
    assert_eq!((report.failed["A"].kind, report.failed["A"].code.as_deref()), (ErrorKind::Conflict, Some("Overtaken")));
    assert_eq!(state.value_of(REGION, "A").as_deref(), Some("theirs"));
    sync.run(&[("A", "2")]).await.clean();
    assert_eq!(state.value_of(REGION, "A").as_deref(), Some("2"));
}

#[tokio::test]
async fn answers_that_are_not_awss() {
    let lab = Lab::new().await;
    lab.host.faults.add(Fault::next("ListSecrets", 1, Effect::status(503, "<html>gateway</html>")));
    let report = lab.sync(json!({})).run(&[]).await.clean();
    assert_eq!(report.calls(), calls(json!({"ListSecrets": 2})));
    lab.host.faults.add(Fault::next("ListSecrets", 1, Effect::status(200, "<html>sign in</html>")));
    let error = lab.sync(json!({})).try_run(&[], &[]).await.expect_err("a portal");
    assert_eq!((error.kind, error.status), (ErrorKind::NotTheService, Some(200)));
    assert!(error.advice.is_some_and(|a| a.contains("proxy")));
}

/// Nothing of this is an answer of AWS, however well it parses: the SDK leaves what is missing
/// empty, and an empty list would have everything created anew.
#[tokio::test]
async fn answers_that_lack_what_every_answer_has_are_refused() {
    let lab = Lab::new().await;
    let mut sync = lab.sync(json!({}));
    let source = [("A", "1"), ("B", "1")];
    sync.run(&source).await.clean();
    let nameless = [json!({"SecretList": [{}]}), json!({"SecretList": [{"Name": "A"}]}), json!({"SecretList": [{"ARN": "arn:aws:x"}]})];
    let wrong = [json!({"SecretList": "x"}), json!({"SecretList": {}}), json!({"SecretList": [], "NextToken": 7}), json!([]), json!("x")];
    let empty = [json!({}), json!({"SecretList": null}), json!({"NextToken": null}), json!({"secretList": []})];
    for body in nameless.iter().chain(&wrong).chain(&empty) {
        lab.host.faults.add(Fault::next("ListSecrets", 1, Effect::status(200, body.to_string())));
        let error = sync.try_run(&[("A".into(), "1".into()), ("NEW".into(), "1".into())], &[]).await.expect_err(&body.to_string());
        assert_eq!(error.kind, ErrorKind::NotTheService, "{body}: {error}");
        assert!(error.advice.as_deref().is_some_and(|a| a.contains("proxy")), "{body}: {error}");
    }
    assert!(lab.state.view(REGION, "NEW").is_none());
    // Values: one that does not come is no missing one.
    sync.verify = true;
    for (call, body) in [
        ("BatchGetSecretValue", json!({})),
        ("BatchGetSecretValue", json!({"SecretValues": [{}]})),
        ("BatchGetSecretValue", json!({"SecretValues": [{"ARN": lab.view("A").arn, "Name": "A"}]})),
    ] {
        lab.host.faults.add(Fault::next(call, 1, Effect::status(200, body.to_string())));
        let report = sync.run(&source).await;
        assert!(!report.failed.is_empty() && report.failed.values().all(|e| e.kind == ErrorKind::NotTheService), "{body}: {report:?}");
        assert!(report.done.is_empty(), "{body}: nothing is written over what could not be read");
    }
    let mut one = lab.sync(json!({"keySchema": "A{{secretKey}}"}));
    lab.seed("AX", "1");
    for body in [json!({}), json!({"ARN": "arn:aws:x", "Name": "AX", "VersionId": "v"}), json!({"SecretString": "1"})] {
        lab.host.faults.add(Fault::next("GetSecretValue", 1, Effect::status(200, body.to_string())));
        let report = one.run(&[("X", "2")]).await;
        assert_eq!(report.failed["AX"].kind, ErrorKind::NotTheService, "{body}");
        assert_eq!(lab.value("AX").as_deref(), Some("1"));
    }
    // Many-to-one: a description of nothing is no secret without a value.
    lab.seed("prod", r#"{"F":"f"}"#);
    for body in [json!({}), json!({"ARN": "arn:aws:x"}), json!({"Name": "prod"}), json!([])] {
        lab.host.faults.add(Fault::next("DescribeSecret", 1, Effect::status(200, body.to_string())));
        let error = lab.object("prod", json!({})).try_run(&[("K".into(), "1".into())], &[]).await.expect_err("no description");
        assert_eq!(error.kind, ErrorKind::NotTheService, "{body}: {error}");
        assert_eq!(lab.value("prod").as_deref(), Some(r#"{"F":"f"}"#));
    }
}

#[tokio::test]
async fn success_without_a_sign_of_it_is_none() {
    let lab = Lab::new().await;
    let mut sync = lab.sync(json!({}));
    sync.run(&[("A", "1"), ("GONE", "1")]).await.clean();
    for (call, source, key) in [
        ("CreateSecret", &[("A", "1"), ("GONE", "1"), ("NEW", "1")][..], "NEW"),
        ("PutSecretValue", &[("A", "2"), ("GONE", "1")], "A"),
        ("DeleteSecret", &[("A", "1")], "GONE"),
    ] {
        lab.host.faults.add(Fault::next(call, 1, Effect::status(200, "{}")));
        let report = sync.run(source).await;
        assert_eq!(report.failed[key].kind, ErrorKind::NotTheService, "{call}: {report:?}");
    }
    assert_eq!((lab.value("A").as_deref(), lab.value("GONE").as_deref()), (Some("1"), Some("1")));
    assert!(lab.state.view(REGION, "NEW").is_none());
}

#[tokio::test]
async fn a_cut_answer_shows_no_value() {
    let marker = "MARKER-hunter2-value";
    let lab = Lab::new().await;
    lab.seed("A", marker);
    lab.seed("B", marker);
    let cut = |members: &str| Effect::Answer {
        status: 200,
        headers: vec![("content-type".into(), "application/x-amz-json-1.1".into())],
        body: format!("{{{members}\"SecretString\":\"{marker}\""),
    };
    lab.host.faults.add(Fault::always("GetSecretValue", 1.0, cut("")));
    lab.host.faults.add(Fault::always("BatchGetSecretValue", 1.0, cut("\"SecretValues\":[{")));
    for keys in [&[("A", "1")][..], &[("A", "1"), ("B", "1")][..]] {
        let report = lab.sync(json!({})).run(keys).await;
        assert_eq!(report.failed.len(), keys.len());
        assert!(!format!("{report:?}").contains("hunter2"), "{report:?}");
        assert!(report.failed.values().all(|e| !e.to_string().contains("hunter2")));
    }
    let error = lab.object("A", json!({})).try_run(&[("K".into(), "1".into())], &[]).await.expect_err("cut");
    assert!(!format!("{error:?} {error}").contains("hunter2"));
}

#[tokio::test]
async fn a_dead_endpoint_is_unreachable() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    drop(listener);
    let credentials = json!({"accessKeyId": ACCESS_KEY_ID, "secretAccessKey": SECRET_ACCESS_KEY});
    let mut sync = Direct::new(
        connection("access-key", credentials, json!({"endpoint": url})),
        json!({"region": REGION, "mappingBehavior": "one-to-one"}),
        json!({}),
    );
    let error = sync.try_run(&[], &[]).await.expect_err("nothing listens");
    assert_eq!(error.kind, ErrorKind::Unreachable, "{error}");
    assert!(error.advice.is_some());
}

#[tokio::test]
async fn cancelling_ends_the_waits() {
    let lab = Lab::new().await;
    lab.host.faults.add(Fault::always("ListSecrets", 1.0, refusal(400, "ThrottlingException", &[("x-amz-retry-after", "60000")])));
    let cx = kms_sync::http::Cx::quiet();
    let token = cx.cancel_token().clone();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(200)).await;
        token.cancel();
    });
    let begun = std::time::Instant::now();
    let error = lab.sync(json!({})).run_in(&cx, &[], &[]).await.expect_err("cancelled");
    assert_eq!(error.kind, ErrorKind::Cancelled);
    assert!(begun.elapsed() < Duration::from_secs(10));
}

/// A context in which somebody else edits the object whenever something is waited for.
fn edited_meanwhile(lab: &Lab, value: &'static str) -> Cx {
    let state = lab.state.clone();
    let edit = move |waiting: Option<kms_sync::model::board::Waiting>| {
        if waiting.is_some() {
            state.edit(REGION, "prod", value);
        }
    };
    Cx::new(tokio_util::sync::CancellationToken::new(), Arc::new(edit))
}

#[tokio::test]
async fn what_others_put_into_the_object_while_a_write_waits_is_kept() {
    let throttled = |ms| refusal(400, "ThrottlingException", &[("x-amz-retry-after", ms)]);
    for (what, effect) in [("short", throttled("300")), ("long", throttled("2500")), ("busy", Effect::status(503, "{}"))] {
        let lab = Lab::new().await;
        let mut sync = lab.object("prod", json!({}));
        sync.run(&[("A", "1")]).await.clean();
        lab.host.faults.add(Fault::next("PutSecretValue", 1, effect));
        let cx = edited_meanwhile(&lab, r#"{"A":"1","THEIRS":"t"}"#);
        let report = sync.run_in(&cx, &[("A".into(), "2".into())], &[]).await.expect("a run").clean();
        assert_eq!(lab.value("prod").as_deref(), Some(r#"{"A":"2","THEIRS":"t"}"#), "{what}");
        assert_eq!((report.calls()["PutSecretValue"], report.requests.retries), (2, 1), "{what}");
    }
    // The whole secret would go, and must not while it holds something of theirs.
    let lab = Lab::new().await;
    let mut sync = lab.object("prod", json!({}));
    sync.run(&[("A", "1")]).await.clean();
    lab.host.faults.add(Fault::next("DeleteSecret", 1, throttled("300")));
    let cx = edited_meanwhile(&lab, r#"{"A":"1","THEIRS":"t"}"#);
    sync.run_in(&cx, &[], &[]).await.expect("a run").clean();
    assert_eq!(lab.value("prod").as_deref(), Some(r#"{"THEIRS":"t"}"#));
    assert_eq!(lab.view("prod").window, None, "it was not deleted");
}

#[tokio::test]
async fn a_lost_answer_to_a_write_of_the_object_is_looked_for() {
    let lab = Lab::new().await;
    let mut sync = lab.object("prod", json!({}));
    sync.run(&[("A", "1")]).await.clean();
    lab.host.faults.add(Fault::next("PutSecretValue", 1, Effect::LostAnswer));
    let report = sync.run(&[("A", "2")]).await.clean();
    assert_eq!((report.calls()["PutSecretValue"], lab.view("prod").versions), (1, 2));
    assert_eq!(sync.run(&[("A", "2")]).await.clean().calls(), calls(json!({"DescribeSecret": 1})));
}
