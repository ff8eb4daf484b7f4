//! The thirty versions of a secret, and making room for one more.

use kms_sync::destination::Written;
use kms_sync::http::{ApiError, ErrorKind};
use kms_sync::model::plan::Action;
use kms_sync::sandbox::host::{Effect, Fault};

use super::{Bench, apply, bench};

/// A secret of `n` versions.
async fn filled(bench: &Bench, key: &str, n: usize) {
    bench.create(key, "v1").await;
    for i in 2..=n {
        bench.state.edit_value(key, format!("v{i}").as_bytes());
    }
    bench.host.log.clear();
}

async fn update(bench: &Bench, key: &str, value: &str, prune: bool) -> Result<Written, ApiError> {
    let entry = bench.entry(key).await;
    bench.host.log.clear();
    let target = bench.open_with(serde_json::json!({ "pruneVersions": prune })).await;
    apply(&bench.cx, &*target, Action::Update, key, Some(value), Some(&entry)).await
}

/// Versions whose deletion is scheduled.
fn given_up(bench: &Bench, key: &str) -> Vec<u64> {
    let secret = bench.state.secret(key).expect("there");
    secret.versions.iter().filter(|v| v.time_of_deletion.is_some()).map(|v| v.number).collect()
}

#[tokio::test(start_paused = true)]
async fn the_thirty_first_version_is_explained() {
    let bench = bench().await;
    filled(&bench, "A", 30).await;
    let error = update(&bench, "A", "v31", false).await.expect_err("full");
    assert_eq!(error.kind, ErrorKind::Quota);
    assert!(error.text().contains("30 active versions") && error.text().contains("pruneVersions"), "{error}");
    assert_eq!((given_up(&bench, "A"), bench.host.log.count("/versions")), (vec![], 0), "off is off");
    filled(&bench, "B", 23).await;
    assert_eq!(update(&bench, "B", "new", false).await.expect("updated").note, None);
    for (value, number) in [("newer", "25"), ("newest", "26")] {
        let note = update(&bench, "B", value, false).await.expect("updated").note;
        assert!(note.as_deref().is_some_and(|n| n.contains(number) && n.contains("30")), "{note:?}");
    }
    for n in 27..=29 {
        bench.state.edit_value("B", format!("v{n}").as_bytes());
    }
    let note = update(&bench, "B", "last", false).await.expect("updated").note;
    assert!(note.as_deref().is_some_and(|n| n.contains("version 30") && n.contains("refused")), "{note:?}");
}

#[tokio::test(start_paused = true)]
async fn pruning_frees_the_oldest_deprecated_version() {
    let bench = bench().await;
    filled(&bench, "A", 30).await;
    let written = update(&bench, "A", "v31", true).await.expect("there is room");
    assert_eq!(bench.state.value("A").as_deref(), Some("v31"));
    assert_eq!(given_up(&bench, "A"), [1]);
    assert!(written.note.is_some_and(|n| n.contains("version 1 ")));
    assert!(written.stamp.is_some_and(|s| s.starts_with("31@")));
    // The list, the one that goes, the write: nothing was tried and refused.
    assert_eq!((bench.host.log.count("scheduleDeletion"), bench.host.log.count("PUT ")), (1, 1));
    let hours = |key: &str| {
        let at = bench.state.secret(key).expect("there").versions[0].time_of_deletion.expect("scheduled");
        (at.as_second() - jiff::Timestamp::now().as_second()) / 3600
    };
    assert!((24..=25).contains(&hours("A")), "a day ahead is the least that is accepted: {} h", hours("A"));
    update(&bench, "A", "v32", true).await.expect("once more");
    assert_eq!(given_up(&bench, "A"), [1, 2]);
    // With room there is nothing to free, and no version is looked at below thirty.
    filled(&bench, "B", 29).await;
    assert_eq!(update(&bench, "B", "v30", true).await.expect("updated").note, None);
    assert_eq!((given_up(&bench, "B"), bench.host.log.count("/versions")), (vec![], 0));
    // An equal value frees nothing.
    filled(&bench, "C", 30).await;
    assert!(update(&bench, "C", "v30", true).await.expect("compared").untouched);
    assert_eq!(given_up(&bench, "C"), Vec::<u64>::new());
}

#[tokio::test(start_paused = true)]
async fn versions_in_use_are_never_taken() {
    let bench = bench().await;
    filled(&bench, "A", 30).await;
    // The first ones are current, previous, pending, latest, or something new.
    bench.state.edit("A", |s| {
        for (at, stages) in [vec!["PREVIOUS"], vec!["DEPRECATED", "LATEST"], vec!["PENDING"], vec!["DEPRECATED", "PINNED"]].into_iter().enumerate() {
            s.versions[at].stages = stages;
        }
    });
    update(&bench, "A", "v31", true).await.expect("there is room");
    assert_eq!(given_up(&bench, "A"), [5]);
    filled(&bench, "B", 30).await;
    bench.state.edit("B", |s| s.versions.iter_mut().filter(|v| v.number < 30).for_each(|v| v.stages = vec!["PENDING"]));
    let error = update(&bench, "B", "v31", true).await.expect_err("nothing may go");
    assert_eq!(error.kind, ErrorKind::Quota);
    assert!(error.text().contains("none of its 30 active versions"), "{error}");
    assert_eq!((given_up(&bench, "B"), bench.state.value("B").as_deref()), (vec![], Some("v30")));
}

#[tokio::test(start_paused = true)]
async fn pruning_survives_trouble() {
    let bench = bench().await;
    // The answer is lost: it is looked for, and no second version goes.
    filled(&bench, "LOST", 30).await;
    bench.host.faults.add(Fault::next("scheduleDeletion", 1, Effect::LostAnswer));
    update(&bench, "LOST", "v31", true).await.expect("there is room");
    assert_eq!(given_up(&bench, "LOST"), [1]);
    // The secret is changing just then.
    filled(&bench, "BUSY", 30).await;
    let busy = serde_json::json!({"code": "IncorrectState", "message": "The secret is in state UPDATING."}).to_string();
    bench.host.faults.add(Fault::next("scheduleDeletion", 1, Effect::status(409, busy)));
    update(&bench, "BUSY", "v31", true).await.expect("there is room");
    assert_eq!(given_up(&bench, "BUSY"), [1]);
    // The service says full where we counted less (its limit may be lower).
    filled(&bench, "LOWER", 5).await;
    let full = serde_json::json!({"code": "LimitExceeded", "message": "secret version limit"}).to_string();
    bench.host.faults.add(Fault::next("PUT ", 1, Effect::status(400, full)));
    update(&bench, "LOWER", "v6", true).await.expect("there is room");
    assert_eq!((given_up(&bench, "LOWER"), bench.state.value("LOWER").as_deref()), (vec![1], Some("v6")));
    // A missing right is named.
    filled(&bench, "FORBIDDEN", 30).await;
    for right in ["SECRET_VERSION_INSPECT", "SECRET_VERSION_DELETE"] {
        bench.state.allow(right, false);
        let error = update(&bench, "FORBIDDEN", "v31", true).await.expect_err("no right");
        assert!(error.text().contains(right), "{error}");
        bench.state.allow(right, true);
    }
    assert_eq!(bench.state.value("FORBIDDEN").as_deref(), Some("v30"));
    // As many again may be pending, and no more.
    filled(&bench, "SPENT", 60).await;
    bench.state.edit("SPENT", |s| s.versions.iter_mut().take(30).for_each(|v| v.time_of_deletion = Some(jiff::Timestamp::MAX)));
    let error = update(&bench, "SPENT", "v61", true).await.expect_err("both are full");
    assert!(error.text().contains("pending deletion"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_version_is_erased_when_its_time_comes() {
    let bench = bench().await;
    filled(&bench, "A", 30).await;
    update(&bench, "A", "v31", true).await.expect("there is room");
    bench.state.set_clock(26 * 3600);
    assert!(bench.state.secret("A").expect("there").versions.iter().all(|v| v.number != 1));
    assert_eq!(bench.state.value("A").as_deref(), Some("v31"));
}
