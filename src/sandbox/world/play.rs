//! The play: somebody edits, adds and removes secrets, now and then a destination throttles
//! or a foreign hand edits it, which a drift check finds.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio_util::sync::{CancellationToken, DropGuard};

use super::values::{Shape, Values};
use super::{ENVIRONMENTS, PROJECT, SERVICES, SHARED, Stall};
use crate::sandbox::host::{Effect, Fault};
use crate::sandbox::kms::State;

/// Time between two scenes.
pub(super) const TEMPO: (Duration, Duration) = (Duration::from_secs(20), Duration::from_secs(30));
/// Requests that are refused where the answer does not say how long to wait: the pauses between
/// them grow, and together they are long enough to be seen.
const REFUSALS: u32 = 4;
/// Secrets the play adds at most before it takes one away again.
const MOST_ADDED: usize = 6;

/// Environment and path in the KMS.
type Place = (String, String);

/// What happens at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scene {
    /// A secret is rotated at the source: auto-sync carries it.
    Edit,
    Add,
    Remove,
    /// A destination refuses while there is something to carry.
    Throttle,
    /// A foreign hand edits a destination, and a drift check looks.
    Meddle,
}

/// The first scenes: whoever watches sees each kind soon; chance rules later.
const OPENING: [Scene; 5] = [Scene::Edit, Scene::Throttle, Scene::Add, Scene::Meddle, Scene::Remove];

/// Whoever shows the play.
pub trait Stagehand: Send + Sync {
    /// A line for people about what happens.
    fn tell(&self, line: String);
    /// Checks the destination of this sync for drift now: the clock that does it by itself has
    /// hours between two checks.
    fn check(&self, sync: &str);
}

/// A running play; ends when dropped.
pub struct Play {
    paused: Arc<AtomicBool>,
    _end: DropGuard,
}

impl Play {
    pub(super) fn begin(kms: State, stalls: Arc<Vec<Box<dyn Stall>>>, seed: u64, tempo: (Duration, Duration), hand: Arc<dyn Stagehand>) -> Self {
        let paused = Arc::new(AtomicBool::new(false));
        let end = CancellationToken::new();
        let stage = Stage { kms, stalls, values: Values::new(seed ^ 0x5eed), added: Vec::new(), hand, played: 0, tempo, end: end.clone() };
        tokio::spawn(stage.run(paused.clone()));
        Self { paused, _end: end.drop_guard() }
    }

    pub fn pause(&self, paused: bool) {
        self.paused.store(paused, Ordering::Relaxed);
    }

    pub fn paused(&self) -> bool {
        self.paused.load(Ordering::Relaxed)
    }
}

struct Stage {
    kms: State,
    stalls: Arc<Vec<Box<dyn Stall>>>,
    values: Values,
    /// Secrets that the play added: environment, path, key.
    added: Vec<(Place, String)>,
    hand: Arc<dyn Stagehand>,
    /// Scenes so far.
    played: usize,
    tempo: (Duration, Duration),
    end: CancellationToken,
}

impl Stage {
    async fn run(mut self, paused: Arc<AtomicBool>) {
        loop {
            let span = self.tempo.1.saturating_sub(self.tempo.0).as_millis() as usize;
            let wait = self.tempo.0 + Duration::from_millis(self.values.below(span + 1) as u64);
            if !self.rest(wait).await {
                return;
            }
            if !paused.load(Ordering::Relaxed) {
                self.scene().await;
            }
        }
    }

    /// False when the play ends meanwhile.
    async fn rest(&self, wait: Duration) -> bool {
        tokio::select! {
            () = self.end.cancelled() => false,
            () = tokio::time::sleep(wait) => true,
        }
    }

    async fn scene(&mut self) {
        // What no request ran into is over.
        for stall in self.stalls.iter() {
            stall.faults().clear();
        }
        let scene = OPENING.get(self.played).copied().unwrap_or_else(|| self.chance());
        let opening = self.played < OPENING.len();
        self.played += 1;
        match scene {
            Scene::Edit => {
                let place = self.place();
                self.edit(&place);
            }
            Scene::Add => self.add(),
            Scene::Remove => self.remove(),
            Scene::Throttle => self.throttle(opening),
            Scene::Meddle => self.meddle().await,
        }
    }

    fn chance(&mut self) -> Scene {
        match self.values.below(20) {
            0..=8 => Scene::Edit,
            9..=11 if self.added.len() < MOST_ADDED => Scene::Add,
            9..=13 => Scene::Remove,
            14..=16 => Scene::Throttle,
            _ => Scene::Meddle,
        }
    }

    fn tell(&self, line: String) {
        self.hand.tell(line);
    }

    /// What the demo's own sync to a destination is called, and what it reads.
    fn sync(stall: &dyn Stall) -> Option<(String, Place)> {
        let sync = stall.syncs().into_iter().next()?;
        let text = |name: &str| sync[name].as_str().map(str::to_string);
        Some((text("name")?, (text("environment")?, text("secretPath")?)))
    }

    /// A place that some sync of the demo reads by itself.
    fn place(&mut self) -> Place {
        let stalls = self.stalls.clone();
        let read = stalls.get(self.values.below(stalls.len().max(1))).and_then(|s| Self::sync(&**s));
        let (environment, path) = read.map(|(_, place)| place).unwrap_or_else(|| {
            let environment = ENVIRONMENTS[self.values.below(ENVIRONMENTS.len())].0;
            (environment.to_string(), SERVICES[self.values.below(SERVICES.len())].to_string())
        });
        // The shared folder now and then: its change reaches every service through the imports.
        if self.values.below(6) == 0 { (environment, SHARED.to_string()) } else { (environment, path) }
    }

    fn edit(&mut self, (environment, path): &Place) {
        let mut keys = self.kms.keys(PROJECT, environment, path);
        // What looks like a credential is rotated; hosts and flags stay.
        keys.retain(|k| ["PASSWORD", "SECRET", "TOKEN", "API_KEY"].iter().any(|w| k.ends_with(w)));
        if keys.is_empty() {
            return;
        }
        let key = keys.swap_remove(self.values.below(keys.len()));
        let value = self.values.make(Shape::Token("rotated_"));
        self.kms.set(PROJECT, environment, path, &key, &value);
        self.tell(format!("{key} was rotated in {environment}:{path}"));
    }

    fn add(&mut self) {
        let (environment, path) = self.place();
        let key = format!("FEATURE_{}", self.values.make(Shape::Hex(6)).to_uppercase());
        self.kms.set(PROJECT, &environment, &path, &key, "true");
        self.tell(format!("{key} was added to {environment}:{path}"));
        self.added.push(((environment, path), key));
    }

    fn remove(&mut self) {
        if self.added.is_empty() {
            return self.add();
        }
        let ((environment, path), key) = self.added.swap_remove(self.values.below(self.added.len()));
        self.kms.remove(PROJECT, &environment, &path, &key);
        self.tell(format!("{key} was removed from {environment}:{path}"));
    }

    /// The next requests at a destination are refused, and a change gives its sync something to
    /// do. In the opening it is one whose answer says until when: that wait is seen best.
    fn throttle(&mut self, opening: bool) {
        let stalls = self.stalls.clone();
        let wait = self.tempo.0 / 2;
        let told =
            |stall: &dyn Stall| matches!(stall.throttling(wait), Effect::Answer { headers, .. } if headers.iter().any(|(n, _)| n == "retry-after"));
        let stall = if opening { stalls.iter().find(|s| told(&***s)) } else { stalls.get(self.values.below(stalls.len())) };
        let Some((stall, (_, place))) = stall.and_then(|s| Some((s, Self::sync(&**s)?))) else { return };
        let asked = told(&**stall);
        stall.faults().add(Fault::next("", if asked { 1 } else { REFUSALS }, stall.throttling(wait)));
        self.edit(&place);
        let asks = if asked { format!(" and asks to wait {} s", wait.as_secs()) } else { String::new() };
        self.tell(format!("{} throttles{asks}", stall.title()));
    }

    /// The source does not show a foreign edit: only who reads the destination again sees it.
    async fn meddle(&mut self) {
        let stalls = self.stalls.clone();
        let Some(stall) = stalls.get(self.values.below(stalls.len())) else { return };
        let mut pick = |end: usize| self.values.below(end);
        let (Some(name), Some((sync, _))) = (stall.meddle(&mut pick), Self::sync(&**stall)) else { return };
        self.tell(format!("in {} a foreign hand touched {name}", stall.title()));
        if self.rest(self.tempo.0 / 5).await {
            self.tell(format!("drift check of {sync}, ahead of its time"));
            self.hand.check(&sync);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Options, World};
    use super::*;

    struct Ear(tokio::sync::mpsc::UnboundedSender<String>);

    impl Stagehand for Ear {
        fn tell(&self, line: String) {
            drop(self.0.send(line));
        }

        fn check(&self, _sync: &str) {}
    }

    #[tokio::test]
    async fn the_play_changes_secrets_and_stops_when_paused() {
        let world = World::start(Options { quiet: true, ..Options::default() }).await.expect("world");
        let (send, mut heard) = tokio::sync::mpsc::unbounded_channel();
        let tempo = (Duration::from_millis(5), Duration::from_millis(10));
        // Without stalls: scenes of the KMS only.
        let play = Play::begin(world.kms.clone(), Arc::new(Vec::new()), 7, tempo, Arc::new(Ear(send)));
        let mut lines = Vec::new();
        while lines.len() < 20 {
            lines.push(tokio::time::timeout(Duration::from_secs(5), heard.recv()).await.expect("a scene").expect("a line"));
        }
        for word in ["rotated", "added", "removed"] {
            assert!(lines.iter().any(|l| l.contains(word)), "{word}: {lines:?}");
        }
        play.pause(true);
        tokio::time::sleep(Duration::from_millis(30)).await;
        while heard.try_recv().is_ok() {}
        tokio::time::sleep(Duration::from_millis(60)).await;
        assert!(heard.try_recv().is_err(), "paused");
        drop(play);
        assert!(heard.recv().await.is_none(), "the task ends with its handle");
    }
}
