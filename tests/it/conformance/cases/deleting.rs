//! Deleting is the dangerous part.

use kms_sync::model::run::{Outcome, RunKind, RunStatus, Trigger};
use kms_sync::service::RunRequest;
use serde_json::json;

use crate::conformance::bench::{Bench, SYNC, ended, fate};

/// Deletions come last, and not at all in a run with a failed write.
pub async fn waits_for_every_write(b: Bench) {
    b.set("OLD", "o");
    b.create(json!({})).await;
    b.synced().await;
    b.unset("OLD");
    b.set("GOOD", "g");
    b.set("REFUSED", "r");
    if !b.place.refuse_one(&b.place.key("REFUSED")) {
        return;
    }
    let record = b.sync().await;
    ended(&record, RunStatus::Failed);
    assert_eq!(record.counts.deleted, 0, "{record:#?}");
    assert!(b.place.values().contains_key(&b.place.key("OLD")), "nothing is deleted in a run with a failed write");
    b.place.forgive();
    // Azure DevOps never takes the name that was refused; its group goes on without it.
    if b.nature().document {
        b.unset("REFUSED");
        b.synced().await;
        b.holds([("GOOD", "g")]);
    } else {
        b.synced().await;
        b.holds([("GOOD", "g"), ("REFUSED", "r")]);
    }
}

/// With `disableSecretDeletion` nothing is ever deleted, neither ours nor theirs.
pub async fn switched_off(b: Bench) {
    b.put("THEIRS", "t");
    b.set("OURS", "o");
    b.set("STAYS", "s");
    b.create(json!({"disableSecretDeletion": true})).await;
    b.synced().await;
    b.unset("OURS");
    let record = b.synced().await;
    assert_eq!(record.counts.deleted, 0);
    b.holds([("THEIRS", "t"), ("OURS", "o"), ("STAYS", "s")]);
    b.settled().await;
}

/// Section 12, row 5: a removal takes away what this sync wrote, and nothing else.
pub async fn removal_takes_ours_only(b: Bench) {
    if !b.nature().schema {
        return;
    }
    b.put("THEIRS", "t");
    b.set("ONE", "1");
    b.set("TWO", "2");
    b.create(json!({"keySchema": "APP_{{secretKey}}"})).await;
    b.synced().await;
    b.put("APP_THEIRS", "t");
    b.unset("TWO");
    let record = b.removal().await;
    ended(&record, RunStatus::Succeeded);
    assert_eq!(record.counts.deleted, 2, "what the source forgot meanwhile is ours too: {record:#?}");
    b.holds([("THEIRS", "t"), ("APP_THEIRS", "t")]);
    assert_eq!(b.kms.keys(&b.project, "dev", "/app"), ["ONE"], "the source is untouched");

    // A removal may be undone by the next run.
    let record = b.allowed().await;
    ended(&record, RunStatus::Succeeded);
    b.holds([("THEIRS", "t"), ("APP_ONE", "1")]);
}

/// More than half of many keys gone from the source: the run asks, and writes nothing.
pub async fn mass_deletion_asks(b: Bench) {
    let mut keys = b.fill(20, "v");
    b.create(json!({})).await;
    b.synced().await;
    for i in 0..15 {
        let key = format!("K_{i:03}");
        b.unset(&key);
        keys.remove(&key);
    }
    b.mark();
    let record = b.sync().await;
    ended(&record, RunStatus::NeedsApproval);
    assert_eq!(b.writes(), Vec::<String>::new());
    assert_eq!(b.place.values().len(), 20);
    assert_eq!(record.secrets.iter().filter(|s| s.outcome == Outcome::Withheld).count(), 15);
    assert!(record.message.as_deref().is_some_and(|m| m.contains("mass deletion")), "{:?}", record.message);

    let record = b.allowed().await;
    ended(&record, RunStatus::Succeeded);
    assert_eq!(record.counts.deleted, 15);
    b.holds(&keys);
    b.settled().await;
}

/// Unattended runs ask like attended ones, and delete a few owned keys without asking.
pub async fn mass_deletion_asks_unattended(b: Bench) {
    b.fill(20, "v");
    b.create(json!({})).await;
    b.synced().await;
    let automatic = || RunRequest { trigger: Trigger::Auto, ..Bench::request(SYNC) };
    b.unset("K_000");
    let record = b.run(automatic()).await;
    ended(&record, RunStatus::Succeeded);
    assert_eq!(record.counts.deleted, 1);
    for i in 1..15 {
        b.unset(&format!("K_{i:03}"));
    }
    let record = b.run(automatic()).await;
    ended(&record, RunStatus::NeedsApproval);
    assert_eq!(b.place.values().len(), 19);
    assert!(fate(&record, &b.place.key("K_001")).is_some_and(|(o, _)| o == Outcome::Withheld));
}

/// A key that somebody edited, removed with consent, comes back with the source's value: what was
/// deleted, and returns with its restoration, is not what this sync had written.
pub async fn edited_and_removed_comes_back_as_the_source_has_it(b: Bench) {
    b.set("ONE", "1");
    b.set("TWO", "2");
    b.create(json!({})).await;
    b.synced().await;
    b.put("ONE", "edited by another hand");
    ended(&b.run(RunRequest { allow_delete: true, kind: RunKind::Remove, ..Bench::request(SYNC) }).await, RunStatus::Succeeded);
    b.holds::<&str, &str>([]);
    b.synced().await;
    b.holds([("ONE", "1"), ("TWO", "2")]);
    b.settled().await;
}
