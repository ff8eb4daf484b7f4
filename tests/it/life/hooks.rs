//! Command hooks: who is called when, with what, and what never reaches them.

use std::os::unix::fs::PermissionsExt;

use serde_json::{Value, json};

use super::yard::{Yard, until};

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
