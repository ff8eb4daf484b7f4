//! Runs that wait keep nobody else back, and everybody can see what they wait for.

use std::time::{Duration, Instant};

use kms_sync::model::board::Board;
use kms_sync::model::run::{RunKind, RunRecord, RunRequest, Trigger};
use kms_sync::sandbox::host::{Effect, Fault};
use kms_sync::service::Service;
use kms_sync::service::attach::reach;
use rustix::process::Signal;
use serde_json::{Value, json};

use super::yard::{PATIENCE, Process, Yard, until};

const VAULT: usize = 1;
const DEVOPS: usize = 2;

/// Both ask for ten minutes of patience, whatever is asked of them.
pub(super) fn ask_for_patience(yard: &Yard) {
    let headers = || vec![("retry-after".to_string(), "600".to_string()), ("content-type".to_string(), "application/json".to_string())];
    for place in [VAULT, DEVOPS] {
        let refusal =
            Effect::Answer { status: 429, headers: headers(), body: json!({"message": "busy", "error": {"code": "Throttled"}}).to_string() };
        yard.places[place].host().faults.add(Fault::always("", 1.0, refusal));
    }
}

pub(super) fn forgive(yard: &Yard) {
    yard.places.iter().for_each(|p| p.host().faults.clear());
}

pub(super) async fn store(yard: &Yard, name: &str, place: usize, enabled: bool) {
    let schema = format!("{}_{{{{secretKey}}}}", name.to_uppercase());
    yard.create(&yard.document(name, &*yard.places[place], "/app", enabled, Some(&schema))).await;
}

/// Asks the engine for a run, and does not stay.
pub(super) async fn ask(yard: &Yard, name: &str) -> String {
    let remote = reach(&yard.dirs()).await.expect("the engine");
    remote.start(RunRequest::new(name, RunKind::Sync, Trigger::Manual)).await.expect("a run")
}

pub(super) async fn board(yard: &Yard) -> Board {
    reach(&yard.dirs()).await.expect("the engine").watch().await.expect("a picture").board
}

/// What `show --json` tells of a sync's wait, once it tells something that holds this.
pub(super) async fn waiting(yard: &Yard, name: &str, what: &str) -> Value {
    let begun = Instant::now();
    loop {
        let shown = yard.rig.run(&["show", name, "--json"]).await.expect(0)["secretSync"]["waiting"].clone();
        if shown["reason"].as_str().is_some_and(|r| r.contains(what)) {
            return shown;
        }
        assert!(begun.elapsed() < PATIENCE, "{name} never waits for {what:?}: {shown:#}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn lines(engine: &Process, what: &str) -> usize {
    engine.lines().iter().filter(|l| l.contains(what)).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn runs_that_wait_give_their_seats_up_and_are_told() {
    let yard = Yard::apart().await;
    yard.settings(&json!({"maxRuns": 2}));
    yard.rig.set("KEY", "one");
    for (name, place) in [("vault", VAULT), ("again", VAULT), ("devops", DEVOPS), ("web", 0)] {
        store(&yard, name, place, false).await;
    }
    ask_for_patience(&yard);
    let mut engine = yard.engine(&[]).await;
    ask(&yard, "vault").await;
    ask(&yard, "devops").await;
    let wait = waiting(&yard, "vault", "azure-key-vault").await;
    let until: jiff::Timestamp = wait["nextAt"].as_str().expect("an end").parse().expect("a time");
    let ahead = until.as_second() - jiff::Timestamp::now().as_second();
    assert!((500..=600).contains(&ahead), "{wait:#}");
    assert!(wait["since"].is_string());
    waiting(&yard, "devops", "azure-devops").await;
    // Both seats are free again, for somebody else and for the vault's second sync, which has no
    // use for one.
    ask(&yard, "again").await;
    let good = yard.rig.run(&["sync", "web", "--json"]).await.expect(0);
    assert_eq!(good["runs"][0]["counts"]["created"], 1, "{good:#}");
    let held = waiting(&yard, "again", "queued").await;
    assert_eq!(held["reason"], "queued: another run writes to the same destination (vault)", "{held:#}");
    let text = yard.rig.run(&["show", "vault"]).await;
    assert!(text.stdout.lines().any(|l| l.starts_with("Waiting") && l.contains("azure-key-vault") && l.contains("until")), "{}", text.stdout);
    let listed = yard.rig.run(&["list", "--json"]).await.expect(0);
    let of = |name: &str| listed["secretSyncs"].as_array().into_iter().flatten().find(|s| s["name"] == name).expect("a sync")["waiting"].clone();
    assert!(of("vault")["reason"].is_string() && of("again")["reason"].is_string() && of("web").is_null(), "{listed:#}");
    let board = board(&yard).await;
    assert_eq!((board.engine.running, board.engine.standing, board.engine.queued), (0, 2, 1), "{:?}", board.engine);
    let run = board.cards["again"].run.as_ref().expect("a run");
    assert_eq!(
        (run.queue_position, run.waiting.as_ref().map(|w| w.reason.as_str())),
        (Some(1), Some("another run writes to the same destination (vault)"))
    );
    // Each is in the log, once.
    for name in ["vault waits: ", "devops waits: ", "again waits: queued: another run"] {
        engine.says(name).await;
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    for name in ["vault waits", "devops waits", "again waits"] {
        assert_eq!(lines(&engine, name), 1, "{:#?}", engine.lines());
    }

    // An end keeps nobody: what only waits is parked at once, and recorded as it was.
    let begun = Instant::now();
    engine.signal(Signal::TERM);
    assert_eq!(engine.end().await.code(), Some(0));
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}: {:#?}", begun.elapsed(), engine.lines());
    assert!(!engine.lines().iter().any(|l| l.contains("ERROR")), "{:#?}", engine.lines());
    for (name, told) in [("vault", "while this run waited"), ("devops", "while this run waited"), ("again", "before this run's turn came")] {
        let history = yard.rig.run(&["history", name, "--json"]).await.expect(0);
        let run = &history["runs"][0];
        assert_eq!(run["status"], "interrupted", "{history:#}");
        assert!(run["message"].as_str().is_some_and(|m| m.contains(told) && m.contains("the next engine goes on")), "{run:#}");
        let time = |m: &str| run[m].as_str().expect("a time").parse::<jiff::Timestamp>().expect("a time").as_millisecond();
        assert!(time("finishedAt") - time("startedAt") > 1000, "{run:#}");
        let shown = yard.rig.run(&["show", name, "--json"]).await.expect(0);
        assert_eq!((&shown["secretSync"]["waiting"], &shown["secretSync"]["syncStatus"]), (&Value::Null, &json!("failed")), "{shown:#}");
    }

    // What somebody asked for goes on with the next engine that stays, and not with a command.
    forgive(&yard);
    yard.rig.run(&["sync", "web", "--json"]).await.expect(0);
    assert!(yard.places[VAULT].values().is_empty());
    let engine = yard.engine(&[]).await;
    for name in ["vault", "again", "devops"] {
        engine.says(&format!("{name} was parked when the engine was stopped; going on with it")).await;
        engine.says(&format!("{name}: 1 created")).await;
    }
    assert_eq!(yard.places[VAULT].values().len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_busy_destination_holds_back_only_those_who_write_there() {
    let yard = Yard::apart().await;
    yard.settings(&json!({"maxRuns": 2}));
    for i in 0..12 {
        yard.rig.set(&format!("KEY_{i:02}"), "one");
    }
    for (name, place) in [("first", 0), ("second", 0), ("third", 0), ("other", VAULT)] {
        store(&yard, name, place, false).await;
    }
    // The same place by another spelling.
    let mut spelled = yard.document("spelled", yard.place(), "/app", false, Some("SPELLED_{{secretKey}}"));
    spelled["destinationConfig"]["secretName"] = "".into();
    yard.create(&spelled).await;
    yard.place().host().faults.add(Fault::always("CreateSecret", 1.0, Effect::Delay(Duration::from_millis(900))));
    let engine = yard.engine(&[]).await;
    let ids =
        [ask(&yard, "first").await, ask(&yard, "second").await, ask(&yard, "spelled").await, ask(&yard, "third").await, ask(&yard, "other").await];
    engine.says("other: 12 created").await;
    // The four of one place go one after the other, in the order in which they were asked for.
    let remote = reach(&yard.dirs()).await.expect("the engine");
    let mut ends: Vec<RunRecord> = Vec::new();
    for id in &ids {
        ends.push(remote.finished(id).await.expect("a record"));
    }
    for pair in ends[..4].windows(2) {
        assert!(pair[0].finished_at <= Some(pair[1].started_at) || pair[1].sync == "spelled", "{pair:#?}");
    }
    assert!(Some(ends[4].started_at) < ends[0].finished_at && ends[4].finished_at < ends[3].finished_at, "{ends:#?}");
    assert_eq!(yard.place().values().len(), 48);
    until("no wait", || futures::executor::block_on(board(&yard)).cards.values().all(|c| c.run.is_none()).then_some(()), String::new).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_asked_for_goes_before_what_was_not() {
    let yard = Yard::apart().await;
    yard.settings(&json!({"maxRuns": 1, "driftHours": null}));
    for i in 0..4 {
        yard.rig.set(&format!("KEY_{i}"), "one");
    }
    store(&yard, "slow", 0, false).await;
    store(&yard, "auto", VAULT, true).await;
    store(&yard, "asked", DEVOPS, false).await;
    yard.place().host().faults.add(Fault::next("CreateSecret", 1, Effect::Delay(Duration::from_secs(5))));
    let engine = yard.spawn(&["run"]);
    engine.says("ready").await;
    let slow = ask(&yard, "slow").await;
    // The seat is taken by now, or auto-sync was faster: then there is nothing to see here.
    until("the automatic run", || futures::executor::block_on(board(&yard)).cards["auto"].run.clone(), || engine.lines().join("\n")).await;
    let asked = ask(&yard, "asked").await;
    let queued = board(&yard).await;
    let position = |name: &str| queued.cards[name].run.as_ref().and_then(|r| r.queue_position);
    if position("auto").is_some() {
        assert_eq!((position("asked"), position("auto")), (Some(1), Some(2)));
        waiting(&yard, "auto", "queued: behind 1 run").await;
    }
    let remote = reach(&yard.dirs()).await.expect("the engine");
    for id in [&slow, &asked] {
        remote.finished(id).await.expect("a record");
    }
    engine.says("auto: 4 created").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_run_that_only_waited_lasted_as_long_as_it_did() {
    let yard = Yard::apart().await;
    yard.rig.set("KEY", "one");
    store(&yard, "vault", VAULT, false).await;
    store(&yard, "again", VAULT, false).await;
    ask_for_patience(&yard);
    let mut engine = yard.engine(&[]).await;
    ask(&yard, "vault").await;
    ask(&yard, "again").await;
    waiting(&yard, "vault", "azure-key-vault").await;
    waiting(&yard, "again", "queued").await;
    engine.kill();
    let history = yard.rig.run(&["history", "vault", "--json"]).await.expect(0);
    let run = &history["runs"][0];
    let time = |m: &str| run[m].as_str().expect("a time").parse::<jiff::Timestamp>().expect("a time").as_millisecond();
    assert_eq!(run["status"], "interrupted", "{history:#}");
    assert!(time("finishedAt") - time("startedAt") > 500, "{run:#}");
    assert_eq!(yard.rig.run(&["show", "vault", "--json"]).await.expect(0)["secretSync"]["waiting"], Value::Null);
    // What was only queued leaves no sync pending for ever.
    let next = yard.engine(&[]).await;
    next.says("a run of again was queued when the engine died").await;
    let shown = yard.rig.run(&["show", "again", "--json"]).await.expect(0);
    assert_eq!(shown["secretSync"]["syncStatus"], "failed", "{shown:#}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_goes_on_with_the_next_engine_and_says_so_once() {
    let yard = Yard::apart().await;
    yard.rig.set("KEY", "one");
    store(&yard, "vault", VAULT, false).await;
    store(&yard, "web", 0, false).await;
    ask_for_patience(&yard);
    yard.place().host().faults.add(Fault::next("CreateSecret", 1, Effect::Delay(Duration::from_secs(4))));
    let mut engine = yard.engine(&[]).await;
    let mut parked = yard.spawn(&["sync", "vault", "--json"]);
    waiting(&yard, "vault", "azure-key-vault").await;
    ask(&yard, "web").await;
    until("a write", || (yard.place().host().log.count("CreateSecret") > 0).then_some(()), String::new).await;
    // The one ends when its write has ended; until then it takes nothing on.
    yard.places[VAULT].host().faults.clear();
    engine.signal(Signal::TERM);
    engine.says("stopping").await;
    let mut late = yard.spawn(&["sync", "web"]);
    assert_eq!(engine.end().await.code(), Some(0));
    for command in [&mut parked, &mut late] {
        assert_eq!(command.end().await.code(), Some(0), "{:#?}", command.lines());
    }
    let said = |p: &Process| lines(p, "going on with the next");
    assert!(said(&parked) == 1 && said(&late) <= 1, "{:#?} {:#?}", parked.lines(), late.lines());
    assert_eq!(yard.places[VAULT].values().len(), 1);
    // It was done: no engine does it once more.
    let next = yard.engine(&[]).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(lines(&next, "was parked"), 0, "{:#?}", next.lines());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_could_surprise_is_not_begun_again_by_itself() {
    let yard = Yard::apart().await;
    yard.rig.set("KEY", "one");
    for name in ["removed", "edited"] {
        store(&yard, name, VAULT, false).await;
    }
    store(&yard, "auto", DEVOPS, true).await;
    yard.rig.run(&["sync", "removed", "edited", "--json"]).await.expect(0);
    ask_for_patience(&yard);
    let mut engine = yard.engine(&[]).await;
    let remote = reach(&yard.dirs()).await.expect("the engine");
    remote.start(RunRequest::new("removed", RunKind::Remove, Trigger::Manual)).await.expect("a run");
    waiting(&yard, "removed", "azure-key-vault").await;
    waiting(&yard, "auto", "azure-devops").await;
    ask(&yard, "edited").await;
    engine.signal(Signal::TERM);
    assert_eq!(engine.end().await.code(), Some(0));
    let history = yard.rig.run(&["history", "removed", "--json"]).await.expect(0);
    assert!(history["runs"][0]["message"].as_str().is_some_and(|m| m.contains("start the removal again")), "{history:#}");
    forgive(&yard);
    yard.rig.run_with(&["update", "edited", "-f", "-"], &json!({"description": "another one"})).await.expect(0);
    let engine = yard.engine(&[]).await;
    engine.says("edited was parked when the engine was stopped, and is not begun again by itself: the sync was edited since").await;
    // What auto-sync had begun, it finds again.
    let auto = yard.rig.run(&["history", "auto", "--json"]).await.expect(0);
    assert!(auto["runs"][0]["message"].as_str().is_some_and(|m| m.contains("auto-sync goes on from there")), "{auto:#}");
    engine.says("auto: 1 created").await;
    assert_eq!(lines(&engine, "removed"), 0, "{:#?}", engine.lines());
    assert_eq!(yard.places[VAULT].values().len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pause_holds_what_is_queued_and_asking_for_it_lets_it_go() {
    let yard = Yard::apart().await;
    yard.settings(&json!({"maxRuns": 1, "driftHours": null}));
    yard.rig.set("KEY", "one");
    store(&yard, "slow", 0, false).await;
    yard.place().host().faults.add(Fault::next("CreateSecret", 1, Effect::Delay(Duration::from_secs(6))));
    let engine = yard.engine(&[]).await;
    let remote = reach(&yard.dirs()).await.expect("the engine");
    let slow = ask(&yard, "slow").await;
    until("the slow write", || (yard.place().host().log.count("CreateSecret") > 0).then_some(()), String::new).await;
    store(&yard, "auto", VAULT, true).await;
    store(&yard, "other", DEVOPS, true).await;
    let queued = |name: &'static str| {
        let run = || futures::executor::block_on(board(&yard)).cards.get(name)?.run.clone().filter(|r| r.queue_position.is_some());
        until("a queued run", run, || engine.lines().join("\n"))
    };
    queued("auto").await;
    queued("other").await;
    remote.pause(true).await.expect("a pause");
    remote.finished(&slow).await.expect("a record");
    let held = waiting(&yard, "auto", "paused").await;
    assert_eq!(held["reason"], "queued: auto-sync is paused", "{held:#}");
    // By hand it goes, and is the same run; the other one stays where it is.
    let good = yard.rig.run(&["sync", "auto", "--json"]).await.expect(0);
    assert_eq!((&good["runs"][0]["trigger"], &good["runs"][0]["status"]), (&json!("manual"), &json!("succeeded")), "{good:#}");
    assert_eq!(lines(&engine, "auto: "), 1, "{:#?}", engine.lines());
    assert_eq!(lines(&engine, "other: "), 0, "{:#?}", engine.lines());
    remote.pause(false).await.expect("an end of the pause");
    engine.says("other: 1 created").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_that_asks_for_patience_is_told() {
    let yard = Yard::aws().await;
    yard.settings(&json!({"pollIntervalSecs": 10, "driftHours": null}));
    yard.rig.set("KEY", "one");
    store(&yard, "web", 0, true).await;
    let engine = yard.engine(&[]).await;
    engine.says("web: 1 created").await;
    let headers = vec![("retry-after".to_string(), "300".to_string()), ("content-type".to_string(), "application/json".to_string())];
    let body = json!({"statusCode": 429, "message": "Rate limit exceeded"}).to_string();
    yard.rig.kms_host.faults.add(Fault::always("GET /api/v4/secrets", 1.0, Effect::Answer { status: 429, headers, body }));
    let wait = waiting(&yard, "web", "dev:/app is looked at later").await;
    assert!(wait["nextAt"].is_string() && wait["since"].is_string(), "{wait:#}");
    engine.says("the look at dev:/app waits").await;
}

/// The spellings of one place, each in a sync of its own: the runs go one after the other.
async fn one_place(yard: &Yard, place: usize, spellings: &[Value], creation: &str) {
    for i in 0..6 {
        yard.rig.set(&format!("KEY_{i}"), "one");
    }
    for (n, target) in spellings.iter().enumerate() {
        let mut document = yard.document(&format!("s{n}"), &*yard.places[place], "/app", false, Some(&format!("S{n}_{{{{secretKey}}}}")));
        document["destinationConfig"] = target.clone();
        yard.create(&document).await;
    }
    yard.places[place].host().faults.add(Fault::always(creation, 1.0, Effect::Delay(Duration::from_millis(250))));
    let _engine = yard.engine(&[]).await;
    let remote = reach(&yard.dirs()).await.expect("the engine");
    let mut watch = remote.watch().await.expect("a picture");
    let mut ids = Vec::new();
    for n in 0..spellings.len() {
        ids.push(ask(yard, &format!("s{n}")).await);
    }
    let writing = |board: &Board| board.cards.values().filter(|c| c.run.as_ref().is_some_and(|r| !r.active.is_empty())).count();
    let (mut most, mut finished) = (0, 0);
    let all = async {
        while finished < ids.len() {
            let event = watch.events.recv().await.expect("an event");
            watch.board.apply(&event);
            most = most.max(writing(&watch.board));
            finished += usize::from(matches!(event, kms_sync::model::board::Event::Finished { .. }));
        }
    };
    tokio::time::timeout(PATIENCE, all).await.expect("all runs");
    assert_eq!(most, 1, "two runs wrote to one place at once");
    assert_eq!(yard.places[place].values().len(), 6 * spellings.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repository_by_two_names_is_written_by_one_run_at_a_time() {
    let yard = Yard::bitbucket().await;
    let (connection, url) = (yard.place().connection(), yard.place().host().url.clone());
    let login = (connection["credentials"]["email"].as_str(), connection["credentials"]["apiToken"].as_str());
    let asked = reqwest::Client::new().get(format!("{url}/2.0/repositories/acme/shop")).basic_auth(login.0.expect("an account"), login.1);
    let uuid = asked.send().await.expect("an answer").json::<Value>().await.expect("JSON")["uuid"].clone();
    assert!(uuid.is_string());
    let spelled = |workspace: &str, repository: &Value| json!({"workspaceSlug": workspace, "repositorySlug": repository});
    let spellings = [spelled("acme", &json!("shop")), spelled("ACME", &uuid), spelled("acme", &json!("https://bitbucket.org/acme/Shop"))];
    one_place(&yard, 0, &spellings, "POST ").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_project_by_two_names_is_written_by_one_run_at_a_time() {
    let yard = Yard::apart().await;
    let target = yard.places[DEVOPS].config();
    let mut named = target.clone();
    named["devopsProjectId"] = target["devopsProjectId"].as_str().expect("an id").to_uppercase().into();
    one_place(&yard, DEVOPS, &[target, named], "PUT ").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn seats_are_handed_round_and_never_more_than_there_are() {
    use kms_sync::model::board::Event;
    use kms_sync::model::run::RunStatus;

    let yard = Yard::apart().await;
    yard.settings(&json!({"maxRuns": 1}));
    for i in 0..8 {
        yard.rig.set(&format!("KEY_{i}"), "one");
    }
    let syncs = [("vault", VAULT), ("devops", DEVOPS), ("web", 0), ("again", VAULT), ("late", DEVOPS)];
    for (name, place) in syncs {
        store(&yard, name, place, false).await;
    }
    // Each of them stands in waits of two seconds, again and again.
    for place in [VAULT, DEVOPS] {
        let headers = vec![("retry-after".to_string(), "2".to_string()), ("content-type".to_string(), "application/json".to_string())];
        let body = json!({"message": "busy", "error": {"code": "Throttled"}}).to_string();
        for skip in [0, 2, 4] {
            let refusal = Effect::Answer { status: 429, headers: headers.clone(), body: body.clone() };
            yard.places[place].host().faults.add(Fault::next("", 1, refusal).after(skip));
        }
    }
    let _engine = yard.engine(&[]).await;
    let remote = reach(&yard.dirs()).await.expect("the engine");
    let mut watch = remote.watch().await.expect("a picture");
    for (name, _) in syncs {
        ask(&yard, name).await;
    }
    let (mut most, mut stood, mut ended) = (0, 0, Vec::new());
    let all = async {
        while ended.len() < syncs.len() {
            match watch.events.recv().await.expect("an event") {
                Event::Engine { facts } => (most, stood) = (most.max(facts.running), stood.max(facts.standing)),
                Event::Finished { record, .. } => ended.push(record),
                _ => {}
            }
        }
    };
    tokio::time::timeout(PATIENCE, all).await.expect("all runs");
    assert!(ended.iter().all(|r| r.status == RunStatus::Succeeded && r.counts.created == 8), "{ended:#?}");
    assert_eq!(most, 1, "never more at once than the setting says");
    assert!(stood >= 1, "somebody stood aside");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_does_not_stay_for_others_who_only_wait() {
    let yard = Yard::apart().await;
    for i in 0..4 {
        yard.rig.set(&format!("KEY_{i}"), "one");
    }
    store(&yard, "web", 0, false).await;
    store(&yard, "vault", VAULT, false).await;
    ask_for_patience(&yard);
    yard.place().host().faults.add(Fault::next("CreateSecret", 1, Effect::Delay(Duration::from_secs(4))));
    let mut first = yard.spawn(&["sync", "web"]);
    until("a write", || (yard.place().host().log.count("CreateSecret") > 0).then_some(()), String::new).await;
    let mut second = yard.spawn(&["sync", "vault"]);
    waiting(&yard, "vault", "azure-key-vault").await;
    let begun = Instant::now();
    assert_eq!(first.end().await.code(), Some(0), "{:#?}", first.lines());
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    // The other one goes on by itself, and waits there.
    second.says("going on with the next").await;
    waiting(&yard, "vault", "azure-key-vault").await;
    assert!(second.runs(), "{:#?}", second.lines());
    second.signal(Signal::TERM);
    assert_eq!(second.end().await.code(), Some(130), "{:#?}", second.lines());
}
