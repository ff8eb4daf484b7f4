//! How many calls a run takes, and what a run without reading cannot see (section 12 of the
//! page this destination was built from).

use std::time::Duration;

use kms_sync::model::run::{Outcome, RunRecord};
use kms_sync::sandbox::oci::State;
use serde_json::json;

use crate::conformance::bench::{Bench, fate};
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
    // A value moves nothing in the list; a tag, a description and another id do.
    for key in ["K_000", "K_001", "K_002"] {
        state.edit_value(key, b"theirs");
    }
    state.edit("K_001", |s| s.freeform_tags["team"] = json!("a"));
    state.edit("K_002", |s| drop(s.extra.insert("description".into(), json!("changed by hand"))));
    let record = b.synced().await;
    assert_eq!(counts(&record, "GET /secretbundles/{secretId}"), 2, "{:#?}", record.requests);
    for key in ["K_001", "K_002"] {
        assert!(fate(&record, key).is_some_and(|(o, why)| o == Outcome::Updated && why.contains("edited outside")), "{key}: {record:#?}");
    }
    assert_eq!(state.value("K_000").as_deref(), Some("theirs"), "trusted between two drift checks");
    let record = b.verified().await;
    assert!(fate(&record, "K_000").is_some_and(|(o, _)| o == Outcome::Updated), "{record:#?}");
    assert_eq!(state.value("K_000").as_deref(), Some("one"));
}
