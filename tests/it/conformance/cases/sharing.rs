//! Two syncs on one destination.

use kms_sync::model::run::{Outcome, RunKind, RunRecord, RunStatus};
use kms_sync::service::{PlanTarget, RunRequest, Service, SyncInput};
use serde_json::json;

use crate::conformance::bench::{Bench, ENVIRONMENT, SYNC, ended, fate};

/// Section 12, row 9: what another sync wrote is not deleted, not overwritten, not asked for.
pub async fn two_syncs_with_overlapping_schemas(b: Bench) {
    if !b.nature().schema {
        return;
    }
    b.kms.set(&b.project, ENVIRONMENT, "/other", "FROM_OTHER", "o");
    b.kms.set(&b.project, ENVIRONMENT, "/other", "APP_TRAP", "trap");
    b.set("ONE", "1");
    b.create(json!({"keySchema": "APP_{{secretKey}}"})).await;
    b.synced().await;
    // The other one has no schema: it manages every key there.
    b.create_as("other", "/other", json!({})).await;
    let plan = b.local().plan(PlanTarget::Stored { name: "other".into() }, false).await.expect("a plan");
    assert!(plan.warnings.iter().any(|w| w.contains(SYNC) && w.contains("overlap")), "{:?}", plan.warnings);
    assert_eq!(plan.needs_approval, vec![]);
    ended(&b.run(Bench::request("other")).await, RunStatus::Succeeded);
    let both = [("APP_ONE", "1"), ("FROM_OTHER", "o"), ("APP_TRAP", "trap")];
    b.holds(both);
    // APP_TRAP matches the first one's schema and is not in its source: the other's all the same.
    b.settled().await;
    b.holds(both);
    b.mark();
    ended(&b.run(Bench::request("other")).await, RunStatus::Succeeded);
    assert_eq!(b.writes(), Vec::<String>::new(), "they do not write for ever");
    b.set("ONE", "uno");
    b.synced().await;
    ended(&b.run(Bench::request("other")).await, RunStatus::Succeeded);
    b.holds([("APP_ONE", "uno"), ("FROM_OTHER", "o"), ("APP_TRAP", "trap")]);
    b.settled().await;
}

/// Both at the same moment: no write is lost.
pub async fn two_syncs_at_once(b: Bench) {
    if !b.nature().schema {
        return;
    }
    for i in 0..12 {
        b.set(&format!("A{i}"), "a");
        b.kms.set(&b.project, ENVIRONMENT, "/other", &format!("B{i}"), "b");
    }
    b.create(json!({"keySchema": "X_{{secretKey}}"})).await;
    b.create_as("other", "/other", json!({"keySchema": "Y_{{secretKey}}"})).await;
    let (one, two) = tokio::join!(b.sync(), b.run(Bench::request("other")));
    ended(&one, RunStatus::Succeeded);
    ended(&two, RunStatus::Succeeded);
    let all = (0..12).flat_map(|i| [(format!("X_A{i}"), "a"), (format!("Y_B{i}"), "b")]);
    b.holds(all);
    b.settled().await;
}

impl Bench {
    /// A second sync of the same place, whose folder holds these.
    async fn second(&self, pairs: &[(&str, &str)]) {
        for (key, value) in pairs {
            self.kms.set(&self.project, ENVIRONMENT, "/other", key, value);
        }
        self.create_as("other", "/other", json!({})).await;
    }

    async fn other(&self) -> RunRecord {
        self.run(Bench::request("other")).await
    }
}

/// What both carry is deleted only when both dropped it: by the first to write it, and by the
/// one that found it there.
pub async fn one_key_of_two_syncs(b: Bench) {
    b.set("ONE", "1");
    b.set("SHARED", "v");
    b.create(json!({})).await;
    b.synced().await;
    b.second(&[("SHARED", "v"), ("TWO", "2")]).await;
    let record = b.other().await;
    ended(&record, RunStatus::Succeeded);
    assert_eq!((record.counts.created, record.counts.updated, record.counts.unchanged), (1, 0, 1), "{record:#?}");
    b.unset("SHARED");
    let record = b.synced().await;
    assert!(fate(&record, "SHARED").is_some_and(|(what, why)| what == Outcome::Skipped && why.contains("the sync other")), "{record:#?}");
    b.holds([("ONE", "1"), ("SHARED", "v"), ("TWO", "2")]);
    b.mark();
    ended(&b.other().await, RunStatus::Succeeded);
    assert_eq!(b.writes(), Vec::<String>::new());
    b.settled().await;
    // The other one has it alone now.
    b.kms.set(&b.project, ENVIRONMENT, "/other", "SHARED", "w");
    ended(&b.other().await, RunStatus::Succeeded);
    b.holds([("ONE", "1"), ("SHARED", "w"), ("TWO", "2")]);
    b.kms.remove(&b.project, ENVIRONMENT, "/other", "SHARED");
    ended(&b.other().await, RunStatus::Succeeded);
    b.holds([("ONE", "1"), ("TWO", "2")]);
    b.settled().await;
}

/// Nor does `remove-secrets` of one take away what the other carries, or wake the other.
pub async fn one_key_of_two_syncs_removed(b: Bench) {
    b.set("ONE", "1");
    b.set("SHARED", "v");
    b.create(json!({})).await;
    b.synced().await;
    b.second(&[("SHARED", "v"), ("TWO", "2")]).await;
    ended(&b.other().await, RunStatus::Succeeded);
    let record = b.removal().await;
    ended(&record, RunStatus::Succeeded);
    assert!(fate(&record, "SHARED").is_some_and(|(what, why)| what == Outcome::Skipped && why.contains("the sync other")), "{record:#?}");
    b.holds([("SHARED", "v"), ("TWO", "2")]);
    b.mark();
    ended(&b.other().await, RunStatus::Succeeded);
    assert_eq!(b.writes(), Vec::<String>::new());
    let record = b.run(RunRequest { kind: RunKind::Remove, ..Bench::request("other") }).await;
    ended(&record, RunStatus::Succeeded);
    assert_eq!(b.place.values().len(), 0, "{record:#?}");
}

/// Two values for one key are a question, not a fight that goes on for ever.
pub async fn one_key_two_values(b: Bench) {
    b.set("SHARED", "one");
    b.create(json!({})).await;
    b.synced().await;
    b.second(&[("SHARED", "two"), ("TWO", "2")]).await;
    let record = b.other().await;
    ended(&record, RunStatus::NeedsApproval);
    let allowed = RunRequest { allow_delete: true, ..Bench::request("other") };
    ended(&b.run(allowed).await, RunStatus::Succeeded);
    b.holds([("SHARED", "two"), ("TWO", "2")]);
    let record = b.sync().await;
    ended(&record, RunStatus::NeedsApproval);
    assert!(fate(&record, "SHARED").is_some_and(|(_, why)| why.contains("the sync other")), "{record:#?}");
    b.holds([("SHARED", "two"), ("TWO", "2")]);
    b.mark();
    ended(&b.other().await, RunStatus::Succeeded);
    assert_eq!(b.writes(), Vec::<String>::new());
}

/// Section 12, row 9: another sync of the same keys is named when a sync is made or changed,
/// whatever connection it goes through.
pub async fn told_at_creation(b: Bench) {
    let made = async |name: &str, options: serde_json::Value| {
        let document = b.document(name, "/other", &options);
        let doc = b.local().create_sync(SyncInput { document, destination: None }).await.expect("a good sync");
        serde_json::to_value(doc).expect("a document")["warnings"].clone()
    };
    assert_eq!(made(SYNC, json!({})).await, json!(null), "alone there");
    let warnings = made("other", json!({"keySchema": "APP_{{secretKey}}"})).await;
    assert!(
        warnings.as_array().is_some_and(|w| w.len() == 1 && w[0].as_str().is_some_and(|w| w.contains(SYNC) && w.contains("overlap"))),
        "{warnings}"
    );
    if b.nature().schema {
        b.local().delete_sync(SYNC).await.expect("deleted");
        assert_eq!(made("third", json!({"keySchema": "WEB_{{secretKey}}"})).await, json!(null), "their keys cannot meet");
        let change = json!({"syncOptions": {"initialSyncBehavior": "overwrite-destination"}});
        let doc = b.local().update_sync("third", SyncInput { document: change, destination: None }).await.expect("a good change");
        assert!(doc.warnings.len() == 1 && doc.warnings[0].contains("other"), "{:?}", doc.warnings);
    }
}
