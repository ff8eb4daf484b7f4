//! The settings that bound how much goes on at once.

use std::time::Duration;

use kms_sync::model::board::Event;
use kms_sync::sandbox::host::{Effect, Fault};
use kms_sync::service::attach::reach;
use kms_sync::service::{RunRequest, Service};
use serde_json::json;

use super::yard::{PATIENCE, Yard};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_has_so_many_runs_and_no_more() {
    use kms_sync::model::run::{RunKind, RunStatus, Trigger};

    let yard = Yard::apart().await;
    yard.settings(&json!({"maxRuns": 4, "runsPerConnection": 1, "driftHours": null}));
    yard.rig.set("KEY", "one");
    // Two places of one connection, and one of another.
    yard.create(&yard.document("first", yard.place(), "/app", false, Some("first_{{secretKey}}"))).await;
    let mut elsewhere = yard.document("second", yard.place(), "/app", false, Some("second_{{secretKey}}"));
    elsewhere["destinationConfig"]["region"] = "eu-west-2".into();
    yard.create(&elsewhere).await;
    yard.create(&yard.document("other", &*yard.places[1], "/app", false, Some("other_{{secretKey}}"))).await;
    yard.place().host().faults.add(Fault::always("CreateSecret", 1.0, Effect::Delay(Duration::from_millis(700))));
    let _engine = yard.engine(&[]).await;
    let remote = reach(&yard.dirs()).await.expect("the engine");
    let mut watch = remote.watch().await.expect("a picture");
    let requests = ["first", "second", "other"].map(|name| RunRequest::new(name, RunKind::Sync, Trigger::Manual));
    for started in remote.start_together(requests.to_vec()).await.expect("an answer") {
        started.expect("a run");
    }
    let (mut ends, mut told, mut together) = (Vec::new(), Vec::new(), false);
    let all = async {
        while ends.len() < 3 {
            let event = watch.events.recv().await.expect("an event");
            watch.board.apply(&event);
            let begun = |name: &str| watch.board.cards[name].run.as_ref().is_some_and(|r| r.phase != kms_sync::model::board::Phase::Queued);
            assert!(!(begun("first") && begun("second")), "one at a time over one connection");
            together |= begun("first") && begun("other");
            match event {
                Event::Waiting { sync, waiting: Some(waiting) } if sync == "second" => told.push(waiting.reason),
                Event::Finished { record, .. } => ends.push(record),
                _ => {}
            }
        }
    };
    tokio::time::timeout(PATIENCE, all).await.expect("three runs");
    assert!(ends.iter().all(|r| r.status == RunStatus::Succeeded), "{ends:#?}");
    assert_eq!(told.first().map(String::as_str), Some("1 run goes over the connection aws-secrets-manager (runsPerConnection)"), "{told:?}");
    assert!(together, "another connection's run passes by");
    let place = |name: &str| ends.iter().position(|r| r.sync == name);
    assert!(place("first") < place("second") && place("other") < place("second"), "{ends:#?}");
}
