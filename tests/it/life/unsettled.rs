//! Auto-sync and a secret that stays between two states: the run fails, it is tried again by
//! itself, and converges once the secret is let go.

use std::time::Duration;

use kms_sync::model::run::{RunStatus, Trigger};
use kms_sync::sandbox::oci::State;
use kms_sync::service::Service;
use serde_json::json;

use crate::conformance::bench::{Bench, SYNC};
use crate::conformance::places;
use crate::support::hurry::hurried;

/// Looks once a second on the paused clock.
async fn until(what: &str, mut look: impl AsyncFnMut() -> bool) {
    for _ in 0..1_000 {
        if look().await {
            return;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    panic!("waited in vain for {what}");
}

#[tokio::test(start_paused = true)]
async fn the_second_attempt_converges_once_the_secret_is_let_go() {
    hurried(let_go()).await;
}

async fn let_go() {
    let state = State::new();
    state.set_delay(Duration::from_millis(10));
    let b = Bench::new(places::oci::on(state.clone()).await).await;
    for key in ["STUCK", "CHANGED"] {
        b.set(key, "one");
    }
    b.create(json!({})).await;
    b.synced().await;
    state.edit("STUCK", |s| s.state = "UPDATING".into());
    for key in ["STUCK", "CHANGED"] {
        b.set(key, "two");
    }
    b.update(json!({"isEnabled": true})).await;
    b.mark();
    b.local().start_auto();
    let why = async || {
        let board = b.local().watch().await.expect("a board").board;
        board.cards.get(SYNC).and_then(|c| c.next.as_ref().map(|n| n.why.clone())).unwrap_or_default()
    };
    until("the second attempt", async || why().await == "attempt 2 of 5").await;
    assert_eq!((state.value("STUCK").as_deref(), state.value("CHANGED").as_deref()), (Some("one"), Some("two")));
    state.edit("STUCK", |s| s.state = "ACTIVE".into());
    until("the value", async || state.value("STUCK").as_deref() == Some("two")).await;
    let history = async || b.local().history(SYNC, 10).await.expect("a history");
    until("the end of a third run", async || history().await.iter().filter(|r| r.finished_at.is_some()).count() == 3).await;
    let runs = history().await;
    let told: Vec<_> = runs.iter().map(|r| (r.trigger, r.status)).collect();
    assert_eq!(told, [(Trigger::Auto, RunStatus::Succeeded), (Trigger::Auto, RunStatus::Failed), (Trigger::Manual, RunStatus::Succeeded)]);
    let message = runs[1].message.as_deref().unwrap_or_default();
    assert!(message.contains("STUCK is still UPDATING"), "{message}");
    assert!(!b.writes().iter().any(|l| l.contains("scheduleDeletion")), "{:?}", b.writes());
    b.holds([("STUCK", "two"), ("CHANGED", "two")]);
    // The run's place is given back a moment after its record has an end; then all is quiet.
    let busy = async || b.local().watch().await.expect("a board").board.cards.get(SYNC).is_some_and(|c| c.run.is_some());
    until("the engine's rest", async || !busy().await).await;
    b.settled().await;
    assert_eq!(history().await.len(), 4, "three runs and the one just now");
}
