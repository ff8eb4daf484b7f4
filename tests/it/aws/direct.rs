//! Drives a destination the way the engine does, in one place and without its machinery: list,
//! compare with the ledger, read what must be read, apply, remember.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex};

use futures::StreamExt;
use kms_sync::destination::{
    Batch, Desired, Destination, Entry, EntryState, Freshness, Inventory, Listing, Missing, Op, Provider, Session, Shape, Target, ValueVerdict,
    Written,
};
use kms_sync::http::{ApiError, Cx};
use kms_sync::model::connection::ResolvedConnection;
use kms_sync::model::ledger::{Hasher, Ledger, LedgerRow};
use kms_sync::model::plan::Action;
use kms_sync::model::run::Requests;
use kms_sync::model::schema::KeySchema;
use kms_sync::model::sync::SyncOptions;
use kms_sync::model::{Map, Memory, SecretValue};
use serde_json::{Value, json};

/// A memory that lives as long as the test.
#[derive(Default)]
pub struct Mem(Mutex<HashMap<String, Value>>);

impl Memory for Mem {
    fn get(&self, key: &str) -> Option<Value> {
        self.0.lock().expect("lock").get(key).cloned()
    }

    fn put(&self, key: &str, value: Value) {
        self.0.lock().expect("lock").insert(key.to_string(), value);
    }
}

/// A connection from its JSON.
pub fn connection(method: &str, credentials: Value, settings: Value) -> ResolvedConnection {
    let map = |v: &Value| v.as_object().cloned().unwrap_or_default();
    ResolvedConnection {
        id: "c".into(),
        name: "aws".into(),
        app: "aws".into(),
        method: method.into(),
        credentials: map(&credentials).into_iter().map(|(k, v)| (k, SecretValue::new(v.as_str().unwrap_or_default()))).collect(),
        settings: map(&settings),
        ca_file: None,
        allow_insecure_http: false,
    }
}

/// One sync.
pub struct Direct {
    pub session: Arc<dyn Session>,
    pub target: Target,
    pub ledger: Ledger,
    /// Everything planned counts as approved.
    pub approve: bool,
    /// Read all values.
    pub verify: bool,
    /// Keys that may be restored: this sync deleted them, or the operator agreed.
    pub restorable: HashSet<String>,
    hasher: Hasher,
}

/// Action, key, entry, what is wanted, whether the value differs.
type Planned<'p> = (Action, String, Option<&'p Entry>, Option<&'p Desired>, bool);

/// What one run did.
#[derive(Debug, Default)]
pub struct Report {
    pub done: BTreeMap<String, Vec<String>>,
    pub failed: BTreeMap<String, ApiError>,
    pub skipped: BTreeMap<String, String>,
    pub conflicts: BTreeMap<String, String>,
    pub foreign: Vec<String>,
    pub unchanged: usize,
    pub notes: Vec<String>,
    pub warnings: Vec<String>,
    pub requests: Requests,
}

impl Report {
    /// How many keys an action reached.
    pub fn count(&self, action: &str) -> usize {
        self.done.get(action).map_or(0, Vec::len)
    }

    /// Requests by operation, without the one question of a new credential (see `identity.rs`).
    pub fn calls(&self) -> BTreeMap<String, u64> {
        let all = self.requests.by_call.get("aws").cloned().unwrap_or_default();
        all.into_iter().filter(|(call, _)| call != "GetCallerIdentity").collect()
    }

    /// Fails the test when something failed.
    pub fn clean(self) -> Self {
        assert!(self.failed.is_empty(), "{:?}", self.failed.iter().map(|(k, e)| format!("{k}: {e}")).collect::<Vec<_>>());
        self
    }
}

impl Direct {
    pub fn new(connection: ResolvedConnection, config: Value, options: Value) -> Self {
        Self::with(connection, config, options, Arc::new(Mem::default()))
    }

    pub fn with(connection: ResolvedConnection, config: Value, options: Value, memory: Arc<dyn Memory>) -> Self {
        let session = kms_sync::destination::aws::AWS.connect(connection, memory).expect("session");
        Self::on(session, config, options)
    }

    pub fn on(session: Arc<dyn Session>, config: Value, options: Value) -> Self {
        let mut extra: Map = options.as_object().cloned().unwrap_or_default();
        let key_schema = extra.remove("keySchema").and_then(|v| v.as_str().map(str::to_string));
        let disable = extra.remove("disableSecretDeletion").and_then(|v| v.as_bool());
        let target = Target {
            sync_id: "s".into(),
            sync_name: "sync".into(),
            config: config.as_object().cloned().expect("a config"),
            options: SyncOptions { key_schema, disable_secret_deletion: disable, extra, ..SyncOptions::default() },
            environment_slug: "dev".into(),
            environment_name: None,
        };
        Self { session, target, ledger: Ledger::default(), approve: false, verify: false, restorable: HashSet::new(), hasher: Hasher::new([7; 32]) }
    }

    /// Changes an option between runs.
    pub fn option(&mut self, name: &str, value: Value) {
        self.target.options.extra.insert(name.into(), value);
    }

    pub async fn run(&mut self, source: &[(&str, &str)]) -> Report {
        let source: Vec<(String, String)> = source.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        self.run_full(&source, &[]).await
    }

    pub async fn run_full(&mut self, source: &[(String, String)], metadata: &[(String, String)]) -> Report {
        self.try_run(source, metadata).await.expect("the run")
    }

    pub async fn try_run(&mut self, source: &[(String, String)], metadata: &[(String, String)]) -> Result<Report, ApiError> {
        self.run_in(&Cx::quiet(), source, metadata).await
    }

    pub async fn run_in(&mut self, cx: &Cx, source: &[(String, String)], metadata: &[(String, String)]) -> Result<Report, ApiError> {
        let dest = self.session.open(cx, &self.target).await?;
        let keys = dest.keys();
        let schema = match keys.schema_on_keys() {
            true => KeySchema::new(self.target.options.key_schema.as_deref(), &self.target.environment_slug),
            false => KeySchema::default(),
        };
        let full = self.verify || self.ledger.rows.is_empty();
        let ask = Listing { prefix: &schema.prefix, ledger: &self.ledger, wanted: source.len(), full };
        let mut inventory = dest.list(cx, &ask).await?;
        let mut report = Report { warnings: inventory.warnings.clone(), ..Report::default() };
        let mut desired = Vec::new();
        let mut frozen = Vec::new();
        for (key, value) in source {
            let fold = keys.fold(&schema.apply(key));
            match (keys.convert(&schema.apply(key)), keys.check_value(value)) {
                (Err(why), _) | (_, ValueVerdict::Fail(why) | ValueVerdict::Skip(why)) => {
                    report.skipped.insert(key.clone(), why);
                    frozen.push(fold);
                }
                (Ok(converted), _) => {
                    let value = SecretValue::new(value.clone());
                    desired.push(Desired { source_key: key.clone(), fold, key: converted, value, metadata: metadata.to_vec() });
                }
            }
        }
        let listed: HashSet<String> = inventory.entries.iter().map(|e| keys.fold(&e.key)).collect();
        let missing: Vec<&str> = desired.iter().map(|d| d.fold.as_str()).filter(|f| !listed.contains(*f)).collect();
        if !missing.is_empty() {
            inventory.entries.extend(dest.hidden(cx, &missing).await?.entries);
        }
        let plan = self.plan(cx, dest.as_ref(), &inventory, &desired, &frozen, &schema, &mut report).await;
        let tokens: Vec<String> = plan.iter().map(|_| uuid::Uuid::new_v4().to_string()).collect();
        let ops: Vec<Op<'_>> = plan
            .iter()
            .zip(&tokens)
            .map(|((action, key, entry, want, value_differs), token)| Op {
                action: *action,
                key,
                entry: *entry,
                row: self.ledger.rows.get(&keys.fold(key)),
                desired: *want,
                value_differs: *value_differs,
                token,
                approved: self.approve,
            })
            .collect();
        let results: Vec<(usize, Result<Written, ApiError>)> = match dest.shape() {
            Shape::Itemised(items) => {
                let (deletes, writes): (Vec<_>, Vec<_>) = ops.iter().enumerate().partition(|(_, op)| op.action == Action::Delete);
                let mut out = Vec::new();
                for phase in [writes, deletes] {
                    let done = futures::stream::iter(phase)
                        .map(|(i, op)| async move { (i, items.apply(cx, op).await) })
                        .buffer_unordered(items.concurrency());
                    out.extend(done.collect::<Vec<_>>().await);
                }
                out
            }
            Shape::Document(_) if ops.is_empty() => Vec::new(),
            Shape::Document(document) => {
                let places: HashMap<String, usize> = ops.iter().enumerate().map(|(i, op)| (op.key.to_string(), i)).collect();
                let batch = Batch { changes: ops, desired: &desired, frozen: &frozen, ledger: &self.ledger, inventory: &inventory };
                let written = document.apply(cx, &batch).await?;
                if let Some(stamp) = written.stamp {
                    self.ledger.rows.values_mut().for_each(|r| r.stamp = Some(stamp.clone()));
                }
                written.outcomes.into_iter().map(|(key, r)| (places[&key], r)).collect()
            }
        };
        for (i, result) in results {
            let (action, key, entry, want, _) = &plan[i];
            let fold = keys.fold(key);
            match result {
                Err(e) => {
                    report.failed.insert(key.clone(), e);
                }
                Ok(written) => {
                    let really = written.instead.unwrap_or(*action);
                    report.notes.extend(written.note.clone());
                    if written.untouched {
                        report.unchanged += 1;
                    } else {
                        report.done.entry(really.to_string()).or_default().push(key.clone());
                    }
                    match want {
                        None => {
                            self.ledger.rows.remove(&fold);
                            self.restorable.insert(fold);
                        }
                        Some(want) => {
                            let row = self.row(want, written, entry.and_then(|e| e.stamp.clone()));
                            self.ledger.rows.insert(fold, row);
                        }
                    }
                }
            }
        }
        report.requests = cx.meter().snapshot();
        Ok(report)
    }

    fn row(&self, want: &Desired, written: Written, previous: Option<String>) -> LedgerRow {
        LedgerRow {
            fold: want.fold.clone(),
            key: want.key.clone(),
            source_key: want.source_key.clone(),
            remote_id: written.id,
            previous_stamp: previous.filter(|p| Some(p) != written.stamp.as_ref()),
            stamp: written.stamp,
            value_hash: Some(self.hasher.hash(&want.value)),
            written_at: jiff::Timestamp::now(),
            intent: None,
            detail: written.detail,
        }
    }

    #[allow(clippy::too_many_arguments, reason = "a test's stand-in for the planner")]
    async fn plan<'p>(
        &mut self,
        cx: &Cx,
        dest: &dyn Destination,
        inventory: &'p Inventory,
        desired: &'p [Desired],
        frozen: &[String],
        schema: &KeySchema,
        report: &mut Report,
    ) -> Vec<Planned<'p>> {
        let keys = dest.keys();
        let by_fold: HashMap<String, &Entry> = inventory.entries.iter().map(|e| (keys.fold(&e.key), e)).collect();
        let mut plan = Vec::new();
        let mut unknown: Vec<(&Desired, &Entry)> = Vec::new();
        for want in desired {
            let row = self.ledger.rows.get(&want.fold);
            let hash_equal = row.is_some_and(|r| r.value_hash == Some(self.hasher.hash(&want.value)));
            let Some(entry) = by_fold.get(&want.fold).copied() else {
                match row.map(|r| dest.missing(r)) {
                    Some(Missing::Lagging) if hash_equal => report.unchanged += 1,
                    _ => plan.push((Action::Create, want.key.clone(), None, Some(want), true)),
                }
                continue;
            };
            match &entry.state {
                EntryState::Protected(why) => drop(report.skipped.insert(want.key.clone(), why.clone())),
                EntryState::Blocked(why) => drop(report.conflicts.insert(want.key.clone(), why.clone())),
                EntryState::Deleted { .. } if row.is_none() && !self.approve && !self.restorable.contains(&want.fold) => {
                    report.foreign.push(want.key.clone())
                }
                EntryState::Deleted { .. } => plan.push((Action::Restore, want.key.clone(), Some(entry), Some(want), !hash_equal)),
                EntryState::Empty => plan.push((Action::Update, want.key.clone(), Some(entry), Some(want), true)),
                _ => {
                    let equal = match (&entry.value, row) {
                        (Some(value), _) => Some(value.same_as(&want.value)),
                        (None, Some(row)) if !self.verify => match dest.freshness(entry, row) {
                            Freshness::Same | Freshness::Unseen => Some(hash_equal),
                            Freshness::Changed(_) => Some(false),
                            Freshness::Unknown => None,
                        },
                        _ => None,
                    };
                    match equal {
                        None => unknown.push((want, entry)),
                        Some(equal) => self.compare(dest, want, entry, equal, &mut plan, report),
                    }
                }
            }
        }
        let asked: Vec<&Entry> = unknown.iter().map(|(_, e)| *e).collect();
        let read: HashMap<_, _> = if asked.is_empty() { HashMap::new() } else { dest.read(cx, &asked).await.into_iter().collect() };
        for (want, entry) in unknown {
            match read.get(&entry.key) {
                Some(Ok(read)) => match (&read.value, &read.problem) {
                    (Some(value), _) => self.compare(dest, want, entry, value.same_as(&want.value), &mut plan, report),
                    (None, why) => drop(report.conflicts.insert(want.key.clone(), why.clone().unwrap_or_default())),
                },
                Some(Err(e)) => drop(report.failed.insert(want.key.clone(), e.clone())),
                None => panic!("{} was asked for and not answered", entry.key),
            }
        }
        for entry in &inventory.entries {
            let fold = keys.fold(&entry.key);
            let gone = matches!(entry.state, EntryState::Active | EntryState::Empty);
            if !gone || !schema.matches(&entry.key) || desired.iter().any(|d| d.fold == fold) || frozen.contains(&fold) {
                continue;
            }
            if !self.target.options.deletes() {
                continue;
            }
            if self.ledger.rows.contains_key(&fold) || self.approve {
                plan.push((Action::Delete, entry.key.clone(), Some(entry), None, false));
            } else {
                report.foreign.push(entry.key.clone());
            }
        }
        plan
    }

    fn compare<'p>(
        &mut self,
        dest: &dyn Destination,
        want: &'p Desired,
        entry: &'p Entry,
        equal: bool,
        plan: &mut Vec<Planned<'p>>,
        report: &mut Report,
    ) {
        let row = self.ledger.rows.get(&want.fold);
        if !equal || dest.differs(entry, want, row).is_some() {
            plan.push((Action::Update, want.key.clone(), Some(entry), Some(want), !equal));
            return;
        }
        report.unchanged += 1;
        let fresh = row.is_some_and(|r| r.stamp == entry.stamp && r.remote_id == entry.id);
        if !fresh {
            let detail = row.map(|r| r.detail.clone()).unwrap_or(Value::Null);
            let written = Written { id: entry.id.clone(), stamp: entry.stamp.clone(), detail, ..Written::default() };
            let row = self.row(want, written, None);
            self.ledger.rows.insert(want.fold.clone(), row);
        }
    }
}

/// `{"ListSecrets": 1, …}` as the meter counts.
pub fn calls(expected: Value) -> BTreeMap<String, u64> {
    serde_json::from_value(expected).unwrap_or_else(|_| panic!("{}", json!("numbers by operation")))
}
