//! The demo's world, driven through the program itself: every destination's first run succeeds
//! without a question, the second one writes nothing, and the play shows what it promises.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use kms_sync::cli::{furnish, perform};
use kms_sync::model::board::{Event, Waiting};
use kms_sync::model::run::{RunStatus, Trigger};
use kms_sync::sandbox::host::Fault;
use kms_sync::sandbox::world::{Options, PROJECT, World};
use kms_sync::service::Service as _;
use kms_sync::service::attach::Attach;
use kms_sync::store::{Dirs, Store};
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
        let end = std::time::Instant::now() + Duration::from_secs(90);
        loop {
            let (code, result, err) = run(home.path(), &["sync", name, "--verify", "--json"], None);
            let counts = &result["runs"][0]["counts"];
            let mended: u64 = ["created", "updated", "restored"].iter().filter_map(|c| counts[c].as_u64()).sum();
            assert_eq!(code, 0, "{name}: {touched} was edited: {counts} {err}");
            if mended >= 1 {
                break;
            }
            assert!(std::time::Instant::now() < end, "{name}: the edit of {touched} is never seen: {counts}");
            std::thread::sleep(Duration::from_millis(500));
        }

        let (environment, path) = (sync["environment"].as_str().expect("text"), sync["secretPath"].as_str().expect("text"));
        let key = world.kms.keys(PROJECT, environment, path).into_iter().next().expect("a secret");
        world.kms.set(PROJECT, environment, path, &key, "rotated-while-throttled");
        stall.faults().add(Fault::next("", 3, stall.throttling(Duration::from_secs(2))));
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

/// Whoever only watches sees each kind of scene: the play at a faster pace, on the engine
/// that the demo has.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_play_shows_each_kind_of_scene_without_a_key() {
    let tempo = Duration::from_secs(3);
    let mut world = World::start(Options { tempo: (tempo, tempo), ..Options::default() }).await.expect("world");
    let home = tempfile::tempdir().expect("a directory");
    let dirs = Dirs { config: home.path().join("config"), state: home.path().join("state"), runtime: home.path().join("run") };
    let service = Attach::open(Store::open(dirs).expect("a store"), "the play's test").await.expect("the engine");
    let mut events = service.watch().await.expect("a picture").events;
    let mut missing: BTreeSet<String> = furnish(&*service, &world, false).await.expect("furnished").into_iter().collect();
    let mut next = async move || loop {
        match tokio::time::timeout(Duration::from_secs(60), events.recv()).await.expect("the play goes on") {
            Ok(event) => return event,
            Err(tokio::sync::broadcast::error::RecvError::Lagged(_)) => {}
            Err(error) => panic!("{error}"),
        }
    };
    // The play begins when there is something to touch, as after the demo's first seconds.
    while !missing.is_empty() {
        if let Event::Finished { sync, .. } = next().await {
            missing.remove(&sync);
        }
    }
    perform(&mut world, &service);
    let mut unseen = BTreeSet::from(["edit", "throttling", "addition", "drift", "removal"]);
    while !unseen.is_empty() {
        match next().await {
            // Long enough to be read at the demo's own pace, several times slower.
            Event::Waiting { waiting: Some(Waiting { reason, until: Some(until) }), .. }
                if reason.contains("429") && until.duration_since(kms_sync::model::now()).as_secs_f64() > 0.5 =>
            {
                unseen.remove("throttling");
            }
            Event::Finished { record, .. } => {
                assert_eq!(record.status, RunStatus::Succeeded, "{record:?}");
                let c = &record.counts;
                match record.trigger {
                    Trigger::Auto if c.created > 0 => drop(unseen.remove("addition")),
                    Trigger::Auto if c.deleted > 0 => drop(unseen.remove("removal")),
                    Trigger::Auto if c.updated > 0 => drop(unseen.remove("edit")),
                    Trigger::Drift if c.writes() > 0 => drop(unseen.remove("drift")),
                    _ => {}
                }
            }
            _ => {}
        }
    }
    service.close().await;
}
