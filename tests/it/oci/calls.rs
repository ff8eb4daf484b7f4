//! How many calls a run takes, and what a run without reading cannot see (section 12 of the
//! page this destination was built from).

use std::time::Duration;

use kms_sync::model::run::{Outcome, RunRecord, RunStatus};
use kms_sync::sandbox::oci::State;
use kms_sync::service::Service as _;
use kms_sync::store::Store;
use serde_json::json;

use crate::conformance::bench::{Bench, SYNC, fate};
use crate::conformance::places;

/// More than what is read in every run.
const N: usize = 210;

/// Calls of a run by kind, as its record tells.
fn counts(record: &RunRecord, call: &str) -> u64 {
    record.requests.by_call.get("oci").and_then(|calls| calls.get(call)).copied().unwrap_or_default()
}

/// The record's calls; looks while secrets settle (lists beyond the first, single secrets) may be up to `looks`.
#[track_caller]
fn took(record: &RunRecord, bundles: u64, creates: u64, puts: u64, cancels: u64, schedules: u64, looks: u64) {
    let of = |call: &str| counts(record, call);
    let seen = [
        of("GET /secretbundles/{secretId}"),
        of("POST /secrets"),
        of("PUT /secrets/{secretId}"),
        of("POST /secrets/{secretId}/actions/cancelDeletion"),
        of("POST /secrets/{secretId}/actions/scheduleDeletion"),
    ];
    assert_eq!(seen, [bundles, creates, puts, cancels, schedules], "{:#?}", record.requests);
    let lists = of("GET /secrets") + of("GET /secrets/{secretId}");
    assert!((1..=1 + looks).contains(&lists), "{lists} lists and looks: {:#?}", record.requests);
    let total: u64 = record.requests.by_call["oci"].values().sum();
    assert_eq!(total, seen.iter().sum::<u64>() + lists, "nothing else is asked: {:#?}", record.requests);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_kind_of_run_takes_no_more_calls_than_it_must() {
    let state = State::new();
    state.set_delay(Duration::from_millis(30));
    let b = Bench::new(places::oci::on(state.clone()).await).await;
    b.fill(N, "one");
    b.create(json!({})).await;
    let n = N as u64;
    // First sync of an empty vault: the list, the creations, and few looks for all of them.
    took(&b.synced().await, 0, n, 0, 0, 0, 12);
    // Nothing changed: the list.
    took(&b.synced().await, 0, 0, 0, 0, 0, 0);
    // Three changes: each is read before it is overwritten.
    b.fill(3, "two");
    took(&b.synced().await, 3, 0, 3, 0, 0, 9);
    // Two deletions, no reading.
    for key in ["K_003", "K_004"] {
        b.unset(key);
    }
    took(&b.synced().await, 0, 0, 0, 0, 2, 6);
    // They come back: one equal, one changed.
    b.set("K_003", "one");
    b.set("K_004", "two");
    let record = b.synced().await;
    took(&record, 2, 0, 1, 2, 0, 12);
    assert_eq!(record.counts.restored, 2);
    // A whole look, and a removal without any.
    took(&b.verified().await, n, 0, 0, 0, 0, 0);
    took(&b.removal().await, 0, 0, 0, 0, n, 12);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_list_does_not_show_is_seen_by_reading() {
    let state = State::new();
    state.set_delay(Duration::from_millis(10));
    let b = Bench::new(places::oci::on(state.clone()).await).await;
    b.fill(N, "one");
    b.create(json!({})).await;
    b.synced().await;
    // Under an expiry rule every version has an end of its own, which the list shows.
    let rule = json!([{"ruleType": "SECRET_EXPIRY_RULE", "secretVersionExpiryInterval": "P30D", "isSecretContentRetrievalBlockedOnExpiry": false}]);
    state.edit("K_003", |s| drop(s.extra.insert("secretRules".into(), rule)));
    assert_eq!(counts(&b.synced().await, "GET /secretbundles/{secretId}"), 1, "something moved: it is looked at");
    took(&b.synced().await, 0, 0, 0, 0, 0, 0);
    // A value moves nothing else in the list; a tag, a description and another id do.
    for key in ["K_000", "K_001", "K_002", "K_003"] {
        state.edit_value(key, b"theirs");
    }
    state.edit("K_001", |s| s.freeform_tags["team"] = json!("a"));
    state.edit("K_002", |s| drop(s.extra.insert("description".into(), json!("changed by hand"))));
    let record = b.synced().await;
    assert_eq!(counts(&record, "GET /secretbundles/{secretId}"), 3, "{:#?}", record.requests);
    for key in ["K_001", "K_002", "K_003"] {
        assert!(fate(&record, key).is_some_and(|(o, why)| o == Outcome::Updated && why.contains("edited outside")), "{key}: {record:#?}");
    }
    assert_eq!(state.value("K_000").as_deref(), Some("theirs"), "trusted for some hours");
    // And that is said, of the run, of a plan, and of the sync.
    let told = record.message.as_deref().expect("told");
    assert!(
        told.contains("207 of 210 values were not read again") && told.contains("last read or written at 20") && told.contains("--verify"),
        "{told}"
    );
    assert_eq!(record.status, RunStatus::Succeeded);
    let plan = b.plan().await;
    assert!(plan.warnings.iter().any(|w| w.contains("210 of 210 values were not read again")), "{:?}", plan.warnings);
    assert_eq!(b.local().sync(SYNC).await.expect("the sync").last_sync_message, None, "a success has no message there");
    let record = b.verified().await;
    assert!(fate(&record, "K_000").is_some_and(|(o, _)| o == Outcome::Updated), "{record:#?}");
    assert_eq!((record.message.clone(), state.value("K_000").as_deref()), (None, Some("one")), "everything was read: nothing is left to say");
}

/// What is neither written nor read for six hours is read by the next run, whoever starts it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outside_edit_is_seen_without_verify_when_the_values_were_not_read_for_hours() {
    let state = State::new();
    state.set_delay(Duration::from_millis(10));
    let b = Bench::new(places::oci::on(state.clone()).await).await;
    b.fill(N, "one");
    b.create(json!({})).await;
    b.synced().await;
    let seven_hours_pass = |but: &str| {
        let store = Store::open(b.dirs()).expect("the store");
        let id = store.sync_state(SYNC).expect("the sync").id;
        let target = format!("oci-vault:{}:{}", state.vault(), state.compartment());
        let mut rows: Vec<_> = store.ledger(&id, &target).expect("the ledger").rows.into_values().filter(|r| r.key != but).collect();
        rows.iter_mut().for_each(|r| r.written_at -= jiff::SignedDuration::from_hours(7));
        store.confirm(&id, &target, &rows).expect("aged");
    };
    seven_hours_pass("K_009");
    state.edit_value("K_000", b"theirs");
    // A plan sees it and writes nothing; what it saw is not forgotten for that.
    let plan = b.plan().await;
    assert_eq!(plan.changes.len(), 1, "{plan:#?}");
    assert!(plan.changes[0].reason.as_deref().is_some_and(|r| r.contains("edited outside")), "{plan:#?}");
    let record = b.synced().await;
    assert!(fate(&record, "K_000").is_some_and(|(o, why)| o == Outcome::Updated && why.contains("edited outside")), "{record:#?}");
    // Once to see it, once before it is overwritten; the other 208 were proved by the plan.
    assert!((1..=2).contains(&counts(&record, "GET /secretbundles/{secretId}")), "{:#?}", record.requests);
    assert_eq!(state.value("K_000").as_deref(), Some("one"));
    // Everything was proved now: the list is enough, and how long ago is told.
    let record = b.synced().await;
    took(&record, 0, 0, 0, 0, 0, 0);
    assert!(record.message.is_some_and(|m| m.contains("210 of 210")));
}
