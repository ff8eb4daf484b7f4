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
    assert_eq!(paused.code, 1, "{}", paused.stderr);
    assert!(paused.stderr.contains("auto-sync is paused, nothing was run"), "{}", paused.stderr);
    assert_eq!(yard.place().values().len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn once_speaks_json_to_its_last_word() {
    let yard = Yard::aws().await;
    yard.rig.set("KEY", "canary-value-1");
    yard.create(&yard.document("web", yard.place(), "/app", true, None)).await;
    let parsed =
        |stderr: &str| -> Vec<serde_json::Value> { stderr.lines().map(|l| serde_json::from_str(l).unwrap_or_else(|e| panic!("{e}: {l}"))).collect() };
    let find = |lines: &[serde_json::Value], event: &str| {
        let found: Vec<_> = lines.iter().filter(|l| l["event"] == event).cloned().collect();
        assert_eq!(found.len(), 1, "{event}: {lines:#?}");
        found[0].clone()
    };
    let args = ["run", "--once", "--log-format", "json"];
    let good = yard.rig.run(&args).await;
    assert_eq!((good.code, good.stdout.as_str()), (0, ""), "{}", good.stderr);
    let lines = parsed(&good.stderr);
    let ended = find(&lines, "run-ended");
    for (member, value) in
        [("level", "INFO"), ("sync", "web"), ("kind", "sync"), ("trigger", "auto"), ("status", "succeeded"), ("provider", yard.place().kind())]
    {
        assert_eq!(ended[member], value, "{ended:#}");
    }
    assert_eq!((&ended["counts"]["created"], &ended["counts"]["failed"]), (&json!(1), &json!(0)), "{ended:#}");
    assert!(ended["run"].is_string() && ended["durationMs"].is_u64() && ended["requests"].as_u64().is_some_and(|n| n > 1), "{ended:#}");
    assert!(ended.get("reason").is_none() && !good.stderr.contains("canary"), "{ended:#}");
    let summary = find(&lines, "summary");
    assert_eq!((&summary["succeeded"], &summary["all"], &summary["message"]), (&json!(1), &json!(1), &json!("1 of 1 syncs succeeded")));

    // A failure, and what is said before any run.
    yard.rig.set("KEY_2", "two");
    yard.place().refuse_one("KEY_2");
    let bad = yard.rig.run(&args).await;
    let ended = find(&parsed(&bad.stderr), "run-ended");
    assert_eq!(
        (bad.code, &ended["level"], &ended["status"], &ended["counts"]["failed"]),
        (1, &json!("ERROR"), &json!("failed"), &json!(1)),
        "{ended:#}"
    );
    assert!(ended["reason"].is_string(), "{ended:#}");
    yard.settings(&json!({"paused": true}));
    let paused = yard.rig.run(&args).await;
    let lines = parsed(&paused.stderr);
    assert_eq!((paused.code, lines.len(), &lines[0]["level"]), (1, 1, &json!("ERROR")), "{lines:#?}");
    yard.settings(&json!({"maxRuns": 0}));
    let broken = yard.rig.run(&args).await;
    assert!(broken.code != 0 && !parsed(&broken.stderr).is_empty(), "{}", broken.stderr);
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
