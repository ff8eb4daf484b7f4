//! `demo`: the whole program on an embedded world, with a configuration of its own that goes
//! with it. And the terminal app on the operator's configuration, which starts the same way.

use std::sync::{Arc, Mutex, PoisonError};

use super::output::{note, print_json, table};
use super::{Args, Out, Outcome, access, follow};
use crate::model::json::One;
use crate::model::run::{RunKind, RunRecord, RunStatus, Trigger};
use crate::sandbox::world::{Options, Stagehand, World};
use crate::service::attach::{Attach, Held};
use crate::service::local::Local;
use crate::service::{RunRequest, Service, ServiceError, ServiceErrorKind, SyncInput};
use crate::store::{Dirs, Store};
use crate::tui::{self, DemoControls, TuiOptions};

/// How often the demo asks its KMS: often enough to watch.
const POLL_SECS: u64 = 10;

/// Runs the demo in one of its three forms.
pub async fn run(args: &Args, out: &Out, headless: bool, serve: bool, quiet: bool) -> Outcome {
    let world = World::start(Options { quiet: quiet || headless || serve, ..Options::default() }).await?;
    if serve {
        return serve_only(&world).await;
    }
    let home = tempfile::Builder::new().prefix("kms-sync-demo-").tempdir()?;
    let dirs = Dirs { config: home.path().join("config"), state: home.path().join("state"), runtime: home.path().join("run") };
    let store = Store::open(dirs)?;
    let mut settings = store.settings()?;
    settings.poll_interval_secs = POLL_SECS;
    store.save_settings(&settings)?;
    if headless { self::headless(&world, &store, out).await } else { watch(args, world, store).await }
}

/// Only the servers; one line tells where they are.
async fn serve_only(world: &World) -> Outcome {
    super::output::print_text(&world.serve_document().to_string());
    note("serving on loopback; Ctrl-C ends everything");
    super::signals::until_stopped().await;
    Ok(0)
}

/// Stores the world's connections and syncs; answers the names of the first sync of each destination.
pub async fn furnish(service: &dyn Service, world: &World, more: bool) -> Result<Vec<String>, ServiceError> {
    for document in world.connections() {
        service.save_connection(document, true).await?;
    }
    let mut names = Vec::new();
    for document in world.syncs() {
        names.push(service.create_sync(SyncInput { document, destination: None }).await?.name);
    }
    for document in world.more_syncs().into_iter().filter(|_| more) {
        service.create_sync(SyncInput { document, destination: None }).await?;
    }
    Ok(names)
}

/// One sync per destination, run twice; the second time there is nothing to do.
async fn headless(world: &World, store: &Store, out: &Out) -> Outcome {
    let held = Held::take(store, "kms-sync demo").map_err(|e| ServiceError::new(ServiceErrorKind::Storage, e.to_string()))?;
    let service: Arc<dyn Service> = held.local.clone();
    let names = furnish(&*service, world, false).await?;
    let mut rounds = Vec::new();
    for trigger in [Trigger::Created, Trigger::Manual] {
        let request = |name: &String| RunRequest::new(name.as_str(), RunKind::Sync, trigger);
        rounds.push(follow::runs(service.clone(), names.iter().map(request).collect()).await?.records);
    }
    service.close().await;
    let good = rounds.iter().flatten().all(|r| r.status == RunStatus::Succeeded) && rounds[1].iter().all(|r| r.counts.writes() == 0);
    if out.json {
        print_json(&One("runs", &rounds.concat()));
    } else {
        let mut rows = Vec::new();
        for (round, records) in rounds.iter().enumerate() {
            rows.extend(records.iter().map(|r| row(out, round + 1, r)));
        }
        out.text(&table(&["RUN", "SYNC", "STATUS", "CREATED", "UPDATED", "DELETED", "UNCHANGED", "REQUESTS", "AT THE DESTINATION"], &rows));
    }
    Ok(i32::from(!good))
}

fn row(out: &Out, round: usize, record: &RunRecord) -> Vec<String> {
    let c = &record.counts;
    let calls: Vec<String> = record
        .requests
        .by_call
        .iter()
        .filter(|(service, _)| *service != "kms")
        .flat_map(|(_, calls)| calls.iter().map(|(call, n)| format!("{n} {call}")))
        .collect();
    vec![
        round.to_string(),
        record.sync.clone(),
        out.status(record.status),
        c.created.to_string(),
        c.updated.to_string(),
        c.deleted.to_string(),
        c.unchanged.to_string(),
        record.requests.total.to_string(),
        calls.join(", "),
    ]
}

/// The terminal app on the living world.
async fn watch(args: &Args, mut world: World, store: Store) -> Outcome {
    follow::needs_terminal()?;
    let service = Attach::open(store, "kms-sync demo").await?;
    furnish(&*service, &world, true).await?;
    perform(&mut world, &service);
    let world = Arc::new(Mutex::new(world));
    let options =
        TuiOptions { demo: Some(Arc::new(Stage(world))), ..options(args, &service.local().map(|l| l.engine().settings()).unwrap_or_default()) };
    finish(tui::run(service.clone(), options).await, &*service).await
}

/// Lets the play begin on the engine in this process, with its lines among the engine's own.
pub fn perform(world: &mut World, service: &Attach) {
    if let Some(local) = service.local() {
        world.play(Arc::new(Hand(local)));
    }
}

struct Hand(Arc<Local>);

impl Stagehand for Hand {
    fn tell(&self, line: String) {
        self.0.engine().hub().notice("info", format!("demo: {line}"), None);
    }

    fn check(&self, sync: &str) {
        let (local, sync) = (self.0.clone(), sync.to_string());
        tokio::spawn(async move {
            // As the clock would: paused and switched off syncs are left alone.
            let on = !local.engine().settings().paused && local.sync(&sync).await.is_ok_and(|s| s.is_enabled);
            let request = RunRequest { verify: true, ..RunRequest::new(sync.as_str(), RunKind::Sync, Trigger::Drift) };
            if on && let Err(error) = local.start(request).await {
                local.engine().hub().notice("warn", format!("demo: no drift check: {}", error.message), Some(&sync));
            }
        });
    }
}

/// Lets the screens pause the play.
struct Stage(Arc<Mutex<World>>);

impl DemoControls for Stage {
    fn pause(&self, paused: bool) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pause(paused);
    }

    fn quiet(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).quiet()
    }

    fn describe(&self) -> String {
        let what = "An embedded KMS and five embedded destinations: everything here is made up, and gone when you quit.";
        let play = if self.quiet() { "Nothing changes unless you change it." } else { "Every 20 to 30 s somebody changes a secret." };
        format!("{what} {play}")
    }
}

/// Opens the terminal app on the operator's own configuration.
pub async fn terminal(args: &Args) -> Outcome {
    follow::needs_terminal()?;
    let store = access::opened(args)?;
    let settings = store.settings()?;
    let _log = super::log::to_file(&store.dirs().state);
    let service = Attach::open(store, "the terminal app").await?;
    finish(tui::run(service.clone(), options(args, &settings)).await, &*service).await
}

fn options(args: &Args, settings: &crate::store::Settings) -> TuiOptions {
    let base = TuiOptions::default();
    TuiOptions {
        no_color: args.no_color(),
        ascii: base.ascii || settings.ascii,
        mouse: settings.mouse,
        bell: settings.bell,
        notify: settings.osc9,
        ..base
    }
}

/// An end that takes longer than this is explained.
const SOON: std::time::Duration = std::time::Duration::from_secs(1);

async fn finish(result: anyhow::Result<()>, service: &dyn Service) -> Outcome {
    let closing = service.close();
    tokio::pin!(closing);
    if tokio::time::timeout(SOON, &mut closing).await.is_err() {
        note("Runs under way have 10 s to finish, then they stop where they are and go on next time. Ctrl-C: leave at once.");
        tokio::select! {
            () = closing => {}
            _ = tokio::signal::ctrl_c() => {
                note("Left at once: the next start records these runs as interrupted and goes on from what they recorded.");
                return Ok(130);
            }
        }
    }
    match result {
        Ok(()) => Ok(0),
        Err(error) => {
            note(&format!("error: {}", crate::model::text::sanitise(&format!("{error:#}"))));
            Ok(1)
        }
    }
}
