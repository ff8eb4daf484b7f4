//! `run --once`, as cron starts it: alone, and while an engine runs.

use rustix::process::Signal;
use serde_json::json;

use super::yard::{Yard, sure};

/// A file that cannot be used must not pass as success, and stops nobody else.
async fn a_torn_file(yard: &Yard) {
    std::fs::write(yard.rig.config_dir().join("syncs/torn.json"), "{\"name\":").expect("a file");
    let torn = yard.rig.run(&["run", "--once"]).await;
    assert_eq!(torn.code, 1, "{}", torn.stderr);
    assert!(torn.stderr.contains("torn.json") && torn.stderr.contains("1 of 2 syncs succeeded"), "{}", torn.stderr);
    std::fs::remove_file(yard.rig.config_dir().join("syncs/torn.json")).expect("a file");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn once_is_for_cron() {
    let yard = Yard::aws().await;
    yard.rig.set("KEY", "one");
    yard.create(&yard.document("web", yard.place(), "/app", true, None)).await;
    yard.create(&yard.document("manual", yard.place(), "/app", false, Some("m_{{secretKey}}"))).await;
    let good = yard.rig.run(&["run", "--once"]).await;
    assert_eq!(good.code, 0, "{}", good.stderr);
    assert!(good.stderr.contains("1 of 1 syncs succeeded"), "{}", good.stderr);
    assert_eq!(yard.place().values().len(), 1);

    yard.rig.set("KEY_2", "two");
    yard.place().refuse_one("KEY_2");
    let bad = yard.rig.run(&["run", "--once"]).await;
    assert_eq!(bad.code, 1, "{}", bad.stderr);
    assert!(bad.stderr.contains("0 of 1 syncs succeeded"), "{}", bad.stderr);
    yard.place().forgive();

    a_torn_file(&yard).await;

    // A pause holds for cron too.
    yard.settings(&json!({"paused": true}));
    yard.rig.set("KEY_3", "three");
    let paused = yard.rig.run(&["run", "--once"]).await;
    assert_eq!(paused.code, 0, "{}", paused.stderr);
    assert!(paused.stderr.contains("paused"), "{}", paused.stderr);
    assert_eq!(yard.place().values().len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn once_goes_through_the_engine_that_runs() {
    let yard = Yard::aws().await;
    // What auto-sync does by itself must not be in the way of what is counted.
    yard.settings(&json!({"pollIntervalSecs": 3600, "driftHours": null}));
    for i in 0..3 {
        yard.rig.set(&format!("KEY_{i}"), "one");
    }
    yard.create(&yard.document("web", yard.place(), "/app", true, Some("web_{{secretKey}}"))).await;
    yard.create(&yard.document("manual", yard.place(), "/app", false, Some("m_{{secretKey}}"))).await;
    let mut engine = yard.engine(&[]).await;
    engine.says("web: 3 created").await;
    let good = yard.rig.run(&["run", "--once"]).await;
    assert_eq!(good.code, 0, "{}", good.stderr);
    assert!(good.stderr.contains("1 of 1 syncs succeeded"), "{}", good.stderr);
    engine.says("web: nothing to do, 3 unchanged").await;
    assert!(engine.runs(), "the engine goes on");
    let history = yard.rig.run(&["history", "web", "--json"]).await.expect(0);
    assert_eq!(history["runs"][0]["trigger"], "auto", "{history:#}");
    assert_eq!(yard.rig.run(&["history", "manual", "--json"]).await.expect(0)["runs"], json!([]));

    // The exit code tells of failures there, and of files that cannot be used.
    yard.place().refuse_one("KEY_3");
    yard.rig.set("KEY_3", "one");
    let bad = yard.rig.run(&["run", "--once"]).await;
    assert_eq!(bad.code, 1, "{}", bad.stderr);
    assert!(bad.stderr.contains("0 of 1 syncs succeeded"), "{}", bad.stderr);
    yard.place().forgive();
    a_torn_file(&yard).await;

    // It ends in the middle: cron's run goes on as the engine itself.
    for i in 10..30 {
        yard.rig.set(&format!("KEY_{i}"), "one");
    }
    let slow = kms_sync::sandbox::host::Effect::Delay(std::time::Duration::from_millis(100));
    yard.place().host().faults.add(kms_sync::sandbox::host::Fault::always("CreateSecret", 1.0, slow));
    let mut once = yard.spawn(&["run", "--once"]);
    sure("writes", || yard.place().values().len() >= 6).await;
    engine.kill();
    assert_eq!(once.end().await.code(), Some(0), "{:?}", once.lines());
    assert_eq!(yard.place().values().len(), 24);

    // And when it is told to stop itself, the engine's run is cancelled and nothing else.
    let mut engine = yard.engine(&[]).await;
    for i in 30..60 {
        yard.rig.set(&format!("KEY_{i}"), "one");
    }
    let mut once = yard.spawn(&["run", "--once"]);
    sure("writes", || yard.place().values().len() >= 26).await;
    once.signal(Signal::TERM);
    assert_eq!(once.end().await.code(), Some(130), "{:?}", once.lines());
    assert!(engine.runs());
}
