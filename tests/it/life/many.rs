//! Many syncs over few sources: what standing still costs, who hears of a change, and what
//! stays in memory.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use kms_sync::service::attach::reach;
use kms_sync::service::local::Local;
use kms_sync::service::{Service, SyncInput};
use serde_json::json;

use super::yard::{Yard, sure};

const SOURCES: usize = 20;
const SYNCS: usize = 200;
/// Seconds between two polls: the shortest that the settings allow.
const INTERVAL: f64 = 10.0;
/// Polls come a tenth of the interval early or late.
const JITTER: f64 = 1.1;

fn folder(source: usize) -> String {
    format!("/s{source:02}")
}

/// Polls of each source since the log was cleared.
fn polls(yard: &Yard) -> BTreeMap<usize, usize> {
    let lines = yard.rig.kms_host.log.lines();
    let of = |s: usize| {
        let (plain, encoded) = (format!("secretPath={}&", folder(s)), format!("secretPath={}&", folder(s).replace('/', "%2F")));
        lines
            .iter()
            .map(|l| format!("{l}&"))
            .filter(|l| l.starts_with("GET /api/v4/secrets?") && (l.contains(&plain) || l.contains(&encoded)))
            .count()
    };
    (0..SOURCES).map(|s| (s, of(s))).collect()
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_syncs_stand_still_for_one_request_per_source() {
    let yard = Yard::new().await;
    yard.settings(&json!({"pollIntervalSecs": INTERVAL as u64, "driftHours": null, "maxRuns": 16, "runsPerConnection": 8}));
    furnish(&yard).await;
    let engine = yard.engine(&[]).await;
    // What waits for its turn says so, too, once.
    let done = |what: &str| engine.lines().iter().filter(|l| l.contains(what) && !l.contains(" waits: ")).count();
    let begun = Instant::now();
    while done(": 1 created") < SYNCS {
        assert!(begun.elapsed() < Duration::from_secs(60), "{} of {SYNCS} after a minute: {:#?}", done(": 1 created"), engine.lines().last());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(yard.places.iter().map(|p| p.values().len()).sum::<usize>(), SYNCS);
    let remote = reach(&yard.dirs()).await.expect("the engine");
    let board = remote.watch().await.expect("a picture").board;
    assert_eq!(board.cards.len(), SYNCS);
    assert!(board.cards.values().all(|c| c.run.is_none() && c.next.as_ref().is_some_and(|n| n.why == "poll")), "{board:#?}");

    // Standing still.
    let clear = || {
        yard.rig.kms_host.log.clear();
        yard.places.iter().for_each(|p| p.host().log.clear());
    };
    clear();
    let (cpu, memory, begun) = (engine.cpu(), engine.memory(), Instant::now());
    let begun_with = done("sync-");
    sure("a poll of every source", || polls(&yard).values().all(|n| *n >= 1)).await;
    let (took, used) = (begun.elapsed().as_secs_f64(), engine.cpu() - cpu);
    assert!(took < INTERVAL * JITTER + 1.0, "{took}");
    // A source polled at the window's beginning may be due once more at its end.
    assert!(polls(&yard).values().all(|n| *n <= 2), "{:?}", polls(&yard));
    let requests = polls(&yard).values().sum::<usize>();
    let all: Vec<String> = yard.rig.kms_host.log.lines();
    assert_eq!(all.iter().filter(|l| l.contains("secrets")).count(), requests, "{all:#?}");
    for place in &yard.places {
        assert_eq!(place.host().log.lines(), Vec::<String>::new(), "{}", place.kind());
    }
    assert_eq!(done("sync-"), begun_with, "nothing ran");
    assert!(used.as_secs_f64() < took * 0.05, "{used:?} of CPU in {took} s of idleness");

    // One change: the ten that read it, once each.
    clear();
    yard.rig.kms.set(&yard.rig.project, "dev", &folder(7), "KEY", "two");
    sure("ten runs", || done(": 1 updated") == SYNCS / SOURCES).await;
    assert_eq!(done("sync-"), begun_with + SYNCS / SOURCES);

    // Hundreds of further runs leave nothing behind.
    let before = engine.memory();
    for _ in 0..3 {
        let answer = yard.rig.run(&["sync", "--all", "--json"]).await.expect(0);
        assert_eq!(answer["runs"].as_array().map(Vec::len), Some(SYNCS));
    }
    let after = engine.memory();
    sure("two more polls of every source", || polls(&yard).values().all(|n| *n >= 2)).await;
    for n in 0..SYNCS {
        let expected = usize::from(n / (SYNCS / SOURCES) == 7);
        assert_eq!(done(&format!("sync-{n:03}: 1 updated")), expected, "sync-{n:03}");
    }
    assert_eq!(done("sync-"), begun_with + SYNCS / SOURCES + 3 * SYNCS, "what was asked for ran, and nothing else");
    assert!(after < before + 16 * 1024, "{memory} KiB at rest, {before} before and {after} after {} runs", 3 * SYNCS);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn positions_waits_and_rates_are_told_while_runs_queue() {
    use kms_sync::model::board::Event;
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
