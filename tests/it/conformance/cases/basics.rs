//! Keys come, change and go; what is unchanged costs the floor; plans write nothing.

use std::time::Duration;

use kms_sync::model::plan::Action;
use kms_sync::model::run::RunStatus;
use kms_sync::sandbox::host::{Effect, Fault};
use serde_json::json;

use crate::conformance::bench::{Bench, ended};

/// Create, update and delete, in one life; a second run always finds nothing to do.
pub async fn life_of_keys(b: Bench) {
    b.set("ALPHA", "one");
    b.set("BETA_KEY", "two");
    b.set("GAMMA", "three");
    b.create(json!({})).await;
    let record = b.synced().await;
    assert_eq!((record.counts.created, record.counts.writes()), (3, 3), "{record:#?}");
    b.holds([("ALPHA", "one"), ("BETA_KEY", "two"), ("GAMMA", "three")]);
    b.settled().await;

    b.set("ALPHA", "uno");
    b.set("DELTA", "four");
    b.unset("GAMMA");
    let record = b.synced().await;
    let counts = record.counts;
    assert_eq!((counts.created, counts.updated, counts.deleted, counts.unchanged), (1, 1, 1, 1), "{record:#?}");
    b.holds([("ALPHA", "uno"), ("BETA_KEY", "two"), ("DELTA", "four")]);
    b.settled().await;
}

/// Section 12, row 1: what is unchanged costs the pages of the listing and nothing else.
pub async fn unchanged_costs_the_floor(b: Bench) {
    let keys = b.fill(12, "v");
    b.create(json!({})).await;
    b.synced().await;
    // Lists may lag behind the writes that came last: the second run has caught up.
    b.settled().await;
    b.mark();
    let record = b.synced().await;
    let lines = b.place.host().log.lines();
    assert_eq!(lines.len(), b.place.floor(keys.len()), "{lines:#?}");
    assert_eq!(record.counts.unchanged, 12);
    let counted: u64 = record.requests.by_call.iter().filter(|(service, _)| *service != "kms").flat_map(|(_, calls)| calls.values()).sum();
    assert_eq!(counted, lines.len() as u64, "every request is counted: {:?}", record.requests.by_call);
}

/// Section 12, row 11: a plan tells what a run will do, and does nothing.
pub async fn a_plan_writes_nothing(b: Bench) {
    b.set("ALPHA", "one");
    b.create(json!({})).await;
    let plan = b.plan().await;
    assert_eq!((plan.count(Action::Create), plan.changes.len(), plan.source.secrets), (1, 1, 1), "{plan:#?}");
    assert_eq!(b.writes(), Vec::<String>::new());
    assert!(b.place.values().is_empty());
    ended(&b.sync().await, RunStatus::Succeeded);
    assert!(b.plan().await.is_noop());
}

/// Section 12, row 2: a key that this sync deleted comes back, whatever the destination keeps
/// of deleted secrets.
pub async fn a_deleted_key_comes_back(b: Bench) {
    b.set("STAYS", "s");
    b.set("RETURNS", "before");
    b.create(json!({})).await;
    b.synced().await;
    b.unset("RETURNS");
    b.synced().await;
    b.holds([("STAYS", "s")]);
    b.settled().await;
    b.set("RETURNS", "after");
    let record = b.synced().await;
    assert_eq!(record.counts.created + record.counts.restored, 1, "{record:#?}");
    b.holds([("STAYS", "s"), ("RETURNS", "after")]);
    b.settled().await;
}

/// Section 12, rows 4 to 7: several pages everywhere; each change is one write; never more
/// requests at once than the destination allows.
pub async fn five_hundred_secrets(b: Bench) {
    let mut keys = b.fill(500, "v");
    b.create(json!({})).await;
    b.mark();
    let within = |limit: usize, what: &str| {
        let most = b.place.host().log.most_at_once();
        assert!(most <= limit && most >= limit.min(2), "{what}: {most} at once, {limit} are allowed");
    };
    // Slow enough that without a limit many would be in hand at once.
    b.place.host().faults.add(Fault::always("", 1.0, Effect::Delay(Duration::from_millis(20))));
    let record = b.synced().await;
    assert_eq!(record.counts.created, 500, "{:?}", record.message);
    within(b.nature().writers, "writing");
    b.holds(&keys);
    b.mark();
    assert_eq!(b.verified().await.counts.unchanged, 500);
    within(b.nature().readers, "reading");
    b.place.host().faults.clear();
    b.settled().await;
    b.mark();
    let record = b.synced().await;
    assert_eq!(record.counts.unchanged, 500);
    let lines = b.place.host().log.lines();
    assert_eq!(lines.len(), b.place.floor(500), "{:#?}", &lines[..lines.len().min(5)]);

    for key in ["K_000", "K_250", "K_499"] {
        b.set(key, "w");
        keys.insert(key.into(), "w".into());
    }
    b.unset("K_123");
    keys.remove("K_123");
    b.mark();
    let record = b.synced().await;
    assert_eq!((record.counts.updated, record.counts.deleted, record.counts.unchanged), (3, 1, 496));
    let writes = b.writes().len();
    assert!(writes <= if b.nature().document { 1 } else { 4 }, "{writes} writes");
    b.holds(&keys);
}
