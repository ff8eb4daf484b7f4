//! Tokens that end between the reading of a group and the write that is built on it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use kms_sync::http::{Cx, ErrorKind};
use kms_sync::sandbox::azure_devops::Variable;
use kms_sync::sandbox::host::{Effect, Fault, Host};

use super::access::{authority_of, entra_session};
use super::rig::{Rig, Sync, methods, rig};

/// A service principal whose second token comes only after somebody else has edited the group.
async fn edited_while_renewed(rig: &Rig, life: u32) -> (Host, Arc<AtomicU32>, Sync) {
    let state = rig.state.clone();
    let given = move |n| {
        if n == 2 {
            for group in state.groups() {
                state.set(group, "THEIRS", Variable::secret("theirs"));
                state.set(group, "PLAIN", Variable::plain("renewed"));
            }
        }
    };
    let (host, count) = authority_of(rig, life, given).await;
    let mut sync = rig.sync("a");
    sync.session = entra_session(rig, &host, "good-canary");
    (host, count, sync)
}

fn kept(rig: &Rig) {
    let stored = rig.state.variables(rig.group());
    assert_eq!((&stored["THEIRS"], &stored["PLAIN"]), (&Variable::secret("theirs"), &Variable::plain("renewed")), "{stored:?}");
}

#[tokio::test]
async fn what_others_write_while_a_refused_token_is_replaced_is_kept() {
    let rig = rig().await;
    let (_host, count, mut sync) = edited_while_renewed(&rig, 3599).await;
    sync.run(&[("A", "1")]).await;
    rig.requests();
    rig.host.faults.add(Fault::next("PUT", 1, Effect::status(401, "")));
    let ran = sync.run(&[("A", "2")]).await;
    assert_eq!((ran.updated.len(), ran.failed.len(), count.load(Ordering::SeqCst)), (1, 0, 2), "{ran:?}");
    assert_eq!(methods(&rig.requests()), "GET PUT GET PUT");
    kept(&rig);
    assert_eq!(rig.value("A").as_deref(), Some("2"));
    // A refusal that stays is believed after one renewal.
    rig.host.faults.add(Fault::always("PUT", 1.0, Effect::status(401, "")));
    let error = sync.try_run(&Cx::quiet(), &[("A", "3")]).await.expect_err("refused");
    assert_eq!((error.kind, error.ambiguous), (ErrorKind::Permission, false), "{error}");
    assert_eq!(methods(&rig.requests()), "GET PUT GET PUT");
}

#[tokio::test]
async fn a_group_that_would_go_stays_when_others_fill_it_while_a_token_is_replaced() {
    let rig = rig().await;
    let (_host, _, mut sync) = edited_while_renewed(&rig, 3599).await;
    sync.run(&[("A", "1")]).await;
    rig.host.faults.add(Fault::next("DELETE", 1, Effect::status(401, "")));
    sync.remove().await.expect_err("somebody put something in");
    kept(&rig);
}

#[tokio::test]
async fn a_group_made_by_others_while_a_token_is_replaced_is_found() {
    let rig = rig().await;
    let (state, project) = (rig.state.clone(), rig.project.clone());
    let given = move |n| {
        if n == 2 {
            state.group(&project, "Production Environment", &[("THEIRS", Variable::secret("x"))]);
        }
    };
    let (host, _) = authority_of(&rig, 3599, given).await;
    let mut sync = rig.sync("a");
    sync.session = entra_session(&rig, &host, "good-canary");
    rig.host.faults.add(Fault::next("POST", 1, Effect::status(401, "")));
    assert_eq!(sync.run(&[("A", "1")]).await.created, ["A"]);
    assert_eq!(methods(&rig.requests()), "GET POST GET PUT");
    assert_eq!((&rig.state.variables(rig.group())["THEIRS"], rig.state.groups().len()), (&Variable::secret("x"), 1));
}

#[tokio::test]
async fn a_token_that_ends_after_the_reading_costs_a_second_look() {
    let rig = rig().await;
    // Sent for the first half of its life.
    let (_host, count, mut sync) = edited_while_renewed(&rig, 2).await;
    rig.state.group(&rig.project, "Production Environment", &[("OLD", Variable::plain("x"))]);
    let cx = Cx::quiet();
    let destination = sync.open(&cx).await;
    let inventory = sync.list(&cx, destination.as_ref()).await.expect("a list");
    tokio::time::sleep(Duration::from_millis(1100)).await;
    rig.requests();
    let ran = sync.apply(&cx, destination.as_ref(), &inventory, &[("A", "1")]).await.expect("a run");
    assert_eq!((ran.created.len(), count.load(Ordering::SeqCst)), (1, 2), "{ran:?}");
    assert_eq!(methods(&rig.requests()), "GET PUT");
    kept(&rig);
}
