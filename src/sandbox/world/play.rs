//! The play: somebody edits, adds and removes secrets, now and then a destination throttles
//! or a foreign hand edits it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio_util::sync::{CancellationToken, DropGuard};

use super::values::{Shape, Values};
use super::{ENVIRONMENTS, PROJECT, SERVICES, SHARED, Stall};
use crate::sandbox::host::Fault;
use crate::sandbox::kms::State;

/// Time between two scenes.
pub(super) const TEMPO: (Duration, Duration) = (Duration::from_secs(20), Duration::from_secs(30));
/// How long a destination throttles.
const THROTTLED: Duration = Duration::from_secs(6);
/// From a foreign edit at a destination to the change of the source that lets it be seen.
const UNSEEN: Duration = Duration::from_secs(4);
/// Secrets the play adds at most before it takes one away again.
const MOST_ADDED: usize = 6;

/// Environment and path in the KMS.
type Place = (String, String);

/// The first scenes, as numbers of [`Stage::scene`]: an edit, throttling, an addition, a foreign
/// hand, a removal.
const OPENING: [usize; 5] = [0, 14, 9, 17, 13];

/// Hears a line for people about each scene.
pub type Tell = Arc<dyn Fn(String) + Send + Sync>;

/// A running play; ends when dropped.
pub struct Play {
    paused: Arc<AtomicBool>,
    _end: DropGuard,
}

impl Play {
    pub(super) fn begin(kms: State, stalls: Arc<Vec<Box<dyn Stall>>>, seed: u64, tempo: (Duration, Duration), tell: Tell) -> Self {
        let paused = Arc::new(AtomicBool::new(false));
        let end = CancellationToken::new();
        let stage = Stage { kms, stalls, values: Values::new(seed ^ 0x5eed), added: Vec::new(), tell, played: 0, end: end.clone() };
        tokio::spawn(stage.run(paused.clone(), tempo));
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
    tell: Tell,
    /// Scenes so far.
    played: usize,
    end: CancellationToken,
}

impl Stage {
    async fn run(mut self, paused: Arc<AtomicBool>, tempo: (Duration, Duration)) {
        loop {
            let span = tempo.1.saturating_sub(tempo.0).as_millis() as usize;
            let wait = tempo.0 + Duration::from_millis(self.values.below(span + 1) as u64);
            tokio::select! {
                () = self.end.cancelled() => return,
                () = tokio::time::sleep(wait) => {}
            }
            if !paused.load(Ordering::Relaxed) {
                self.scene().await;
            }
        }
    }

    /// Whoever watches sees each kind of scene within the first few; chance rules later.
    async fn scene(&mut self) {
        let scene = OPENING.get(self.played).copied().unwrap_or_else(|| self.values.below(20));
        self.played += 1;
        match scene {
            0..=8 => {
                let place = self.place();
                self.edit(&place);
            }
            9..=11 if self.added.len() < MOST_ADDED => self.add(),
            9..=13 => self.remove(),
            14..=16 => self.throttle().await,
            _ => self.meddle().await,
        }
    }

    /// What the demo's own sync to a destination reads.
    fn source(stall: &dyn Stall) -> Option<Place> {
        let sync = stall.syncs().into_iter().next()?;
        Some((sync["environment"].as_str()?.to_string(), sync["secretPath"].as_str()?.to_string()))
    }

    /// A place that some sync of the demo reads by itself.
    fn place(&mut self) -> Place {
        let stalls = self.stalls.clone();
        let read = stalls.get(self.values.below(stalls.len().max(1))).and_then(|s| Self::source(&**s));
        let (environment, path) = read.unwrap_or_else(|| {
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
        (self.tell)(format!("{key} was rotated in {environment}:{path}"));
    }

    fn add(&mut self) {
        let (environment, path) = self.place();
        let key = format!("FEATURE_{}", self.values.make(Shape::Hex(6)).to_uppercase());
        self.kms.set(PROJECT, &environment, &path, &key, "true");
        (self.tell)(format!("{key} was added to {environment}:{path}"));
        self.added.push(((environment, path), key));
    }

    fn remove(&mut self) {
        if self.added.is_empty() {
            return self.add();
        }
        let ((environment, path), key) = self.added.swap_remove(self.values.below(self.added.len()));
        self.kms.remove(PROJECT, &environment, &path, &key);
        (self.tell)(format!("{key} was removed from {environment}:{path}"));
    }

    async fn throttle(&mut self) {
        let stalls = self.stalls.clone();
        let Some(stall) = stalls.get(self.values.below(stalls.len())) else { return };
        stall.faults().add(Fault::always("", 0.8, stall.throttling()));
        (self.tell)(format!("{} throttles for {} s", stall.title(), THROTTLED.as_secs()));
        // A change gives the throttled destination something to do.
        if let Some(place) = Self::source(&**stall) {
            self.edit(&place);
        }
        tokio::select! {
            () = self.end.cancelled() => {}
            () = tokio::time::sleep(THROTTLED) => {}
        }
        stall.faults().clear();
    }

    /// A foreign edit is seen by the next run there: a change of the source soon brings one.
    async fn meddle(&mut self) {
        let stalls = self.stalls.clone();
        let Some(stall) = stalls.get(self.values.below(stalls.len())) else { return };
        let mut pick = |end: usize| self.values.below(end);
        if let Some(name) = stall.meddle(&mut pick) {
            (self.tell)(format!("a foreign hand edited {name} in {}", stall.title()));
            tokio::select! {
                () = self.end.cancelled() => return,
                () = tokio::time::sleep(UNSEEN) => {}
            }
            if let Some(place) = Self::source(&**stall) {
                self.edit(&place);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Options, World};
    use super::*;

    #[tokio::test]
    async fn the_play_changes_secrets_and_stops_when_paused() {
        let world = World::start(Options { quiet: true, ..Options::default() }).await.expect("world");
        let (send, mut heard) = tokio::sync::mpsc::unbounded_channel();
        let tell: Tell = Arc::new(move |line| drop(send.send(line)));
        let tempo = (Duration::from_millis(5), Duration::from_millis(10));
        // Without stalls: scenes of the KMS only.
        let play = Play::begin(world.kms.clone(), Arc::new(Vec::new()), 7, tempo, tell);
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
