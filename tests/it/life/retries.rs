//! Auto-sync that fails: tried again with growing pauses, then it rests; a rejected login is
//! never tried on a timer.

use std::time::{Duration, Instant};

use kms_sync::sandbox::host::{Effect, Fault};
use kms_sync::service::Service;
use kms_sync::service::attach::reach;
use serde_json::json;

use super::yard::{Yard, sure, until};

/// Why the engine will look at a sync next.
async fn next(yard: &Yard, name: &str) -> Option<String> {
    let remote = reach(&yard.dirs()).await.ok()?;
    let board = remote.watch().await.ok()?.board;
    board.cards.get(name)?.next.as_ref().map(|n| n.why.clone())
}

/// Both mostly wait: together they take no longer than one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failures_are_tried_again_and_rejections_are_not() {
    tokio::join!(a_failing_run_is_tried_five_times_and_then_rests(), a_rejected_login_waits_for_the_operator());
}

async fn a_failing_run_is_tried_five_times_and_then_rests() {
    // Trouble that may pass, at a place where creating is not repeated within a run.
    let yard = Yard::bitbucket().await;
    yard.rig.set("KEY", "one");
    let body = json!({"type": "error", "error": {"message": "Something went wrong"}}).to_string();
    let headers = vec![("content-type".to_string(), "application/json".to_string())];
    yard.place().host().faults.add(Fault::always("POST ", 1.0, Effect::Answer { status: 500, headers, body }));
    yard.create(&yard.document("web", yard.place(), "/app", true, None)).await;
    let engine = yard.engine(&[]).await;
    let failures = || engine.lines().iter().filter(|l| l.contains("web failed")).count();
    let begun = Instant::now();
    let mut at = Vec::new();
    for n in 1..=5 {
        if n == 2 {
            assert_eq!(next(&yard, "web").await.as_deref(), Some("attempt 2 of 5"));
        }
        while failures() < n {
            assert!(begun.elapsed() < Duration::from_secs(70), "{n} failures: {:?}", engine.lines());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        at.push(begun.elapsed());
    }
    // 3, 6, 12 and 24 seconds, give or take a tenth and the time of a run.
    for (i, base) in [3.0, 6.0, 12.0, 24.0].into_iter().enumerate() {
        let pause = (at[i + 1] - at[i]).as_secs_f64();
        assert!(pause >= base * 0.85 && pause < base * 1.1 + 3.0, "pause {i}: {pause}");
    }
    // It rests, and says so.
    let resting = next(&yard, "web").await.unwrap_or_default();
    assert!(resting.starts_with("5 attempts failed"), "{resting}");
    let shown = yard.rig.run(&["show", "web", "--json"]).await.expect(0);
    let wait = &shown["secretSync"]["waiting"];
    assert_eq!((&wait["reason"], &wait["nextAt"]), (&json!(resting), &serde_json::Value::Null), "{shown:#}");
    // A file that changes nothing for it does not end the rest.
    yard.settings(&json!({"pollIntervalSecs": 10}));
    tokio::time::sleep(Duration::from_secs(12)).await;
    assert_eq!(failures(), 5, "{:?}", engine.lines());
    // A change ends the rest, and the count of attempts begins anew.
    yard.place().host().faults.clear();
    yard.rig.set("OTHER", "two");
    sure("both keys", || yard.place().values().len() == 2).await;
    assert_eq!(failures(), 5, "{:?}", engine.lines());
}

async fn a_rejected_login_waits_for_the_operator() {
    let yard = Yard::aws().await;
    yard.settings(&json!({"pollIntervalSecs": 10}));
    let account = |secret: &str| {
        json!({"name": "kms", "app": "hanzo-kms", "method": "universal-auth", "baseUrl": yard.rig.kms_host.url,
            "credentials": {"clientId": yard.rig.client_id, "clientSecret": secret}})
    };
    yard.rig.run_with(&["connection", "add", "--replace", "-f", "-"], &account("wrong")).await.expect(0);
    for name in ["web", "app", "api"] {
        yard.rig.kms.add_folder(&yard.rig.project, "dev", &format!("/{name}"));
        yard.rig.kms.set(&yard.rig.project, "dev", &format!("/{name}"), "KEY", "one");
        yard.create(&yard.document(name, yard.place(), &format!("/{name}"), true, Some(&format!("{name}_{{{{secretKey}}}}")))).await;
    }
    yard.rig.kms_host.log.clear();
    let engine = yard.engine(&[]).await;
    let why = until(
        "a blocked sync",
        || futures::executor::block_on(next(&yard, "web")).filter(|w| w.contains("cannot be read")),
        || engine.lines().join("\n"),
    )
    .await;
    assert!(why.contains("login"), "{why}");
    // More than a poll's interval, edits of other files, and a look by the screens.
    yard.settings(&json!({"pollIntervalSecs": 11}));
    tokio::time::sleep(Duration::from_secs(13)).await;
    let logins = || yard.rig.kms_host.log.count("/auth/universal-auth/login");
    assert_eq!(logins(), 1, "{:?}", yard.rig.kms_host.log.lines());

    // The operator asks for a run: one more try. It is rejected too, and ends there.
    let asked = yard.rig.run(&["sync", "web", "--json"]).await;
    assert_eq!(asked.code, 1, "{}", asked.stderr);
    assert_eq!(logins(), 2);

    // Mended: everything goes on by itself.
    yard.rig.run_with(&["connection", "add", "--replace", "-f", "-"], &account(crate::support::rig::CLIENT_SECRET)).await.expect(0);
    sure("all keys", || yard.place().values().len() == 3).await;
}
