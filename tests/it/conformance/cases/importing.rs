//! From the destination into the source.

use kms_sync::model::plan::Action;
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
    let overwritten =
        "1 key that this sync did not write holds another value at the destination and will be overwritten (import-prioritize-source): ";
    assert!(plan.warnings.iter().any(|w| w.starts_with(overwritten)), "{:?}", plan.warnings);
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

/// What the KMS would change is not sent to it, and stays at the destination until the operator
/// decides: in this run, in the next, and after a restart.
pub async fn values_that_the_kms_would_change(mut b: Bench) {
    if !b.nature().imports {
        return;
    }
    b.kms.add_folder(&b.project, ENVIRONMENT, FOLDER);
    let changed =
        [("PADDED", "  pad  "), ("TAB", "tab\t"), ("CRLF", "one\r\n"), ("LINES", "one\n\n"), ("MARK", "\u{feff}mark"), ("REF", "a${FINE}b")];
    let fine = [("FINE", "one\r\ntwo\n"), ("DOLLAR", "$5 ${} ${a b} $(x)")];
    let all = || changed.into_iter().chain(fine);
    all().for_each(|(key, value)| b.put(key, value));
    b.create(json!({"initialSyncBehavior": "import-prioritize-source"})).await;
    let plan = b.plan().await;
    assert_eq!((plan.count(Action::Import), plan.changes.len(), plan.skipped.len()), (2, 2, 6), "{plan:#?}");
    let record = b.synced().await;
    assert_eq!((record.counts.imported, record.counts.skipped), (2, 6), "{record:#?}");
    for (key, _) in changed {
        let told: Vec<_> = record.secrets.iter().filter(|s| s.key == b.place.key(key)).collect();
        assert!(
            told.len() == 1 && told[0].outcome == Outcome::Skipped && told[0].reason.as_ref().is_some_and(|r| r.contains("the KMS")),
            "{told:#?}"
        );
    }
    assert_eq!(b.kms.keys(&b.project, ENVIRONMENT, FOLDER), ["DOLLAR", "FINE"], "nothing is sent that would not be kept");
    b.holds(all());
    // The ways on: later runs, a restart, another import.
    b.set("LATER", "l");
    let record = b.synced().await;
    assert_eq!((record.counts.created, record.counts.updated, record.counts.deleted), (1, 0, 0), "{record:#?}");
    b.close_engine().await;
    b.take_engine();
    b.synced().await;
    ended(&b.import(Some(Priority::Destination)).await, RunStatus::Succeeded);
    b.synced().await;
    b.holds(all().chain([("LATER", "l")]));
    // The ways out: a value that the KMS can hold, and the operator's word.
    b.put("PADDED", "pad");
    let record = b.import(None).await;
    assert_eq!((record.counts.imported, b.kept("PADDED").as_deref()), (1, Some("pad")), "{record:#?}");
    b.synced().await;
    b.approve(&["TAB", "CRLF", "MARK"], &["LINES", "REF"]).await;
    b.synced().await;
    b.holds([("PADDED", "pad"), ("LINES", "one\n\n"), ("REF", "a${FINE}b"), ("LATER", "l")].into_iter().chain(fine));
    b.settled().await;
}

/// Nor does a value go that both sides have, in two forms.
pub async fn values_that_the_kms_holds_trimmed(b: Bench) {
    if !b.nature().imports {
        return;
    }
    for key in ["ONE", "TWO"] {
        b.put(key, "  pad  ");
        b.set(key, "pad");
    }
    b.create(json!({"initialSyncBehavior": "import-prioritize-destination"})).await;
    let record = b.synced().await;
    assert_eq!((record.counts.imported, record.counts.skipped, record.counts.updated), (0, 2, 0), "{record:#?}");
    b.holds([("ONE", "  pad  "), ("TWO", "  pad  ")]);
    ended(&b.sync().await, RunStatus::NeedsApproval);
    b.approve(&["ONE"], &["TWO"]).await;
    b.synced().await;
    b.holds([("ONE", "pad"), ("TWO", "  pad  ")]);
    b.settled().await;
}

/// A server may change more than is known of it: what it holds after the import decides, now
/// and after a restart.
pub async fn values_that_the_kms_changed(mut b: Bench) {
    if !b.nature().imports {
        return;
    }
    // Old servers take any text in braces for a reference.
    b.kms.set(&b.project, ENVIRONMENT, "/odd", "x y", "boo");
    let odd = "a ${dev.odd.x y} b";
    for behavior in ["import-prioritize-destination", "import-prioritize-source"] {
        b.kms.remove(&b.project, ENVIRONMENT, FOLDER, "ODD");
        b.kms.remove(&b.project, ENVIRONMENT, FOLDER, "EVEN");
        b.put("ODD", odd);
        b.put("EVEN", "even");
        b.create(json!({"initialSyncBehavior": behavior})).await;
        let record = b.sync().await;
        ended(&record, RunStatus::Failed);
        let key = b.place.key("ODD");
        assert!(fate(&record, &key).is_some_and(|(what, why)| what == Outcome::Failed && why.contains("the KMS changed")), "{record:#?}");
        assert_eq!(record.counts.imported, 1, "{record:#?}");
        b.holds([("ODD", odd), ("EVEN", "even")]);
        b.close_engine().await;
        b.take_engine();
        let record = b.sync().await;
        assert_eq!((record.counts.updated, record.counts.deleted), (0, 0), "{record:#?}");
        b.holds([("ODD", odd), ("EVEN", "even")]);
        if behavior == "import-prioritize-source" {
            // The source has a value now, and it is not the destination's: the operator decides.
            ended(&record, RunStatus::Succeeded);
            ended(&b.sync().await, RunStatus::NeedsApproval);
            b.approve(&["ODD"], &[]).await;
            b.synced().await;
            b.holds([("ODD", "a boo b"), ("EVEN", "even")]);
            b.settled().await;
        } else {
            b.local().delete_sync(SYNC).await.expect("deleted");
        }
    }
}

/// An edit at the destination that an import could not save is not undone by the next run.
pub async fn edits_that_cannot_be_imported(b: Bench) {
    if !b.nature().imports {
        return;
    }
    b.set("ONE", "1");
    b.set("TWO", "2");
    b.create(json!({})).await;
    b.synced().await;
    b.put("ONE", " edited ");
    b.put("TWO", "edited");
    let record = b.import(Some(Priority::Destination)).await;
    assert_eq!((record.counts.imported, record.counts.skipped), (1, 1), "{record:#?}");
    let record = b.sync().await;
    ended(&record, RunStatus::NeedsApproval);
    b.holds([("ONE", " edited "), ("TWO", "edited")]);
    b.approve(&["ONE"], &[]).await;
    b.synced().await;
    b.holds([("ONE", "1"), ("TWO", "edited")]);
    // From here on it is this sync's again, and kept as the source has it.
    b.put("ONE", "edited again");
    b.synced().await;
    b.holds([("ONE", "1"), ("TWO", "edited")]);
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

/// Section 13: under a change policy an import asks for approval, and nothing is overwritten
/// or deleted before the request was merged.
pub async fn waits_for_a_change_request(mut b: Bench) {
    if !b.nature().imports {
        return;
    }
    b.put("THERE", "t");
    b.put("BOTH", "theirs");
    b.set("BOTH", "ours");
    b.kms.switch(|s| {
        s.approvals.insert((ENVIRONMENT.into(), FOLDER.into()));
    });
    b.create(json!({"initialSyncBehavior": "import-prioritize-destination"})).await;
    let record = b.sync().await;
    let slugs = b.kms.open_requests();
    for key in ["THERE", "BOTH"] {
        let told = fate(&record, key);
        assert!(told.is_some_and(|(what, why)| what == Outcome::Skipped && slugs.iter().any(|s| why.contains(s.as_str()))), "{record:#?}");
    }
    b.close_engine().await;
    b.take_engine();
    let record = b.sync().await;
    ended(&record, RunStatus::NeedsApproval);
    b.holds([("THERE", "t"), ("BOTH", "theirs")]);
    assert_eq!(b.kms.open_requests(), slugs, "it is asked for once");
    assert!(slugs.iter().all(|s| b.kms.merge_request(s)));
    b.synced().await;
    b.holds([("THERE", "t"), ("BOTH", "theirs")]);
    b.settled().await;
}
