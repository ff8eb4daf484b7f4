//! An embedded Azure DevOps with one project, and a small stand-in for planner and ledger that
//! drives the provider the way a run does.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};

use kms_sync::destination::azure_devops::AzureDevOps;
use kms_sync::destination::{
    Batch, Desired, Destination, EntryState, Freshness, Inventory, Listing, Missing, Op, Provider, Session, Shape, Target, ValueVerdict,
};
use kms_sync::http::{ApiError, Cx};
use kms_sync::model::connection::ResolvedConnection;
use kms_sync::model::ledger::{Hasher, Intent, Ledger, LedgerRow};
use kms_sync::model::plan::Action;
use kms_sync::model::sync::SyncOptions;
use kms_sync::model::{Map, Memory, SecretValue};
use kms_sync::sandbox::azure_devops::{State, router};
use kms_sync::sandbox::host::Host;
use serde_json::{Value, json};

pub const TOKEN: &str = "pat-canary-7c1f";

/// Keeps facts as the store does.
#[derive(Default)]
pub struct Remember(Mutex<HashMap<String, Value>>);

impl Memory for Remember {
    fn get(&self, key: &str) -> Option<Value> {
        self.0.lock().expect("lock").get(key).cloned()
    }

    fn put(&self, key: &str, value: Value) {
        self.0.lock().expect("lock").insert(key.into(), value);
    }
}

impl Remember {
    pub fn dump(&self) -> String {
        format!("{:?}", self.0.lock().expect("lock"))
    }
}

pub struct Rig {
    pub host: Host,
    pub state: State,
    pub project: String,
    pub memory: Arc<Remember>,
}

pub async fn rig() -> Rig {
    let state = State::new("contoso");
    state.token(TOKEN);
    let project = state.project("Fabrikam");
    let host = Host::start(router(state.clone()), None).await.expect("a port");
    Rig { host, state, project, memory: Arc::default() }
}

pub fn connection(method: &str, endpoint: &str, credentials: &[(&str, &str)], settings: &[(&str, &str)]) -> ResolvedConnection {
    let mut all: Map = settings.iter().map(|(k, v)| ((*k).to_string(), Value::from(*v))).collect();
    all.insert("endpoint".into(), endpoint.into());
    ResolvedConnection {
        id: "c1".into(),
        name: "devops".into(),
        app: "azure-devops".into(),
        method: method.into(),
        credentials: credentials.iter().map(|(k, v)| ((*k).to_string(), SecretValue::new(*v))).collect(),
        settings: all,
        ca_file: None,
        allow_insecure_http: false,
    }
}

impl Rig {
    pub fn session(&self) -> Arc<dyn Session> {
        self.session_as(TOKEN)
    }

    pub fn session_as(&self, token: &str) -> Arc<dyn Session> {
        let connection = connection("access-token", &self.host.url, &[("orgName", "contoso"), ("accessToken", token)], &[]);
        AzureDevOps.connect(connection, self.memory.clone()).expect("a session")
    }

    /// A sync of the environment `Production Environment` (slug `production`).
    pub fn sync(&self, id: &str) -> Sync {
        Sync {
            id: id.into(),
            session: self.session(),
            config: config(&[("devopsProjectId", &self.project)]),
            environment: Some("Production Environment".into()),
            slug: "production".into(),
            ledger: Ledger::default(),
            hasher: Hasher::new([7; 32]),
            full: false,
            deletes: true,
            approve: true,
            believed: Vec::new(),
        }
    }

    /// The group of [`Rig::sync`].
    pub fn group(&self) -> i64 {
        self.state.find(&self.project, "Production Environment").expect("the group")
    }

    /// Requests since the log was cleared last, and clears it.
    pub fn requests(&self) -> Vec<String> {
        let lines = self.host.log.lines();
        self.host.log.clear();
        lines
    }

    pub fn value(&self, name: &str) -> Option<String> {
        self.state.variables(self.group()).get(name).and_then(|v| v.value.clone())
    }
}

pub fn config(members: &[(&str, &str)]) -> Map {
    members.iter().map(|(k, v)| ((*k).to_string(), json!(v))).collect()
}

/// Methods of request lines, in order: `GET PUT`.
pub fn methods(lines: &[String]) -> String {
    lines.iter().map(|l| l.split(' ').next().unwrap_or_default()).collect::<Vec<_>>().join(" ")
}

pub struct Sync {
    pub id: String,
    pub session: Arc<dyn Session>,
    pub config: Map,
    pub environment: Option<String>,
    pub slug: String,
    pub ledger: Ledger,
    hasher: Hasher,
    /// As a drift check or a manual run asks.
    pub full: bool,
    pub deletes: bool,
    /// The operator agrees to whatever is asked.
    pub approve: bool,
    believed: Vec<(String, Option<String>)>,
}

/// What a run did.
#[derive(Debug, Default)]
pub struct Ran {
    pub created: Vec<String>,
    pub updated: Vec<String>,
    pub deleted: Vec<String>,
    pub unchanged: usize,
    pub skipped: Vec<String>,
    pub conflicts: Vec<String>,
    pub failed: Vec<(String, ApiError)>,
    pub reasons: Vec<String>,
    pub notes: Vec<String>,
    pub warnings: Vec<String>,
}

impl Ran {
    pub fn writes(&self) -> usize {
        self.created.len() + self.updated.len() + self.deleted.len()
    }
}

struct Change {
    action: Action,
    key: String,
    entry: Option<usize>,
    desired: Option<usize>,
    approved: bool,
}

impl Sync {
    pub fn target(&self) -> Target {
        Target {
            sync_id: self.id.clone(),
            sync_name: self.id.clone(),
            config: self.config.clone(),
            options: SyncOptions::default(),
            environment_slug: self.slug.clone(),
            environment_name: self.environment.clone(),
        }
    }

    pub async fn open(&self, cx: &Cx) -> Arc<dyn Destination> {
        self.session.open(cx, &self.target()).await.expect("a target")
    }

    pub async fn list(&self, cx: &Cx, destination: &dyn Destination) -> Result<Inventory, ApiError> {
        destination.list(cx, &Listing { prefix: "", ledger: &self.ledger, wanted: 0, full: self.full }).await
    }

    pub async fn run(&mut self, want: &[(&str, &str)]) -> Ran {
        self.try_run(&Cx::quiet(), want).await.expect("a run")
    }

    pub async fn try_run(&mut self, cx: &Cx, want: &[(&str, &str)]) -> Result<Ran, ApiError> {
        let destination = self.session.open(cx, &self.target()).await?;
        let inventory = self.list(cx, destination.as_ref()).await?;
        self.apply(cx, destination.as_ref(), &inventory, want).await
    }

    /// Takes everything of this sync away.
    pub async fn remove(&mut self) -> Result<Ran, ApiError> {
        let cx = Cx::quiet();
        let destination = self.session.open_for_removal(&cx, &self.target()).await?;
        let inventory = self.list(&cx, destination.as_ref()).await?;
        self.apply(&cx, destination.as_ref(), &inventory, &[]).await
    }

    pub async fn apply(&mut self, cx: &Cx, destination: &dyn Destination, inventory: &Inventory, want: &[(&str, &str)]) -> Result<Ran, ApiError> {
        let mut ran = Ran { warnings: inventory.warnings.clone(), ..Ran::default() };
        let (desired, frozen) = self.desired(destination, want, &mut ran);
        ran.warnings.extend(destination.concerns(&desired));
        let changes = self.plan(destination, inventory, &desired, &frozen, &mut ran);
        for (fold, stamp) in std::mem::take(&mut self.believed) {
            if let Some(row) = self.ledger.rows.get_mut(&fold) {
                row.stamp = stamp;
            }
        }
        if changes.is_empty() {
            return Ok(ran);
        }
        let Shape::Document(document) = destination.shape() else { panic!("a variable group is one document") };
        self.announce(destination, &changes, &desired);
        let written = {
            let ops = changes
                .iter()
                .map(|c| Op {
                    action: c.action,
                    key: &c.key,
                    entry: c.entry.map(|i| &inventory.entries[i]),
                    row: self.ledger.rows.get(&destination.keys().fold(&c.key)),
                    desired: c.desired.map(|i| &desired[i]),
                    value_differs: true,
                    token: "t",
                    approved: c.approved,
                })
                .collect();
            document.apply(cx, &Batch { changes: ops, desired: &desired, frozen: &frozen, ledger: &self.ledger, inventory }).await?
        };
        self.commit(destination, &changes, &desired, written, &mut ran);
        Ok(ran)
    }

    fn desired(&self, destination: &dyn Destination, want: &[(&str, &str)], ran: &mut Ran) -> (Vec<Desired>, Vec<String>) {
        let keys = destination.keys();
        let (mut desired, mut frozen) = (Vec::<Desired>::new(), Vec::new());
        for (source, value) in want {
            let key = match keys.convert(source) {
                Ok(key) => key,
                Err(why) => {
                    ran.skipped.push(format!("{source}: {why}"));
                    continue;
                }
            };
            let fold = keys.fold(&key);
            if let ValueVerdict::Skip(why) | ValueVerdict::Fail(why) = keys.check_value(value) {
                ran.skipped.push(format!("{source}: {why}"));
                frozen.push(fold);
                continue;
            }
            desired.push(Desired { source_key: (*source).into(), key, fold, value: SecretValue::new(*value), metadata: Vec::new() });
        }
        let mut seen: HashMap<String, usize> = HashMap::new();
        desired.iter().for_each(|d| *seen.entry(d.fold.clone()).or_default() += 1);
        for fold in seen.into_iter().filter(|(_, n)| *n > 1).map(|(f, _)| f) {
            ran.conflicts.push(fold.clone());
            frozen.push(fold);
        }
        desired.retain(|d| !frozen.contains(&d.fold));
        (desired, frozen)
    }

    fn plan(&mut self, destination: &dyn Destination, inventory: &Inventory, desired: &[Desired], frozen: &[String], ran: &mut Ran) -> Vec<Change> {
        let keys = destination.keys();
        let entries: HashMap<String, usize> = inventory.entries.iter().enumerate().map(|(i, e)| (keys.fold(&e.key), i)).collect();
        let (mut changes, mut believed) = (Vec::new(), Vec::new());
        for (i, want) in desired.iter().enumerate() {
            let row = self.ledger.rows.get(&want.fold);
            let mut change = |action, entry| changes.push(Change { action, key: want.key.clone(), entry, desired: Some(i), approved: false });
            let Some(at) = entries.get(&want.fold).copied() else {
                if row.is_some_and(|r| destination.missing(r) == Missing::Lagging) {
                    ran.unchanged += 1;
                } else {
                    change(Action::Create, None);
                }
                continue;
            };
            let entry = &inventory.entries[at];
            if let EntryState::Blocked(why) = &entry.state {
                ran.conflicts.push(why.clone());
                continue;
            }
            let Some(row) = row else {
                if self.approve {
                    changes.push(Change { action: Action::Update, key: want.key.clone(), entry: Some(at), desired: Some(i), approved: false });
                } else {
                    ran.skipped.push(format!("{}: needs approval", want.key));
                }
                continue;
            };
            let equal = row.value_hash.as_deref() == Some(self.hasher.hash(&want.value).as_str());
            let reason = match (&entry.value, destination.freshness(entry, row)) {
                (Some(value), _) if !value.same_as(&want.value) => Some("another value".to_string()),
                (None, Freshness::Changed(why)) => Some(why),
                (None, _) if !equal => Some("the source changed".into()),
                _ => destination.differs(entry, want, Some(row)),
            };
            match reason {
                Some(why) => {
                    ran.reasons.push(why);
                    change(Action::Update, Some(at));
                }
                None => {
                    ran.unchanged += 1;
                    // As the planner does: a row that is believed takes over the stamp.
                    believed.push((want.fold.clone(), entry.stamp.clone()));
                }
            }
        }
        self.believed = believed;
        let wanted: HashSet<&String> = desired.iter().map(|d| &d.fold).chain(frozen).collect();
        for (_, at) in entries
            .iter()
            .filter(|(fold, _)| self.deletes && !wanted.contains(fold) && self.ledger.rows.get(*fold).is_some_and(|r| r.value_hash.is_some()))
        {
            changes.push(Change {
                action: Action::Delete,
                key: inventory.entries[*at].key.clone(),
                entry: Some(*at),
                desired: None,
                approved: false,
            });
        }
        changes
    }

    fn announce(&mut self, destination: &dyn Destination, changes: &[Change], desired: &[Desired]) {
        for change in changes {
            let fold = destination.keys().fold(&change.key);
            let source = change.desired.map_or(change.key.clone(), |i| desired[i].source_key.clone());
            let row = self.ledger.rows.entry(fold.clone()).or_insert_with(|| LedgerRow {
                fold,
                key: change.key.clone(),
                source_key: source,
                remote_id: None,
                stamp: None,
                previous_stamp: None,
                value_hash: None,
                written_at: jiff::Timestamp::now(),
                intent: None,
                detail: Value::Null,
            });
            row.intent = Some(Intent { action: change.action.to_string(), token: "t".into(), value_hash: None, at: jiff::Timestamp::now() });
        }
    }

    fn commit(
        &mut self,
        destination: &dyn Destination,
        changes: &[Change],
        desired: &[Desired],
        written: kms_sync::destination::BatchWritten,
        ran: &mut Ran,
    ) {
        let by_key: HashMap<&str, &Change> = changes.iter().map(|c| (c.key.as_str(), c)).collect();
        for (key, result) in written.outcomes {
            let change = by_key[key.as_str()];
            let fold = destination.keys().fold(&key);
            let done = match result {
                Ok(done) => done,
                Err(error) => {
                    ran.failed.push((key, error));
                    continue;
                }
            };
            ran.notes.extend(done.note.clone());
            match change.action {
                Action::Delete => {
                    self.ledger.rows.remove(&fold);
                    ran.deleted.push(key);
                }
                action => {
                    if let (Some(row), Some(i)) = (self.ledger.rows.get_mut(&fold), change.desired) {
                        row.intent = None;
                        row.remote_id = done.id;
                        row.previous_stamp = row.stamp.take();
                        row.stamp = done.stamp;
                        row.value_hash = Some(self.hasher.hash(&desired[i].value));
                        row.written_at = jiff::Timestamp::now();
                        row.detail = done.detail;
                    }
                    match done.instead.unwrap_or(action) {
                        Action::Create => ran.created.push(key),
                        _ => ran.updated.push(key),
                    }
                }
            }
        }
        if let Some(stamp) = written.stamp {
            for row in self.ledger.rows.values_mut().filter(|r| r.intent.is_none()) {
                row.stamp = Some(stamp.clone());
                row.remote_id.clone_from(&written.id);
            }
        }
        for list in [&mut ran.created, &mut ran.updated, &mut ran.deleted] {
            list.sort();
        }
    }
}
