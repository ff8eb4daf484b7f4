//! Section 12, row 15: a sync carries the keys its patterns select, and the others are none of
//! its business, except those that it wrote before.

use kms_sync::model::run::{Outcome, RunStatus};
use kms_sync::service::RunRequest;
use serde_json::{Value, json};

use crate::conformance::bench::{Bench, SYNC, ended, fate};

fn options(more: &Value) -> Value {
    let mut all = json!({"initialSyncBehavior": "overwrite-destination"});
    all.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
    json!({"syncOptions": all})
}

/// What is left out is neither written, nor asked about, nor deleted, whoever wrote it there.
pub async fn left_out(b: Bench) {
    b.put("API_THEIRS", "t");
    b.put("API_KEY", "theirs");
    for (key, value) in [("DB_HOST", "h"), ("DB_PASSWORD", "p"), ("DB_TEST", "x"), ("API_KEY", "a")] {
        b.set(key, value);
    }
    b.create(json!({"includeKeys": ["DB_*"], "excludeKeys": ["*_TEST"]})).await;
    let plan = b.plan().await;
    assert_eq!((plan.source.secrets, plan.changes.len(), plan.needs_approval.len()), (2, 2, 0), "{plan:#?}");
    assert!(plan.warnings.iter().any(|w| w.contains("leave out 2 of the source's 4 keys")), "{:?}", plan.warnings);
    b.synced().await;
    b.holds([("API_THEIRS", "t"), ("API_KEY", "theirs"), ("DB_HOST", "h"), ("DB_PASSWORD", "p")]);
    b.settled().await;

    // A change of what is left out writes nothing; a foreign key that is selected is asked about.
    b.set("API_KEY", "b");
    b.settled().await;
    b.put("DB_THEIRS", "t");
    let record = b.synced().await;
    assert_eq!(fate(&record, &b.place.key("DB_THEIRS")).map(|f| f.0), Some(Outcome::Withheld), "{record:#?}");
    assert_eq!(record.counts.withheld, 1, "{record:#?}");
    assert!(fate(&record, &b.place.key("API_THEIRS")).is_none(), "{record:#?}");

    // What is selected no more and was written here counts as absent.
    b.approve(&[], &["DB_THEIRS"]).await;
    b.update(options(&json!({"includeKeys": ["DB_HOST", "DB_THEIRS"]}))).await;
    let record = b.synced().await;
    assert_eq!((record.counts.deleted, record.counts.writes()), (1, 1), "{record:#?}");
    b.holds([("API_THEIRS", "t"), ("API_KEY", "theirs"), ("DB_HOST", "h"), ("DB_THEIRS", "t")]);
    b.settled().await;
}

/// Patterns that come to select nothing empty no destination, and wider ones ask like a first run.
pub async fn edited(b: Bench) {
    b.set("DB_HOST", "h");
    b.set("API_KEY", "a");
    b.put("API_THEIRS", "t");
    b.create(json!({"includeKeys": ["DB_*"]})).await;
    b.synced().await;
    b.update(options(&json!({"includeKeys": ["DBX_*"]}))).await;
    b.mark();
    let record = b.sync().await;
    ended(&record, RunStatus::NeedsApproval);
    assert!(record.message.as_deref().is_some_and(|m| m.contains("includeKeys")), "{:?}", record.message);
    assert_eq!(b.writes(), Vec::<String>::new());
    b.holds([("DB_HOST", "h"), ("API_THEIRS", "t")]);

    b.update(options(&json!({}))).await;
    ended(&b.sync().await, RunStatus::NeedsApproval);
    assert_eq!(b.writes(), Vec::<String>::new());
    b.run(RunRequest { withhold: true, ..Bench::request(SYNC) }).await;
    b.holds([("DB_HOST", "h"), ("API_KEY", "a"), ("API_THEIRS", "t")]);
}

/// A key that is left out and cannot be read at the source holds up nothing.
pub async fn unreadable_and_left_out(b: Bench) {
    for key in ["DB_ONE", "DB_TWO", "API_HIDDEN"] {
        b.set(key, "v");
    }
    b.create(json!({"excludeKeys": ["API_*"]})).await;
    b.kms.switch(|s| {
        s.hidden_keys.insert("API_HIDDEN".into());
    });
    b.synced().await;
    b.unset("DB_TWO");
    let record = b.synced().await;
    assert_eq!(record.counts.deleted, 1, "{record:#?}");
    b.holds([("DB_ONE", "v")]);
}

/// An import brings what is selected, and nothing else.
pub async fn imported(b: Bench) {
    if !b.nature().imports {
        return;
    }
    b.put("DB_HOST", "h");
    b.put("API_THEIRS", "t");
    b.set("DB_OWN", "o");
    b.create(json!({"initialSyncBehavior": "import-prioritize-source", "includeKeys": ["DB*"]})).await;
    let record = b.synced().await;
    assert_eq!(record.counts.imported, 1, "{record:#?}");
    let keys = b.kms.keys(&b.project, "dev", "/app");
    assert_eq!(keys.len(), 2, "{keys:?}");
    b.holds([("DB_HOST", "h"), ("API_THEIRS", "t"), ("DB_OWN", "o")]);
    b.settled().await;
}
