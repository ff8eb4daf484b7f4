//! A face beside an engine of another process: live events, take-over, and the other way round.

use std::sync::Arc;
use std::time::Duration;

use kms_sync::model::board::{Board, Event, Phase};
use kms_sync::model::run::{RunKind, RunRequest, RunStatus, Trigger};
use kms_sync::sandbox::host::{Effect, Fault};
use kms_sync::service::attach::Attach;
use kms_sync::service::{Service, ServiceErrorKind, Watch};
use rustix::process::Signal;
use tokio::sync::broadcast::error::RecvError;

use super::yard::{PATIENCE, Yard, sure};

/// A face that keeps its picture as the screens do.
struct Face {
    service: Arc<Attach>,
    watch: Watch,
}

impl Face {
    async fn open(yard: &Yard) -> Self {
        let service = Attach::open(yard.store(), "a test's face").await.expect("an engine");
        let watch = service.watch().await.expect("a picture");
        Self { service, watch }
    }

    fn board(&self) -> &Board {
        &self.watch.board
    }

    /// Follows events until one of them, or the picture after it, is what is waited for.
    async fn until(&mut self, what: &str, mut wanted: impl FnMut(&Event, &Board) -> bool) {
        let seen = async {
            loop {
                let event = match self.watch.events.recv().await {
                    Ok(event) => event,
                    Err(RecvError::Lagged(_)) => Event::Lagged,
                    Err(RecvError::Closed) => panic!("the events ended while waiting for {what}"),
                };
                if event == Event::Lagged {
                    self.watch = self.service.watch().await.expect("a picture");
                }
                self.watch.board.apply(&event);
                if wanted(&event, &self.watch.board) {
                    return;
                }
            }
        };
        let done = tokio::time::timeout(PATIENCE, seen).await;
        assert!(done.is_ok(), "waited in vain for {what}: {:#?}", self.watch.board);
    }
}

fn request(name: &str) -> RunRequest {
    RunRequest::new(name, RunKind::Sync, Trigger::Manual)
}

fn slow(yard: &Yard, millis: u64) {
    yard.place().host().faults.add(Fault::always("CreateSecret", 1.0, Effect::Delay(Duration::from_millis(millis))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_face_watches_outlives_a_killed_engine_and_takes_over() {
    let yard = Yard::aws().await;
    yard.rig.set("KEY_A", "one");
    yard.create(&yard.document("web", yard.place(), "/app", true, None)).await;
    let mut engine = yard.engine(&[]).await;
    engine.says("web: 1 created").await;
    let mut face = Face::open(&yard).await;
    assert!(face.service.local().is_none());
    assert!(face.board().engine.attached);
    let card = &face.board().cards["web"];
    assert!(card.last.as_ref().is_some_and(|l| l.status == RunStatus::Succeeded), "{card:#?}");

    slow(&yard, 150);
    for i in 0..40 {
        yard.rig.set(&format!("KEY_{i:02}"), "one");
    }
    // The change is found by the other process; this one sees it happen.
    let mut phases = Vec::new();
    face.until("a key of the other process's run", |event, board| {
        if let Event::Phase { phase, .. } = event {
            phases.push(*phase);
        }
        let run = board.cards["web"].run.as_ref();
        matches!(event, Event::Done { sync, .. } if sync == "web") && run.is_some_and(|r| r.total >= 40 && r.done >= 3)
    })
    .await;
    assert!(phases.contains(&Phase::ReadingDestination) && phases.contains(&Phase::Applying), "{phases:?}");
    engine.kill();

    let mut noticed = false;
    face.until("the take-over", |event, _| {
        noticed |= matches!(event, Event::Notice { text, .. } if text.contains("taken over"));
        noticed && *event == Event::Lagged
    })
    .await;
    assert!(face.service.local().is_some());
    assert!(!face.board().engine.attached);
    yard.place().forgive();
    yard.place().host().faults.clear();

    // Nobody asks for it: what the killed run left undone is found and done.
    sure("all keys", || yard.place().values().len() == 41).await;
    let history = async || face.service.history("web", 10).await.expect("a history");
    let begun = std::time::Instant::now();
    while history().await.len() < 3 && begun.elapsed() < PATIENCE {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let statuses: Vec<RunStatus> = history().await.iter().map(|r| r.status).collect();
    assert_eq!(statuses, [RunStatus::Succeeded, RunStatus::Interrupted, RunStatus::Succeeded]);
    // A poll may have begun a run of its own by now.
    let again = loop {
        match face.service.start(request("web")).await {
            Ok(id) => break id,
            Err(busy) if busy.kind == ServiceErrorKind::Busy => tokio::time::sleep(Duration::from_millis(20)).await,
            Err(error) => panic!("a run: {error}"),
        }
    };
    let record = face.service.finished(&again).await.expect("an end");
    assert_eq!((record.status, record.counts.writes()), (RunStatus::Succeeded, 0), "{record:#?}");
    face.service.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_engine_goes_on_when_its_face_leaves() {
    let yard = Yard::aws().await;
    yard.rig.set("KEY", "one");
    yard.create(&yard.document("web", yard.place(), "/app", true, None)).await;
    let mut engine = yard.engine(&[]).await;
    engine.says("web: 1 created").await;
    slow(&yard, 100);
    for i in 0..20 {
        yard.rig.set(&format!("KEY_{i:02}"), "one");
    }
    let mut face = Face::open(&yard).await;
    face.until("a running run", |_, board| board.cards["web"].run.as_ref().is_some_and(|r| r.done > 0)).await;
    face.service.close().await;
    drop(face);
    engine.says("web: 20 created").await;
    assert!(engine.runs());

    // Stopped in good order while a face is attached: the face is the engine at once.
    let mut face = Face::open(&yard).await;
    engine.signal(Signal::TERM);
    face.until("the take-over", |event, _| *event == Event::Lagged).await;
    assert_eq!(engine.end().await.code(), Some(0));
    assert!(face.service.local().is_some());
    yard.rig.set("LATER", "one");
    sure("the change of the new engine's time", || yard.place().values().len() == 22).await;
    // A program that stays is handed the engine, and what was asked for by hand goes on there.
    face.service.set_enabled("web", false).await.expect("a sync");
    yard.place().host().faults.clear();
    let later = Effect::Answer { status: 429, headers: vec![("retry-after".into(), "600".into())], body: "{}".into() };
    yard.place().host().faults.add(Fault::always("", 1.0, later));
    face.service.start(request("web")).await.expect("a run");
    face.until("a wait", |_, board| board.cards["web"].run.as_ref().is_some_and(|r| r.waiting.is_some())).await;
    // It goes on waiting; the next one would not.
    yard.place().host().faults.clear();
    let mut other = yard.spawn(&["run"]);
    face.until("the end of the run here", |event, _| matches!(event, Event::Finished { record, .. } if record.status == RunStatus::Interrupted))
        .await;
    other.says("ready").await;
    face.until("the engine of the other process", |event, _| *event == Event::Lagged).await;
    assert!(face.service.local().is_none() && face.board().engine.attached);
    sure("the run there", || {
        let records = futures::executor::block_on(face.service.history("web", 2)).expect("a history");
        records.iter().map(|r| r.status).eq([RunStatus::Succeeded, RunStatus::Interrupted]) && records[0].trigger == Trigger::Manual
    })
    .await;
    // Which itself does not make room.
    let third = yard.rig.run(&["run"]).await;
    assert!(third.code == 1 && third.stderr.contains(&format!("pid {}", other.id())), "{}", third.stderr);
    assert!(other.runs());
    face.service.close().await;
    assert!(other.runs());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_engine_that_is_handed_over_to_nobody_stays() {
    let yard = Yard::aws().await;
    yard.settings(&serde_json::json!({"pollIntervalSecs": 10, "driftHours": null}));
    yard.rig.set("KEY", "one");
    yard.create(&yard.document("web", yard.place(), "/app", true, None)).await;
    let mut face = Face::open(&yard).await;
    let remote = kms_sync::service::attach::reach(&yard.dirs()).await.expect("the engine");
    remote.hand_over().await.expect("room");
    let mut noticed = false;
    face.until("the engine back", |event, _| {
        noticed |= matches!(event, Event::Notice { text, .. } if text.starts_with("Nobody took the engine over"));
        noticed && *event == Event::Lagged
    })
    .await;
    assert!(face.service.local().is_some() && !face.board().engine.attached);
    yard.rig.set("LATER", "one");
    sure("a change of its time", || yard.place().values().len() == 2).await;
    // The engine of a command that is one for a moment makes no room.
    face.service.close().await;
    drop(face);
    let local = kms_sync::service::local::Local::new(yard.store());
    assert_eq!(local.hand_over().await.unwrap_err().kind, ServiceErrorKind::Busy);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_and_pause_reach_the_engine_that_is_elsewhere() {
    let yard = Yard::aws().await;
    let engine = yard.engine(&[]).await;
    let mut face = Face::open(&yard).await;
    for i in 0..30 {
        yard.rig.set(&format!("KEY_{i:02}"), "one");
    }
    // Created through the face, run and cancelled there.
    let document = yard.document("web", yard.place(), "/app", false, None);
    face.service.create_sync(kms_sync::service::SyncInput { document, destination: None }).await.expect("a sync");
    slow(&yard, 200);
    let id = face.service.start(request("web")).await.expect("a run");
    face.until("writes", |_, board| board.cards.get("web").and_then(|c| c.run.as_ref()).is_some_and(|r| r.done > 0)).await;
    face.service.cancel(&id).await.expect("a cancellation");
    let record = face.service.finished(&id).await.expect("an end");
    assert_eq!(record.status, RunStatus::Cancelled);
    yard.place().host().faults.clear();
    let there = yard.place().values().len() as u64;
    assert_eq!(record.counts.created, there, "{record:#?}");
    assert!(there < 30);

    face.service.pause(true).await.expect("a pause");
    face.until("the pause", |_, board| board.engine.paused).await;
    face.service.set_enabled("web", true).await.expect("a sync");
    face.until("the enabled sync", |_, board| board.cards["web"].enabled && board.cards["web"].next.is_none()).await;
    assert_eq!(yard.store().settings().map(|s| s.paused).ok(), Some(true), "the pause outlives the engine");
    assert_eq!(yard.place().values().len() as u64, there, "nothing runs by itself meanwhile");
    face.service.pause(false).await.expect("a pause");
    engine.says(&format!("web: {} created", 30 - there)).await;
    face.until("the next check", |_, board| board.cards["web"].next.as_ref().is_some_and(|n| n.why == "poll")).await;
}
