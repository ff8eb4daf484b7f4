//! Section 12, row 13: what cannot be read at the source is not taken for deleted.

use kms_sync::model::run::{Outcome, RunStatus, Trigger};
use kms_sync::sandbox::host::{Effect, Fault};
use kms_sync::service::RunRequest;
use serde_json::json;

use crate::conformance::bench::{Bench, ENVIRONMENT, FOLDER, SYNC, ended, fate};

async fn two_keys(b: &Bench) {
    b.set("ONE", "1");
    b.set("TWO", "2");
    b.create(json!({})).await;
    b.synced().await;
    b.mark();
}

/// An emptied folder asks, however few keys it held, whoever started the run.
pub async fn emptied(b: Bench) {
    two_keys(&b).await;
    b.unset("ONE");
    b.unset("TWO");
    for trigger in [Trigger::Manual, Trigger::Auto] {
        ended(&b.run(RunRequest { trigger, ..Bench::request(SYNC) }).await, RunStatus::NeedsApproval);
    }
    assert_eq!(b.writes(), Vec::<String>::new());
    b.holds([("ONE", "1"), ("TWO", "2")]);
    ended(&b.allowed().await, RunStatus::Succeeded);
    assert!(b.place.values().is_empty());
}

pub async fn folder_gone(b: Bench) {
    two_keys(&b).await;
    b.kms.remove_folder(&b.project, ENVIRONMENT, FOLDER);
    let record = b.sync().await;
    ended(&record, RunStatus::Failed);
    assert!(record.message.as_deref().is_some_and(|m| m.contains(FOLDER)), "{:?}", record.message);
    assert_eq!(b.writes(), Vec::<String>::new());
    b.holds([("ONE", "1"), ("TWO", "2")]);
    // What was written can still be taken away.
    ended(&b.removal().await, RunStatus::Succeeded);
    assert!(b.place.values().is_empty());
}

pub async fn environment_gone(b: Bench) {
    two_keys(&b).await;
    b.kms.remove_environment(&b.project, ENVIRONMENT);
    ended(&b.sync().await, RunStatus::Failed);
    assert_eq!(b.writes(), Vec::<String>::new());
    b.holds([("ONE", "1"), ("TWO", "2")]);
}

/// A masked value is an error of that key: the others are written, nothing is deleted.
pub async fn unreadable_value(b: Bench) {
    two_keys(&b).await;
    b.set("THREE", "3");
    b.synced().await;
    b.kms.switch(|s| {
        s.hidden_keys.insert("TWO".into());
    });
    b.set("ONE", "uno");
    b.unset("THREE");
    let record = b.sync().await;
    ended(&record, RunStatus::Failed);
    assert_eq!(fate(&record, "TWO").map(|f| f.0), Some(Outcome::Failed), "{record:#?}");
    b.holds([("ONE", "uno"), ("TWO", "2"), ("THREE", "3")]);
    b.kms.switch(|s| s.hidden_keys.clear());
    b.synced().await;
    b.holds([("ONE", "uno"), ("TWO", "2")]);
}

/// An import whose folder may not be read leaves its keys where they are.
pub async fn unreadable_import(b: Bench) {
    b.kms.set(&b.project, ENVIRONMENT, "/shared", "SMTP", "s");
    b.kms.add_import(&b.project, ENVIRONMENT, FOLDER, ENVIRONMENT, "/shared");
    two_keys(&b).await;
    let all = [("ONE", "1"), ("TWO", "2"), ("SMTP", "s")];
    b.holds(all);
    b.kms.switch(|s| {
        s.unreadable_imports.insert((ENVIRONMENT.into(), "/shared".into()));
    });
    b.set("ONE", "uno");
    b.unset("TWO");
    let record = b.sync().await;
    assert_eq!(record.counts.deleted, 0, "{record:#?}");
    b.holds([("ONE", "uno"), ("TWO", "2"), ("SMTP", "s")]);
    assert!(!b.plan().await.source.complete);
    b.kms.switch(|s| s.unreadable_imports.clear());
    b.synced().await;
    b.holds([("ONE", "uno"), ("SMTP", "s")]);
}

/// Section 12, row 21: own keys win over imported ones, later imports over earlier ones.
pub async fn keys_by_import_links(b: Bench) {
    for (path, key, value) in
        [("/first", "BOTH", "first"), ("/first", "FIRST", "1"), ("/second", "BOTH", "second"), ("/second", "MINE", "theirs"), ("/deep", "DEEP", "d")]
    {
        b.kms.set(&b.project, ENVIRONMENT, path, key, value);
    }
    b.kms.add_import(&b.project, ENVIRONMENT, "/second", ENVIRONMENT, "/deep");
    b.kms.add_import(&b.project, ENVIRONMENT, FOLDER, ENVIRONMENT, "/first");
    b.kms.add_import(&b.project, ENVIRONMENT, FOLDER, ENVIRONMENT, "/second");
    b.set("MINE", "ours");
    b.create(json!({})).await;
    b.synced().await;
    b.holds([("BOTH", "second"), ("FIRST", "1"), ("MINE", "ours"), ("DEEP", "d")]);
    b.kms.set(&b.project, ENVIRONMENT, "/deep", "DEEP", "deeper");
    b.synced().await;
    b.holds([("BOTH", "second"), ("FIRST", "1"), ("MINE", "ours"), ("DEEP", "deeper")]);
    b.settled().await;
}

/// Section 12, row 16: a key of two folders is a conflict that names them; the others go on.
pub async fn sub_folders_that_clash(b: Bench) {
    b.set("TOP", "t");
    b.kms.set(&b.project, ENVIRONMENT, "/app/a", "CLASH", "a");
    b.kms.set(&b.project, ENVIRONMENT, "/app/b", "CLASH", "b");
    b.kms.set(&b.project, ENVIRONMENT, "/app/b", "BELOW", "x");
    b.create(json!({"includeAllSubFolders": true})).await;
    let record = b.sync().await;
    ended(&record, RunStatus::Failed);
    let (outcome, reason) = fate(&record, "CLASH").expect("the conflict");
    assert!(outcome == Outcome::Failed && reason.contains("/a") && reason.contains("/b"), "{reason}");
    b.holds([("TOP", "t"), ("BELOW", "x")]);
    b.kms.remove(&b.project, ENVIRONMENT, "/app/a", "CLASH");
    b.synced().await;
    b.holds([("TOP", "t"), ("BELOW", "x"), ("CLASH", "b")]);
}

/// A KMS in trouble fails the run, or is waited for; the destination stays as it is.
pub async fn kms_breaks_down(b: Bench) {
    two_keys(&b).await;
    b.set("ONE", "uno");
    b.kms_host.faults.add(Fault::always("", 1.0, Effect::status(403, "{\"message\":\"no\"}")));
    ended(&b.sync().await, RunStatus::Failed);
    b.kms_host.faults.clear();
    assert_eq!(b.writes(), Vec::<String>::new());
    b.kms_host.faults.add(Fault::next("/secrets", 1, Effect::HalfBody));
    let record = b.synced().await;
    assert_eq!(record.counts.updated, 1);
    b.holds([("ONE", "uno"), ("TWO", "2")]);
}
