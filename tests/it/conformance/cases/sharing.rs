//! Two syncs on one destination.

use kms_sync::model::run::RunStatus;
use kms_sync::service::{PlanTarget, Service};
use serde_json::json;

use crate::conformance::bench::{Bench, ENVIRONMENT, SYNC, ended};

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
