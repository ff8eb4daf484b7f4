//! The demo's world, driven through the program itself: every destination's first run succeeds
//! without a question, and the second one writes nothing.

use std::path::Path;
use std::process::{Command, Stdio};

use kms_sync::sandbox::world::{Options, World};
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
