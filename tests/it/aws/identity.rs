//! Credentials: keys, sessions, roles, the default chain, the clock, the connection test.

use std::process::{Command, Output};
use std::sync::Arc;

use kms_sync::destination::Provider;
use kms_sync::destination::aws::AWS;
use kms_sync::http::{Cx, ErrorKind};
use kms_sync::model::Forgetful;
use kms_sync::sandbox::aws::{ACCESS_KEY_ID, ROLE_ARN, SECRET_ACCESS_KEY};
use kms_sync::sandbox::host::{Effect, Fault};
use serde_json::{Value, json};

use super::direct::{Direct, Mem, Report, calls, connection};
use super::lab::{Lab, REGION};

fn sync(lab: &Lab, method: &str, credentials: Value) -> Direct {
    let settings = json!({"endpoint": lab.host.url});
    Direct::new(connection(method, credentials, settings), json!({"region": REGION, "mappingBehavior": "one-to-one"}), json!({}))
}

fn keys() -> Value {
    json!({"accessKeyId": ACCESS_KEY_ID, "secretAccessKey": SECRET_ACCESS_KEY})
}

#[tokio::test]
async fn a_wrong_secret_is_not_retried() {
    let lab = Lab::new().await;
    let mut wrong = sync(&lab, "access-key", json!({"accessKeyId": ACCESS_KEY_ID, "secretAccessKey": "nope-nope-nope-nope"}));
    let error = wrong.try_run(&[], &[]).await.expect_err("a wrong secret");
    assert_eq!((error.kind, error.code.as_deref()), (ErrorKind::Auth, Some("InvalidSignatureException")));
    assert_eq!(lab.host.log.count("ListSecrets"), 1);
    assert!(!format!("{error:?}").contains("nope-nope"));
    let mut unknown = sync(&lab, "access-key", json!({"accessKeyId": "AKIAUNKNOWN000000000", "secretAccessKey": "x"}));
    let error = unknown.try_run(&[], &[]).await.expect_err("an unknown key");
    assert_eq!((error.kind, error.code.as_deref()), (ErrorKind::Auth, Some("UnrecognizedClientException")));
    assert!(error.request_id.is_some() && error.advice.is_some());
}

#[tokio::test]
async fn a_wrong_clock_costs_one_retry_and_a_warning() {
    let lab = Lab::new().await;
    lab.state.set_clock(600);
    let mut sync = sync(&lab, "access-key", keys());
    let report = sync.run(&[("A", "1")]).await.clean();
    assert_eq!(report.calls(), calls(json!({"ListSecrets": 2, "CreateSecret": 1})));
    assert!(report.warnings.iter().any(|w| w.contains("10 min behind")), "{:?}", report.warnings);
}

#[tokio::test]
async fn an_ended_session_is_final_for_pasted_keys_and_renewed_for_a_role() {
    let lab = Lab::new().await;
    lab.state.add_session("ASIASANDBOX000000001", "s3cr3t-s3cr3t", "t0ken-t0ken", -1);
    let pasted = json!({"accessKeyId": "ASIASANDBOX000000001", "secretAccessKey": "s3cr3t-s3cr3t", "sessionToken": "t0ken-t0ken"});
    let error = sync(&lab, "access-key", pasted).try_run(&[], &[]).await.expect_err("ended");
    assert_eq!((error.kind, error.code.as_deref()), (ErrorKind::Auth, Some("ExpiredTokenException")));
    assert_eq!(lab.host.log.count("ListSecrets"), 1);
}

#[tokio::test]
async fn the_test_says_who_and_proves_a_right() {
    let lab = Lab::new().await;
    let cx = Cx::quiet();
    let one = sync(&lab, "access-key", keys());
    let report = one.session.test(&cx, Some(&one.target.config)).await.expect("good");
    assert_eq!(report.identity, "account 123456789012, as arn:aws:iam::123456789012:user/sandbox");
    assert!(report.notes.iter().any(|n| n.contains("ListSecrets is allowed")));
    let many = lab.object("prod", json!({}));
    let report = many.session.test(&cx, Some(&many.target.config)).await.expect("good");
    assert!(report.notes.iter().any(|n| n.contains("does not exist yet")));
    lab.state.deny("ListSecrets", "");
    let error = one.session.test(&cx, Some(&one.target.config)).await.expect_err("denied");
    assert_eq!(error.kind, ErrorKind::Permission);
    assert!(one.session.test(&cx, None).await.expect("the keys are good").notes.iter().any(|n| n.contains("denied")));
    let wrong = sync(&lab, "access-key", json!({"accessKeyId": "AKIAUNKNOWN000000000", "secretAccessKey": "x"}));
    let error = wrong.session.test(&cx, None).await.expect_err("unknown");
    assert_eq!((error.kind, error.status), (ErrorKind::Auth, Some(403)));
    let regions = one.session.choices(&cx, "region", &Default::default()).await.expect("a list");
    assert!(regions.iter().any(|c| c.value == "eu-central-1"));
}

#[test]
fn a_connection_is_checked_before_any_call() {
    let try_one = |credentials: Value| AWS.connect(connection("access-key", credentials, json!({})), std::sync::Arc::new(Forgetful)).err();
    assert!(try_one(json!({"accessKeyId": "ASIASANDBOX000000001", "secretAccessKey": "x"})).is_some());
    assert!(try_one(json!({"accessKeyId": ACCESS_KEY_ID, "secretAccessKey": "x"})).is_none());
}

#[tokio::test]
async fn equal_places_have_equal_identities() {
    let lab = Lab::new().await;
    let identity = |d: &Direct| {
        let (session, target) = (d.session.clone(), d.target.clone());
        async move { session.open(&Cx::quiet(), &target).await.expect("open").identity() }
    };
    let (a, b) = (sync(&lab, "access-key", keys()), sync(&lab, "access-key", keys()));
    assert_eq!(identity(&a).await, identity(&b).await);
    assert_eq!(identity(&a).await, format!("aws|{}|123456789012|us-east-1", lab.host.url));
    assert_ne!(identity(&a).await, identity(&lab.object("x", json!({}))).await);
    let role = Direct::new(
        connection("assume-role", json!({"roleArn": "arn:aws-cn:iam::123456789012:role/x"}), json!({})),
        json!({"region": "us-east-1", "mappingBehavior": "one-to-one"}),
        json!({}),
    );
    let mut role = role;
    let refused = role.try_run(&[], &[]).await.expect_err("another partition");
    assert_eq!(refused.kind, ErrorKind::Invalid, "a role of another partition is refused offline");
}

#[tokio::test]
async fn a_rotated_key_finds_its_ledger_and_the_account_is_asked_once() {
    let lab = Lab::new().await;
    lab.state.add_session("ASIASANDBOX000000002", "s3cr3t-s3cr3t", "t0ken-t0ken", 3600);
    let memory: Arc<Mem> = Arc::default();
    let with = |credentials: Value| {
        let connection = connection("access-key", credentials, json!({"endpoint": lab.host.url}));
        Direct::with(connection, json!({"region": REGION, "mappingBehavior": "one-to-one"}), json!({}), memory.clone())
    };
    let asked = |report: &Report| report.requests.by_call["aws"].get("GetCallerIdentity").copied().unwrap_or(0);
    let rotated = json!({"accessKeyId": "ASIASANDBOX000000002", "secretAccessKey": "s3cr3t-s3cr3t", "sessionToken": "t0ken-t0ken"});
    let mut places = Vec::new();
    for (credentials, questions) in [(keys(), 1), (keys(), 0), (rotated.clone(), 1), (rotated, 0)] {
        // Each with a session of its own, as after a restart.
        let mut sync = with(credentials);
        let report = sync.run(&[("A", "1")]).await.clean();
        assert_eq!(asked(&report), questions);
        places.push(sync.session.open(&Cx::quiet(), &sync.target).await.expect("open").identity());
    }
    places.dedup();
    assert_eq!(places, [format!("aws|{}|123456789012|us-east-1", lab.host.url)]);
    // The connection's test learns it too, and a role tells it by its ARN.
    let fresh = sync(&lab, "access-key", keys());
    fresh.session.test(&Cx::quiet(), None).await.expect("good");
    let cx = Cx::quiet();
    fresh.session.open(&cx, &fresh.target).await.expect("open");
    let role = sync(&lab, "assume-role", json!({"roleArn": ROLE_ARN}));
    let place = role.session.open(&cx, &role.target).await.expect("open").identity();
    assert_eq!((place, cx.meter().snapshot().total), (places.remove(0), 0));
}

#[tokio::test]
async fn without_sts_the_key_stands_for_the_account_and_stays() {
    let lab = Lab::new().await;
    let memory: Arc<Mem> = Arc::default();
    // Nothing answers there at first, later STS does: the ledger must not move.
    let with = |sts: &str| {
        let connection = connection("access-key", keys(), json!({"endpoint": lab.host.url, "stsEndpoint": sts}));
        Direct::with(connection, json!({"region": REGION, "mappingBehavior": "one-to-one"}), json!({}), memory.clone())
    };
    let begun = std::time::Instant::now();
    for sts in ["http://127.0.0.1:1", lab.host.url.as_str()] {
        let mut sync = with(sts);
        sync.run(&[("A", "1")]).await.clean();
        if sts == lab.host.url {
            sync.session.test(&Cx::quiet(), None).await.expect("good");
        }
        let place = sync.session.open(&Cx::quiet(), &sync.target).await.expect("open").identity();
        assert_eq!(place, format!("aws|{}|{ACCESS_KEY_ID}|us-east-1", lab.host.url));
    }
    assert!(begun.elapsed() < std::time::Duration::from_secs(20), "{:?}", begun.elapsed());
    // A run that never got through decides nothing.
    let elsewhere: Arc<Mem> = Arc::default();
    let lost = |endpoint: &str| {
        let connection = connection("access-key", keys(), json!({"endpoint": endpoint}));
        Direct::with(connection, json!({"region": REGION, "mappingBehavior": "one-to-one"}), json!({}), elsewhere.clone())
    };
    lab.host.faults.add(Fault::next("", 1, Effect::status(500, "{}")));
    let first = lost(&lab.host.url);
    first.session.open(&Cx::quiet(), &first.target).await.expect("open");
    let second = lost(&lab.host.url);
    let place = second.session.open(&Cx::quiet(), &second.target).await.expect("open").identity();
    assert_eq!(place, format!("aws|{}|123456789012|us-east-1", lab.host.url));
}

/// Runs one of the `inner_` tests below in a process of its own, with an environment of its own.
fn in_process(test: &str, environment: &[(&str, &str)]) -> Output {
    Command::new(std::env::current_exe().expect("this binary"))
        .args(["--exact", &format!("aws::identity::{test}"), "--nocapture"])
        .env("HOME", "/nonexistent")
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .env("INNER", "1")
        .envs(environment.iter().copied())
        .output()
        .expect("the test binary runs")
}

fn inner() -> bool {
    std::env::var_os("INNER").is_some()
}

fn passed(output: &Output) {
    assert!(output.status.success(), "{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"));
}

#[test]
fn the_environment_does_not_touch_an_access_key() {
    passed(&in_process(
        "inner_access_key",
        &[
            ("AWS_ENDPOINT_URL", "http://127.0.0.1:1"),
            ("AWS_ENDPOINT_URL_SECRETS_MANAGER", "http://127.0.0.1:1"),
            ("AWS_PROFILE", "missing"),
            ("AWS_MAX_ATTEMPTS", "0"),
            ("AWS_REGION", "eu-west-1"),
            ("AWS_ACCESS_KEY_ID", "AKIAOTHER00000000000"),
            ("AWS_SECRET_ACCESS_KEY", "other"),
            ("AWS_USE_FIPS_ENDPOINT", "true"),
            ("HTTP_PROXY", "http://127.0.0.1:1"),
            ("HTTPS_PROXY", "http://127.0.0.1:1"),
        ],
    ));
}

#[tokio::test]
async fn inner_access_key() {
    if !inner() {
        return;
    }
    let lab = Lab::new().await;
    sync(&lab, "access-key", keys()).run(&[("A", "1")]).await.clean();
    assert_eq!(lab.value("A").as_deref(), Some("1"));
}

#[test]
fn the_chain_and_a_role_over_it() {
    let environment = [("AWS_ACCESS_KEY_ID", ACCESS_KEY_ID), ("AWS_SECRET_ACCESS_KEY", SECRET_ACCESS_KEY), ("AWS_MAX_ATTEMPTS", "x")];
    passed(&in_process("inner_chain", &environment));
}

#[tokio::test]
async fn inner_chain() {
    if !inner() {
        return;
    }
    let lab = Lab::new().await;
    sync(&lab, "default-chain", json!({})).run(&[("A", "1")]).await.clean();
    let mut role = sync(&lab, "assume-role", json!({"roleArn": ROLE_ARN}));
    let report = role.run(&[("A", "1")]).await.clean();
    assert_eq!(report.calls()["AssumeRole"], 1);
    let report = role.run(&[("A", "2")]).await.clean();
    assert!(!report.calls().contains_key("AssumeRole"), "the session is kept");
    // The session ends early: assumed once more, and the run goes on.
    lab.state.expire_sessions();
    let report = role.run(&[("A", "3")]).await.clean();
    assert_eq!((report.calls()["AssumeRole"], report.calls()["ListSecrets"]), (1, 2));
    assert_eq!(lab.value("A").as_deref(), Some("3"));
    // An external id.
    let other = "arn:aws:iam::123456789012:role/guarded";
    lab.state.add_role(other, Some("org-1"));
    let error = sync(&lab, "assume-role", json!({"roleArn": other})).try_run(&[], &[]).await.expect_err("no external id");
    assert_eq!((error.kind, error.code.as_deref()), (ErrorKind::Permission, Some("AccessDenied")));
    assert!(error.advice.is_some_and(|a| a.contains("external id")));
    sync(&lab, "assume-role", json!({"roleArn": other, "externalId": "org-1", "sessionName": "x1"})).try_run(&[], &[]).await.expect("trusted");
}

#[test]
fn no_credentials_at_all() {
    passed(&in_process("inner_no_credentials", &[]));
}

#[tokio::test]
async fn inner_no_credentials() {
    if !inner() {
        return;
    }
    let lab = Lab::new().await;
    let begun = std::time::Instant::now();
    let error = sync(&lab, "default-chain", json!({})).try_run(&[], &[]).await.expect_err("nothing to sign with");
    assert_eq!(error.kind, ErrorKind::Auth, "{error}");
    assert!(begun.elapsed() < std::time::Duration::from_secs(3), "{:?}", begun.elapsed());
    let error = sync(&lab, "default-chain", json!({"profile": "missing"})).try_run(&[], &[]).await.expect_err("no such profile");
    assert!(error.message.contains("missing"), "{error}");
}
