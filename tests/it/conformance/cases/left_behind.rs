//! Section 12, row 20: what an edit leaves behind is named, and taken away on request.

use kms_sync::model::plan::Action;
use kms_sync::model::run::{Outcome, RunKind, RunRecord, RunRequest, RunStatus};
use kms_sync::service::{PlanTarget, Service, SyncInput};
use serde_json::{Value, json};

use crate::conformance::bench::{Bench, ENVIRONMENT, FOLDER, SYNC, ended, fate};
use crate::conformance::place::Mends;

impl Bench {
    /// Changes the sync, and answers how many keys that leaves behind.
    async fn changed(&self, change: Value) -> Option<usize> {
        self.local().update_sync(SYNC, SyncInput { document: change, destination: None }).await.expect("a good change").left_behind
    }

    /// Takes away what earlier settings wrote.
    async fn clean(&self) -> RunRecord {
        self.run(RunRequest { kind: RunKind::Remove, left_behind: true, ..Bench::request(SYNC) }).await
    }

    /// The warnings of the plan that name the way to be rid of keys.
    async fn offers(&self) -> Vec<String> {
        let plan = self.plan().await;
        plan.warnings.into_iter().filter(|w| w.contains("`kms-sync remove-secrets conformance --left-behind`")).collect()
    }

    /// Stores the sync with the other target.
    async fn create_elsewhere(&self, connection: &str) {
        let mut document = self.document(SYNC, FOLDER, &json!({}));
        document["destinationConfig"] = self.place.elsewhere();
        document["connectionId"] = connection.into();
        self.local().create_sync(SyncInput { document, destination: None }).await.expect("a good sync");
    }
}

fn options(more: &Value) -> Value {
    let mut all = json!({"initialSyncBehavior": "overwrite-destination"});
    all.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
    json!({"syncOptions": all})
}

/// Upstream strands the copies at the old target, and overwrites the new one without a question.
pub async fn at_an_earlier_target(b: Bench) {
    b.set("ONE", "1");
    b.set("TWO", "2");
    b.create_elsewhere("place").await;
    b.synced().await;
    assert_eq!(b.place.values_elsewhere().len(), 2);
    assert_eq!(b.offers().await, Vec::<String>::new());

    b.put("THEIRS", "t");
    // The wizard shows it before anything is stored.
    let mut edited = b.local().document(SYNC).await.expect("a document");
    edited["destinationConfig"] = b.place.config();
    let draft = PlanTarget::Draft { document: edited, replaces: Some(SYNC.into()) };
    let plan = b.local().plan(draft, false).await.expect("a plan");
    assert!(plan.warnings.iter().any(|w| w.contains("--left-behind")), "{:?}", plan.warnings);
    assert!(plan.needs_approval.iter().any(|a| a.key == "THEIRS"), "{:?}", plan.needs_approval);

    assert_eq!(b.changed(json!({"destinationConfig": b.place.config()})).await, Some(2));
    b.mark();
    ended(&b.sync().await, RunStatus::NeedsApproval);
    assert_eq!(b.writes(), Vec::<String>::new());
    let offers = b.offers().await;
    assert!(matches!(offers.as_slice(), [o] if o.contains("2 keys") && o.contains("ONE, TWO") && o.contains("earlier target")), "{offers:?}");
    assert_eq!(b.plan().await.count(Action::Create), 2, "the plan is about the new target");

    b.approve(&[], &["THEIRS"]).await;
    b.synced().await;
    b.holds([("THEIRS", "t"), ("ONE", "1"), ("TWO", "2")]);
    assert_eq!(b.place.values_elsewhere().len(), 2, "nothing goes by itself");

    let record = b.clean().await;
    ended(&record, RunStatus::Succeeded);
    assert_eq!(record.counts.deleted, 2, "{record:#?}");
    assert_eq!(b.place.values_elsewhere().len(), 0);
    b.holds([("THEIRS", "t"), ("ONE", "1"), ("TWO", "2")]);
    assert_eq!(b.offers().await, Vec::<String>::new());
    b.settled().await;

    // There is nothing left to take away, and nothing is.
    b.mark();
    let record = b.clean().await;
    ended(&record, RunStatus::Succeeded);
    assert_eq!((record.counts.writes(), b.writes()), (0, Vec::new()), "{record:#?}");
}

/// Keys of the old schema match no more: upstream leaves them for ever.
pub async fn under_an_earlier_schema(b: Bench) {
    if !b.nature().schema {
        return;
    }
    b.set("ONE", "1");
    b.put("OLD_THEIRS", "t");
    b.create(json!({"keySchema": "OLD_{{secretKey}}", "disableSecretDeletion": true})).await;
    b.synced().await;
    assert_eq!(b.changed(options(&json!({"keySchema": "NEW_{{secretKey}}"}))).await, Some(1));
    b.synced().await;
    b.holds([("OLD_THEIRS", "t"), ("OLD_ONE", "1"), ("NEW_ONE", "1")]);
    let offers = b.offers().await;
    let named = b.place.key("OLD_ONE");
    assert!(matches!(offers.as_slice(), [o] if o.contains("1 key") && o.contains(&named) && o.contains("Key Schema")), "{offers:?}");

    let record = b.clean().await;
    ended(&record, RunStatus::Succeeded);
    assert_eq!(record.counts.deleted, 1, "{record:#?}");
    b.holds([("OLD_THEIRS", "t"), ("NEW_ONE", "1")]);
    assert_eq!(b.offers().await, Vec::<String>::new());
    b.settled().await;
}

/// What somebody has edited since is no more as this sync left it: it stays until the operator agrees.
pub async fn edited_since(b: Bench) {
    if !b.nature().schema || b.nature().mends != Mends::NextRun {
        return;
    }
    b.set("ONE", "1");
    b.create(json!({"keySchema": "OLD_{{secretKey}}"})).await;
    b.synced().await;
    b.update(options(&json!({"keySchema": "NEW_{{secretKey}}"}))).await;
    b.synced().await;
    b.put("OLD_ONE", "theirs now");
    let record = b.clean().await;
    ended(&record, RunStatus::NeedsApproval);
    b.holds([("OLD_ONE", "theirs now"), ("NEW_ONE", "1")]);
    let agreed = RunRequest { kind: RunKind::Remove, left_behind: true, allow_delete: true, ..Bench::request(SYNC) };
    ended(&b.run(agreed).await, RunStatus::Succeeded);
    b.holds([("NEW_ONE", "1")]);
}

/// A removal of everything takes the keys of the old schema as well.
pub async fn removed_with_the_rest(b: Bench) {
    if !b.nature().schema {
        return;
    }
    b.set("ONE", "1");
    b.put("OLD_THEIRS", "t");
    b.create(json!({"keySchema": "OLD_{{secretKey}}", "disableSecretDeletion": true})).await;
    b.synced().await;
    b.update(options(&json!({"keySchema": "NEW_{{secretKey}}"}))).await;
    b.synced().await;
    let record = b.removal().await;
    ended(&record, RunStatus::Succeeded);
    assert_eq!(record.counts.deleted, 2, "{record:#?}");
    b.holds([("OLD_THEIRS", "t")]);
}

/// The connection to the old target is gone: its keys are named as failures, nothing is lost.
pub async fn out_of_reach(b: Bench) {
    let mut second = b.place.connection();
    second["name"] = "second".into();
    b.local().save_connection(second.clone(), false).await.expect("a good connection");
    b.set("ONE", "1");
    b.create_elsewhere("second").await;
    b.synced().await;
    b.changed(json!({"connectionId": "place", "destinationConfig": b.place.config()})).await;
    b.synced().await;
    b.local().remove_connection("second").await.expect("no sync uses it");

    let record = b.clean().await;
    ended(&record, RunStatus::Failed);
    let (outcome, reason) = fate(&record, "ONE").expect("it is named");
    assert!(outcome == Outcome::Failed && reason.contains("second"), "{reason}");
    b.holds([("ONE", "1")]);

    b.local().save_connection(second, false).await.expect("a good connection");
    let record = b.clean().await;
    ended(&record, RunStatus::Succeeded);
    assert_eq!(b.place.values_elsewhere().len(), 0);
    b.holds([("ONE", "1")]);
}

/// An environment that got another name leaves nothing behind: its keys are where they were.
pub async fn nothing_by_another_name(b: Bench) {
    b.set("ONE", "1");
    b.set("TWO", "2");
    b.create(json!({})).await;
    b.synced().await;
    b.kms.rename_environment(&b.project, ENVIRONMENT, "Acceptance");
    b.set("ONE", "uno");
    b.synced().await;
    assert_eq!(b.offers().await, Vec::<String>::new());
    let record = b.clean().await;
    ended(&record, RunStatus::Succeeded);
    assert_eq!(record.counts.deleted, 0, "{record:#?}");
    b.holds([("ONE", "uno"), ("TWO", "2")]);
    b.settled().await;
}

/// A file edited outside the program asks like one that the program changed.
pub async fn edited_file_asks(b: Bench) {
    b.put("THEIRS", "t");
    b.set("ONE", "1");
    b.create(json!({"disableSecretDeletion": true})).await;
    b.synced().await;
    let store = b.local().engine().store();
    let mut config = store.sync(SYNC).expect("the sync");
    config.sync_options.disable_secret_deletion = None;
    store.save_sync(&config).expect("a file");
    b.mark();
    ended(&b.sync().await, RunStatus::NeedsApproval);
    assert_eq!(b.writes(), Vec::<String>::new());
    b.approve(&[], &["THEIRS"]).await;
    b.synced().await;
    b.holds([("THEIRS", "t"), ("ONE", "1")]);
    b.settled().await;
}

/// Another folder is another content: what stands there and is no key of this sync is asked about.
pub async fn another_source_asks(b: Bench) {
    b.set("ONE", "1");
    b.kms.add_folder(&b.project, "dev", "/other");
    b.kms.set(&b.project, "dev", "/other", "TWO", "2");
    b.create(json!({})).await;
    b.synced().await;
    b.put("THEIRS", "t");
    b.update(json!({"secretPath": "/other"})).await;
    b.mark();
    ended(&b.sync().await, RunStatus::NeedsApproval);
    assert_eq!(b.writes(), Vec::<String>::new());
    b.approve(&[], &["THEIRS"]).await;
    b.synced().await;
    b.holds([("THEIRS", "t"), ("TWO", "2")]);
    b.settled().await;
}
