//! Section 12, row 18: edits at the destination are noticed and repaired.

use kms_sync::model::run::{RunStatus, Trigger};
use kms_sync::service::RunRequest;
use serde_json::json;

use crate::conformance::bench::{Bench, SYNC, ended};
use crate::conformance::place::Mends;

/// An edited value is written again: at the next run where the destination shows the edit, at
/// an attended one where it can only be suspected.
pub async fn edited_outside(b: Bench) {
    b.set("ONE", "1");
    b.set("TWO", "2");
    b.create(json!({})).await;
    b.synced().await;
    b.settled().await;
    b.put("ONE", "edited");
    let record = match b.nature().mends {
        Mends::NextRun => b.sync().await,
        Mends::Attended => {
            let plan = b.plan().await;
            assert!(plan.warnings.iter().any(|w| w.contains("changed from outside")), "it is told at once: {:?}", plan.warnings);
            // An automatic run in between proves nothing, and does not make the edit forgotten.
            let record = b.run(RunRequest { trigger: Trigger::Auto, ..Bench::request(SYNC) }).await;
            assert_eq!((record.status, record.counts.writes()), (RunStatus::Succeeded, 0), "{record:#?}");
            b.sync().await
        }
        Mends::Never => {
            // The ledger is believed, and a changed source repairs.
            b.settled().await;
            b.set("ONE", "uno");
            b.synced().await;
            b.holds([("ONE", "uno"), ("TWO", "2")]);
            return;
        }
    };
    ended(&record, RunStatus::Succeeded);
    assert!(record.counts.updated >= 1, "{record:#?}");
    b.holds([("ONE", "1"), ("TWO", "2")]);
    b.settled().await;
    b.put("ONE", "edited again");
    ended(&b.verified().await, RunStatus::Succeeded);
    b.holds([("ONE", "1"), ("TWO", "2")]);
}

/// A key that somebody deleted comes back.
pub async fn deleted_outside(b: Bench) {
    b.set("ONE", "1");
    b.set("TWO", "2");
    b.create(json!({})).await;
    b.synced().await;
    b.settled().await;
    b.place.remove(&b.place.key("ONE"));
    let record = b.verified().await;
    ended(&record, RunStatus::Succeeded);
    // A group whose values cannot be read is written whole.
    let expected = if b.nature().mends == Mends::Attended { 1..=2 } else { 1..=1 };
    assert!(expected.contains(&record.counts.writes()), "{record:#?}");
    b.holds([("ONE", "1"), ("TWO", "2")]);
    b.settled().await;
}

/// A lost state directory: readable values are recognised without a write; others are asked for.
pub async fn ledger_lost(mut b: Bench) {
    b.set("ONE", "1");
    b.set("TWO", "2");
    b.create(json!({})).await;
    b.synced().await;
    b.forget().await;
    b.create(json!({})).await;
    b.mark();
    if b.nature().readable {
        let record = b.synced().await;
        assert_eq!((record.counts.unchanged, record.counts.writes()), (2, 0), "{record:#?}");
        assert_eq!(b.writes(), Vec::<String>::new());
    } else {
        ended(&b.sync().await, RunStatus::NeedsApproval);
        assert_eq!(b.writes(), Vec::<String>::new());
        ended(&b.allowed().await, RunStatus::Succeeded);
    }
    b.holds([("ONE", "1"), ("TWO", "2")]);
    b.settled().await;
}
