//! What a stamp proves: edits from outside, groups made anew, several syncs on one group.

use std::sync::Arc;

use kms_sync::http::{Cx, ErrorKind};
use kms_sync::sandbox::azure_devops::Variable;

use super::rig::{Remember, config, methods, rig};

#[tokio::test]
async fn an_edit_from_outside_is_repaired_by_a_full_run_and_told_by_every_run() {
    let rig = rig().await;
    let mut sync = rig.sync("a");
    let want = [("A", "1"), ("B", "2")];
    sync.run(&want).await;
    rig.state.set(rig.group(), "A", Variable::secret("tampered"));
    let ran = sync.run(&want).await;
    assert_eq!((ran.writes(), ran.unchanged), (0, 2));
    assert!(ran.warnings.iter().any(|w| w.contains("changed from outside") && w.contains("somebody else")), "{:?}", ran.warnings);
    sync.full = true;
    rig.requests();
    let ran = sync.run(&want).await;
    assert_eq!(ran.updated.len(), 2);
    assert_eq!(methods(&rig.requests()), "GET PUT");
    assert_eq!(rig.value("A").as_deref(), Some("1"));
    let ran = sync.run(&want).await;
    assert_eq!(ran.writes(), 0);
    assert!(ran.warnings.is_empty(), "{:?}", ran.warnings);
}

#[tokio::test]
async fn two_fruitless_repairs_are_enough() {
    let rig = rig().await;
    let mut sync = rig.sync("a");
    sync.full = true;
    let want = [("A", "1")];
    sync.run(&want).await;
    for writes in [1, 1, 0, 0] {
        rig.state.describe(rig.group(), Some("another installation"));
        let ran = sync.run(&want).await;
        assert_eq!(ran.writes(), writes);
        assert_eq!(ran.warnings.iter().any(|w| w.contains("only reported")), writes == 0, "{:?}", ran.warnings);
    }
    // A change of the source is written all the same, and a quiet group starts the count anew.
    assert_eq!(sync.run(&[("A", "2")]).await.writes(), 1);
    assert_eq!(sync.run(&[("A", "2")]).await.writes(), 0);
    rig.state.describe(rig.group(), None);
    assert_eq!(sync.run(&[("A", "2")]).await.writes(), 1);
}

#[tokio::test]
async fn two_local_syncs_on_one_group_do_not_answer_each_other() {
    let rig = rig().await;
    let (mut a, mut b) = (rig.sync("a"), rig.sync("b"));
    (a.full, b.full) = (true, true);
    a.run(&[("A", "1")]).await;
    b.run(&[("B", "1")]).await;
    a.run(&[("A", "2")]).await;
    b.run(&[("B", "1")]).await;
    rig.requests();
    for _ in 0..3 {
        assert_eq!(a.run(&[("A", "2")]).await.writes(), 0);
        assert_eq!(b.run(&[("B", "1")]).await.writes(), 0);
    }
    assert_eq!(methods(&rig.requests()), "GET GET GET GET GET GET");
    assert_eq!((rig.value("A").as_deref(), rig.value("B").as_deref()), (Some("2"), Some("1")));
    // What a foreign hand changed before the other's write is still noticed.
    rig.state.set(rig.group(), "A", Variable::secret("tampered"));
    b.run(&[("B", "2")]).await;
    let ran = a.run(&[("A", "2")]).await;
    assert_eq!(ran.updated, ["A"], "{ran:?}");
    assert_eq!(rig.value("A").as_deref(), Some("2"));
    // One sync's removal leaves the other's variables.
    a.remove().await.expect("removed");
    assert_eq!(rig.state.variables(rig.group()).keys().collect::<Vec<_>>(), ["B"]);
}

#[tokio::test]
async fn what_a_believing_run_took_over_is_still_unproved() {
    let rig = rig().await;
    let (mut a, mut b) = (rig.sync("a"), rig.sync("b"));
    a.run(&[("A", "1")]).await;
    b.run(&[("B", "1")]).await;
    rig.state.set(rig.group(), "A", Variable::secret("tampered"));
    // The other sync writes over the foreign state, and this one only believes its ledger.
    b.run(&[("B", "2")]).await;
    for _ in 0..2 {
        assert_eq!(a.run(&[("A", "1")]).await.writes(), 0);
    }
    a.full = true;
    assert_eq!(a.run(&[("A", "1")]).await.updated, ["A"]);
    assert_eq!(rig.value("A").as_deref(), Some("1"));
    assert_eq!(a.run(&[("A", "1")]).await.writes(), 0);
}

#[tokio::test]
async fn a_renamed_group_is_found_by_the_ledger_alone() {
    let mut rig = rig().await;
    let mut sync = rig.sync("a");
    sync.run(&[("A", "1")]).await;
    rig.state.rename(rig.group(), "Old name");
    rig.memory = Arc::new(Remember::default());
    sync.session = rig.session();
    let error = sync.try_run(&Cx::quiet(), &[("A", "1")]).await.expect_err("a conflict");
    assert!(error.text().contains("is now called \"Old name\""), "{error}");
    assert_eq!(rig.state.groups().len(), 1);
}

#[tokio::test]
async fn two_machines_stop_repairing_each_other() {
    let mut rig = rig().await;
    let mut here = rig.sync("a");
    rig.memory = Arc::new(Remember::default());
    let mut there = rig.sync("a");
    (here.full, there.full) = (true, true);
    let want = [("A", "1")];
    here.run(&want).await;
    there.run(&want).await;
    let mut writes = 0;
    for _ in 0..10 {
        writes += here.run(&want).await.writes();
        writes += there.run(&want).await.writes();
    }
    assert!(writes <= 4, "{writes} repairs");
    assert_eq!(rig.value("A").as_deref(), Some("1"));
}

#[tokio::test]
async fn a_group_made_anew_is_written_in_full() {
    let rig = rig().await;
    let mut sync = rig.sync("a");
    let want = [("A", "1"), ("B", "2")];
    sync.run(&want).await;
    rig.state.delete(rig.group());
    let ran = sync.run(&want).await;
    assert_eq!(ran.created, ["A", "B"]);
    rig.state.delete(rig.group());
    let id = rig.state.group(&rig.project, "Production Environment", &[("A", Variable::secret("x")), ("B", Variable::secret("y"))]);
    let ran = sync.run(&want).await;
    assert_eq!(ran.updated, ["A", "B"]);
    assert!(ran.reasons[0].contains("made anew"), "{:?}", ran.reasons);
    assert_eq!(rig.state.variables(id)["A"], Variable::secret("1"));
}

#[tokio::test]
async fn a_renamed_group_or_environment_makes_no_twin() {
    let rig = rig().await;
    let mut sync = rig.sync("a");
    sync.run(&[("A", "1")]).await;
    let id = rig.group();
    rig.state.rename(id, "Old name");
    let error = sync.try_run(&Cx::quiet(), &[("A", "1")]).await.expect_err("a conflict");
    assert_eq!(error.kind, ErrorKind::Conflict);
    assert!(error.text().contains("Old name") && error.text().contains("Production Environment"), "{error}");
    rig.state.rename(id, "Production Environment");

    sync.environment = Some("Prod EU".into());
    let error = sync.try_run(&Cx::quiet(), &[("A", "1")]).await.expect_err("a conflict");
    assert!(error.text().contains("Prod EU") && error.text().contains("variableGroupName"), "{error}");
    assert_eq!(rig.state.groups().len(), 1);
    // The operator's word settles it, either way.
    sync.config = config(&[("devopsProjectId", &rig.project), ("variableGroupName", "Prod EU")]);
    assert_eq!(sync.run(&[("A", "1")]).await.writes(), 1);
    assert_eq!(rig.state.groups().len(), 2);
    // Another environment is another group, without a question.
    let mut sync = rig.sync("b");
    sync.run(&[("A", "1")]).await;
    (sync.environment, sync.slug) = (Some("Staging".into()), "staging".into());
    assert_eq!(sync.run(&[("A", "1")]).await.writes(), 1);
}

#[tokio::test]
async fn a_lost_ledger_costs_one_write() {
    let rig = rig().await;
    let want = [("A", "1"), ("B", "2")];
    rig.sync("a").run(&want).await;
    let mut sync = rig.sync("a");
    let ran = sync.run(&want).await;
    assert_eq!(ran.updated.len(), 2);
    assert_eq!(sync.run(&want).await.writes(), 0);
}

#[tokio::test]
async fn stamps_are_texts_and_the_names_count_too() {
    let rig = rig().await;
    let mut sync = rig.sync("a");
    sync.full = true;
    let want = [("A", "1"), ("B", "2")];
    sync.run(&want).await;
    let id = rig.group();
    for stamp in ["2026-01-01T00:00:00Z", "2026-01-01T00:00:00.08Z", "2026-01-01T00:00:00.693Z", "2026-01-01T00:00:00.6933333Z"] {
        rig.state.stamp(id, stamp);
        sync.ledger.rows.values_mut().for_each(|r| r.stamp = Some(stamp.into()));
        assert_eq!(sync.run(&want).await.writes(), 0, "{stamp}");
    }
    // The same stamp with another set of names: a restored backup.
    let stamp = rig.state.facts(id).expect("facts").1;
    rig.state.unset(id, "B");
    rig.state.stamp(id, &stamp);
    assert_eq!(sync.run(&want).await.created, ["B"]);
}

/// Number 46: the service is put back to a backup. Names and flags are as they were, the stamp is
/// an earlier one of ours, and so are the values.
#[tokio::test]
async fn a_restored_backup_is_told_by_every_run_and_mended_by_a_full_one() {
    for full in [false, true] {
        let rig = rig().await;
        let mut sync = rig.sync("a");
        sync.run(&[("A", "old"), ("B", "old"), ("C", "same")]).await;
        let id = rig.group();
        let (values, stamp) = (rig.state.variables(id), rig.state.facts(id).expect("facts").1);
        let want = [("A", "new"), ("B", "new"), ("C", "same")];
        sync.run(&want).await;
        let restore = || {
            values.iter().for_each(|(name, value)| rig.state.set(id, name, value.clone()));
            rig.state.stamp(id, &stamp);
        };
        restore();
        rig.requests();
        // Unattended: it cannot be told whose values are there, and none is written.
        let ran = sync.run(&want).await;
        assert_eq!((ran.writes(), ran.unchanged, methods(&rig.requests()).as_str()), (0, 3, "GET"));
        assert!(ran.warnings.iter().any(|w| w.contains("changed from outside")), "{:?}", ran.warnings);
        assert_eq!(rig.value("A").as_deref(), Some("old"));
        if full {
            // Looked at by somebody, or with --verify: everything is written.
            sync.full = true;
            let ran = sync.run(&want).await;
            assert_eq!((ran.updated.len(), methods(&rig.requests()).as_str()), (3, "GET PUT"), "{ran:?}");
        } else {
            // A change of the source carries all values along.
            let ran = sync.run(&[("A", "new"), ("B", "new"), ("C", "changed")]).await;
            assert_eq!((ran.updated.as_slice(), methods(&rig.requests()).as_str()), (["C".to_string()].as_slice(), "GET PUT"), "{ran:?}");
        }
        for (name, value) in &want[..2] {
            assert_eq!(rig.value(name).as_deref(), Some(*value), "{name}");
        }
        let before = sync.run(&[("A", "new"), ("B", "new"), ("C", if full { "same" } else { "changed" })]).await;
        assert_eq!((before.writes(), before.warnings.len()), (0, 0), "{before:?}");
    }
}

#[tokio::test]
async fn nothing_that_is_remembered_is_a_secret() {
    let rig = rig().await;
    let mut sync = rig.sync("a");
    sync.run(&[("NAME_CANARY", "value-canary")]).await;
    let memory = rig.memory.dump();
    assert!(!memory.contains("value-canary") && !memory.contains(super::rig::TOKEN) && !memory.contains("NAME_CANARY"), "{memory}");
}

#[tokio::test]
async fn what_was_written_is_taken_out_of_its_group_whatever_the_environment_is_called_now() {
    let rig = rig().await;
    let mut sync = rig.sync("a");
    sync.run(&[("A", "1"), ("B", "2")]).await;
    let id = rig.group();
    rig.state.set(id, "THEIRS", Variable::plain("x"));
    // Another hand has a group of the new name, with a key of ours in it.
    let other = rig.state.group(&rig.project, "Prod EU", &[("A", Variable::secret("theirs"))]);
    sync.environment = Some("Prod EU".into());
    rig.requests();
    let ran = sync.remove().await.expect("removed");
    assert_eq!(ran.deleted, ["A", "B"], "{ran:?}");
    assert!(ran.notes.iter().all(|n| n.contains("\"Production Environment\"") && n.contains("\"Prod EU\" is not touched")), "{:?}", ran.notes);
    assert_eq!(methods(&rig.requests()), "GET GET GET PUT", "the name of today, the group of then, that group again, the write");
    assert_eq!(rig.state.variables(id).keys().collect::<Vec<_>>(), ["THEIRS"]);
    assert_eq!(rig.state.variables(other)["A"], Variable::secret("theirs"));
    // Nothing of ours is left there, so the next sync begins at the new name without a question.
    rig.state.delete(other);
    assert_eq!(sync.run(&[("A", "1")]).await.created, ["A"]);
    assert!(rig.state.find(&rig.project, "Prod EU").is_some());
}

#[tokio::test]
async fn a_removal_follows_a_renamed_group_and_deletes_it_when_it_is_ours_and_empty() {
    let rig = rig().await;
    for (group, environment) in [(Some("Old name"), None), (None, Some("Prod EU")), (Some("Old name"), Some("Prod EU"))] {
        let mut sync = rig.sync("a");
        sync.run(&[("A", "1")]).await;
        if let Some(name) = group {
            rig.state.rename(rig.group(), name);
        }
        if let Some(name) = environment {
            sync.environment = Some(name.into());
        }
        let ran = sync.remove().await.expect("removed");
        assert_eq!(ran.deleted, ["A"], "{ran:?}");
        assert!(ran.notes[0].contains("was empty and was deleted"), "{:?}", ran.notes);
        assert!(rig.state.groups().is_empty(), "{group:?} {environment:?}");
        // And without anything there is nothing to do.
        assert_eq!(sync.remove().await.expect("nothing").writes(), 0);
    }
}

#[tokio::test]
async fn a_removal_takes_from_the_group_of_todays_name_when_this_sync_went_on_there() {
    let rig = rig().await;
    let mut sync = rig.sync("a");
    sync.run(&[("A", "1")]).await;
    let old = rig.group();
    // The operator renamed the group after the environment: it is the same one.
    rig.state.rename(old, "Prod EU");
    sync.environment = Some("Prod EU".into());
    sync.run(&[("A", "2")]).await;
    rig.state.set(old, "THEIRS", Variable::plain("x"));
    rig.requests();
    let ran = sync.remove().await.expect("removed");
    assert_eq!((ran.deleted.len(), ran.notes.len()), (1, 0), "{ran:?}");
    assert_eq!(methods(&rig.requests()), "GET PUT");
    assert_eq!(rig.state.variables(old).keys().collect::<Vec<_>>(), ["THEIRS"]);
}
