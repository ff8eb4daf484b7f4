//! The demo's world: the embedded KMS and every embedded destination on loopback ports, filled
//! with believable data, and a play in which secrets change while somebody watches.
//!
//! `demo` starts it and hands its documents to the program as an operator would. Each
//! destination is one [`Stall`], in a module of its own; [`open`] is the only list of them.

mod play;
mod seed;
mod stalls;
mod values;

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::host::{Effect, Faults, Host};
use super::kms;

pub use play::{Play, Stagehand};
pub use seed::{ENVIRONMENTS, PROJECT, SERVICES, SHARED};
use values::{Shape, Values};

/// Name of the KMS account in the demo's documents.
pub const ACCOUNT: &str = "demo-kms";
/// The demo identity's secret: it opens the sandbox and nothing else.
const CLIENT_SECRET: &str = "demo-client-secret-not-real";

/// How the world is made.
#[derive(Debug, Clone)]
pub struct Options {
    /// Nothing happens by itself.
    pub quiet: bool,
    /// Least and most time between two scenes of the play; its waits shrink and grow with it.
    pub tempo: (Duration, Duration),
    /// First of the consecutive loopback ports; free ones are taken when `None`.
    pub first_port: Option<u16>,
    /// Equal seeds make equal values.
    pub seed: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self { quiet: false, tempo: play::TEMPO, first_port: None, seed: 20 }
    }
}

/// One embedded destination.
pub trait Stall: Send + Sync {
    /// Its word in the document of [`World::serve_document`] and in request counts.
    fn service(&self) -> &'static str;
    /// Its name for people.
    fn title(&self) -> &'static str;
    /// The switchboard of its server, for throttling it during the play.
    fn faults(&self) -> &Faults;
    /// The connection that opens it.
    fn connection(&self) -> Value;
    /// Create requests: the first one's first run needs no approval, the others have something
    /// to ask.
    fn syncs(&self) -> Vec<Value>;
    /// Endpoint and credentials, for the vendor's own client.
    fn serve(&self) -> Value;
    /// How it answers when it throttles; where its API says so, it asks to wait this long (whole seconds).
    fn throttling(&self, wait: Duration) -> Effect;
    /// A foreign hand edits one of the secrets that kms-sync wrote (drawn by `pick`); returns
    /// its name, or `None` when there is none yet.
    fn meddle(&self, pick: &mut dyn FnMut(usize) -> usize) -> Option<String>;
}

/// Everything that `demo` runs on. Ends with its last holder.
pub struct World {
    pub kms: kms::State,
    pub kms_host: Host,
    client_id: String,
    stalls: Arc<Vec<Box<dyn Stall>>>,
    options: Options,
    play: Option<Play>,
}

impl World {
    /// Starts and fills all servers.
    pub async fn start(options: Options) -> std::io::Result<Self> {
        let mut ports = Ports(options.first_port);
        let mut values = Values::new(options.seed);
        let kms = kms::State::new();
        seed::fill(&kms, &mut values);
        let client_id = kms.add_identity("demo", CLIENT_SECRET);
        let kms_host = Host::start(kms::router(kms.clone()), ports.next()).await?;
        let stalls = Arc::new(stalls::open(&mut ports, &mut values).await?);
        Ok(Self { kms, kms_host, client_id, stalls, options, play: None })
    }

    /// The embedded destinations.
    pub fn stalls(&self) -> &[Box<dyn Stall>] {
        &self.stalls
    }

    /// Connection documents, the KMS account first.
    pub fn connections(&self) -> Vec<Value> {
        let account = json!({
            "name": ACCOUNT,
            "app": "hanzo-kms",
            "method": "universal-auth",
            "description": "The demo's own KMS",
            "credentials": { "clientId": self.client_id, "clientSecret": CLIENT_SECRET },
            "baseUrl": self.kms_host.url,
        });
        std::iter::once(account).chain(self.stalls.iter().map(|s| s.connection())).collect()
    }

    /// One create request per destination whose first run needs no approval.
    pub fn syncs(&self) -> Vec<Value> {
        self.stalls.iter().filter_map(|s| s.syncs().into_iter().next()).collect()
    }

    /// Further create requests, not enabled, whose first plan has something to ask or to warn of.
    pub fn more_syncs(&self) -> Vec<Value> {
        self.stalls.iter().flat_map(|s| s.syncs().into_iter().skip(1)).collect()
    }

    /// Every endpoint and credential, as one JSON object.
    pub fn serve_document(&self) -> Value {
        let environments: Vec<&str> = ENVIRONMENTS.iter().map(|(slug, _)| *slug).collect();
        let folders: Vec<&str> = SERVICES.iter().copied().chain([SHARED]).collect();
        let mut out = Map::new();
        out.insert(
            "kms".into(),
            json!({
                "baseUrl": self.kms_host.url,
                "clientId": self.client_id,
                "clientSecret": CLIENT_SECRET,
                "projectId": PROJECT,
                "projectSlug": "demo-shop",
                "environments": environments,
                "secretPaths": folders,
            }),
        );
        for stall in self.stalls.iter() {
            out.insert(stall.service().into(), stall.serve());
        }
        Value::Object(out)
    }

    /// Lets the play begin, unless the world is quiet.
    pub fn play(&mut self, hand: Arc<dyn Stagehand>) {
        if !self.options.quiet && self.play.is_none() {
            self.play = Some(Play::begin(self.kms.clone(), self.stalls.clone(), self.options.seed, self.options.tempo, hand));
        }
    }

    /// True when there is no play in this world.
    pub fn quiet(&self) -> bool {
        self.options.quiet
    }

    /// Stops the play for a while, or lets it go on.
    pub fn pause(&self, paused: bool) {
        if let Some(play) = &self.play {
            play.pause(paused);
        }
    }

    /// True while the play runs and is not paused.
    pub fn playing(&self) -> bool {
        self.play.as_ref().is_some_and(|p| !p.paused())
    }
}

/// Hands out ports.
struct Ports(Option<u16>);

impl Ports {
    fn next(&mut self) -> Option<u16> {
        let port = self.0?;
        self.0 = port.checked_add(1);
        Some(port)
    }
}

/// A create request of the demo.
struct Request<'a> {
    name: &'a str,
    description: &'a str,
    connection: &'a str,
    environment: &'a str,
    path: &'a str,
    enabled: bool,
    options: Value,
    destination: &'a str,
    config: Value,
}

impl Request<'_> {
    fn document(self) -> Value {
        let mut options = json!({ "initialSyncBehavior": "overwrite-destination" });
        if let (Some(all), Some(given)) = (options.as_object_mut(), self.options.as_object()) {
            all.extend(given.clone());
        }
        json!({
            "name": self.name,
            "description": self.description,
            "projectId": PROJECT,
            "connectionId": self.connection,
            "sourceConnection": ACCOUNT,
            "environment": self.environment,
            "secretPath": self.path,
            "isEnabled": self.enabled,
            "syncOptions": options,
            "destination": self.destination,
            "destinationConfig": self.config,
        })
    }
}

/// A foreign secret's value.
fn foreign(values: &mut Values) -> String {
    values.make(Shape::Token("theirs_"))
}
