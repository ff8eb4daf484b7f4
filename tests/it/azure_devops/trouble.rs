//! Lost answers, races and foreign hands at the worst moment.

use std::time::Duration;

use kms_sync::destination::{Batch, Shape};
use kms_sync::http::{Cx, ErrorKind};
use kms_sync::sandbox::azure_devops::{Identity, Role, Variable};
use kms_sync::sandbox::host::{Effect, Fault};

use super::rig::{Rig, methods, rig};

#[tokio::test]
async fn a_lost_answer_to_a_create_makes_no_twin() {
    for effect in [Effect::LostAnswer, Effect::HalfBody, Effect::Reset, Effect::status(502, "<html>bad gateway")] {
        let rig = rig().await;
        rig.host.faults.add(Fault::next("POST", 1, effect.clone()));
        let mut sync = rig.sync("a");
        let ran = sync.run(&[("A", "1"), ("B", "2")]).await;
        assert_eq!(ran.created, ["A", "B"], "{effect:?}");
        assert_eq!(rig.state.groups().len(), 1, "{effect:?}");
        assert_eq!(rig.value("A").as_deref(), Some("1"));
        assert_eq!(sync.run(&[("A", "1"), ("B", "2")]).await.writes(), 0);
        // It counts as made by us.
        sync.remove().await.expect("removed");
        assert!(rig.state.groups().is_empty());
    }
}

#[tokio::test]
async fn a_lost_answer_to_an_update_is_looked_after_and_repeated() {
    for effect in [Effect::LostAnswer, Effect::HalfBody, Effect::Reset, Effect::status(503, "")] {
        let rig = rig().await;
        let mut sync = rig.sync("a");
        sync.run(&[("A", "1")]).await;
        rig.requests();
        rig.host.faults.add(Fault::next("PUT", 1, effect.clone()));
        let ran = sync.run(&[("A", "2"), ("B", "3")]).await;
        assert_eq!(ran.writes(), 2, "{effect:?} {ran:?}");
        assert_eq!(methods(&rig.requests()), "GET PUT GET PUT", "{effect:?}");
        assert_eq!((rig.value("A").as_deref(), rig.value("B").as_deref()), (Some("2"), Some("3")));
        assert_eq!(sync.run(&[("A", "2"), ("B", "3")]).await.writes(), 0);
    }
}

#[tokio::test]
async fn a_write_that_never_gets_an_answer_is_reported_as_open() {
    let rig = rig().await;
    let mut sync = rig.sync("a");
    sync.run(&[("A", "1")]).await;
    rig.host.faults.add(Fault::always("PUT", 1.0, Effect::LostAnswer));
    let error = sync.try_run(&Cx::quiet(), &[("A", "2")]).await.expect_err("no answer");
    assert!(error.ambiguous, "{error:?}");
    rig.host.faults.clear();
    // The value went back at the source: what is unconfirmed is written, not believed.
    let ran = sync.run(&[("A", "1")]).await;
    assert_eq!(ran.updated, ["A"], "{ran:?}");
    assert_eq!(rig.value("A").as_deref(), Some("1"));
}

#[tokio::test]
async fn a_deletion_is_done_whatever_it_answers() {
    for (effect, status) in [(Some(Effect::LostAnswer), 204), (Some(Effect::Reset), 204), (Some(Effect::status(503, "")), 204), (None, 204)] {
        let rig = rig().await;
        let mut sync = rig.sync("a");
        sync.run(&[("A", "1")]).await;
        if let Some(effect) = effect {
            rig.host.faults.add(Fault::next("DELETE", 1, effect));
        }
        assert_eq!(sync.remove().await.expect("removed").deleted, ["A"], "{status}");
        assert!(rig.state.groups().is_empty());
    }
    // 404: somebody else was faster. 200 is as good as 204.
    let rig = rig().await;
    let mut sync = rig.sync("a");
    sync.run(&[("A", "1")]).await;
    rig.state.before_next_write(|s| s.groups().into_iter().for_each(|g| s.delete(g)));
    assert_eq!(sync.remove().await.expect("removed").deleted, ["A"]);
    sync.run(&[("A", "1")]).await;
    rig.host.faults.add(Fault::next("DELETE", 1, Effect::status(200, "")));
    assert_eq!(sync.remove().await.expect("removed").deleted, ["A"]);
}

#[tokio::test]
async fn a_taken_name_is_adopted_when_seen_and_explained_when_not() {
    let rig = rig().await;
    let project = rig.project.clone();
    rig.state.before_next_write(move |s| {
        s.group(&project, "Production Environment", &[("THEIRS", Variable::secret("x")), ("A", Variable::secret("y"))]);
    });
    let ran = rig.sync("a").run(&[("A", "1"), ("B", "2")]).await;
    assert_eq!(ran.created, ["B"], "{ran:?}");
    assert_eq!(ran.failed.len(), 1, "a key that appeared since the plan is not overwritten: {ran:?}");
    assert!(ran.failed[0].1.text().contains("appeared"));
    let stored = rig.state.variables(rig.group());
    assert_eq!((&stored["THEIRS"], &stored["A"], &stored["B"]), (&Variable::secret("x"), &Variable::secret("y"), &Variable::secret("2")));

    rig.state.delete(rig.group());
    let id = rig.state.group(&rig.project, "Production Environment", &[("X", Variable::plain("x"))]);
    rig.state.hide(id, true);
    let error = rig.sync("b").try_run(&Cx::quiet(), &[("A", "1")]).await.expect_err("invisible");
    assert_eq!(error.kind, ErrorKind::Conflict);
    assert!(error.text().contains("cannot see it") && error.text().contains("Reader"), "{error}");
}

#[tokio::test]
async fn a_creator_who_sees_nothing_is_told_so() {
    let rig = rig().await;
    rig.state.identity("creator", Identity::administrator("maker").role(Role::Creator));
    rig.state.group(&rig.project, "Production Environment", &[("X", Variable::plain("x"))]);
    let mut sync = rig.sync("a");
    sync.session = rig.session_as("creator");
    let error = sync.try_run(&Cx::quiet(), &[("A", "1")]).await.expect_err("invisible");
    assert!(error.text().contains("cannot see it"), "{error}");
    // A group of one's own is made, seen and changed.
    sync.environment = Some("Own".into());
    sync.run(&[("A", "1")]).await;
    assert_eq!(sync.run(&[("A", "2")]).await.updated, ["A"]);
}

#[tokio::test]
async fn a_new_group_that_is_not_listed_yet_is_not_made_twice() {
    let rig = rig().await;
    rig.state.create_lag(2);
    let mut sync = rig.sync("a");
    sync.run(&[("A", "1")]).await;
    rig.requests();
    let ran = sync.run(&[("A", "1")]).await;
    assert_eq!((ran.writes(), ran.unchanged), (0, 1));
    assert!(!methods(&rig.requests()).contains("POST"));
}

#[tokio::test]
async fn a_lost_create_that_lags_is_waited_for() {
    let rig = rig().await;
    rig.state.create_lag(2);
    rig.host.faults.add(Fault::next("POST", 1, Effect::LostAnswer));
    let ran = rig.sync("a").run(&[("A", "1")]).await;
    assert_eq!(ran.created, ["A"]);
    assert_eq!(rig.state.groups().len(), 1);
}

#[tokio::test]
async fn a_pause_after_the_listing_costs_a_second_look() {
    let rig = rig().await;
    let mut sync = rig.sync("a");
    sync.run(&[("A", "1")]).await;
    let id = rig.group();
    let cx = Cx::quiet();
    let destination = sync.open(&cx).await;
    let inventory = sync.list(&cx, destination.as_ref()).await.expect("a list");
    tokio::time::sleep(Duration::from_millis(2100)).await;
    rig.state.set(id, "NEW", Variable::plain("foreign"));
    rig.state.set(id, "B", Variable::secret("foreign"));
    rig.requests();
    let ran = sync.apply(&cx, destination.as_ref(), &inventory, &[("A", "2"), ("B", "1")]).await.expect("a run");
    assert_eq!(methods(&rig.requests()), "GET PUT");
    assert_eq!(ran.updated, ["A"]);
    assert!(ran.failed[0].1.text().contains("appeared"), "{ran:?}");
    let stored = rig.state.variables(id);
    assert_eq!((&stored["NEW"], &stored["B"]), (&Variable::plain("foreign"), &Variable::secret("foreign")));
    // And a group that went away meanwhile stops the run before anything is written.
    let inventory = sync.list(&cx, destination.as_ref()).await.expect("a list");
    tokio::time::sleep(Duration::from_millis(2100)).await;
    rig.state.delete(id);
    let error = sync.apply(&cx, destination.as_ref(), &inventory, &[("A", "3")]).await.expect_err("moved");
    assert!(error.text().contains("nothing was written"), "{error}");
}

/// A context in which somebody else edits the group whenever something is waited for.
fn edited_meanwhile(rig: &Rig, id: i64) -> Cx {
    let state = rig.state.clone();
    let edit = move |waiting: Option<kms_sync::model::board::Waiting>| {
        if waiting.is_some() {
            state.set(id, "THEIRS", Variable::secret("theirs"));
            state.set(id, "PLAIN", Variable::plain("renewed"));
        }
    };
    Cx::new(tokio_util::sync::CancellationToken::new(), std::sync::Arc::new(edit))
}

#[tokio::test]
async fn what_others_write_while_a_throttled_write_waits_is_kept() {
    for (status, retry_after) in [(429, "3"), (503, "3"), (429, "0.3")] {
        let rig = rig().await;
        let mut sync = rig.sync("a");
        sync.run(&[("A", "1")]).await;
        let id = rig.group();
        rig.state.set(id, "PLAIN", Variable::plain("old"));
        let headers = vec![("content-type".into(), "application/json".into()), ("retry-after".into(), retry_after.to_string())];
        rig.host.faults.add(Fault::next("PUT", 1, Effect::Answer { status, headers, body: "{}".into() }));
        rig.requests();
        let ran = sync.try_run(&edited_meanwhile(&rig, id), &[("A", "2")]).await.expect("a run");
        assert!(ran.failed.is_empty(), "{ran:?}");
        assert_eq!(methods(&rig.requests()), "GET PUT GET PUT", "{status}");
        let stored = rig.state.variables(id);
        assert_eq!((&stored["THEIRS"], &stored["PLAIN"]), (&Variable::secret("theirs"), &Variable::plain("renewed")), "{status}");
        assert_eq!(stored["A"], Variable::secret("2"));
    }
    // The whole group would go, and must not while it holds something of theirs.
    let rig = rig().await;
    let mut sync = rig.sync("a");
    sync.run(&[("A", "1")]).await;
    let id = rig.group();
    let headers = vec![("content-type".into(), "application/json".into()), ("retry-after".into(), "1".to_string())];
    rig.host.faults.add(Fault::next("DELETE", 1, Effect::Answer { status: 429, headers, body: "{}".into() }));
    let cx = edited_meanwhile(&rig, id);
    let destination = sync.session.open_for_removal(&cx, &sync.target()).await.expect("a target");
    let inventory = sync.list(&cx, destination.as_ref()).await.expect("a list");
    sync.apply(&cx, destination.as_ref(), &inventory, &[]).await.expect_err("somebody put something in");
    assert_eq!(rig.state.variables(id)["THEIRS"], Variable::secret("theirs"));
}

#[tokio::test]
async fn a_group_that_appears_while_its_creation_waits_is_found_and_kept() {
    for (status, retry_after) in [(429, "1"), (503, "1"), (429, "0.3")] {
        let rig = rig().await;
        let headers = vec![("content-type".into(), "application/json".into()), ("retry-after".into(), retry_after.to_string())];
        rig.host.faults.add(Fault::next("POST", 1, Effect::Answer { status, headers, body: "{}".into() }));
        let (state, project) = (rig.state.clone(), rig.project.clone());
        let theirs = move |waiting: Option<kms_sync::model::board::Waiting>| {
            if waiting.is_some() && state.groups().is_empty() {
                state.group(&project, "Production Environment", &[("THEIRS", Variable::secret("x")), ("A", Variable::secret("y"))]);
            }
        };
        let cx = Cx::new(tokio_util::sync::CancellationToken::new(), std::sync::Arc::new(theirs));
        let mut sync = rig.sync("a");
        let ran = sync.try_run(&cx, &[("A", "1"), ("B", "2")]).await.expect("a run");
        assert_eq!(methods(&rig.requests()), "GET POST GET PUT", "{status}");
        assert_eq!(ran.created, ["B"], "{status} {ran:?}");
        assert!(ran.failed.len() == 1 && ran.failed[0].1.text().contains("appeared"), "{status} {ran:?}");
        let stored = rig.state.variables(rig.group());
        let secret = Variable::secret;
        assert_eq!((&stored["THEIRS"], &stored["A"], &stored["B"]), (&secret("x"), &secret("y"), &secret("2")), "{status}");
        // The group is not taken for one of ours: it is never deleted.
        let error = sync.remove().await.err().map(|e| e.text());
        assert_eq!((error, rig.state.groups().len()), (None, 1));
        assert_eq!(rig.state.variables(rig.group()).len(), 2);
    }
}

#[tokio::test]
async fn a_wait_between_reading_and_writing_costs_a_second_look() {
    let rig = rig().await;
    let mut sync = rig.sync("a");
    sync.run(&[("A", "1")]).await;
    let id = rig.group();
    rig.requests();
    rig.state.ask_to_wait(1, 3);
    sync.try_run(&edited_meanwhile(&rig, id), &[("A", "2")]).await.expect("a run");
    assert_eq!(methods(&rig.requests()), "GET GET PUT");
    assert_eq!((&rig.state.variables(id)["THEIRS"], rig.value("A").as_deref()), (&Variable::secret("theirs"), Some("2")));
}

#[tokio::test]
async fn a_foreign_edit_between_reading_and_writing_is_lost_as_documented() {
    let rig = rig().await;
    let mut sync = rig.sync("a");
    sync.run(&[("A", "1")]).await;
    let id = rig.group();
    rig.state.before_next_write(move |s| s.set(id, "LATE", Variable::plain("x")));
    sync.run(&[("A", "2")]).await;
    assert!(!rig.state.variables(id).contains_key("LATE"), "the last writer wins: there is nothing to compare with");
}

#[tokio::test]
async fn a_group_deleted_under_an_update_is_made_again() {
    let rig = rig().await;
    let mut sync = rig.sync("a");
    sync.run(&[("A", "1"), ("B", "2")]).await;
    rig.state.before_next_write(|s| s.groups().into_iter().for_each(|g| s.delete(g)));
    let ran = sync.run(&[("A", "9"), ("B", "2")]).await;
    assert!(ran.failed.is_empty(), "{ran:?}");
    assert_eq!((rig.value("A").as_deref(), rig.value("B").as_deref()), (Some("9"), Some("2")));
    assert_eq!(sync.run(&[("A", "9"), ("B", "2")]).await.writes(), 0);
}

#[tokio::test]
async fn a_killed_process_between_write_and_ledger_converges() {
    let rig = rig().await;
    let mut sync = rig.sync("a");
    sync.run(&[("A", "1"), ("B", "1")]).await;
    let before = sync.ledger.clone();
    sync.run(&[("A", "2"), ("B", "1"), ("C", "1")]).await;
    // The intents were recorded, the outcome was not.
    let mut after = before;
    for (fold, row) in &sync.ledger.rows {
        let mut row = row.clone();
        if fold != "b" {
            row.value_hash = after.rows.get(fold).and_then(|r| r.value_hash.clone());
            row.stamp = after.rows.get(fold).and_then(|r| r.stamp.clone());
            row.intent = Some(kms_sync::model::ledger::Intent { action: "update".into(), token: "t".into(), value_hash: None, at: row.written_at });
            after.rows.insert(fold.clone(), row);
        }
    }
    sync.ledger = after;
    // The source went back to the first value: the ledger's hash would say "unchanged".
    let ran = sync.run(&[("A", "1"), ("B", "1"), ("C", "1")]).await;
    assert_eq!(ran.updated, ["A", "C"], "{ran:?}");
    assert_eq!(rig.value("A").as_deref(), Some("1"));
    assert_eq!(sync.run(&[("A", "1"), ("B", "1"), ("C", "1")]).await.writes(), 0);
}

#[tokio::test]
async fn cancelling_before_the_write_writes_nothing() {
    let rig = rig().await;
    let sync = rig.sync("a");
    let cx = Cx::quiet();
    let destination = sync.open(&cx).await;
    let inventory = sync.list(&cx, destination.as_ref()).await.expect("a list");
    cx.cancel_token().cancel();
    let Shape::Document(document) = destination.shape() else { panic!("a document") };
    let value = kms_sync::model::SecretValue::new("1");
    let desired = [kms_sync::destination::Desired { source_key: "A".into(), key: "A".into(), fold: "a".into(), value, metadata: Vec::new() }];
    let batch = Batch { changes: Vec::new(), desired: &desired, frozen: &[], ledger: &sync.ledger, inventory: &inventory };
    assert_eq!(document.apply(&cx, &batch).await.expect_err("cancelled").kind, ErrorKind::Cancelled);
    assert!(rig.state.groups().is_empty());
}
