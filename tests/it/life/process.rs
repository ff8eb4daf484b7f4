//! `kms-sync run` as a service manager and cron see it.

use rustix::process::Signal;
use serde_json::json;

use super::yard::{Yard, socket_of, sure, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn run_is_ready_notices_files_reloads_and_stops_cleanly() {
    let yard = Yard::aws().await;
    for i in 0..3 {
        yard.rig.set(&format!("KEY_{i}"), "one");
    }
    let document = yard.document("web", yard.place(), "/app", true, Some("web_{{secretKey}}"));
    yard.create(&document).await;
    let mut engine = yard.engine(&[]).await;
    engine.says("web: 3 created").await;

    // A file that an editor, or a checkout, puts there.
    let mut second = document.clone();
    second["name"] = "second".into();
    second["syncOptions"]["keySchema"] = "second_{{secretKey}}".into();
    std::fs::write(yard.rig.config_dir().join("syncs/second.json"), second.to_string()).expect("a file");
    engine.says("second: 3 created").await;

    // An edit that changes where keys go is carried out, though the source is as it was.
    second["syncOptions"]["keySchema"] = "renamed_{{secretKey}}".into();
    std::fs::write(yard.rig.config_dir().join("syncs/second.json"), second.to_string()).expect("a file");
    sure("the renamed keys", || yard.place().values().contains_key("renamed_KEY_0")).await;

    // Settings that cannot be used are told, and the old ones stay in force.
    yard.settings(&json!({"pollIntervalSecs": 1}));
    engine.says("the settings in force stay").await;
    yard.settings(&json!({"pollIntervalSecs": 10}));

    engine.signal(Signal::HUP);
    engine.says("reading the configuration again").await;
    yard.rig.set("KEY_3", "two");
    engine.says("web: 1 created").await;

    engine.signal(Signal::TERM);
    assert_eq!(engine.end().await.code(), Some(0), "{:?}", engine.lines());
    engine.says("stopping").await;
    assert!(!socket_of(&yard).exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn log_lines_are_json_when_asked() {
    let yard = Yard::aws().await;
    let mut engine = yard.engine(&["--log-format", "json"]).await;
    engine.signal(Signal::INT);
    assert_eq!(engine.end().await.code(), Some(0));
    for line in engine.lines() {
        let parsed: serde_json::Value = serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line}"));
        assert!(parsed["message"].is_string() && parsed["timestamp"].is_string(), "{line}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_lets_the_run_in_flight_end() {
    let yard = Yard::aws().await;
    for i in 0..30 {
        yard.rig.set(&format!("KEY_{i}"), "one");
    }
    let slow = kms_sync::sandbox::host::Effect::Delay(std::time::Duration::from_millis(300));
    yard.place().host().faults.add(kms_sync::sandbox::host::Fault::always("CreateSecret", 1.0, slow));
    yard.create(&yard.document("web", yard.place(), "/app", true, None)).await;
    let mut engine = yard.engine(&[]).await;
    sure("a first write", || !yard.place().values().is_empty()).await;
    engine.signal(Signal::TERM);
    assert_eq!(engine.end().await.code(), Some(0));
    let history = yard.rig.run(&["history", "web", "--json"]).await.expect(0);
    assert_eq!(history["runs"][0]["status"], "succeeded", "{history:#}");
    assert_eq!(yard.place().values().len(), 30);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_engines_never_share_a_directory() {
    let yard = Yard::aws().await;
    yard.rig.set("KEY", "one");
    yard.create(&yard.document("web", yard.place(), "/app", false, None)).await;
    let mut engine = yard.engine(&[]).await;
    let second = yard.rig.run(&["run"]).await;
    assert_eq!(second.code, 1);
    assert!(second.stderr.contains(&format!("pid {}", engine.id())), "{}", second.stderr);
    // A run by the command line goes through the engine that is there.
    let answer = yard.rig.run(&["sync", "web", "--json"]).await.expect(0);
    assert_eq!((&answer["runs"][0]["status"], &answer["runs"][0]["trigger"]), (&json!("succeeded"), &json!("manual")));
    engine.says("web: 1 created").await;
    assert!(engine.runs());

    // A killed engine's socket stays behind and hinders nobody.
    use std::os::unix::fs::PermissionsExt;
    let socket = socket_of(&yard);
    assert_eq!(socket.metadata().expect("a socket").permissions().mode() & 0o777, 0o600);
    engine.kill();
    assert!(socket.exists());
    let _next = yard.engine(&[]).await;
    let remote = until("an answer", || futures::executor::block_on(kms_sync::service::attach::reach(&yard.dirs())).ok(), String::new).await;
    assert!(remote.presence().await.is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn commands_at_the_same_time_take_each_other_along() {
    let yard = Yard::aws().await;
    for i in 0..5 {
        yard.rig.set(&format!("KEY_{i}"), "one");
    }
    let slow = kms_sync::sandbox::host::Effect::Delay(std::time::Duration::from_millis(60));
    yard.place().host().faults.add(kms_sync::sandbox::host::Fault::always("CreateSecret", 1.0, slow));
    let names: Vec<String> = (0..8).map(|n| format!("sync-{n}")).collect();
    for name in &names {
        yard.create(&yard.document(name, yard.place(), "/app", false, Some(&format!("{name}_{{{{secretKey}}}}")))).await;
    }
    // One of them is the engine and ends first or last: nobody's run ends with it. The same
    // sync twice at once is run twice, one after the other.
    let all = names.iter().chain(&names[..2]).map(async |name| {
        let answer = yard.rig.run(&["sync", name, "--json"]).await;
        assert_eq!(answer.code, 0, "{name}: {}\n{}", answer.stdout, answer.stderr);
        assert_eq!(answer.json()["runs"][0]["status"], "succeeded", "{name}: {}", answer.stdout);
    });
    futures::future::join_all(all).await;
    assert_eq!(yard.place().values().len(), 40);
    for (i, name) in names.iter().enumerate() {
        let history = yard.rig.run(&["history", name, "--json"]).await.expect(0);
        let statuses: Vec<&str> = history["runs"].as_array().expect("runs").iter().filter_map(|r| r["status"].as_str()).collect();
        assert_eq!(statuses, vec!["succeeded"; if i < 2 { 2 } else { 1 }], "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_outlives_the_engine_that_it_asked() {
    let yard = Yard::aws().await;
    for i in 0..20 {
        yard.rig.set(&format!("KEY_{i:02}"), "one");
    }
    let slow = kms_sync::sandbox::host::Effect::Delay(std::time::Duration::from_millis(100));
    yard.place().host().faults.add(kms_sync::sandbox::host::Fault::always("CreateSecret", 1.0, slow));
    yard.create(&yard.document("web", yard.place(), "/app", false, None)).await;
    let mut engine = yard.engine(&[]).await;
    let mut command = yard.spawn(&["sync", "web"]);
    sure("writes", || yard.place().values().len() >= 3).await;
    engine.kill();
    assert_eq!(command.end().await.code(), Some(0), "{:?}", command.lines());
    command.says("has ended").await;
    assert_eq!(yard.place().values().len(), 20);
}
