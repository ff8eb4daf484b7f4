//! Throttling, refusals, lost answers, cancellation, sudden death.

use std::collections::BTreeSet;
use std::process::Stdio;
use std::time::{Duration, Instant};

use kms_sync::model::board::Event;
use kms_sync::model::run::{Outcome, RunStatus};
use kms_sync::sandbox::host::{Effect, Fault};
use kms_sync::service::Service;
use serde_json::json;

use crate::conformance::bench::{Bench, SYNC, ended};
use crate::conformance::place::answer;
use crate::support::KMS_SYNC;

/// Refused for a while, whatever is asked: the run waits and converges, and tells so.
pub async fn throttling_storm(b: Bench) {
    let keys = b.fill(8, "v");
    b.create(json!({})).await;
    b.place.host().faults.add(Fault::next("", 2, b.place.throttling()));
    b.place.host().faults.add(Fault::next(b.nature().creation, 1, b.place.throttling()));
    let mut watch = b.local().watch().await.expect("the live picture");
    let record = b.synced().await;
    // Section 12, row 14: who watches sees each key, and why the run waits.
    let (mut done, mut reasons) = (0, Vec::new());
    while let Ok(event) = watch.events.try_recv() {
        match event {
            Event::Done { outcome, .. } if outcome.outcome == Outcome::Created => done += 1,
            Event::Waiting { waiting: Some(waiting), .. } => reasons.push(waiting.reason),
            _ => {}
        }
    }
    assert_eq!(done, 8);
    assert!(!reasons.is_empty() && reasons.iter().all(|r| !r.is_empty()), "{reasons:?}");
    assert_eq!(record.counts.created, 8);
    assert!(record.requests.retries >= 2, "{:?}", record.requests);
    assert!(record.requests.waited_ms > 0, "{:?}", record.requests);
    b.holds(&keys);
    b.settled().await;
}

/// Section 12, row 8: refused secrets fail alone, each with the provider's word and the id of
/// its own request.
pub async fn bad_secrets(b: Bench) {
    let keys = b.fill(9, "v");
    let bad = ["REFUSED_A", "REFUSED_B"];
    for key in bad {
        b.set(key, "r");
    }
    b.create(json!({})).await;
    let Some(refusal) = b.place.refuse(&bad.map(|k| b.place.key(k))) else {
        return;
    };
    b.mark();
    let record = b.sync().await;
    ended(&record, RunStatus::Failed);
    assert_eq!((record.counts.failed, record.counts.created), (2, 9), "{record:#?}");
    let failed: Vec<_> = record.secrets.iter().filter(|s| s.outcome == Outcome::Failed).collect();
    let refused = b.place.host().log.refused();
    let mut ids: BTreeSet<&str> = refused.iter().filter_map(|r| r.headers.get(refusal.id)?.to_str().ok()).collect();
    for secret in &failed {
        let reason = secret.reason.as_deref().unwrap_or_default();
        assert!(reason.contains(refusal.code), "{record:#?}");
        let of_this = ids.iter().copied().find(|id| reason.contains(&format!("(request {id})")));
        // One answer tells of one key.
        assert!(of_this.is_some_and(|id| ids.remove(id)), "{reason}: {refused:#?}");
    }
    let message = record.message.as_deref().unwrap_or_default();
    assert!(message.contains("2 keys failed") && failed.iter().all(|s| message.contains(&s.key)), "{message}");
    // What a script reads says the same.
    let printed = b.prints(&["history", SYNC, "--json"]).await;
    for secret in &failed {
        let rows = printed["runs"][0]["secrets"].as_array().expect("a list");
        let row = rows.iter().find(|r| r["key"] == *secret.key).unwrap_or_else(|| panic!("{printed:#}"));
        assert_eq!((&row["outcome"], row["reason"].as_str()), (&json!("failed"), secret.reason.as_deref()), "{printed:#}");
    }
    assert_eq!(b.place.values().len(), 9);
    b.place.forgive();
    if b.nature().document {
        for key in bad {
            b.unset(key);
        }
        b.synced().await;
        b.holds(&keys);
    } else {
        b.synced().await;
        assert_eq!(b.place.values().len(), 11);
    }
    b.settled().await;
}

/// Section 15: an answer that never came is no reason to write twice, or to believe a failure.
pub async fn lost_answers(b: Bench) {
    let keys = b.fill(6, "v");
    b.create(json!({})).await;
    b.place.host().faults.add(Fault::next(b.nature().creation, 2, Effect::LostAnswer));
    let record = b.sync().await;
    if record.status != RunStatus::Succeeded {
        // An honest "unknown" is allowed; the next run finds out.
        b.synced().await;
    }
    b.holds(&keys);
    b.settled().await;
}

/// The same for changes and deletions, wherever in the run an answer is lost.
pub async fn lost_answers_to_changes(b: Bench) {
    let mut keys = b.fill(4, "v0");
    b.set("GOES", "g");
    b.create(json!({})).await;
    b.synced().await;
    for round in 1..=4u32 {
        let value = format!("v{round}");
        for key in ["K_000", "K_001"] {
            b.set(key, &value);
            keys.insert(key.into(), value.clone());
        }
        let (gone, new) = (format!("GOES{}", "_ON".repeat(round as usize - 1)), format!("GOES{}", "_ON".repeat(round as usize)));
        b.unset(&gone);
        keys.remove(&gone);
        b.set(&new, "g");
        keys.insert(new, "g".into());
        b.place.host().faults.add(Fault::next("", 1, Effect::LostAnswer).after(round));
        if b.sync().await.status != RunStatus::Succeeded {
            b.place.host().faults.clear();
            b.synced().await;
        }
        b.place.host().faults.clear();
        b.holds(&keys);
    }
    b.settled().await;
}

/// Answers to writes that break off in the middle.
pub async fn half_answers(b: Bench) {
    let keys = b.fill(6, "v");
    b.create(json!({})).await;
    b.place.host().faults.add(Fault::next(b.nature().creation, 2, Effect::HalfBody));
    let record = b.sync().await;
    if record.status != RunStatus::Succeeded {
        b.synced().await;
    }
    b.holds(&keys);
    b.settled().await;
}

/// A listing that breaks off is read again, never taken for the whole.
pub async fn lost_listing(b: Bench) {
    let keys = b.fill(30, "v");
    b.create(json!({})).await;
    b.synced().await;
    b.settled().await;
    b.mark();
    for effect in [Effect::HalfBody, Effect::Reset] {
        b.place.host().faults.add(Fault::next(b.nature().listing, 1, effect));
        let record = b.sync().await;
        ended(&record, RunStatus::Succeeded);
        assert!(record.requests.retries >= 1, "{:?}", record.requests);
    }
    assert_eq!(b.writes(), Vec::<String>::new());
    b.holds(&keys);
}

/// Section 12, row 19: refused credentials are no passing trouble.
pub async fn refused_credentials(b: Bench) {
    b.fill(5, "v");
    b.create(json!({})).await;
    let body = json!({"__type": "UnrecognizedClientException", "message": "no", "code": "NotAuthenticated", "error": {"code": "Unauthorized", "message": "no"}});
    b.place.host().faults.add(Fault::always("", 1.0, answer(401, &[], &body)));
    let begun = Instant::now();
    let record = b.sync().await;
    ended(&record, RunStatus::Failed);
    let lines = b.place.host().log.lines();
    assert!(lines.len() <= 4, "{lines:#?}");
    assert!(begun.elapsed() < Duration::from_secs(10));
    assert!(b.place.values().is_empty());
    b.place.host().faults.clear();
    b.synced().await;
}

/// Cancelled in the middle: what was written is known, and the next run goes on from there.
pub async fn cancelled_and_resumed(b: Bench) {
    let keys = b.fill(60, "v");
    b.create(json!({})).await;
    b.place.host().faults.add(Fault::always(b.nature().creation, 1.0, Effect::Delay(Duration::from_millis(60))));
    let id = b.local().start(Bench::request(SYNC)).await.expect("a run");
    until(|| b.place.host().log.count(b.nature().creation) > 0).await;
    b.local().cancel(&id).await.expect("it goes");
    let record = b.local().finished(&id).await.expect("it ends");
    ended(&record, RunStatus::Cancelled);
    b.place.host().faults.clear();
    let there = b.place.values().len() as u64;
    assert_eq!(record.counts.created, there, "what was in flight was finished and is known: {record:#?}");
    let record = b.synced().await;
    assert_eq!((record.counts.created, record.counts.unchanged), (60 - there, there), "{record:#?}");
    b.holds(&keys);
    b.settled().await;
}

/// Killed in the middle, without a last word: the next process converges without duplicates,
/// without a question, and is the owner of what the dead one wrote.
pub async fn killed_and_resumed(mut b: Bench) {
    let mut keys = b.fill(60, "v");
    b.create(json!({})).await;
    b.close_engine().await;
    b.place.host().faults.add(Fault::always(b.nature().creation, 1.0, Effect::Delay(Duration::from_millis(60))));
    let dirs = b.dirs();
    let mut child = std::process::Command::new(KMS_SYNC)
        .args(["sync", SYNC])
        .env("KMS_SYNC_CONFIG_DIR", &dirs.config)
        .env("KMS_SYNC_STATE_DIR", &dirs.state)
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the program starts");
    let wanted = if b.nature().document { 1 } else { 20 };
    until(|| b.place.host().log.count(b.nature().creation) >= wanted).await;
    child.kill().expect("it dies");
    child.wait().expect("it is dead");
    b.place.host().faults.clear();
    b.take_engine();
    let record = b.synced().await;
    assert!(record.counts.created + record.counts.updated >= 1, "it died in the middle: {record:#?}");
    b.holds(&keys);
    b.settled().await;
    // All of it is ours.
    b.unset("K_000");
    keys.remove("K_000");
    b.synced().await;
    b.holds(&keys);
    let history = b.local().history(SYNC, 9).await.expect("the history");
    assert!(history.iter().any(|r| r.status == RunStatus::Interrupted), "{history:#?}");
}

/// No value, refused or written, stays on this machine or travels in an address.
pub async fn no_value_is_kept(b: Bench) {
    const CANARY: &str = "canary-Zx81-yellow-bird";
    b.set("WRITTEN", CANARY);
    b.set("REFUSED", CANARY);
    b.set("LONG", &CANARY.repeat(4000));
    b.create(json!({})).await;
    b.place.refuse_one(&b.place.key("REFUSED"));
    let failed = b.sync().await;
    b.place.forgive();
    b.set("WRITTEN", &format!("{CANARY}-again"));
    let second = b.sync().await;
    let said = format!("{failed:?} {second:?} {:?} {:?}", b.plan().await, b.place.host().log.lines());
    assert!(!said.contains(CANARY), "{said}");
    assert!(b.place.values().values().any(|v| v.contains(CANARY)), "it was really written");
    let mut left = vec![b.dirs().config, b.dirs().state, b.dirs().runtime];
    while let Some(path) = left.pop() {
        let Ok(entries) = std::fs::read_dir(&path) else {
            let bytes = std::fs::read(&path).unwrap_or_default();
            assert!(!bytes.windows(CANARY.len()).any(|w| w == CANARY.as_bytes()), "{}", path.display());
            continue;
        };
        left.extend(entries.filter_map(|e| Some(e.ok()?.path())));
    }
}

async fn until(ready: impl Fn() -> bool) {
    let begun = Instant::now();
    while !ready() {
        assert!(begun.elapsed() < Duration::from_secs(20), "it never came to that");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Every provider's answers say this somewhere.
fn saying(text: &str) -> Effect {
    let body =
        json!({"error": {"code": "Odd", "message": text}, "message": text, "__type": "OddException", "code": "Odd", "typeKey": "OddException"});
    answer(400, &[("content-type", "application/json")], &body)
}

/// A value too short to be masked wherever it occurs by chance is not shown either, when a
/// refusal of that very value repeats it; what others are told is.
pub async fn short_values_are_not_repeated(b: Bench) {
    b.set("SHORT", "q7");
    b.create(json!({})).await;
    b.place.host().faults.add(Fault::always(b.nature().creation, 1.0, saying("the value q7 is not acceptable here")));
    let record = b.sync().await;
    ended(&record, RunStatus::Failed);
    let said = format!("{record:?}");
    assert!(!said.contains("q7"), "{said}");
    b.place.host().faults.clear();
    b.place.host().faults.add(Fault::always(b.nature().creation, 1.0, saying("the q72 store is not acceptable here")));
    b.set("OTHER", "q8");
    let record = b.sync().await;
    assert!(format!("{record:?}").contains("q72 store"), "{record:#?}");
}

/// A secret that is a word of our own sentences is not masked in them: the word and a gap in
/// its place would tell what the secret is.
pub async fn words_of_ours_are_not_masked(b: Bench) {
    const WORDS: [&str; 6] = ["source", "could not", "read", "value", "hidden", "HIDDEN"];
    for (i, word) in WORDS.iter().enumerate() {
        b.set(&format!("K{i}"), word);
    }
    b.set("HIDDEN", "h");
    b.kms.switch(|s| {
        s.hidden_keys.insert("HIDDEN".into());
    });
    b.create(json!({})).await;
    let plan = b.plan().await;
    assert!(plan.conflicts.len() == 1 && plan.conflicts[0].reason.contains("could not be read at the source"), "{plan:#?}");
    let record = b.sync().await;
    let said = format!("{plan:?} {record:?}");
    assert!(!said.contains("***"), "{said}");
    assert!(record.message.is_some_and(|m| m.contains("HIDDEN: could not be read at the source")));
}

/// Whatever part of an answer is missing, what the operator reads is a sentence.
pub async fn sentences_are_whole(b: Bench) {
    b.set("ONE", "1");
    b.create(json!({})).await;
    let whole = |text: &str| {
        let hole = [": :", "  ", "()", ": (request", ":.", ": ."].iter().any(|h| text.contains(h));
        !hole && !text.trim_end().ends_with(':') && !text.starts_with(':')
    };
    // An answer that breaks off is asked for again, with growing pauses: one kind of it is enough.
    let (listing, creation) = (b.nature().listing, b.nature().creation);
    let refused = [400, 403].into_iter().flat_map(|s| [listing, creation].map(|on| (on, Effect::status(s, ""))));
    for (on, effect) in std::iter::once((listing, Effect::HalfBody)).chain(refused) {
        b.place.host().faults.add(Fault::always(on, 1.0, effect.clone()));
        let record = b.sync().await;
        b.place.host().faults.clear();
        for text in record.message.iter().chain(record.secrets.iter().filter_map(|s| s.reason.as_ref())) {
            assert!(whole(text), "{effect:?}: {text:?}");
        }
    }
}
