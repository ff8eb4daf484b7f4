//! The terminal app beside `kms-sync run`: attached, killed, hung up on, left alone by the
//! engine; and what becomes of both when the other one goes.

use std::collections::BTreeSet;
use std::time::Duration;

use kms_sync::sandbox::host::{Effect, Fault};
use rustix::process::Signal;
use serde_json::{Value, json};

use super::yard::{Process, Yard, sure, until};
use crate::support::pty::Pty;
use crate::tui::{signal, walk};

/// The terminal app on this yard's directories.
fn app(yard: &Yard, columns: u16, rows: u16) -> Pty {
    let dir = |path: std::path::PathBuf| path.to_string_lossy().into_owned();
    let (config, state) = (dir(yard.rig.config_dir()), dir(yard.rig.state_dir()));
    // Like the yard's other processes: the socket lives in the state directory.
    let env = [("XDG_RUNTIME_DIR", ""), ("NO_PROXY", "127.0.0.1,localhost"), ("AWS_EC2_METADATA_DISABLED", "true")];
    Pty::start(&["--config-dir", &config, "--state-dir", &state], &env, columns, rows)
}

/// The app, attached to the engine that runs.
fn attached(yard: &Yard) -> Pty {
    let pty = app(yard, 120, 40);
    pty.see("attached to kms-sync run");
    pty
}

fn slow(yard: &Yard, millis: u64) {
    yard.place().host().faults.add(Fault::always("CreateSecret", 1.0, Effect::Delay(Duration::from_millis(millis))));
}

fn set(yard: &Yard, keys: std::ops::Range<usize>) {
    keys.for_each(|i| yard.rig.set(&format!("KEY_{i:03}"), "one"));
}

/// Watches a run of this many keys begin on the screen.
fn live(pty: &Pty, total: usize) {
    let gauge = format!("/{total} ");
    pty.wait("a live run", |screen| screen.lines().any(|l| l.contains('◐') && l.contains(&gauge)));
}

/// The app as the engine, in the middle of a run of so many keys, each written this slowly.
async fn midway(yard: &Yard, total: usize, millis: u64, (columns, rows): (u16, u16)) -> Pty {
    set(yard, 0..total);
    slow(yard, millis);
    yard.create(&yard.document("web", yard.place(), "/app", true, None)).await;
    let pty = app(yard, columns, rows);
    live(&pty, total);
    pty
}

async fn runs(yard: &Yard) -> Vec<Value> {
    yard.rig.run(&["history", "web", "--json"]).await.expect(0)["runs"].as_array().expect("runs").clone()
}

fn keys(run: &Value, outcome: &str) -> BTreeSet<String> {
    let of = |s: &&Value| s["outcome"] == outcome;
    run["secrets"].as_array().into_iter().flatten().filter(of).map(|s| s["key"].as_str().unwrap_or_default().to_string()).collect()
}

/// The app goes as `how` says, in the middle of a run that it watches: the run and what
/// follows it go on.
async fn leaves(yard: &Yard, engine: &mut Process, how: Signal, first: usize) {
    let mut pty = attached(yard);
    pty.see("web");
    slow(yard, 150);
    set(yard, first..first + 30);
    live(&pty, 30);
    signal(pty.pid(), how);
    pty.end();
    if how != Signal::KILL {
        assert!(!pty.alternate(), "the terminal is given back");
    }
    assert!(yard.place().values().len() < first + 30, "the run was still going");
    engine.says(&format!("web: {} created", 30)).await;
    yard.place().host().faults.clear();
    set(yard, first + 30..first + 31);
    sure("a change after the app has gone", || yard.place().values().len() == first + 31).await;
    assert!(engine.runs());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_engine_outlives_its_terminals_and_recovers_from_its_own_death() {
    let yard = Yard::aws().await;
    yard.settings(&json!({"pollIntervalSecs": 10, "driftHours": null}));
    set(&yard, 0..3);
    let mut engine = yard.engine(&[]).await;
    // Made by the app, run by the engine.
    let mut pty = attached(&yard);
    pty.send("n");
    walk(&mut pty, &yard.document("web", yard.place(), "/app", true, None));
    engine.says("web: 3 created").await;
    drop(pty);
    let first = runs(&yard).await;
    assert_eq!((first.len(), &first[0]["trigger"]), (1, &json!("created")), "{first:#?}");

    leaves(&yard, &mut engine, Signal::KILL, 3).await;
    leaves(&yard, &mut engine, Signal::HUP, 34).await;
    let known = runs(&yard).await.len();
    let there = yard.place().values();
    assert_eq!(there.len(), 65);

    // Ten writes are answered, the others never: there the engine dies.
    let stall = Effect::Delay(Duration::from_secs(3600));
    yard.place().host().faults.add(Fault::always("CreateSecret", 1.0, stall).after(10));
    let creates = yard.place().host().log.count("CreateSecret");
    set(&yard, 100..130);
    sure("ten writes", || yard.place().values().len() == 75).await;
    sure("writes that hang", || yard.place().host().log.count("CreateSecret") > creates + 10).await;
    let store = yard.store();
    let id = store.sync_state("web").expect("a state").id;
    let target = store.places(&id).expect("places").remove(0).target;
    let confirmed = || store.ledger(&id, &target).map(|l| l.rows.values().filter(|r| r.value_hash.is_some()).count()).unwrap_or_default();
    sure("all that was answered on disk", || confirmed() == 75).await;
    engine.kill();
    yard.place().host().faults.clear();

    // Truthful at once, and the same for whoever asks, before and after the next engine.
    let history = runs(&yard).await;
    let cut = &history[0];
    assert_eq!((history.len(), &cut["status"], &cut["counts"]["created"]), (known + 1, &json!("interrupted"), &json!(10)), "{cut:#}");
    assert_eq!(cut["counts"]["unchanged"], 65, "{cut:#}");
    let created: BTreeSet<String> = yard.place().values().into_keys().filter(|k| !there.contains_key(k)).collect();
    assert_eq!(keys(cut, "created"), created, "{cut:#}");
    assert_eq!(keys(cut, "not-reached").len(), 20, "{cut:#}");
    assert!(cut["finishedAt"].as_str() > cut["startedAt"].as_str(), "{cut:#}");
    assert_eq!(runs(&yard).await, history);
    let show = yard.rig.run(&["show", "web", "--json"]).await.expect(0);
    assert_eq!(show["secretSync"]["syncStatus"], "failed", "{show:#}");

    let engine = yard.engine(&[]).await;
    engine.says("a run of web was interrupted").await;
    engine.says("web: 20 created").await;
    assert_eq!(yard.place().values().len(), 95);
    let after = runs(&yard).await;
    assert_eq!(after[1], *cut, "history stays as it was told");
    assert_eq!(
        after[0]["counts"],
        json!({"created": 20, "updated": 0, "restored": 0, "deleted": 0, "imported": 0, "unchanged": 75,
        "skipped": 0, "failed": 0, "withheld": 0, "notReached": 0})
    );
    assert!(keys(&after[0], "created").is_disjoint(&created), "nothing is written twice");
    let quiet = yard.rig.run(&["sync", "web", "--verify", "--json"]).await.expect(0);
    assert_eq!(quiet["runs"][0]["counts"]["unchanged"], 95, "{quiet:#}");
    assert!(yard.place().values().values().all(|v| v == "one"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_terminal_takes_over_from_a_stopped_engine() {
    let yard = Yard::aws().await;
    yard.settings(&json!({"pollIntervalSecs": 10, "driftHours": null}));
    set(&yard, 0..3);
    yard.create(&yard.document("web", yard.place(), "/app", true, None)).await;
    let mut engine = yard.engine(&[]).await;
    engine.says("web: 3 created").await;
    let mut pty = attached(&yard);

    // SIGHUP is a reload for the engine, and the end of the line for a terminal.
    engine.signal(Signal::HUP);
    engine.says("reading the configuration again").await;
    assert!(engine.runs());

    engine.signal(Signal::TERM);
    pty.see("this terminal has taken over");
    assert_eq!(engine.end().await.code(), Some(0));
    pty.wait("an app of its own", |screen| !screen.contains("attached to"));
    set(&yard, 3..5);
    sure("a change in the terminal's time", || yard.place().values().len() == 5).await;
    pty.see("✓ in sync");

    // Commands go through the terminal.
    set(&yard, 5..6);
    yard.rig.run(&["sync", "web", "--json"]).await.expect(0);
    assert_eq!(yard.place().values().len(), 6);
    pty.see("web in sync: 1 created");

    // The line drops, and the service can come back.
    signal(pty.pid(), Signal::HUP);
    pty.end();
    let engine = yard.engine(&[]).await;
    set(&yard, 6..7);
    engine.says("web: 1 created").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_terminal_hands_its_engine_over_to_a_service_in_the_middle_of_a_run() {
    let yard = Yard::aws().await;
    yard.settings(&json!({"pollIntervalSecs": 10, "driftHours": null}));
    let mut pty = midway(&yard, 20, 150, (120, 40)).await;
    let mut engine = yard.spawn(&["run"]);
    let line = engine.says("waiting: another kms-sync").await;
    assert!(line.contains(&format!("pid {}, the terminal app", pty.pid())), "{line}");
    engine.says("ready").await;
    pty.see("attached to kms-sync run");
    // The run was let to its end before, and its record is the terminal's; nothing was written twice.
    let history = runs(&yard).await;
    let first = history.last().expect("a run");
    assert_eq!((&first["status"], &first["counts"]["created"]), (&json!("succeeded"), &json!(20)), "{history:#?}");
    assert_eq!(yard.place().host().log.count("CreateSecret"), 20);
    let facts: Value = serde_json::from_str(&std::fs::read_to_string(yard.rig.state_dir().join("engine.lock")).expect("a lock")).expect("facts");
    assert_eq!(facts["pid"], json!(engine.id()), "{facts:#}");
    assert!(facts["since"].as_str() >= first["finishedAt"].as_str(), "one engine after the other: {facts:#} {first:#}");

    // The service does the work now, the terminal shows it.
    yard.place().host().faults.clear();
    set(&yard, 20..22);
    engine.says("web: 2 created").await;
    pty.see("web in sync: 2 created");
    // And back.
    engine.signal(Signal::TERM);
    assert_eq!(engine.end().await.code(), Some(0));
    pty.wait("an app of its own", |screen| !screen.contains("attached to"));
    set(&yard, 22..23);
    sure("a change in the terminal's time", || yard.place().values().len() == 23).await;
    signal(pty.pid(), Signal::HUP);
    pty.end();
    assert_eq!(yard.place().host().log.count("CreateSecret"), 23);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_several_open_terminals_none_takes_the_engine_that_a_service_asked_for() {
    let yard = Yard::aws().await;
    set(&yard, 0..1);
    yard.create(&yard.document("web", yard.place(), "/app", false, None)).await;
    let first = app(&yard, 80, 24);
    first.see("web");
    let others: Vec<Pty> = (0..3).map(|_| app(&yard, 80, 24)).collect();
    others.iter().for_each(|pty| pty.see("attached to"));
    let mut engine = yard.engine(&[]).await;
    for pty in others.iter().chain([&first]) {
        pty.wait("a terminal of the service", |screen| screen.contains("attached to"));
        assert!(!pty.wrote(b"has taken over"), "{}", pty.screen());
    }
    let holder = || std::fs::read_to_string(yard.rig.state_dir().join("engine.lock")).unwrap_or_default();
    assert!(holder().contains(&format!("\"pid\":{}", engine.id())), "{}", holder());
    // One of them does when it goes.
    engine.signal(Signal::TERM);
    assert_eq!(engine.end().await.code(), Some(0));
    until("a terminal that takes over", || others.iter().chain([&first]).any(|p| p.wrote(b"has taken over")).then_some(()), holder).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_waits_for_a_terminal_stops_in_order() {
    let yard = Yard::aws().await;
    let _pty = midway(&yard, 400, 900, (80, 24)).await;
    let mut engine = yard.spawn(&["run"]);
    engine.says("waiting: another kms-sync").await;
    engine.signal(Signal::HUP);
    engine.signal(Signal::TERM);
    assert_eq!(engine.end().await.code(), Some(0), "{:#?}", engine.lines());
    assert!(engine.lines().iter().any(|l| l.contains("stopping")), "{:#?}", engine.lines());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_terminal_that_is_the_engine_finishes_its_run_when_the_line_drops() {
    let yard = Yard::aws().await;
    let mut pty = midway(&yard, 20, 150, (120, 40)).await;
    pty.hang_up();
    assert_eq!(pty.end(), 0);
    let history = runs(&yard).await;
    assert_eq!((history.len(), &history[0]["status"], &history[0]["counts"]["created"]), (1, &json!("succeeded"), &json!(20)), "{history:#?}");
    assert_eq!(yard.place().values().len(), 20);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_outlasts_the_grace_after_a_dropped_line_is_parked_and_gone_on_with() {
    let yard = Yard::aws().await;
    let mut pty = midway(&yard, 400, 900, (80, 24)).await;
    pty.hang_up();
    assert_eq!(pty.end(), 0);
    let made = yard.place().values().len();
    let history = runs(&yard).await;
    assert_eq!((history.len(), &history[0]["status"]), (1, &json!("interrupted")), "{history:#?}");
    let message = history[0]["message"].as_str().expect("a message");
    assert!(message.contains("what was written stays") && (1..400).contains(&made), "{made}: {message}");
    assert_eq!(history[0]["counts"]["created"], made, "nothing is left half-recorded");
    yard.place().host().faults.clear();
    let engine = yard.engine(&[]).await;
    engine.says(&format!("web: {} created", 400 - made)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_leaves_during_a_run_is_told_why_it_takes_time_and_can_leave_at_once() {
    let yard = Yard::aws().await;
    let mut pty = midway(&yard, 400, 900, (80, 24)).await;
    signal(pty.pid(), Signal::TERM);
    pty.see("Runs under way have 10 s to finish");
    pty.key("Ctrl-C");
    assert_eq!(pty.end(), 130);
    assert_eq!(runs(&yard).await[0]["status"], "interrupted");
    yard.place().host().faults.clear();
    assert_eq!(yard.rig.run(&["sync", "web", "--json"]).await.expect(0)["runs"][0]["status"], "succeeded");
    assert_eq!(yard.place().values().len(), 400);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pause_is_seen_kept_and_lifted_from_an_attached_terminal() {
    let yard = Yard::aws().await;
    yard.settings(&json!({"pollIntervalSecs": 10, "driftHours": null}));
    set(&yard, 0..1);
    yard.create(&yard.document("web", yard.place(), "/app", true, None)).await;
    let mut engine = yard.engine(&[]).await;
    engine.says("web: 1 created").await;
    let mut pty = attached(&yard);
    pty.see("✓ in sync");
    pty.send("P");
    pty.see("auto-sync PAUSED");
    let paused = || yard.store().settings().map(|s| s.paused).unwrap_or_default();
    sure("a stored pause", paused).await;
    // For the next engine and the next terminal as well.
    drop(pty);
    engine.signal(Signal::TERM);
    engine.end().await;
    let engine = yard.engine(&[]).await;
    set(&yard, 1..2);
    let mut pty = attached(&yard);
    pty.see("auto-sync PAUSED");
    // By hand it still runs.
    yard.rig.run(&["sync", "web", "--json"]).await.expect(0);
    set(&yard, 2..3);
    pty.send("P");
    pty.wait("the end of the pause", |screen| !screen.contains("PAUSED"));
    assert!(!paused());
    until("the change", || (yard.place().values().len() == 3).then_some(()), || engine.lines().join("\n")).await;
    let automatic = runs(&yard).await.iter().filter(|r| r["trigger"] == "auto").count();
    assert_eq!(automatic, 2, "before the pause and after it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bell_and_notification_ring_when_asked_and_only_then() {
    const BELL: &[u8] = b"\x07";
    const OSC9: &[u8] = b"\x1b]9;";
    const MOUSE: &[u8] = b"\x1b[?1000h";
    let yard = Yard::aws().await;
    set(&yard, 0..1);
    yard.create(&yard.document("web", yard.place(), "/app", true, None)).await;
    let engine = yard.engine(&[]).await;
    engine.says("web: 1 created").await;
    let choices = [(false, false, true), (true, false, false), (false, true, true), (true, true, false)];
    for (round, (bell, osc9, mouse)) in choices.into_iter().enumerate() {
        yard.settings(&json!({"driftHours": null, "bell": bell, "osc9": osc9, "mouse": mouse}));
        let pty = attached(&yard);
        pty.see("✓ in sync");
        let silent = |what| !pty.wrote(what);
        assert!(silent(BELL) && silent(OSC9), "nothing has happened yet");
        yard.rig.set("KEY_000", &format!("value {round}"));
        yard.rig.run(&["sync", "web", "--json"]).await;
        pty.see("web in sync: 1 updated");
        let told = || pty.wrote(BELL) == (bell || osc9) && pty.wrote(OSC9) == osc9;
        sure(&format!("bell {bell}, osc9 {osc9}"), told).await;
        assert_eq!(pty.wrote(MOUSE), mouse);
    }
}
