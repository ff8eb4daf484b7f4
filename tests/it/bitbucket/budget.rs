//! The hourly budget: kept over restarts, shared by syncs, resumed where it stopped.

use std::time::{Duration, Instant};

use kms_sync::destination::bitbucket::Tempo;
use kms_sync::http::ErrorKind;
use kms_sync::sandbox::bitbucket::{At, OAUTH_SCOPES};
use kms_sync::sandbox::host::{Effect, Fault};
use serde_json::json;

use super::rig::{REPO, Rig, many, quick, refs};

const REFUSAL: &str = "Rate limit for this resource has been exceeded";
const POST: &str = "POST /2.0/repositories/acme/api/pipelines_config/variables";

fn refusal(headers: &[(&str, &str)], body: &str) -> Effect {
    let plain = ("content-type".to_string(), if body.starts_with('{') { "application/json" } else { "text/plain" }.to_string());
    let headers = headers.iter().map(|(k, v)| ((*k).to_string(), (*v).to_string())).chain([plain]).collect();
    Effect::Answer { status: 429, headers, body: body.into() }
}

#[tokio::test]
async fn a_refusal_pauses_and_the_run_goes_on_where_it_stood() {
    let json_body = r#"{"type":"error","error":{"message":"Rate limit for this resource has been exceeded"}}"#;
    for effect in [refusal(&[], REFUSAL), refusal(&[("retry-after", "0.05")], REFUSAL), refusal(&[], json_body)] {
        let mut rig = Rig::new().await;
        rig.host.faults.add(Fault::next(POST, 1, effect).after(7));
        let done = rig.sync(&refs(&many(20))).await;
        assert_eq!(done.created.len(), 20, "{:?}", done.failed);
        assert_eq!(rig.sent("POST"), 21, "nothing twice but the refused one");
        assert_eq!(done.retries, 1);
        assert!(rig.waited_for("429"), "{:?}", rig.waits.lock());
        assert_eq!(rig.variables(REPO).len(), 20);
    }
}

/// The wait as it is shown, and the error of a screen, for a 429 that tells more or less.
async fn told(headers: &[(&str, &str)], hourly: Option<u32>) -> (String, String) {
    let mut rig = Rig::new().await;
    rig.pace(Tempo { probes: vec![Duration::from_secs(600)], ..quick() });
    if let Some(hourly) = hourly {
        rig.connection.settings.insert("hourlyBudget".into(), json!(hourly));
        rig.reconnect();
    }
    rig.sync(&refs(&many(20))).await;
    rig.host.faults.add(Fault::next("GET /2.0/repositories", 1, refusal(headers, REFUSAL)));
    let cx = rig.cx();
    rig.waits.lock().expect("waits").clear();
    let (token, waits) = (cx.cancel_token().clone(), rig.waits.clone());
    let cancel = tokio::spawn(async move {
        while waits.lock().expect("waits").is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        token.cancel();
    });
    assert_eq!(rig.run(&cx, &[("A", "1")], true).await.err().expect("cancelled").kind, ErrorKind::Cancelled);
    cancel.await.expect("joins");
    let waited = rig.waits.lock().expect("waits")[0].clone();
    let filled = json!({"workspaceSlug": "acme"});
    let error = rig.session.choices(&rig.cx(), "repositorySlug", filled.as_object().expect("object")).await.expect_err("paused");
    assert_eq!(error.kind, ErrorKind::Throttled);
    (waited, error.text())
}

/// A moment on the operator's clock, some seconds from now.
fn in_seconds(from: i64, to: i64) -> Vec<String> {
    (from..=to).map(|s| (jiff::Zoned::now() + jiff::SignedDuration::from_secs(s)).strftime("%H:%M:%S").to_string()).collect()
}

#[tokio::test]
async fn a_refusal_is_told_as_what_it_is_and_until_when() {
    // Nothing is known but that it was refused: a single 429 is no spent hour.
    let (waited, error) = told(&[], None).await;
    for text in [&waited, &error] {
        assert!(text.contains("without saying why or for how long") && text.contains("22 of the 1000 calls"), "{text}");
        assert!(!text.contains("used up") && !text.contains("spent"), "{text}");
        assert!(text.contains("one call tries again at ") && in_seconds(590, 601).iter().any(|at| text.contains(at)), "{text}");
    }
    assert!(error.contains("Try again after "), "{error}");
    // It says for how long.
    let (waited, _) = told(&[("retry-after", "120")], None).await;
    assert!(waited.contains("asks to wait 120 s; goes on at ") && in_seconds(110, 121).iter().any(|at| waited.contains(at)), "{waited}");
    assert!(!waited.contains("used up"), "{waited}");
    // The headers of access tokens tell whether it is the hour.
    let (waited, _) = told(&[("X-RateLimit-Limit", "2500"), ("X-RateLimit-NearLimit", "true")], None).await;
    assert!(waited.contains("the 2500 calls of this hour are used up, 22 of them by kms-sync, the others by other tools"), "{waited}");
    let (waited, _) = told(&[("X-RateLimit-Limit", "2500"), ("X-RateLimit-NearLimit", "false")], None).await;
    assert!(waited.contains("hourly limit not near") && waited.contains("22 of the 2500 calls"), "{waited}");
    // All of them were ours.
    let (waited, _) = told(&[("X-RateLimit-Limit", "22")], None).await;
    assert!(waited.contains("the 22 calls of this hour are used up, 22 of them by kms-sync") && waited.contains("goes on at "), "{waited}");
    assert!(in_seconds(3580, 3625).iter().any(|at| waited.contains(at)), "{waited}");
}

#[tokio::test]
async fn the_hours_own_end_is_told_with_its_time() {
    let mut rig = Rig::new().await;
    rig.pace(Tempo { budget: 20, ..quick() });
    let cx = rig.cx();
    let (token, waits) = (cx.cancel_token().clone(), rig.waits.clone());
    let cancel = tokio::spawn(async move {
        while waits.lock().expect("waits").is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        token.cancel();
    });
    rig.run(&cx, &refs(&many(40)), true).await.expect("runs until it is cancelled");
    cancel.await.expect("joins");
    let waits = rig.waits.lock().expect("waits").clone();
    let told = waits.iter().find(|w| w.contains("hourly budget is used up")).unwrap_or_else(|| panic!("{waits:?}"));
    assert!(told.contains("; goes on at ") && in_seconds(3580, 3625).iter().any(|at| told.contains(at)), "{told}");
}

#[tokio::test]
async fn a_limit_on_other_calls_is_told_by_what_the_answer_says() {
    let rig = Rig::new().await;
    for (headers, says) in [(vec![("retry-after", "30")], "asks to wait 30 s: try again after "), (vec![], "did not say why or for how long")] {
        rig.host.faults.add(Fault::next("/user/workspaces", 1, refusal(&headers, REFUSAL)));
        let error = rig.session.choices(&rig.cx(), "workspaceSlug", &Default::default()).await.expect_err("limited");
        assert!(error.kind == ErrorKind::Throttled && error.text().contains(says), "{error}");
        assert!(!error.text().contains("hourly limit is reached"), "{error}");
    }
}

#[tokio::test]
async fn repeated_refusals_are_tried_by_one_call_at_a_time_and_ever_later() {
    let mut rig = Rig::new().await;
    let mut tempo = quick();
    tempo.probes = [40, 80, 160].map(Duration::from_millis).to_vec();
    rig.pace(tempo);
    let cx = rig.cx();
    // All four writes in flight may be refused together; after that only the trying call goes.
    rig.sync(&[("FIRST", "1")]).await;
    rig.host.log.clear();
    rig.host.faults.add(Fault::next(POST, 7, refusal(&[], REFUSAL)));
    let begun = Instant::now();
    let mut source = many(12);
    source.push(("FIRST".into(), "1".into()));
    let done = rig.run(&cx, &refs(&source), true).await.expect("runs");
    assert_eq!(done.created.len(), 12, "{:?}", done.failed);
    assert_eq!(rig.sent("POST"), 12 + 7);
    assert!(begun.elapsed() >= Duration::from_millis(40 + 80 + 160), "{:?}", begun.elapsed());
    assert!(rig.waited_for("one call tries"));
}

#[tokio::test]
async fn cancel_works_while_paused() {
    let mut rig = Rig::new().await;
    rig.pace(Tempo { probes: vec![Duration::from_secs(600)], ..quick() });
    rig.host.faults.add(Fault::always("GET /2.0/repositories", 1.0, refusal(&[], REFUSAL)));
    let cx = rig.cx();
    let token = cx.cancel_token().clone();
    let waits = rig.waits.clone();
    let cancel = tokio::spawn(async move {
        while waits.lock().expect("waits").is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        token.cancel();
    });
    let error = rig.run(&cx, &[("A", "1")], true).await.err().expect("cancelled");
    cancel.await.expect("joins");
    assert_eq!(error.kind, ErrorKind::Cancelled);
    // A screen's question is answered at once instead of waiting ten minutes.
    let filled = json!({"workspaceSlug": "acme"});
    let error = rig.session.choices(&rig.cx(), "repositorySlug", filled.as_object().expect("object")).await.expect_err("paused");
    assert_eq!(error.kind, ErrorKind::Throttled);
    assert!(error.text().contains("Try again after"), "{error}");
    assert!(rig.session.budget().expect("budget").contains("paused until"));
}

#[tokio::test]
async fn the_window_is_never_overrun_and_resumes_when_calls_leave_it() {
    let mut rig = Rig::new().await;
    rig.pace(Tempo { budget: 20, window: Duration::from_millis(1500), ..quick() });
    // Shorter there than here: a call arrives later than it is sent, and leaves the window later.
    rig.state.limit_calls(20, Duration::from_millis(1200), false);
    let done = rig.sync(&refs(&many(40))).await;
    assert_eq!(done.created.len(), 40, "{:?}", done.failed);
    assert_eq!(rig.sent("POST"), 40, "never refused: our own log is enough");
    assert!(rig.waited_for("hourly budget is used up: 18 of 20"), "{:?}", rig.waits.lock());
    assert!(rig.session.budget().expect("budget").contains("of 20 calls"));
}

#[tokio::test]
async fn two_syncs_share_a_credential_and_a_restart_forgets_nothing() {
    let mut rig = Rig::new().await;
    rig.sync(&refs(&many(30))).await;
    rig.state.add_repository("acme", "web");
    rig.target(json!({"workspaceSlug": "acme", "repositorySlug": "web"}));
    rig.ledger = Default::default();
    rig.sync(&refs(&many(10))).await;
    assert_eq!(rig.session.budget().as_deref(), Some("42 of 1000 calls in the last hour"));
    rig.reconnect();
    assert_eq!(rig.session.budget().as_deref(), Some("42 of 1000 calls in the last hour"), "kept over a restart");
    rig.pace(Tempo { budget: 50, ..quick() });
    let cx = rig.cx();
    let (_, _, plan) = rig.plan(&cx, &refs(&many(30)), true).await.expect("plan");
    assert!(plan.warnings.iter().any(|w| w.contains("about 20 calls are needed") || w.contains("about 30 calls are needed")), "{:?}", plan.warnings);
    assert_eq!(rig.variables(At::repository("acme", "web")).len(), 10);
}

#[tokio::test]
async fn each_access_token_has_a_budget_of_its_own() {
    let mut rig = Rig::new().await;
    let (one, two) = (rig.state.add_access_token("acme", Some("api"), OAUTH_SCOPES), rig.state.add_access_token("acme", None, OAUTH_SCOPES));
    rig.credentials(json!({"method": "access-token", "accessToken": one}));
    rig.sync(&refs(&many(5))).await;
    assert_eq!(rig.session.budget().as_deref(), Some("6 of 1000 calls in the last hour"));
    rig.credentials(json!({"method": "access-token", "accessToken": two}));
    assert_eq!(rig.session.budget().as_deref(), Some("0 of 1000 calls in the last hour"));
    assert!(!rig.memory.text().contains(&two), "a token is never kept");
}

#[tokio::test]
async fn the_servers_larger_limit_is_noticed() {
    let mut rig = Rig::new().await;
    let token = rig.state.add_access_token("acme", None, OAUTH_SCOPES);
    rig.credentials(json!({"method": "access-token", "accessToken": token}));
    rig.state.limit_calls(2500, Duration::from_secs(3600), true);
    rig.sync(&[("A", "1")]).await;
    assert_eq!(rig.session.budget().as_deref(), Some("2 of 2500 calls in the last hour"));
}

#[tokio::test]
async fn near_the_limit_writes_are_spread() {
    let mut rig = Rig::new().await;
    rig.pace(Tempo { window: Duration::from_secs(20), ..quick() });
    // Headers in any case; the last fifth of 1,000 over 20 s is one write each 100 ms.
    let near = Effect::Answer {
        status: 200,
        headers: vec![("X-RATELIMIT-NEARLIMIT".into(), "true".into()), ("content-type".into(), "application/json".into())],
        body: json!({"size": 0, "values": []}).to_string(),
    };
    rig.host.faults.add(Fault::next("GET /2.0/repositories", 1, near));
    let begun = Instant::now();
    let done = rig.sync(&refs(&many(6))).await;
    assert_eq!(done.created.len(), 6, "{:?}", done.failed);
    assert!(begun.elapsed() >= Duration::from_millis(500), "{:?}", begun.elapsed());
    assert!(rig.waited_for("rate limit is near"));
}

#[tokio::test]
async fn an_operators_own_number_counts() {
    let mut rig = Rig::new().await;
    rig.connection.settings.insert("hourlyBudget".into(), json!(5000));
    rig.reconnect();
    assert_eq!(rig.session.budget().as_deref(), Some("0 of 5000 calls in the last hour"));
}
