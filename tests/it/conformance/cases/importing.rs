//! From the destination into the source.

use kms_sync::model::run::{Outcome, RunKind, RunRecord, RunStatus};
use kms_sync::service::{Priority, RunRequest, Service, SyncInput};
use serde_json::json;

use crate::conformance::bench::{Bench, ENVIRONMENT, FOLDER, SYNC, ended, fate};

impl Bench {
    fn kept(&self, key: &str) -> Option<String> {
        self.kms.value(&self.project, ENVIRONMENT, FOLDER, key)
    }

    async fn import(&self, prioritize: Option<Priority>) -> RunRecord {
        self.run(RunRequest { kind: RunKind::Import, prioritize, ..Self::request(SYNC) }).await
    }
}

/// The source's values win; keys that only the destination has come over.
pub async fn source_first(b: Bench) {
    if !b.nature().imports {
        return;
    }
    b.put("BOTH", "theirs");
    b.put("ONLY-THERE", "t");
    b.set("BOTH", "ours");
    b.set("ONLY-HERE", "o");
    b.create(json!({"initialSyncBehavior": "import-prioritize-source"})).await;
    let plan = b.plan().await;
    assert_eq!(b.kept("ONLY-THERE"), None, "a plan imports nothing");
    assert_eq!(plan.count(kms_sync::model::plan::Action::Import), 1, "{plan:#?}");
    let record = b.synced().await;
    assert_eq!((record.counts.imported, record.counts.deleted), (1, 0), "{record:#?}");
    assert_eq!(b.kept("ONLY-THERE").as_deref(), Some("t"));
    assert_eq!(b.kept("BOTH").as_deref(), Some("ours"));
    b.holds([("BOTH", "ours"), ("ONLY-THERE", "t"), ("ONLY-HERE", "o")]);
    b.settled().await;
    // The import is of the first run only: later the source decides.
    b.kms.remove(&b.project, ENVIRONMENT, FOLDER, "ONLY-THERE");
    b.synced().await;
    b.holds([("BOTH", "ours"), ("ONLY-HERE", "o")]);
}

/// The destination's values win.
pub async fn destination_first(b: Bench) {
    if !b.nature().imports || !b.nature().schema {
        return;
    }
    b.put("APP_BOTH", "theirs");
    b.put("OUTSIDE", "x");
    b.set("BOTH", "ours");
    b.set("HERE", "o");
    b.create(json!({"initialSyncBehavior": "import-prioritize-destination", "keySchema": "APP_{{secretKey}}"})).await;
    let record = b.synced().await;
    assert_eq!(record.counts.imported, 1, "{record:#?}");
    assert_eq!(b.kept("BOTH").as_deref(), Some("theirs"));
    assert_eq!(b.kms.keys(&b.project, ENVIRONMENT, FOLDER), ["BOTH", "HERE"], "the schema is stripped, and bounds the import");
    b.holds([("APP_BOTH", "theirs"), ("APP_HERE", "o"), ("OUTSIDE", "x")]);
    b.settled().await;
}

/// Section 12, row 17: a name that the source cannot hold is listed and stays there; the
/// others come over.
pub async fn bad_names_stay(b: Bench) {
    let Some(bad) = b.nature().unimportable else { return };
    b.put(bad, "x");
    b.put("GOOD", "g");
    b.create(json!({"initialSyncBehavior": "import-prioritize-destination"})).await;
    let record = b.synced().await;
    assert_eq!(fate(&record, bad).map(|f| f.0), Some(Outcome::Skipped), "{record:#?}");
    assert_eq!(record.counts.imported, 1);
    assert_eq!(b.kms.keys(&b.project, ENVIRONMENT, FOLDER), ["GOOD"]);
    b.holds([(bad, "x"), ("GOOD", "g")]);
}

/// With the source first, a key that arrives by an import link counts as held.
pub async fn linked_keys_are_left_alone(b: Bench) {
    if !b.nature().imports {
        return;
    }
    b.kms.set(&b.project, ENVIRONMENT, "/shared", "LINKED", "shared");
    b.kms.add_import(&b.project, ENVIRONMENT, FOLDER, ENVIRONMENT, "/shared");
    b.put("LINKED", "theirs");
    b.set("OWN", "o");
    b.create(json!({"initialSyncBehavior": "import-prioritize-source"})).await;
    let record = b.synced().await;
    assert_eq!(record.counts.imported, 0, "{record:#?}");
    assert_eq!(b.kms.keys(&b.project, ENVIRONMENT, FOLDER), ["OWN"], "the link is not shadowed by a copy");
    b.holds([("LINKED", "shared"), ("OWN", "o")]);
    b.settled().await;
}

/// The KMS trims what is written to it: that must not make both sides write for ever.
pub async fn values_with_outer_space(b: Bench) {
    if !b.nature().imports {
        return;
    }
    b.put("PADDED", "  padded\t ");
    b.put("LINES", "one\ntwo\n");
    b.create(json!({"initialSyncBehavior": "import-prioritize-destination"})).await;
    let record = b.synced().await;
    assert_eq!(record.counts.imported, 2, "{record:#?}");
    // The source decides from now on; it says "padded".
    b.synced().await;
    b.holds([("PADDED", "padded"), ("LINES", "one\ntwo\n")]);
    b.settled().await;
}

/// Where values cannot be read, an import is refused before anything is stored.
pub async fn not_offered(b: Bench) {
    if b.nature().imports {
        return;
    }
    let document = b.document(SYNC, FOLDER, &json!({"initialSyncBehavior": "import-prioritize-source"}));
    let error = b.local().create_sync(SyncInput { document, destination: None }).await.expect_err("no import");
    assert!(error.fields.of("syncOptions.initialSyncBehavior").is_some(), "{error}");
    b.set("ONE", "1");
    b.create(json!({})).await;
    let request = RunRequest { kind: RunKind::Import, ..Bench::request(SYNC) };
    let error = b.local().start(request).await.expect_err("no import");
    assert!(error.message.contains("import"), "{error}");
}

/// An import of its own, at any time, either side first.
pub async fn on_demand(b: Bench) {
    if !b.nature().imports {
        return;
    }
    b.set("ONE", "1");
    b.create(json!({})).await;
    b.synced().await;
    b.put("ONE", "edited there");
    b.put("TWO", "new there");
    let record = b.import(Some(Priority::Source)).await;
    ended(&record, RunStatus::Succeeded);
    assert_eq!((b.kept("ONE").as_deref(), b.kept("TWO").as_deref()), (Some("1"), Some("new there")), "{record:#?}");
    let record = b.import(Some(Priority::Destination)).await;
    ended(&record, RunStatus::Succeeded);
    assert_eq!(b.kept("ONE").as_deref(), Some("edited there"));
    b.synced().await;
    b.holds([("ONE", "edited there"), ("TWO", "new there")]);
    b.settled().await;
}

/// A first run that fails half-way imports again, and then converges.
pub async fn half_way(b: Bench) {
    if !b.nature().imports {
        return;
    }
    b.put("THERE", "t");
    b.set("HERE", "h");
    b.set("REFUSED", "r");
    b.create(json!({"initialSyncBehavior": "import-prioritize-source"})).await;
    if !b.place.refuse_one(&b.place.key("REFUSED")) {
        return;
    }
    ended(&b.sync().await, RunStatus::Failed);
    assert_eq!(b.kept("THERE").as_deref(), Some("t"));
    b.put("LATER", "l");
    b.place.forgive();
    let record = b.synced().await;
    assert_eq!(record.counts.imported, 1, "{record:#?}");
    b.holds([("THERE", "t"), ("HERE", "h"), ("REFUSED", "r"), ("LATER", "l")]);
    b.settled().await;
}
