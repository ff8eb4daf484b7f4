//! A KMS, a destination, and the engine between them, with directories of its own.

use std::collections::BTreeMap;
use std::sync::Arc;

use kms_sync::model::plan::PlanDoc;
use kms_sync::model::run::{Outcome, RunKind, RunRecord, RunStatus, Trigger};
use kms_sync::sandbox::host::Host;
use kms_sync::sandbox::kms;
use kms_sync::service::attach::Held;
use kms_sync::service::local::Local;
use kms_sync::service::{Approval, PlanTarget, RunRequest, Service, SyncInput};
use kms_sync::store::{Dirs, Store};
use serde_json::{Value, json};

use super::place::{Nature, Place};

pub const ENVIRONMENT: &str = "dev";
pub const ENVIRONMENT_NAME: &str = "Development";
pub const FOLDER: &str = "/app";
/// The sync most cases are about.
pub const SYNC: &str = "conformance";
const CLIENT_SECRET: &str = "conformance-kms-secret";

/// Everything one case needs.
pub struct Bench {
    pub kms: kms::State,
    pub kms_host: Host,
    pub project: String,
    pub place: Box<dyn Place>,
    client_id: String,
    home: tempfile::TempDir,
    held: Option<Held>,
}

impl Bench {
    /// Empty folder, empty destination, both connections stored.
    pub async fn new(place: Box<dyn Place>) -> Self {
        let kms = kms::State::new();
        let project = kms.add_project("Conformance", "conformance");
        kms.add_environment(&project, ENVIRONMENT, ENVIRONMENT_NAME);
        kms.add_folder(&project, ENVIRONMENT, FOLDER);
        let client_id = kms.add_identity("conformance", CLIENT_SECRET);
        let kms_host = Host::start(kms::router(kms.clone()), None).await.expect("a port");
        let home = tempfile::tempdir().expect("a directory");
        let mut bench = Self { kms, kms_host, project, place, client_id, home, held: None };
        bench.take_engine();
        bench.connect().await;
        bench
    }

    pub fn dirs(&self) -> Dirs {
        let at = self.home.path();
        Dirs { config: at.join("config"), state: at.join("state"), runtime: at.join("run") }
    }

    /// Becomes the engine of the directories, as a process that starts.
    pub fn take_engine(&mut self) {
        let store = Store::open(self.dirs()).expect("a store");
        self.held = Some(Held::take(&store, "conformance").expect("the engine is free"));
    }

    /// Ends the engine as a process that is closed.
    pub async fn close_engine(&mut self) {
        if let Some(held) = self.held.take() {
            held.local.close().await;
        }
    }

    /// Loses everything that was stored on this machine, and begins anew.
    pub async fn forget(&mut self) {
        self.close_engine().await;
        self.home = tempfile::tempdir().expect("a directory");
        self.take_engine();
        self.connect().await;
    }

    async fn connect(&self) {
        let account = json!({"name": "kms", "app": "hanzo-kms", "method": "universal-auth", "baseUrl": self.kms_host.url,
            "credentials": {"clientId": self.client_id, "clientSecret": CLIENT_SECRET}});
        for document in [account, self.place.connection()] {
            self.local().save_connection(document, true).await.expect("a good connection");
        }
    }

    pub fn local(&self) -> &Arc<Local> {
        &self.held.as_ref().expect("an engine").local
    }

    /// The document that the program prints, run beside this engine with its directories.
    pub async fn prints(&self, args: &[&str]) -> Value {
        let dirs = self.dirs();
        let mut command = tokio::process::Command::new(crate::support::KMS_SYNC);
        command.args(args).env("KMS_SYNC_CONFIG_DIR", dirs.config).env("KMS_SYNC_STATE_DIR", dirs.state).env("AWS_EC2_METADATA_DISABLED", "true");
        let output = command.stdin(std::process::Stdio::null()).output().await.expect("the program ends");
        let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        serde_json::from_str(&stdout).unwrap_or_else(|e| panic!("{e}: {stdout}\n{stderr}"))
    }

    pub fn nature(&self) -> Nature {
        self.place.nature()
    }

    /// Sets a secret of the folder.
    pub fn set(&self, key: &str, value: &str) {
        self.kms.set(&self.project, ENVIRONMENT, FOLDER, key, value);
    }

    /// Sets numbered secrets, `K_000` and on, all with one value.
    pub fn fill(&self, count: usize, value: &str) -> BTreeMap<String, String> {
        (0..count)
            .map(|i| {
                let key = format!("K_{i:03}");
                self.set(&key, value);
                (key, value.to_string())
            })
            .collect()
    }

    /// Removes a secret of the folder.
    pub fn unset(&self, key: &str) {
        self.kms.remove(&self.project, ENVIRONMENT, FOLDER, key);
    }

    /// The create request of a sync of a folder.
    pub fn document(&self, name: &str, folder: &str, options: &Value) -> Value {
        let mut all = json!({"initialSyncBehavior": "overwrite-destination"});
        if let (Some(all), Some(given)) = (all.as_object_mut(), options.as_object()) {
            all.extend(given.clone());
        }
        json!({"name": name, "projectId": self.project, "connectionId": "place", "environment": ENVIRONMENT, "secretPath": folder,
            "isEnabled": false, "syncOptions": all, "destination": self.place.kind(), "destinationConfig": self.place.config()})
    }

    /// Stores the sync most cases are about.
    pub async fn create(&self, options: Value) {
        self.create_as(SYNC, FOLDER, options).await;
    }

    pub async fn create_as(&self, name: &str, folder: &str, options: Value) {
        let document = self.document(name, folder, &options);
        self.local().create_sync(SyncInput { document, destination: None }).await.expect("a good sync");
    }

    /// Changes the sync's document.
    pub async fn update(&self, change: Value) {
        self.local().update_sync(SYNC, SyncInput { document: change, destination: None }).await.expect("a good change");
    }

    pub fn request(name: &str) -> RunRequest {
        RunRequest::new(name, RunKind::Sync, Trigger::Manual)
    }

    pub async fn run(&self, request: RunRequest) -> RunRecord {
        self.place.rest();
        let id = self.local().start(request).await.expect("a run starts");
        self.local().finished(&id).await.expect("a run ends")
    }

    /// A run of the sync, as from the command line.
    pub async fn sync(&self) -> RunRecord {
        self.run(Self::request(SYNC)).await
    }

    /// A run that must succeed.
    #[track_caller]
    pub fn synced(&self) -> impl Future<Output = RunRecord> + '_ {
        let caller = std::panic::Location::caller();
        async move {
            let record = self.sync().await;
            assert_eq!(record.status, RunStatus::Succeeded, "at {caller}: {record:#?}");
            record
        }
    }

    /// A run with `--allow-delete`.
    pub async fn allowed(&self) -> RunRecord {
        self.run(RunRequest { allow_delete: true, ..Self::request(SYNC) }).await
    }

    /// A run with `--verify`.
    pub async fn verified(&self) -> RunRecord {
        self.run(RunRequest { verify: true, ..Self::request(SYNC) }).await
    }

    /// A run that removes the synced secrets from the destination.
    pub async fn removal(&self) -> RunRecord {
        self.run(RunRequest { kind: RunKind::Remove, ..Self::request(SYNC) }).await
    }

    pub async fn plan(&self) -> PlanDoc {
        self.local().plan(PlanTarget::Stored { name: SYNC.into() }, false).await.expect("a plan")
    }

    pub async fn approve(&self, approve: &[&str], keep: &[&str]) {
        let keys = |list: &[&str]| list.iter().map(|k| self.place.key(k)).collect();
        let approval = Approval { sync: SYNC.into(), approve: keys(approve), keep: keys(keep) };
        self.local().approve(approval).await.expect("an approval");
    }

    /// Requests to the destination from now on are counted anew.
    pub fn mark(&self) {
        self.place.host().log.clear();
    }

    /// Requests that changed something since the mark.
    pub fn writes(&self) -> Vec<String> {
        self.place.host().log.lines().into_iter().filter(|l| self.place.is_write(l)).collect()
    }

    /// The destination holds exactly these source keys and values.
    #[track_caller]
    pub fn holds<K: AsRef<str>, V: AsRef<str>>(&self, pairs: impl IntoIterator<Item = (K, V)>) {
        let wanted: BTreeMap<String, String> = pairs.into_iter().map(|(k, v)| (self.place.key(k.as_ref()), v.as_ref().to_string())).collect();
        assert_eq!(self.place.values(), wanted);
    }

    /// Another hand writes a key.
    pub fn put(&self, key: &str, value: &str) {
        self.place.put(&self.place.key(key), value);
    }

    /// A run now finds nothing to do, writes nothing, and everything is where it belongs.
    #[track_caller]
    pub fn settled(&self) -> impl Future<Output = ()> + '_ {
        let caller = std::panic::Location::caller();
        async move {
            self.mark();
            let record = self.sync().await;
            assert_eq!(record.status, RunStatus::Succeeded, "at {caller}: {record:#?}");
            assert_eq!(record.counts.writes(), 0, "at {caller}: {record:#?}");
            assert_eq!(self.writes(), Vec::<String>::new(), "at {caller}");
        }
    }
}

/// What became of a key: the outcome and its reason.
pub fn fate<'r>(record: &'r RunRecord, key: &str) -> Option<(Outcome, &'r str)> {
    let found = record.secrets.iter().find(|s| s.key == key || s.source_key.as_deref() == Some(key))?;
    Some((found.outcome, found.reason.as_deref().unwrap_or_default()))
}

/// A run ended like this.
#[track_caller]
pub fn ended(record: &RunRecord, status: RunStatus) {
    assert_eq!(record.status, status, "{record:#?}");
}
