//! The drift clock: what another hand changed at the destination is found and mended, or told,
//! though nothing changed at the source.

use std::time::Duration;

use kms_sync::model::Memory as _;
use kms_sync::model::board::Event;
use kms_sync::model::run::{RunRecord, RunStatus, Trigger};
use kms_sync::service::Service as _;
use kms_sync::store::Store;
use serde_json::json;

use super::yard::PATIENCE;
use crate::conformance::bench::{Bench, SYNC};
use crate::conformance::places;

/// Hours between two checks: the default.
const PERIOD: i64 = 6;

/// The last check was longer ago than the period; then the clocks begin, and the time passes
/// over which overdue checks are spread.
async fn check_is_due(b: &Bench) {
    let store = Store::open(b.dirs()).expect("a store");
    let id = store.sync_state(SYNC).expect("the sync").id;
    let long_ago = kms_sync::model::now() - jiff::SignedDuration::from_hours(PERIOD + 1);
    store.put(&format!("drift:{id}"), long_ago.to_string().into());
    b.kms_host.log.clear();
    b.local().start_auto();
    // The clocks have looked at everything when the source was asked.
    waited("a poll", async || (b.kms_host.log.count("GET /api/v4/secrets?") > 0).then_some(())).await;
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(PERIOD as u64 * 3600 / 36 + 1)).await;
    tokio::time::resume();
}

async fn waited<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let begun = std::time::Instant::now();
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(begun.elapsed() < PATIENCE, "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(15)).await;
    }
}

/// The sync with auto-sync on, carried out once.
async fn carried(b: &Bench, keys: usize) {
    b.fill(keys, "ours");
    b.create(json!({})).await;
    b.update(json!({"isEnabled": true})).await;
    b.synced().await;
    b.settled().await;
}

/// The run that the drift clock has begun, when it is over.
async fn checked(b: &Bench) -> RunRecord {
    waited("a drift check", async || {
        let history = b.local().history(SYNC, 9).await.expect("the history");
        history.into_iter().find(|r| r.trigger == Trigger::Drift && r.finished_at.is_some())
    })
    .await
}

/// The history tells of a drift check that has written so many keys, and all are as they should be.
#[track_caller]
fn mended(b: &Bench, record: &RunRecord, keys: usize, written: u64) {
    assert_eq!((record.status, record.counts.updated), (RunStatus::Succeeded, written), "{record:#?}");
    assert_eq!(serde_json::to_value(record).expect("JSON")["trigger"], "drift");
    let values = b.place.values();
    assert_eq!((values.len(), values.values().filter(|v| *v == "ours").count()), (keys, keys));
}

/// Values that nobody can read back: that the group was changed is enough to write all of them again.
#[tokio::test]
async fn a_check_mends_a_secret_variable_that_another_hand_changed() {
    let b = Bench::new(places::azure_devops::start().await).await;
    carried(&b, 3).await;
    b.put("K_001", "theirs");
    check_is_due(&b).await;
    mended(&b, &checked(&b).await, 3, 3);
}

/// More values than an ordinary run reads, and a list that does not tell of an edit.
#[tokio::test]
async fn a_check_mends_what_a_list_does_not_show() {
    const KEYS: usize = 210;
    let b = Bench::new(places::oci::start().await).await;
    carried(&b, KEYS).await;
    b.put("K_007", "theirs");
    assert_eq!(b.synced().await.counts.updated, 0, "an ordinary run trusts what it has read");
    check_is_due(&b).await;
    let record = checked(&b).await;
    mended(&b, &record, KEYS, 1);
    let told = record.secrets.iter().find(|s| s.key == "K_007").and_then(|s| s.reason.as_deref());
    assert!(told.is_some_and(|t| t.contains("edited outside")), "{:#?}", record.secrets);
}

/// Asked to report only, a check tells and touches nothing.
#[tokio::test]
async fn a_check_that_reports_writes_nothing() {
    let b = Bench::new(places::aws::start().await).await;
    std::fs::write(b.dirs().config.join("settings.json"), json!({"driftAction": "report"}).to_string()).expect("settings");
    b.local().reload();
    carried(&b, 3).await;
    b.put("K_001", "theirs");
    b.mark();
    let mut events = b.local().watch().await.expect("the live picture").events;
    check_is_due(&b).await;
    let told = loop {
        let event = tokio::time::timeout(PATIENCE, events.recv()).await.expect("a notice").expect("an event");
        if let Event::Notice { level, text, sync } = event
            && text.contains("drift")
        {
            break (level, text, sync);
        }
    };
    assert_eq!(told, ("warn".into(), format!("{SYNC} has drifted: 1 key would change"), Some(SYNC.into())));
    assert_eq!(b.writes(), Vec::<String>::new());
    assert_eq!(b.place.values()["K_001"], "theirs");
    let history = b.local().history(SYNC, 9).await.expect("the history");
    assert!(history.iter().all(|r| r.trigger != Trigger::Drift), "{history:#?}");
}
