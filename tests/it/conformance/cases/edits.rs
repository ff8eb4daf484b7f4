//! Section 12, row 20: a changed sync asks like a new one.

use kms_sync::model::run::RunStatus;
use serde_json::json;

use crate::conformance::bench::{Bench, ENVIRONMENT, ended};

fn options(more: &serde_json::Value) -> serde_json::Value {
    let mut all = json!({"initialSyncBehavior": "overwrite-destination"});
    if let (Some(all), Some(more)) = (all.as_object_mut(), more.as_object()) {
        all.extend(more.clone());
    }
    json!({"syncOptions": all})
}

/// Upstream deletes everything else at the destination when the schema is cleared.
pub async fn cleared_schema_asks(b: Bench) {
    if !b.nature().schema {
        return;
    }
    b.put("THEIRS", "t");
    b.set("ONE", "1");
    b.create(json!({"keySchema": "APP_{{secretKey}}"})).await;
    b.synced().await;
    b.update(options(&json!({}))).await;
    b.mark();
    ended(&b.sync().await, RunStatus::NeedsApproval);
    assert_eq!(b.writes(), Vec::<String>::new());
    b.holds([("THEIRS", "t"), ("APP_ONE", "1")]);
    b.approve(&[], &["THEIRS"]).await;
    b.synced().await;
    // What this sync wrote under its old schema is its own: it goes, as the plan showed.
    b.holds([("THEIRS", "t"), ("ONE", "1")]);
    b.settled().await;
}

/// Another schema reaches other keys.
pub async fn another_schema_asks(b: Bench) {
    if !b.nature().schema {
        return;
    }
    b.put("NEW_THEIRS", "t");
    b.set("ONE", "1");
    b.create(json!({"keySchema": "OLD_{{secretKey}}"})).await;
    b.synced().await;
    b.update(options(&json!({"keySchema": "NEW_{{secretKey}}"}))).await;
    b.mark();
    ended(&b.sync().await, RunStatus::NeedsApproval);
    assert_eq!(b.writes(), Vec::<String>::new());
    b.holds([("NEW_THEIRS", "t"), ("OLD_ONE", "1")]);
    ended(&b.allowed().await, RunStatus::Succeeded);
    let values = b.place.values();
    assert_eq!(values.get(&b.place.key("NEW_ONE")).map(String::as_str), Some("1"));
    assert!(!values.contains_key(&b.place.key("NEW_THEIRS")));
}

/// Switching deletions on again shows what would go.
pub async fn deletion_switched_on_asks(b: Bench) {
    b.put("THEIRS", "t");
    b.set("ONE", "1");
    b.create(json!({"disableSecretDeletion": true})).await;
    b.synced().await;
    b.update(options(&json!({"disableSecretDeletion": false}))).await;
    b.mark();
    ended(&b.sync().await, RunStatus::NeedsApproval);
    assert_eq!(b.writes(), Vec::<String>::new());
    b.holds([("THEIRS", "t"), ("ONE", "1")]);
}

/// An environment that got another name is the same place: nothing is lost, nothing is doubled.
pub async fn environment_renamed(b: Bench) {
    b.set("ONE", "1");
    b.set("TWO", "2");
    b.create(json!({})).await;
    b.synced().await;
    b.kms.rename_environment(&b.project, ENVIRONMENT, "Acceptance");
    b.set("ONE", "uno");
    b.synced().await;
    b.holds([("ONE", "uno"), ("TWO", "2")]);
    b.settled().await;
}
