//! Cancelling a run from elsewhere: by the command, by the socket, whoever holds the engine.

use std::time::Duration;

use kms_sync::model::run::{RunKind, RunRequest, Trigger};
use kms_sync::sandbox::host::{Effect, Fault};
use kms_sync::service::Service;
use kms_sync::service::attach::Attach;
use serde_json::json;

use super::documented::Curl;
use super::yard::{Yard, sure};

async fn slow_yard() -> Yard {
    let yard = Yard::aws().await;
    for i in 0..40 {
        yard.rig.set(&format!("KEY_{i:02}"), "one");
    }
    yard.place().host().faults.add(Fault::always("CreateSecret", 1.0, Effect::Delay(Duration::from_millis(200))));
    yard.create(&yard.document("web", yard.place(), "/app", false, None)).await;
    yard
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command_cancels_a_run_of_the_engine() {
    let yard = slow_yard().await;
    // Nobody runs it.
    let idle = yard.rig.run(&["cancel", "web", "--json"]).await.expect(1);
    assert_eq!(idle, json!({"runs": []}));
    assert_eq!(yard.rig.run(&["cancel", "nobody"]).await.code, 2);

    let mut engine = yard.engine(&[]).await;
    let idle = yard.rig.run(&["cancel", "web"]).await;
    assert!(idle.code == 1 && idle.stderr.contains("no run of web is queued or going"), "{}", idle.stderr);
    let mut command = yard.spawn(&["sync", "web"]);
    sure("a write", || !yard.place().values().is_empty()).await;
    let answer = yard.rig.run(&["cancel", "web", "--json"]).await.expect(0);
    assert_eq!((&answer["runs"][0]["sync"], &answer["runs"][0]["status"]), (&json!("web"), &json!("cancelled")), "{answer:#}");
    // Who had started it is told, and the record is kept.
    assert_eq!(command.end().await.code(), Some(130), "{:?}", command.lines());
    let history = yard.rig.run(&["history", "web", "--json"]).await.expect(0);
    assert_eq!(history["runs"][0], answer["runs"][0]);
    let there = yard.place().values().len();
    assert!(there < 40 && answer["runs"][0]["counts"]["created"] == json!(there), "{answer:#}");
    assert!(engine.runs());

    // The same over the socket; when there is nothing to cancel it says so.
    let curl = Curl::new(&yard);
    let path = "/api/v1/secret-syncs/aws-secrets-manager/web";
    let (status, _) = curl.send("POST", &format!("{path}/sync-secrets"), "", "").await;
    assert_eq!(status, 200);
    let (status, answer) = curl.send("POST", &format!("{path}/cancel"), "", "").await;
    assert_eq!((status, &answer["secretSync"]["name"]), (200, &json!("web")), "{answer:#}");
    let done = curl.settled(path).await;
    assert_eq!(done["secretSync"]["syncStatus"], "failed", "{done:#}");
    let history = yard.rig.run(&["history", "web", "--json"]).await.expect(0);
    assert_eq!(history["runs"][0]["status"], "cancelled", "{history:#}");
    let (status, answer) = curl.send("POST", &format!("{path}/cancel"), "", "").await;
    assert_eq!((status, &answer["error"]), (400, &json!("BadRequest")), "{answer:#}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command_cancels_a_run_that_a_terminal_holds() {
    let yard = slow_yard().await;
    let face = Attach::open(yard.store(), "a test's face").await.expect("an engine");
    assert!(face.local().is_some());
    let id = face.start(RunRequest::new("web", RunKind::Sync, Trigger::Manual)).await.expect("a run");
    sure("a write", || !yard.place().values().is_empty()).await;
    let answer = yard.rig.run(&["cancel", "web", "--json"]).await.expect(0);
    assert_eq!((&answer["runs"][0]["id"], &answer["runs"][0]["status"]), (&json!(id), &json!("cancelled")), "{answer:#}");
    face.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn removing_secrets_that_auto_sync_writes_again_is_warned_of() {
    let yard = Yard::aws().await;
    yard.rig.set("KEY", "one");
    yard.create(&yard.document("web", yard.place(), "/app", true, None)).await;
    yard.rig.run(&["sync", "web"]).await.expect(0);
    let told = yard.rig.run(&["remove-secrets", "web", "--yes"]).await;
    assert!(told.code == 0 && told.stderr.contains("warning: auto-sync of web is on"), "{}", told.stderr);
    assert!(told.stderr.contains("--disable"), "{}", told.stderr);
    yard.rig.run(&["sync", "web"]).await.expect(0);
    assert_eq!(yard.place().values().len(), 1);
    let off = yard.rig.run(&["remove-secrets", "web", "--yes", "--disable"]).await;
    assert!(off.code == 0 && !off.stderr.contains("warning") && off.stderr.contains("auto-sync of web is off"), "{}", off.stderr);
    let shown = yard.rig.run(&["show", "web", "--json"]).await.expect(0);
    assert_eq!(shown["secretSync"]["isEnabled"], false);
    assert_eq!(yard.place().values().len(), 0);
    // Nothing comes back by itself any more: no warning either.
    let quiet = yard.rig.run(&["remove-secrets", "web", "--yes"]).await;
    assert!(quiet.code == 0 && !quiet.stderr.contains("warning"), "{}", quiet.stderr);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_has_ended_waits_for_nothing() {
    let yard = Yard::aws().await;
    yard.rig.set("KEY", "one");
    yard.create(&yard.document("web", yard.place(), "/app", false, None)).await;
    let later = Effect::Answer { status: 429, headers: vec![("retry-after".into(), "600".into())], body: "{}".into() };
    yard.place().host().faults.add(Fault::always("", 1.0, later));
    let _engine = yard.engine(&[]).await;
    let remote = kms_sync::service::attach::reach(&yard.dirs()).await.expect("the engine");
    let looker = kms_sync::service::local::Local::new(yard.store());
    // Ended at another moment of the second each time, for it is looked at once in each.
    for _ in 0..4 {
        let id = remote.start(RunRequest::new("web", RunKind::Sync, Trigger::Manual)).await.expect("a run");
        sure("a wait", || futures::executor::block_on(looker.sync("web")).expect("a sync").waiting.is_some()).await;
        sure("a wait in the picture", || futures::executor::block_on(remote.watch()).expect("a picture").board.engine.standing == 1).await;
        remote.cancel(&id).await.expect("a run");
        remote.finished(&id).await.expect("its record");
        let doc = looker.sync("web").await.expect("a sync");
        assert!(doc.waiting.is_none() && doc.sync_status.is_some_and(|s| s.to_string() == "failed"), "{:?} {:?}", doc.waiting, doc.sync_status);
        let facts = remote.watch().await.expect("a picture").board.engine;
        assert_eq!((facts.running, facts.queued, facts.standing), (0, 0, 0), "{facts:?}");
    }
}
