//! What another hand wrote is touched only after the operator agreed.

use kms_sync::model::run::{Outcome, RunStatus};
use kms_sync::service::{RunRequest, Service};
use serde_json::json;

use crate::conformance::bench::{Bench, SYNC, ended, fate};

/// Keys that the schema does not match are nobody's business, in any run.
pub async fn untouched_outside_the_schema(b: Bench) {
    if !b.nature().schema {
        return;
    }
    b.put("THEIRS", "t");
    b.put("OTHER_ONE", "t");
    b.set("ONE", "1");
    b.set("TWO", "2");
    b.create(json!({"keySchema": "APP_{{secretKey}}"})).await;
    assert_eq!(b.plan().await.needs_approval, vec![]);
    b.synced().await;
    b.holds([("THEIRS", "t"), ("OTHER_ONE", "t"), ("APP_ONE", "1"), ("APP_TWO", "2")]);
    b.settled().await;
    b.unset("TWO");
    b.set("ONE", "uno");
    b.synced().await;
    b.holds([("THEIRS", "t"), ("OTHER_ONE", "t"), ("APP_ONE", "uno")]);
    ended(&b.removal().await, RunStatus::Succeeded);
    b.holds([("THEIRS", "t"), ("OTHER_ONE", "t")]);
}

/// Section 12, row 10: a first run that would overwrite stops before its first write, names
/// the key, and goes on once it was approved.
pub async fn overwritten_after_approval(b: Bench) {
    b.put("SHARED", "theirs");
    b.set("SHARED", "ours");
    b.set("NEW", "n");
    b.create(json!({})).await;
    let plan = b.plan().await;
    let asked: Vec<&str> = plan.needs_approval.iter().map(|a| a.key.as_str()).collect();
    assert_eq!(asked, [b.place.key("SHARED")]);
    let record = b.sync().await;
    ended(&record, RunStatus::NeedsApproval);
    assert_eq!(b.writes(), Vec::<String>::new());
    b.holds([("SHARED", "theirs")]);
    assert_eq!(fate(&record, "SHARED").map(|f| f.0), Some(Outcome::Withheld), "{record:#?}");

    b.approve(&["SHARED"], &[]).await;
    let record = b.synced().await;
    assert_eq!((record.counts.created, record.counts.updated), (1, 1), "{record:#?}");
    b.holds([("SHARED", "ours"), ("NEW", "n")]);
    b.settled().await;
}

/// The result of another engine (the server's own, a lost ledger) is taken over: where values
/// can be read without a write and without a question, elsewhere after one.
pub async fn equal_values_are_adopted(b: Bench) {
    if !b.nature().schema {
        return;
    }
    for (key, value) in [("APP_ONE", "1"), ("APP_TWO", "two\\n\"quoted\"")] {
        b.put(key, value);
    }
    b.set("ONE", "1");
    b.set("TWO", "two\\n\"quoted\"");
    b.create(json!({"keySchema": "APP_{{secretKey}}"})).await;
    if b.nature().readable {
        assert!(b.plan().await.is_noop());
        let record = b.synced().await;
        assert_eq!((record.counts.writes(), record.counts.unchanged), (0, 2), "{record:#?}");
        assert_eq!(b.writes(), Vec::<String>::new());
        // Now they are ours: the next deletion needs no question.
        b.unset("TWO");
        b.synced().await;
        b.holds([("APP_ONE", "1")]);
    } else {
        ended(&b.sync().await, RunStatus::NeedsApproval);
        assert_eq!(b.writes(), Vec::<String>::new());
        ended(&b.allowed().await, RunStatus::Succeeded);
        b.holds([("APP_ONE", "1"), ("APP_TWO", "two\\n\"quoted\"")]);
        b.settled().await;
    }
}

/// A first run that would delete stops before its first write.
pub async fn deleted_after_approval_at_first(b: Bench) {
    b.put("THEIRS", "t");
    b.set("NEW", "n");
    b.create(json!({})).await;
    let record = b.sync().await;
    ended(&record, RunStatus::NeedsApproval);
    assert_eq!(b.writes(), Vec::<String>::new());
    b.holds([("THEIRS", "t")]);
    assert!(record.message.as_deref().is_some_and(|m| m.contains(&b.place.key("THEIRS"))), "it is named: {:?}", record.message);

    b.approve(&["THEIRS"], &[]).await;
    let record = b.synced().await;
    assert_eq!((record.counts.created, record.counts.deleted), (1, 1), "{record:#?}");
    b.holds([("NEW", "n")]);
    b.settled().await;
}

/// After a first success foreign keys are withheld, and everything else goes on.
pub async fn withheld_later(b: Bench) {
    b.set("ONE", "1");
    b.create(json!({})).await;
    b.synced().await;
    b.put("THEIRS", "t");
    b.set("ONE", "uno");
    let record = b.synced().await;
    assert_eq!((record.counts.updated, record.counts.deleted), (1, 0), "{record:#?}");
    assert_eq!(fate(&record, &b.place.key("THEIRS")).map(|f| f.0), Some(Outcome::Withheld));
    b.holds([("ONE", "uno"), ("THEIRS", "t")]);
    assert!(record.message.as_deref().is_some_and(|m| m.contains("1 key there") && m.contains("left alone")), "{record:#?}");

    // Taking over a foreign key is not in sync until it is agreed to.
    b.put("SOON", "theirs");
    b.set("SOON", "ours");
    b.set("ONE", "eins");
    let record = b.sync().await;
    ended(&record, RunStatus::NeedsApproval);
    assert_eq!(record.counts.withheld, 2, "{record:#?}");
    // "Everything else" is neither of them: it is said last.
    let message = record.message.as_deref().unwrap_or_default();
    assert!(message.contains("1 key is held back") && message.contains("1 key there"), "{record:#?}");
    assert!(message.ends_with("left alone until you agree to the deletion. Everything else is in sync."), "{record:#?}");
    assert_eq!(message.matches("Everything else is in sync.").count(), 1, "{message}");
    b.holds([("ONE", "eins"), ("THEIRS", "t"), ("SOON", "theirs")]);
    b.approve(&["SOON", "THEIRS"], &[]).await;
    b.synced().await;
    b.holds([("ONE", "eins"), ("SOON", "ours")]);
    b.settled().await;
}

/// Foreign keys that the operator keeps are never asked about again.
pub async fn kept_always(b: Bench) {
    b.put("THEIRS", "t");
    b.set("NEW", "n");
    b.create(json!({})).await;
    ended(&b.sync().await, RunStatus::NeedsApproval);
    b.approve(&[], &["THEIRS"]).await;
    let record = b.synced().await;
    assert_eq!((record.counts.created, record.counts.deleted), (1, 0));
    b.settled().await;
    assert!(b.plan().await.is_noop());
    b.holds([("THEIRS", "t"), ("NEW", "n")]);
    // Even when everything else is agreed to.
    ended(&b.allowed().await, RunStatus::Succeeded);
    b.holds([("THEIRS", "t"), ("NEW", "n")]);
}

/// "Keep them this time": a first run goes on without what it would have to ask about.
pub async fn kept_this_time(b: Bench) {
    b.put("THEIRS", "t");
    b.put("SHARED", "theirs");
    b.set("SHARED", "ours");
    b.set("NEW", "n");
    b.create(json!({})).await;
    let record = b.run(RunRequest { withhold: true, ..Bench::request(SYNC) }).await;
    assert_eq!(record.counts.created, 1, "{record:#?}");
    b.holds([("THEIRS", "t"), ("SHARED", "theirs"), ("NEW", "n")]);
    // What is held back is not in sync; a next run without the word asks again.
    ended(&record, RunStatus::NeedsApproval);
    ended(&b.sync().await, RunStatus::NeedsApproval);
    b.holds([("THEIRS", "t"), ("SHARED", "theirs"), ("NEW", "n")]);
}

/// `--allow-delete` is the approval of everything that the plan shows.
pub async fn allowed_by_the_flag(b: Bench) {
    b.put("THEIRS", "t");
    b.put("SHARED", "theirs");
    b.set("SHARED", "ours");
    b.create(json!({})).await;
    let record = b.allowed().await;
    ended(&record, RunStatus::Succeeded);
    assert_eq!((record.counts.updated, record.counts.deleted), (1, 1), "{record:#?}");
    b.holds([("SHARED", "ours")]);
    b.settled().await;
}

/// Section 8: the documented status carries 1024 characters, the history all of it.
pub async fn long_messages_are_cut(b: Bench) {
    let name = |i: usize| format!("{}{i}", "N".repeat(b.nature().longest.unwrap_or(400).min(400) - 1));
    for i in 0..8 {
        b.put(&name(i), "theirs");
    }
    for i in 0..4 {
        b.set(&name(i), "ours");
    }
    b.create(json!({})).await;
    let record = b.sync().await;
    ended(&record, RunStatus::NeedsApproval);
    let whole = record.message.unwrap_or_default();
    let told = b.local().sync(SYNC).await.expect("a sync").last_sync_message.unwrap_or_default();
    assert!(whole.chars().count() > 1024, "{whole}");
    assert!(told.chars().count() <= 1024 && told.ends_with("...") && whole.starts_with(&told[..1000]), "{told}");
    let history = b.local().history(SYNC, 1).await.expect("a history");
    assert_eq!(history[0].message.as_deref(), Some(whole.as_str()));
}
