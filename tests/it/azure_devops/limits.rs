//! Sizes, refused names, and secrets that must not show.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use kms_sync::destination::Provider as _;
use kms_sync::destination::azure_devops::AzureDevOps;
use kms_sync::http::{Cx, ErrorKind};
use kms_sync::model::Map;
use kms_sync::sandbox::azure_devops::Variable;
use kms_sync::sandbox::host::{Effect, Fault};

use super::rig::{TOKEN, methods, rig};

#[tokio::test]
async fn one_refused_variable_does_not_stop_the_others() {
    let rig = rig().await;
    rig.state.refuse_name("BAD.NAME");
    let mut sync = rig.sync("a");
    let ran = sync.run(&[("A", "1"), ("BAD", "2"), ("BAD.NAME", "3")]).await;
    assert_eq!(ran.created, ["A", "BAD"]);
    assert_eq!(ran.failed.len(), 1);
    assert_eq!(ran.failed[0].0, "BAD.NAME");
    assert!(ran.failed[0].1.text().contains("refused by the service"), "{:?}", ran.failed);
    assert_eq!(methods(&rig.requests()), "GET POST POST");
    // A refused key that exists keeps its entry.
    rig.state.set(rig.group(), "BAD.NAME", Variable::secret("old"));
    let ran = sync.run(&[("A", "2"), ("BAD", "2"), ("BAD.NAME", "3")]).await;
    assert_eq!((ran.updated.len(), ran.failed.len()), (1, 1), "{ran:?}");
    assert_eq!((rig.value("A").as_deref(), rig.value("BAD.NAME").as_deref()), (Some("2"), Some("old")));
}

#[tokio::test]
async fn several_refused_variables_are_left_out_one_by_one() {
    let rig = rig().await;
    let bad: Vec<String> = (0..10).map(|i| format!("B{i}")).collect();
    bad.iter().for_each(|name| rig.state.refuse_name(name));
    let mut want: Vec<(&str, &str)> = bad.iter().map(|name| (name.as_str(), "1")).collect();
    want.extend([("A", "1"), ("Z", "1")]);
    let ran = rig.sync("a").run(&want).await;
    assert_eq!((ran.created.as_slice(), ran.failed.len()), (["A".to_string(), "Z".to_string()].as_slice(), 10), "{ran:?}");
    assert!(ran.failed.iter().all(|(key, error)| error.text().contains(&format!("'{key}' is not valid"))), "{:?}", ran.failed);
    assert_eq!(rig.state.variables(rig.group()).len(), 2);
    assert_eq!(methods(&rig.requests()), format!("GET{}", " POST".repeat(11)));
}

#[tokio::test]
async fn too_many_refused_variables_fail_the_group_with_the_servers_words() {
    let rig = rig().await;
    let bad: Vec<String> = (10..21).map(|i| format!("B{i}")).collect();
    bad.iter().for_each(|name| rig.state.refuse_name(name));
    let want: Vec<(&str, &str)> = bad.iter().map(|name| (name.as_str(), "1")).chain([("A", "1")]).collect();
    let error = rig.sync("a").try_run(&Cx::quiet(), &want).await.expect_err("refused");
    assert!(error.text().contains("'B20' is not valid"), "{error}");
    assert!(rig.state.groups().is_empty());
    assert_eq!(methods(&rig.requests()), format!("GET{}", " POST".repeat(11)));
}

/// One organisation counts what all runs of a connection send: together they stay few at once.
#[tokio::test]
async fn many_runs_of_one_connection_send_four_requests_at_once() {
    let rig = rig().await;
    let session = rig.session();
    // Writes take longer than readings, so that they queue up.
    rig.host.faults.add(Fault::always("", 1.0, Effect::Delay(Duration::from_millis(100))));
    rig.host.faults.add(Fault::always("POST ", 1.0, Effect::Delay(Duration::from_millis(200))));
    let told: Arc<Mutex<Vec<String>>> = Arc::default();
    let sink = told.clone();
    let cx = Cx::new(Default::default(), Arc::new(move |waiting| sink.lock().expect("lock").extend(waiting.map(|w| w.reason))));
    let runs = (0..10).map(|i| {
        let mut sync = rig.sync(&format!("sync-{i}"));
        (sync.session, sync.environment) = (session.clone(), Some(format!("Environment {i}")));
        let cx = cx.clone();
        async move { sync.try_run(&cx, &[("A", "1")]).await.expect("a run") }
    });
    let ran = futures::future::join_all(runs).await;
    assert!(ran.iter().all(|r| r.created == ["A"]), "{ran:#?}");
    assert_eq!(rig.state.groups_of(&rig.project).len(), 10);
    assert_eq!(rig.host.log.most_at_once(), 4);
    let told = told.lock().expect("lock").clone();
    assert!(told.iter().any(|r| r.contains("other runs of this connection are writing")), "{told:?}");
}

#[tokio::test]
async fn too_many_names_are_refused_before_anything_is_sent() {
    let rig = rig().await;
    let keys: Vec<String> = (0..10_000).map(|i| format!("SERVICE_SECRET_KEY_{i:05}")).collect();
    let want: Vec<(&str, &str)> = keys.iter().map(|k| (k.as_str(), "v")).collect();
    let error = rig.sync("a").try_run(&Cx::quiet(), &want).await.expect_err("too many");
    assert_eq!(error.kind, ErrorKind::Quota);
    assert!(error.text().contains("variableGroupName"), "{error}");
    assert_eq!(methods(&rig.requests()), "GET");
    // A fifth of it is written, with a warning for Windows agents.
    let mut sync = rig.sync("a");
    let ran = sync.run(&want[..2000]).await;
    assert_eq!(ran.created.len(), 2000);
    assert!(ran.warnings.iter().any(|n| n.contains("30,000")), "{:?}", ran.warnings);
}

/// As many as still fit in the list of names that a job's agent is given.
#[tokio::test]
async fn ten_thousand_variables_are_one_group_and_two_calls() {
    let rig = rig().await;
    let keys: Vec<String> = (0..10_000).map(|i| format!("SECRET{i:04}")).collect();
    let value = "v".repeat(256);
    let want: Vec<(&str, &str)> = keys.iter().map(|k| (k.as_str(), value.as_str())).collect();
    let begun = std::time::Instant::now();
    let mut sync = rig.sync("a");
    let ran = sync.run(&want).await;
    assert_eq!((ran.created.len(), methods(&rig.requests()).as_str()), (10_000, "GET POST"));
    for word in ["30,000 characters", "KiB large"] {
        assert!(ran.warnings.iter().any(|w| w.contains(word)), "{:?}", ran.warnings);
    }
    let ran = sync.run(&want).await;
    assert_eq!((ran.writes(), ran.unchanged, methods(&rig.requests()).as_str()), (0, 10_000, "GET"));
    let mut changed = want.clone();
    changed[5_000].1 = "new";
    rig.state.set(rig.group(), "THEIRS", Variable::secret("x"));
    let ran = sync.run(&changed).await;
    assert_eq!((ran.updated.as_slice(), methods(&rig.requests()).as_str()), ([keys[5_000].clone()].as_slice(), "GET PUT"));
    let stored = rig.state.variables(rig.group());
    assert_eq!((stored.len(), stored["THEIRS"].value.as_deref()), (10_001, Some("x")));
    assert_eq!(stored[&keys[5_000]].value.as_deref(), Some("new"));
    assert!(stored[&keys[9_999]].value.as_deref() == Some(value.as_str()), "carried along");
    // A build without optimisation, and the stand-in's own work counted: what is a second there
    // must not be a minute here.
    assert!(begun.elapsed() < std::time::Duration::from_secs(30), "{:?}", begun.elapsed());
    // With one character more per name they are too many: that is said before anything is sent.
    let longer: Vec<String> = keys.iter().map(|k| format!("{k}X")).collect();
    let want: Vec<(&str, &str)> = longer.iter().map(|k| (k.as_str(), value.as_str())).collect();
    let mut other = rig.sync("b");
    other.environment = Some("Other".into());
    let error = other.try_run(&Cx::quiet(), &want).await.expect_err("too many");
    assert_eq!((error.kind, methods(&rig.requests()).as_str()), (ErrorKind::Quota, "GET"));
}

#[tokio::test]
async fn a_body_the_service_will_not_take_is_told_with_its_size() {
    let rig = rig().await;
    rig.host.faults.add(Fault::always("POST", 1.0, Effect::status(413, "Request Entity Too Large")));
    let big = "x".repeat(100_000);
    let error = rig.sync("a").try_run(&Cx::quiet(), &[("A", &big)]).await.expect_err("too large");
    assert_eq!(error.kind, ErrorKind::Quota);
    assert!(error.text().contains("bytes)"), "{error}");
    assert_eq!(methods(&rig.requests()), "GET POST");
}

#[tokio::test]
async fn sharing_errors_are_permanent_and_plain_trouble_is_not() {
    let rig = rig().await;
    let mut sync = rig.sync("a");
    sync.run(&[("A", "1")]).await;
    let json = vec![("content-type".to_string(), "application/json".to_string())];
    let body = r#"{"$id":"1","message":"Sharing of variable group is not allowed.","typeKey":"Exception"}"#;
    rig.host.faults.add(Fault::next("PUT", 1, Effect::Answer { status: 500, headers: json.clone(), body: body.into() }));
    rig.requests();
    let error = sync.try_run(&Cx::quiet(), &[("A", "2")]).await.expect_err("refused");
    assert_eq!(error.kind, ErrorKind::Invalid);
    assert_eq!(methods(&rig.requests()), "GET PUT");
    for status in [500, 502, 503] {
        rig.host.faults.add(Fault::next("GET", 2, Effect::status(status, "trouble")));
        sync.run(&[("A", &status.to_string())]).await;
    }
    rig.host.faults.add(Fault::always("GET", 1.0, Effect::status(500, "trouble")));
    let error = sync.try_run(&Cx::quiet(), &[("A", "x")]).await.expect_err("down");
    assert_eq!(error.kind, ErrorKind::Transient);
}

#[tokio::test]
async fn keys_are_judged_before_any_call() {
    let keys = AzureDevOps.keys(&Map::new());
    assert!(keys.convert(&"x".repeat(401)).is_err() && keys.convert("a\nb").is_err() && keys.convert("a\0").is_err());
    assert!(keys.warn("SECRET_x").is_some() && keys.warn("9lives").is_none());
    let rig = rig().await;
    let ran = rig.sync("a").run(&[("a.b", "1"), ("a_b", "2"), ("x", "3")]).await;
    assert_eq!(ran.created.len(), 3);
    assert!(ran.warnings.iter().any(|n| n.contains("A_B")), "scripts cannot tell them apart: {:?}", ran.warnings);
}

#[tokio::test]
async fn canaries_and_escapes_do_not_reach_a_message() {
    let rig = rig().await;
    let mut sync = rig.sync("a");
    let cx = Cx::quiet();
    cx.redactor().learn(&kms_sync::model::SecretValue::new("value-canary"));
    let header = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, format!(":{TOKEN}"));
    let message = format!("\u{1b}[31mvalue-canary \u{202e}{TOKEN} {header}");
    let body = serde_json::json!({"message": message, "typeKey": "X\u{1b}[2J"}).to_string();
    for method in ["GET", "POST"] {
        let headers = vec![("content-type".to_string(), "application/json".to_string())];
        rig.host.faults.add(Fault::next(method, 1, Effect::Answer { status: 400, headers, body: body.clone() }));
        let error = sync.try_run(&cx, &[("A", "value-canary")]).await.expect_err("refused");
        for text in [error.text(), format!("{error:?}")] {
            assert!(!text.contains("canary") && !text.contains(&header), "{text}");
            assert!(!error.text().contains('\u{1b}') && !error.text().contains('\u{202e}'), "{text}");
        }
    }
    rig.state.group(&rig.project, "production environment", &[("X\u{1b}[31m", Variable::plain("x"))]);
    let ran = sync.try_run(&cx, &[("A", "1")]).await.expect("a run");
    assert!(!ran.warnings.join(" ").contains('\u{1b}'));
}
