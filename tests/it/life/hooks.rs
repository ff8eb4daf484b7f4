//! Command hooks: who is called when, with what, and what never reaches them.

use std::os::unix::fs::PermissionsExt;

use rustix::process::Signal;
use serde_json::{Value, json};

use super::yard::{PATIENCE, Yard, sure, until};

/// A hook that appends its argument and its input to a file.
fn recorder(yard: &Yard) -> (std::path::PathBuf, String) {
    let home = yard.rig.config_dir().parent().expect("a home").to_path_buf();
    let (script, log) = (home.join("hook.sh"), home.join("hooks.log"));
    std::fs::write(&script, format!("#!/bin/sh\n{{ printf '%s ' \"$1\"; cat; echo; }} >> '{}'\n", log.display())).expect("a script");
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).expect("a script");
    (log, script.display().to_string())
}

/// The calls so far: the hook's own argument, and what it was given.
fn calls(log: &std::path::Path) -> Vec<(String, Value)> {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let split = |line: &str| {
        let (word, body) = line.split_once(' ').expect("a word");
        serde_json::from_str(body).ok().map(|body| (word.to_string(), body))
    };
    text.lines().filter_map(split).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hooks_tell_beginnings_and_ends_without_secrets() {
    let yard = Yard::aws().await;
    let (log, script) = recorder(&yard);
    // No shell takes part: what would mean something to one arrives as it is.
    let hook = |word: &str| json!([script, format!("{word};$HOME")]);
    yard.settings(&json!({"onFailure": hook("failure"), "onRecovery": hook("recovery"), "onChange": hook("change")}));
    yard.rig.set("KEY", "hook-canary-value-1");
    yard.create(&yard.document("web", yard.place(), "/app", true, None)).await;
    let engine = yard.engine(&[]).await;
    let seen = async |n: usize| until(&format!("{n} calls"), || Some(calls(&log)).filter(|c| c.len() >= n), || engine.lines().join("\n")).await;
    let first = seen(1).await;
    assert_eq!(first[0].0, "change;$HOME");
    let told = &first[0].1;
    assert_eq!((&told["event"], &told["run"]["sync"], &told["run"]["status"]), (&json!("onChange"), &json!("web"), &json!("succeeded")));
    assert_eq!(told["run"]["secrets"][0]["key"], "KEY");

    // It fails: one call, however often it fails.
    yard.place().refuse_one("SECOND");
    yard.rig.set("SECOND", "hook-canary-value-2");
    engine.says("web failed").await;
    assert_eq!(yard.rig.run(&["sync", "web"]).await.code, 1);
    let second = seen(2).await;
    assert_eq!(second[1].0, "failure;$HOME");
    assert_eq!(second[1].1["run"]["counts"]["failed"], 1);

    // And is well again.
    yard.place().forgive();
    yard.rig.run(&["sync", "web"]).await.expect(0);
    let third = seen(4).await;
    let words: Vec<&str> = third.iter().map(|(w, _)| w.as_str()).collect();
    assert_eq!(words, ["change", "failure", "recovery", "change"].map(|w| format!("{w};$HOME")));
    let text = std::fs::read_to_string(&log).expect("a log");
    assert!(!text.contains("hook-canary"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cron_has_hooks_too_and_a_broken_hook_breaks_nothing() {
    let yard = Yard::aws().await;
    let (log, script) = recorder(&yard);
    yard.settings(&json!({"onFailure": [script, "failure"], "onChange": ["/nonexistent/hook"]}));
    yard.rig.set("KEY", "one");
    yard.create(&yard.document("web", yard.place(), "/app", true, None)).await;
    let first = yard.rig.run(&["run", "--once"]).await;
    assert_eq!(first.code, 0, "{}", first.stderr);
    assert!(first.stderr.contains("onChange hook /nonexistent/hook"), "{}", first.stderr);
    yard.place().refuse_one("SECOND");
    yard.rig.set("SECOND", "two");
    assert_eq!(yard.rig.run(&["run", "--once"]).await.code, 1);
    let words: Vec<String> = calls(&log).into_iter().map(|c| c.0).collect();
    assert_eq!(words, ["failure"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_hook_inherits_what_is_meant_for_the_engine_alone() {
    let yard = Yard::aws().await;
    let home = yard.rig.config_dir().parent().expect("a home").to_path_buf();
    let (script, seen) = (home.join("env.sh"), home.join("env.txt"));
    std::fs::write(&script, format!("#!/bin/sh\nenv > '{0}.new'; mv '{0}.new' '{0}'\n", seen.display())).expect("a script");
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).expect("a script");
    yard.settings(&json!({"onChange": [script]}));
    yard.rig.set("KEY", "one");
    let other = json!({"name": "other", "app": "aws", "method": "access-key",
        "credentials": {"accessKeyId": {"env": "OTHER_ID"}, "secretAccessKey": {"env": "OTHER_SECRET"}}});
    yard.rig.run_with(&["connection", "add", "-f", "-"], &other).await.expect(0);
    yard.create(&yard.document("web", yard.place(), "/app", true, None)).await;
    let mut command = yard.rig.command();
    command.args(["run"]).env("OTHER_SECRET", "hook-canary-secret").env("OTHER_ID", "id").env("FREE", "stays");
    command.env("NOTIFY_SOCKET", home.join("notify.sock")).env("CREDENTIALS_DIRECTORY", &home);
    let engine = yard.start(command);
    let text = until("a call", || std::fs::read_to_string(&seen).ok(), || engine.lines().join("\n")).await;
    assert!(text.contains("FREE=stays\n") && text.contains("PATH="), "{text}");
    for name in ["OTHER_ID", "OTHER_SECRET", "NOTIFY_SOCKET", "CREDENTIALS_DIRECTORY"] {
        assert!(!text.lines().any(|l| l.starts_with(&format!("{name}="))), "{name}: {text}");
    }
}

/// A hook whose children write a line every tenth of a second for as long as they live.
fn hanging(yard: &Yard) -> (std::path::PathBuf, String) {
    let home = yard.rig.config_dir().parent().expect("a home").to_path_buf();
    let (script, beats) = (home.join("hang.sh"), home.join("beats"));
    let beat = format!("while :; do echo x >> '{}'; sleep 0.1; done", beats.display());
    // One child heeds no request to end.
    std::fs::write(&script, format!("#!/bin/sh\n( trap '' TERM; {beat} ) &\n( {beat} ) &\nwait\n")).expect("a script");
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).expect("a script");
    (beats, script.display().to_string())
}

fn size(path: &std::path::Path) -> u64 {
    path.metadata().map(|m| m.len()).unwrap_or_default()
}

/// Nobody writes there any more.
async fn silent(beats: &std::path::Path) {
    let before = size(beats);
    tokio::time::sleep(std::time::Duration::from_millis(600)).await;
    assert_eq!(size(beats), before, "a child of the hook lives on");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hook_is_ended_with_its_children_at_its_limit_and_at_the_stop() {
    let yard = Yard::aws().await;
    let (beats, script) = hanging(&yard);
    yard.settings(&json!({"onChange": [script], "hookTimeoutSecs": 2, "driftHours": null}));
    yard.rig.set("KEY", "one");
    yard.create(&yard.document("web", yard.place(), "/app", true, None)).await;
    let mut engine = yard.engine(&[]).await;
    sure("a beating hook", || size(&beats) > 0).await;
    let line = engine.says("did not end within 2 s").await;
    assert!(line.contains("onChange") && line.contains("hang.sh") && line.contains("web"), "{line}");
    silent(&beats).await;

    // Stopped while one goes, and others wait: ended, counted, told.
    engine.signal(Signal::TERM);
    assert_eq!(engine.end().await.code(), Some(0), "{:?}", engine.lines());
    yard.settings(&json!({"onChange": [script], "hookTimeoutSecs": 600, "driftHours": null}));
    let mut engine = yard.engine(&[]).await;
    let begun = size(&beats);
    for i in 0..3 {
        yard.rig.set(&format!("KEY_{i}"), "one");
        yard.rig.run(&["sync", "web"]).await.expect(0);
    }
    sure("a beating hook", || size(&beats) > begun).await;
    let stopped = std::time::Instant::now();
    engine.signal(Signal::TERM);
    assert_eq!(engine.end().await.code(), Some(0), "{:?}", engine.lines());
    assert!(stopped.elapsed() < PATIENCE / 2, "{:?}", stopped.elapsed());
    silent(&beats).await;
    engine.says("1 hook call still going, ended").await;
    engine.says("2 hook calls dropped").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failing_hook_is_told_and_one_syncs_hooks_do_not_hold_anothers() {
    let yard = Yard::aws().await;
    let (log, script) = recorder(&yard);
    let home = yard.rig.config_dir().parent().expect("a home").to_path_buf();
    let slow = home.join("slow.sh");
    // The hook of one sync hangs; it fails when it is let go.
    let gate = home.join("gate");
    std::fs::write(
        &slow,
        format!("#!/bin/sh\nbody=$(cat)\ncase \"$body\" in *'\"sync\":\"held\"'*) while [ ! -e '{0}' ]; do sleep 0.05; done; exit 7;; esac\nprintf '%s' \"$body\" | '{script}' change\n", gate.display()),
    )
    .expect("a script");
    std::fs::set_permissions(&slow, std::fs::Permissions::from_mode(0o755)).expect("a script");
    yard.settings(&json!({"onChange": [slow.display().to_string()], "driftHours": null}));
    yard.rig.set("KEY", "one");
    yard.create(&yard.document("held", yard.place(), "/app", false, Some("held_{{secretKey}}"))).await;
    yard.create(&yard.document("web", yard.place(), "/app", false, Some("web_{{secretKey}}"))).await;
    let engine = yard.engine(&[]).await;
    yard.rig.run(&["sync", "held"]).await.expect(0);
    yard.rig.run(&["sync", "web"]).await.expect(0);
    let seen = until("the other's call", || Some(calls(&log)).filter(|c| !c.is_empty()), || engine.lines().join("\n")).await;
    assert_eq!(seen[0].1["run"]["sync"], "web");
    std::fs::write(&gate, "").expect("a file");
    let line = engine.says("ended with exit status: 7").await;
    assert!(line.contains("slow.sh") && line.contains("held"), "{line}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_results_than_hooks_can_take_are_dropped_and_told() {
    use kms_sync::model::board::Event;
    use kms_sync::model::run::{RunKind, RunRequest, Trigger};
    use kms_sync::service::Service;

    let yard = Yard::aws().await;
    let (beats, script) = hanging(&yard);
    yard.settings(&json!({"onChange": [script], "hookTimeoutSecs": 3600, "driftHours": null}));
    yard.create(&yard.document("web", yard.place(), "/app", false, None)).await;
    let face = kms_sync::service::attach::Attach::open(yard.store(), "a test's face").await.expect("an engine");
    let mut events = face.watch().await.expect("a picture").events;
    // One goes, a hundred wait, five are too many.
    for i in 0..106 {
        yard.rig.set(&format!("KEY_{i:03}"), "one");
        let id = face.start(RunRequest::new("web", RunKind::Sync, Trigger::Manual)).await.expect("a run");
        let record = face.finished(&id).await.expect("an end");
        assert_eq!(record.counts.created, 1, "{record:#?}");
    }
    sure("a beating hook", || size(&beats) > 0).await;
    face.close().await;
    silent(&beats).await;
    let mut told = Vec::new();
    let last = async {
        while !told.last().is_some_and(|t: &String| t.contains("hook calls dropped")) {
            if let Ok(Event::Notice { text, .. }) = events.recv().await {
                told.push(text);
            }
        }
    };
    let done = tokio::time::timeout(PATIENCE, last).await;
    assert!(done.is_ok(), "{told:#?}");
    assert!(told.iter().any(|t| t.contains("hooks are slower than the runs: 100 wait already")), "{told:#?}");
    assert!(told.iter().any(|t| t.contains("1 hook call still going, ended")), "{told:#?}");
    assert!(told.iter().any(|t| t.contains("105 hook calls dropped")), "{told:#?}");
}
