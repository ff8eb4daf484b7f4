//! The demo's world, driven through the program itself: every destination's first run succeeds
//! without a question, and the second one writes nothing.

use std::path::Path;
use std::process::{Command, Stdio};

use kms_sync::sandbox::host::Fault;
use kms_sync::sandbox::world::{Options, PROJECT, World};
use serde_json::Value;

use crate::support::KMS_SYNC;

/// Runs the program with a document on standard input.
fn run(home: &Path, arguments: &[&str], input: Option<&Value>) -> (i32, Value, String) {
    use std::io::Write as _;
    let mut child = Command::new(KMS_SYNC)
        .args(arguments)
        .env("KMS_SYNC_CONFIG_DIR", home.join("config"))
        .env("KMS_SYNC_STATE_DIR", home.join("state"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    if let Some(mut stdin) = child.stdin.take()
        && let Some(input) = input
    {
        stdin.write_all(input.to_string().as_bytes()).expect("input");
    }
    let output = child.wait_with_output().expect("the program ends");
    let json = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
    (output.status.code().unwrap_or(-1), json, String::from_utf8_lossy(&output.stderr).into_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_destination_of_the_demo_succeeds_and_then_rests() {
    let world = World::start(Options { quiet: true, ..Options::default() }).await.expect("world");
    let home = tempfile::tempdir().expect("a directory");
    for connection in world.connections() {
        let (code, _, err) = run(home.path(), &["connection", "add", "-f", "-"], Some(&connection));
        assert_eq!(code, 0, "{connection}: {err}");
        let name = connection["name"].as_str().expect("name");
        let (code, _, err) = run(home.path(), &["connection", "test", name], None);
        assert_eq!(code, 0, "{name}: {err}");
    }
    let syncs = world.syncs();
    assert_eq!(syncs.len(), world.stalls().len());
    for sync in &syncs {
        let (code, _, err) = run(home.path(), &["create", "-f", "-", "--no-run"], Some(sync));
        assert_eq!(code, 0, "{}: {err}", sync["name"]);
    }
    for round in 0..2 {
        for sync in &syncs {
            let name = sync["name"].as_str().expect("name");
            let (code, result, err) = run(home.path(), &["sync", name, "--json"], None);
            let run = &result["runs"][0];
            assert_eq!((code, run["status"].as_str()), (0, Some("succeeded")), "{name}: {result} {err}");
            let counts = &run["counts"];
            let written: u64 = ["created", "updated", "restored", "deleted"].iter().filter_map(|c| counts[c].as_u64()).sum();
            assert!(if round == 0 { written >= 20 } else { written == 0 }, "round {round} {name}: {counts}");
        }
    }
    // What the play does to a destination is noticed, waited for and mended.
    for (stall, sync) in world.stalls().iter().zip(&syncs) {
        let name = sync["name"].as_str().expect("name");
        let touched = stall.meddle(&mut |_| 0).unwrap_or_else(|| panic!("{name}: a foreign hand finds something"));
        // A list may lag behind a write for half a minute: until then a key that is missing from it proves nothing.
        let end = std::time::Instant::now() + std::time::Duration::from_secs(90);
        loop {
            let (code, result, err) = run(home.path(), &["sync", name, "--verify", "--json"], None);
            let counts = &result["runs"][0]["counts"];
            let mended: u64 = ["created", "updated", "restored"].iter().filter_map(|c| counts[c].as_u64()).sum();
            assert_eq!(code, 0, "{name}: {touched} was edited: {counts} {err}");
            if mended >= 1 {
                break;
            }
            assert!(std::time::Instant::now() < end, "{name}: the edit of {touched} is never seen: {counts}");
            std::thread::sleep(std::time::Duration::from_millis(500));
        }

        let (environment, path) = (sync["environment"].as_str().expect("text"), sync["secretPath"].as_str().expect("text"));
        let key = world.kms.keys(PROJECT, environment, path).into_iter().next().expect("a secret");
        world.kms.set(PROJECT, environment, path, &key, "rotated-while-throttled");
        stall.faults().add(Fault::next("", 3, stall.throttling()));
        let (code, result, err) = run(home.path(), &["sync", name, "--json"], None);
        let run = &result["runs"][0];
        assert_eq!((code, run["counts"]["updated"].as_u64()), (0, Some(1)), "{name}: {run} {err}");
        assert!(run["requests"]["retries"].as_u64() >= Some(3), "{name}: {}", run["requests"]);
    }
    // The others have something to ask.
    for sync in world.more_syncs() {
        let (code, _, err) = run(home.path(), &["create", "-f", "-", "--no-run"], Some(&sync));
        assert_eq!(code, 0, "{}: {err}", sync["name"]);
        let (code, plan, err) = run(home.path(), &["plan", sync["name"].as_str().expect("name"), "--json"], None);
        assert_eq!(code, 10, "{}: {err}", sync["name"]);
        assert!(plan["needsApproval"].as_array().is_some_and(|n| !n.is_empty()), "{}: {plan}", sync["name"]);
    }
}

#[tokio::test]
async fn the_served_document_names_every_server() {
    let world = World::start(Options { quiet: true, ..Options::default() }).await.expect("world");
    let served = world.serve_document();
    assert!(served["kms"]["baseUrl"].as_str().is_some_and(|u| u.starts_with("http://127.0.0.1:")));
    for stall in world.stalls() {
        assert!(served[stall.service()].is_object(), "{}", stall.service());
    }
}
