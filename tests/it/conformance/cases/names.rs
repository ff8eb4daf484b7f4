//! Names at their limits, names that cannot be, names that become one.

use kms_sync::model::run::{Outcome, RunStatus};
use serde_json::json;

use crate::conformance::bench::{Bench, ended, fate};

/// The longest name is written; one more character is that key's failure.
pub async fn at_their_limits(b: Bench) {
    let Some(longest) = b.nature().longest else { return };
    let (fits, over) = ("N".repeat(longest), "N".repeat(longest + 1));
    b.set(&fits, "f");
    b.set(&over, "o");
    b.set("GOOD", "g");
    b.create(json!({})).await;
    let record = b.sync().await;
    ended(&record, RunStatus::Failed);
    let (outcome, reason) = fate(&record, &over).expect("an outcome");
    assert!(outcome == Outcome::Failed && reason.contains(&longest.to_string()), "{reason}");
    b.holds([(fits.as_str(), "f"), ("GOOD", "g")]);
    b.unset(&over);
    b.synced().await;
    b.settled().await;
}

/// What counts is the name that the schema makes, not the source key.
pub async fn at_their_limits_after_the_schema(b: Bench) {
    let Some(longest) = b.nature().longest.filter(|_| b.nature().schema) else { return };
    let (fits, over) = ("N".repeat(longest - 2), "N".repeat(longest - 1));
    b.set(&fits, "f");
    b.set(&over, "o");
    b.set("GOOD", "g");
    b.create(json!({"keySchema": "P_{{secretKey}}"})).await;
    let record = b.sync().await;
    ended(&record, RunStatus::Failed);
    let (outcome, reason) = fate(&record, &over).expect("an outcome");
    assert!(outcome == Outcome::Failed && reason.contains(&longest.to_string()), "{reason}");
    b.holds([(format!("P_{fits}"), "f"), ("P_GOOD".to_string(), "g")]);
    b.unset(&over);
    b.synced().await;
    b.settled().await;
}

/// A key that cannot be a name there fails with the reason; the others go on.
pub async fn that_cannot_be(b: Bench) {
    let bad = b.nature().bad_names;
    if bad.is_empty() {
        return;
    }
    for (name, _) in bad {
        b.set(name, "x");
    }
    b.set("GOOD", "g");
    b.create(json!({})).await;
    let record = b.sync().await;
    ended(&record, RunStatus::Failed);
    for (name, rule) in bad {
        let (outcome, reason) = fate(&record, name).expect("an outcome");
        assert!(outcome == Outcome::Failed && reason.contains(rule), "{reason}");
        // The key is a member beside the reason; only the run's message must name it itself.
        assert!(!reason.starts_with(name), "{reason}");
        assert_eq!(record.message.as_deref().unwrap_or_default().matches(name).count(), 1, "{:?}", record.message);
    }
    assert_eq!(record.counts.failed, bad.len() as u64);
    b.holds([("GOOD", "g")]);
}

/// Section 12, row 4: two source keys that become one name are a conflict, and neither is
/// written; where names are told apart, both are.
pub async fn that_collapse(b: Bench) {
    let (one, two) = b.nature().collapsing.unwrap_or(("One_Name", "ONE_NAME"));
    b.set(one, "1");
    b.set("GOOD", "g");
    b.create(json!({})).await;
    b.synced().await;
    b.set(two, "2");
    let record = b.sync().await;
    if b.nature().collapsing.is_none() {
        ended(&record, RunStatus::Succeeded);
        b.holds([(one, "1"), (two, "2"), ("GOOD", "g")]);
        return;
    }
    ended(&record, RunStatus::Failed);
    let (outcome, reason) = fate(&record, two).expect("an outcome");
    assert!(outcome == Outcome::Failed && reason.contains(one) && reason.contains(two), "{reason}");
    b.holds([(one, "1"), ("GOOD", "g")]);
    // The other one may stay, too: it takes the name over.
    b.unset(one);
    b.synced().await;
    assert_eq!(b.place.values().len(), 2);
    assert!(b.place.values().values().any(|v| v == "2"));
    b.settled().await;
}

/// A schema with characters that the destination converts still finds its own keys.
pub async fn schema_in_another_alphabet(b: Bench) {
    if !b.nature().schema {
        return;
    }
    b.put("THEIRS", "t");
    b.set("KEY_ONE", "1");
    b.set("KEY_TWO", "2");
    b.create(json!({"keySchema": "{{environment}}_A_{{secretKey}}_Z"})).await;
    b.synced().await;
    b.holds([("THEIRS", "t"), ("dev_A_KEY_ONE_Z", "1"), ("dev_A_KEY_TWO_Z", "2")]);
    b.settled().await;
    b.unset("KEY_TWO");
    let record = b.synced().await;
    assert_eq!(record.counts.deleted, 1, "{record:#?}");
    b.holds([("THEIRS", "t"), ("dev_A_KEY_ONE_Z", "1")]);
}

/// Slashes make levels: keys of deeper levels are not this sync's; where names hold no
/// slashes, every key says so.
pub async fn schema_with_slashes(b: Bench) {
    if !b.nature().schema {
        return;
    }
    b.set("ONE", "1");
    b.set("TWO", "2");
    if !b.nature().slashes {
        b.put("THEIRS", "t");
        b.create(json!({"keySchema": "app/{{secretKey}}"})).await;
        let record = b.sync().await;
        ended(&record, RunStatus::Failed);
        assert_eq!(record.counts.failed, 2);
        b.holds([("THEIRS", "t")]);
        return;
    }
    b.put("app/deep/THEIRS", "t");
    b.put("app", "t");
    b.create(json!({"keySchema": "app/{{secretKey}}"})).await;
    b.synced().await;
    b.holds([("app/deep/THEIRS", "t"), ("app", "t"), ("app/ONE", "1"), ("app/TWO", "2")]);
    b.unset("TWO");
    b.synced().await;
    b.holds([("app/deep/THEIRS", "t"), ("app", "t"), ("app/ONE", "1")]);
    b.settled().await;
}
