//! Many syncs over few sources: what standing still costs, who hears of a change, and what
//! stays in memory.

use std::time::{Duration, Instant};

use kms_sync::model::board::Event;
use kms_sync::service::attach::{Attach, reach};
use kms_sync::service::local::Local;
use kms_sync::service::{Service, SyncInput};
use kms_sync::store::{Dirs, Settings, Store};
use serde_json::json;

use super::watched::watched;
use super::yard::{Process, Yard, until};

const SOURCES: usize = 20;
const SYNCS: usize = 200;
/// An hour of polls, a second each instead of the minute that is the default.
const INTERVALS: usize = 60;
const INTERVAL: f64 = 1.0;
/// Polls come a tenth of the interval early or late.
const JITTER: f64 = 0.1;
/// How much later than due a poll may come on a busy machine, in seconds.
const LATE: f64 = 1.5;
/// Names the test that [`an_engine_by_itself`] works for.
const ENGINE: &str = "KMS_SYNC_TEST_ENGINE";

fn folder(source: usize) -> String {
    format!("/s{source:02}")
}

/// Two hundred syncs of twenty sources, all destinations in turn.
async fn furnish(yard: &Yard) {
    let local = Local::new(yard.store());
    for s in 0..SOURCES {
        yard.rig.kms.add_folder(&yard.rig.project, "dev", &folder(s));
        yard.rig.kms.set(&yard.rig.project, "dev", &folder(s), "KEY", "one");
    }
    for n in 0..SYNCS {
        let (source, place) = (n / (SYNCS / SOURCES), &yard.places[n % yard.places.len()]);
        let document = yard.document(&format!("sync-{n:03}"), &**place, &folder(source), true, Some(&format!("N{n:03}_{{{{secretKey}}}}")));
        local.create_sync(SyncInput { document, destination: None }).await.expect("a good sync");
    }
}

/// This test program once more, as an engine whose clock runs faster than settings allow: alone
/// in its process, so that CPU and memory are its own. It tells of each run's end.
async fn fast_engine(yard: &Yard) -> Process {
    let mut command = std::process::Command::new(std::env::current_exe().expect("this program"));
    command.args(["--exact", "life::many::an_engine_by_itself", "--nocapture", "--test-threads=1"]).env_clear().env(ENGINE, "hour");
    for (name, value) in yard.rig.command().get_envs() {
        command.env(name, value.unwrap_or_default());
    }
    command.stdin(std::process::Stdio::null());
    let engine = yard.start(command);
    engine.says("ready").await;
    engine
}

/// The other half of [`fast_engine`]; by itself there is nothing to test here.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_engine_by_itself() {
    if std::env::var_os(ENGINE).is_none() {
        return;
    }
    let dir = |name: &str| std::env::var_os(name).map(std::path::PathBuf::from);
    let dirs = Dirs::resolve(dir("KMS_SYNC_CONFIG_DIR"), dir("KMS_SYNC_STATE_DIR")).expect("directories");
    let store = Store::open(dirs).expect("a store");
    let service = Attach::open(store, "a test's engine").await.expect("an engine");
    let local = service.local().expect("the engine is here");
    let mut watch = service.watch().await.expect("a picture");
    local.engine().set_settings(Settings { poll_interval_secs: INTERVAL as u64, ..local.engine().settings() });
    local.clocks().wake();
    eprintln!("ready");
    loop {
        if let Event::Finished { record, .. } = watch.events.recv().await.expect("an event") {
            eprintln!("{} ({})", kms_sync::engine::summary(&record), record.trigger);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_syncs_stand_still_for_one_request_per_source_and_interval() {
    let yard = Yard::new().await;
    // Both clocks run; the checks are hours away.
    yard.settings(&json!({"driftHours": 6, "maxRuns": 16, "runsPerConnection": 8}));
    yard.rig.kms.switch(|s| s.events = false);
    let (host, readings) = watched(&yard).await;
    furnish(&yard).await;
    let engine = fast_engine(&yard).await;
    let done = |what: &str| engine.lines().iter().filter(|l| l.contains(what)).count();
    let patience = async |what: &str, seconds: u64, look: &dyn Fn() -> bool| {
        let begun = Instant::now();
        while !look() {
            assert!(begun.elapsed() < Duration::from_secs(seconds), "waited {seconds} s for {what}: {:#?}", engine.lines().last());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    patience("the first runs", 90, &|| done(": 1 created") == SYNCS).await;
    assert_eq!(yard.places.iter().map(|p| p.values().len()).sum::<usize>(), SYNCS);
    let remote = reach(&yard.dirs()).await.expect("the engine");
    let board = remote.watch().await.expect("a picture").board;
    assert_eq!(board.cards.len(), SYNCS);
    assert!(board.cards.values().all(|c| c.run.is_none() && c.next.as_ref().is_some_and(|n| n.why == "poll")), "{board:#?}");
    // Every source's tag is known once it was polled again.
    readings.clear();
    patience("a poll of every source", 30, &|| (0..SOURCES).all(|s| readings.of(&folder(s)).last().is_some_and(|r| r.status == 304))).await;

    // Standing still.
    let clear = || {
        host.log.clear();
        readings.clear();
        yard.places.iter().for_each(|p| p.host().log.clear());
    };
    let runs = done("sync-");
    clear();
    let (cpu, memory, begun) = (engine.cpu(), engine.memory(), Instant::now());
    patience("an hour of polls", 150, &|| (0..SOURCES).all(|s| readings.of(&folder(s)).len() >= INTERVALS)).await;
    let (took, used, grown) = (begun.elapsed().as_secs_f64(), engine.cpu() - cpu, engine.memory().saturating_sub(memory));
    assert!(took < INTERVALS as f64 * INTERVAL * (1.0 + JITTER) + 10.0, "{took} s");
    let all = readings.all();
    for s in 0..SOURCES {
        let polls = readings.of(&folder(s));
        assert!(polls.iter().all(|r| r.status == 304 && r.if_none_match.is_some()), "{polls:#?}");
        // One in each interval: none too many, none left out.
        for pair in polls.windows(2) {
            let gap = pair[1].at.duration_since(pair[0].at).as_secs_f64();
            let due = INTERVAL * (1.0 - JITTER)..=INTERVAL * (1.0 + JITTER) + LATE;
            assert!(due.contains(&gap), "{gap} s between two polls of {}", folder(s));
        }
    }
    let lines = host.log.lines();
    assert_eq!(lines.iter().filter(|l| !l.starts_with("GET /api/v4/secrets?")).count(), 0, "the KMS is asked for nothing else: {lines:#?}");
    for place in &yard.places {
        assert_eq!(place.host().log.lines(), Vec::<String>::new(), "{}", place.kind());
    }
    assert_eq!(done("sync-"), runs, "nothing ran");
    let each = used.as_secs_f64() * 1e3 / all.len() as f64;
    println!("{} polls in {took:.1} s: {used:?} of CPU ({each:.2} ms each), memory {memory} KiB and {grown} KiB more", all.len());
    // A poll's cost, builds without optimisation included: of an hour's 1,200 nobody notices one.
    assert!(each < 20.0, "{used:?} of CPU for {} polls", all.len());
    assert!(grown < 4 * 1024, "{memory} KiB, and {grown} more after {} polls", all.len());

    // One change: the ten that read it, once each.
    clear();
    yard.rig.kms.set(&yard.rig.project, "dev", &folder(7), "KEY", "two");
    patience("ten runs", 30, &|| done(": 1 updated") == SYNCS / SOURCES).await;
    let seen = readings.of(&folder(7)).len();
    patience("three polls more", 30, &|| readings.of(&folder(7)).len() >= seen + 3).await;
    for n in 0..SYNCS {
        let expected = usize::from(n / (SYNCS / SOURCES) == 7);
        assert_eq!(done(&format!("sync-{n:03}: 1 updated")), expected, "sync-{n:03}");
    }
    assert_eq!(done("sync-"), runs + SYNCS / SOURCES);
    assert_eq!(readings.of(&folder(7)).iter().filter(|r| r.status == 200).count(), 1, "it was fetched once for all of them");

    // Hundreds of further runs leave nothing behind.
    let before = engine.memory();
    for _ in 0..3 {
        let answer = yard.rig.run(&["sync", "--all", "--json"]).await.expect(0);
        assert_eq!(answer["runs"].as_array().map(Vec::len), Some(SYNCS));
    }
    let after = engine.memory();
    until("the last ends", || (done("sync-") >= runs + SYNCS / SOURCES + 3 * SYNCS).then_some(()), String::new).await;
    assert_eq!(done("sync-"), runs + SYNCS / SOURCES + 3 * SYNCS, "what was asked for ran, and nothing else");
    assert!(after < before + 16 * 1024, "{memory} KiB at rest, {before} before and {after} after {} runs", 3 * SYNCS);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn positions_waits_and_rates_are_told_while_runs_queue() {
    use kms_sync::sandbox::host::{Effect, Fault};

    let yard = Yard::apart().await;
    yard.settings(&json!({"maxRuns": 2, "runsPerConnection": 2}));
    let local = Local::new(yard.store());
    for n in 0..6 {
        yard.rig.kms.add_folder(&yard.rig.project, "dev", &folder(n));
        for k in 0..6 {
            yard.rig.kms.set(&yard.rig.project, "dev", &folder(n), &format!("KEY_{k}"), "one");
        }
        let document = yard.document(&format!("sync-{n}"), &*yard.places[n % 2], &folder(n), false, Some(&format!("n{n}_{{{{secretKey}}}}")));
        local.create_sync(SyncInput { document, destination: None }).await.expect("a good sync");
    }
    yard.place().host().faults.add(Fault::always("CreateSecret", 1.0, Effect::Delay(Duration::from_millis(400))));
    let _engine = yard.engine(&[]).await;
    let remote = reach(&yard.dirs()).await.expect("the engine");
    let mut watch = remote.watch().await.expect("a picture");
    let mut run = yard.spawn(&["sync", "--all"]);
    let (mut positions, mut waits, mut rates, mut most, mut told) = (Vec::new(), Vec::new(), 0.0f64, 0, Vec::new());
    let mut finished = 0;
    let all = async {
        while finished < 6 {
            let event = watch.events.recv().await.expect("an event");
            watch.board.apply(&event);
            match &event {
                Event::Queue { position: Some(n), .. } => positions.push(*n),
                Event::Waiting { waiting: Some(w), .. } => waits.push(w.reason.clone()),
                Event::Engine { facts } => {
                    if facts.rates != watch.board.engine.rates || !facts.rates.is_empty() {
                        told.push(Instant::now());
                    }
                    rates = rates.max(facts.rates.get("aws").copied().unwrap_or_default());
                }
                Event::Finished { .. } => finished += 1,
                _ => {}
            }
            most = most.max(watch.board.engine.running);
            let queued = watch.board.cards.values().filter_map(|c| c.run.as_ref()).filter(|r| r.queue_position.is_some());
            assert!(queued.into_iter().all(|r| r.phase == kms_sync::model::board::Phase::Queued), "only what waits has a position");
        }
    };
    tokio::time::timeout(super::yard::PATIENCE, all).await.expect("six runs");
    assert_eq!(run.end().await.code(), Some(0));
    assert_eq!(most, 2, "never more at once than the setting says");
    assert!(positions.contains(&1) && positions.contains(&3), "{positions:?}");
    // Three write to one region, three to one vault: one at a time, and the others say what they wait for.
    assert!(waits.iter().any(|w| w.contains("another run writes to the same destination")), "{waits:?}");
    assert!(rates > 0.5, "{rates}");
    // What is paced shows its budget: the account, and the vault.
    let budgets = &watch.board.engine.budgets;
    assert!(budgets.get("kms").is_some_and(|b| b.contains(" of 6000 left this minute")), "{budgets:?}");
    assert!(budgets.get("azure-key-vault").is_some_and(|b| b.contains(" of 250 writes left in 10 s")), "{budgets:?}");
    // When nothing runs any more, nothing is told any more.
    let quiet = async {
        while !watch.board.engine.rates.is_empty() || watch.board.engine.running > 0 {
            let event = watch.events.recv().await.expect("an event");
            watch.board.apply(&event);
        }
    };
    tokio::time::timeout(Duration::from_secs(5), quiet).await.expect("the rates go");
}
