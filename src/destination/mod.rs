//! Destinations: the places that receive the secrets, one module per provider behind one
//! trait, and the registry that is the only list of them.
//!
//! Three layers, from the still to the busy:
//!
//! * [`Provider`]: what a kind of destination *is*: its words, its forms, its rules. Static,
//!   offline, one per module.
//! * [`Session`]: one connection to it: credentials, tokens, pacing, shared by all syncs and
//!   runs that use the connection.
//! * [`Destination`]: one target opened for one run: lists, reads and writes keys. It comes
//!   in two shapes, see [`Shape`]; the planner and the runner treat them alike.
//!
//! To add a provider: a module here with these three, a line in [`registry::ALL`], its form
//! (part of [`Spec`]), and a sandbox module.

pub mod aws;
pub mod azure_devops;
pub mod azure_key_vault;
pub mod bitbucket;
pub mod entra;
pub mod form;
pub mod oci;
pub mod registry;

mod common;
#[cfg(test)]
mod pages_tests;

use std::sync::Arc;

use async_trait::async_trait;

use crate::http::{ApiError, Cx};
use crate::model::connection::{AppSpec, ResolvedConnection};
use crate::model::ledger::{Ledger, LedgerRow, Stamp};
use crate::model::plan::Action;
use crate::model::sync::SyncOptions;
pub use crate::model::{Choice, TestReport};
use crate::model::{Map, Memory, Problems, SecretValue, Time};

use form::Field;

/// What one kind of destination is, as data.
#[derive(Debug)]
pub struct Spec {
    /// The word in files and URLs: `aws-secrets-manager`.
    pub kind: &'static str,
    /// `AWS Secrets Manager`.
    pub title: &'static str,
    /// For tight columns: `AWS`.
    pub short: &'static str,
    /// The word under which its requests are counted: `aws`.
    pub service: &'static str,
    /// Connections it needs.
    pub app: &'static AppSpec,
    /// The sentence that refuses an import, wherever one is asked for; `None`: its secrets can be
    /// imported into the source.
    pub import_note: Option<&'static str>,
    /// The Destination step, below the connection.
    pub config: &'static [Field],
    /// Fields of the Sync Options step beyond those every sync has.
    pub options: &'static [Field],
    /// Sentences the wizard shows with the Destination step (name conversion, permissions).
    pub notes: &'static [&'static str],
}

impl Spec {
    /// True when its secrets can be imported into the source.
    pub fn can_import(&self) -> bool {
        self.import_note.is_none()
    }
}

/// One kind of destination.
#[async_trait]
pub trait Provider: Send + Sync {
    /// The kind as data.
    fn spec(&self) -> &'static Spec;

    /// Checks `destinationConfig` and the extra options offline. Unknown members were reported already.
    fn check(&self, config: &Map, options: &SyncOptions, problems: &mut Problems);

    /// A short text of the target for tables: `AWS us-east-1`, `Key Vault kv-billing`.
    fn label(&self, config: &Map) -> String;

    /// The alphabet and limits of keys at this target, without connecting.
    fn keys(&self, config: &Map) -> Box<dyn KeySpace>;

    /// True when two configurations over connections of equal identity write the same place.
    /// Where [`Self::follows_environment`] says so of both, that goes for one environment only.
    fn overlaps(&self, a: &Map, b: &Map) -> bool;

    /// True when a configuration leaves a part of the place to the name of the source's environment.
    fn follows_environment(&self, _config: &Map) -> bool {
        false
    }

    /// True when a configuration alone names the place, over whatever connection it is reached.
    fn names_place(&self) -> bool {
        false
    }

    /// Opens a connection. Offline: no request is made here. `memory` keeps small facts over
    /// restarts (prefix keys with the provider's word and the credential's public part).
    fn connect(&self, connection: ResolvedConnection, memory: Arc<dyn Memory>) -> Result<Arc<dyn Session>, ApiError>;
}

/// One connection to a provider; shared by runs, so everything in it is behind locks.
#[async_trait]
pub trait Session: Send + Sync {
    /// Proves the credentials, and as many rights as can be proved without writing.
    /// `config` holds the target when one is known.
    async fn test(&self, cx: &Cx, config: Option<&Map>) -> Result<TestReport, ApiError>;

    /// What can be picked for a form field, given the fields filled so far. An empty list is a
    /// truthful answer; a missing right is an error (the form then offers free text).
    async fn choices(&self, cx: &Cx, field: &str, filled: &Map) -> Result<Vec<Choice>, ApiError>;

    /// Opens a target for one run. May resolve names (an environment's uuid, a project's id).
    async fn open(&self, cx: &Cx, target: &Target) -> Result<Arc<dyn Destination>, ApiError>;

    /// Opens a target to take away what a sync wrote there. It may stand elsewhere than the
    /// configuration says today (an object named after something that was renamed since).
    async fn open_for_removal(&self, cx: &Cx, target: &Target) -> Result<Arc<dyn Destination>, ApiError> {
        self.open(cx, target).await
    }

    /// How much of a rate budget is left, as text for the engine's pane.
    fn budget(&self) -> Option<String> {
        None
    }

    /// True when the provider refused this connection's credentials and the session answers for
    /// it since: it is kept while the credentials stay the same, so that one refusal stops every
    /// sync of the connection.
    fn refused(&self) -> bool {
        false
    }
}

/// What a run wants to write to.
#[derive(Debug, Clone)]
pub struct Target {
    pub sync_id: String,
    pub sync_name: String,
    pub config: Map,
    pub options: SyncOptions,
    pub environment_slug: String,
    /// The environment's name as the source tells it.
    pub environment_name: Option<String>,
}

/// Names and values a target can hold. Pure.
pub trait KeySpace: Send + Sync {
    /// Turns the text that schema and source key make into the destination's key, or says why
    /// it cannot be one. The sentence names the offending character or limit.
    fn convert(&self, key: &str) -> Result<String, String>;

    /// The identity of a key: equal folds are one key.
    fn fold(&self, key: &str) -> String {
        key.to_string()
    }

    /// The part of the schema's alphabet conversion that is safe on a prefix or suffix (no
    /// limits, no checks), used to match existing keys.
    fn convert_part(&self, part: &str) -> String {
        part.to_string()
    }

    /// False when the key schema names the object and the keys inside stay raw (AWS many-to-one).
    fn schema_on_keys(&self) -> bool {
        true
    }

    /// What to do with a value before any call.
    fn check_value(&self, value: &str) -> ValueVerdict;

    /// A warning about a key that will be written all the same.
    fn warn(&self, _key: &str) -> Option<String> {
        None
    }
}

/// The offline verdict on a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ValueVerdict {
    Fine,
    /// The destination cannot hold it: reported as skipped, an existing secret stays as it is.
    Skip(String),
    /// The key fails: reported as an error, an existing secret stays as it is.
    Fail(String),
}

/// One target opened for one run.
#[async_trait]
pub trait Destination: Send + Sync {
    /// Identity of the place, for the ledger and for "one writer at a time": equal texts are
    /// the same place. As exact as can be told without a call.
    fn identity(&self) -> String;

    /// Which places are never written by two runs at once: equal for every name of one place,
    /// as far as can be told without a call, where [`Self::identity`] (which the ledger is kept
    /// by, and which therefore stays as it is) tells them apart.
    fn writers(&self) -> String {
        self.identity()
    }

    fn keys(&self) -> &dyn KeySpace;

    /// False when values are write-only there: the ledger decides what is unchanged.
    fn readable(&self) -> bool {
        true
    }

    /// Everything the target holds within reach of `ask.prefix`. Fails rather than answer in part.
    async fn list(&self, cx: &Cx, ask: &Listing<'_>) -> Result<Inventory, ApiError>;

    /// What the listing does not show and stands in the way of keys about to be created (the
    /// names of deleted secrets, where a list of its own has them). `missing`: the folded keys
    /// that the source wants and the listing lacks, at least one.
    async fn hidden(&self, _cx: &Cx, _missing: &[&str]) -> Result<Inventory, ApiError> {
        Ok(Inventory::default())
    }

    /// Whether a listed entry still is what the ledger says we wrote.
    fn freshness(&self, entry: &Entry, row: &LedgerRow) -> Freshness {
        match (&entry.stamp, &row.stamp) {
            (Some(now), Some(then)) if now == then => Freshness::Same,
            _ => Freshness::Unknown,
        }
    }

    /// Whether a key that the ledger knows and the listing lacks is really gone.
    fn missing(&self, _row: &LedgerRow) -> Missing {
        Missing::Gone
    }

    /// A difference besides the value (tags, encryption key, protection) that a write must mend.
    fn differs(&self, _entry: &Entry, _desired: &Desired, _row: Option<&LedgerRow>) -> Option<String> {
        None
    }

    /// Reads values of listed entries. One result per entry, in any order.
    async fn read(&self, cx: &Cx, entries: &[&Entry]) -> Vec<(String, Result<Read, ApiError>)>;

    /// How this target is written.
    fn shape(&self) -> Shape<'_>;

    /// Facts for the plan's warnings (deletion is final here, another object is in the way).
    fn warnings(&self) -> Vec<String> {
        Vec::new()
    }

    /// A warning about what so many writes mean here (a rate budget that they exceed).
    fn outlook(&self, _writes: usize) -> Option<String> {
        None
    }

    /// What this run took for granted without looking, and since when, as a sentence: it stands in
    /// the record of a run that succeeded.
    fn unproved(&self) -> Option<String> {
        None
    }

    /// Warnings that depend on all that the source wants here together (a limit on a sum).
    fn concerns(&self, _desired: &[Desired]) -> Vec<String> {
        Vec::new()
    }
}

/// The two ways a target is written.
pub enum Shape<'d> {
    /// Every key is an object of its own: one operation per key, run concurrently by the executor.
    Itemised(&'d dyn Itemised),
    /// All keys live in one object: one read-modify-write for the whole batch.
    Document(&'d dyn Document),
}

/// Operations on one key.
#[async_trait]
pub trait Itemised: Send + Sync {
    /// Operations in flight at once.
    fn concurrency(&self) -> usize {
        8
    }

    /// Carries out one operation, waiting where the provider needs it (visibly, through `cx`).
    /// A lost answer must be resolved here: the result says what is true at the destination.
    async fn apply(&self, cx: &Cx, op: &Op<'_>) -> Result<Written, ApiError>;

    /// Looks again at a key written a moment ago, whose [`Written::confirm_in`] has passed
    /// (`stamp`: what was recorded then). One cheap read, and no waiting: what is not proved
    /// now is left to the next run. After an error no more keys of this run are looked at.
    async fn confirm(&self, _cx: &Cx, _key: &str, _stamp: &Stamp) -> Result<Confirmed, ApiError> {
        Ok(Confirmed::Unproved)
    }
}

/// What a second look at a write of ours shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Confirmed {
    /// Our write stands, and this stamp stands for nothing else.
    Ours(Stamp),
    /// Nothing is proved.
    Unproved,
    /// Another hand has written the key since.
    Overtaken,
}

/// One read-modify-write for all keys.
#[async_trait]
pub trait Document: Send + Sync {
    /// Brings the object to the state `batch` describes, with an outcome for each change.
    /// An error means that nothing was changed.
    async fn apply(&self, cx: &Cx, batch: &Batch<'_>) -> Result<BatchWritten, ApiError>;
}

/// What to list.
#[derive(Debug)]
pub struct Listing<'a> {
    /// Literal text every key of interest starts with, in the destination's alphabet; may be empty.
    pub prefix: &'a str,
    /// What this sync wrote before.
    pub ledger: &'a Ledger,
    /// How many keys the source wants here.
    pub wanted: usize,
    /// True when every readable value will be read (verify, drift check, import, first run).
    pub full: bool,
}

/// What a target holds.
#[derive(Debug, Clone, Default)]
pub struct Inventory {
    pub entries: Vec<Entry>,
    pub warnings: Vec<String>,
}

/// One key at the destination.
#[derive(Debug, Clone)]
pub struct Entry {
    /// As the destination spells it.
    pub key: String,
    /// Stable handle (ARN, uuid, OCID).
    pub id: Option<String>,
    pub stamp: Option<Stamp>,
    pub state: EntryState,
    /// Present when the listing carries it or it was read.
    pub value: Option<SecretValue>,
    /// The provider's own facts for its `differs` and `apply`. Never values.
    pub facts: serde_json::Value,
    /// For the approval list: `changed 2026-03-02, enabled`.
    pub note: Option<String>,
}

/// In what state a listed key is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EntryState {
    Active,
    /// It exists and has no value yet: written without reading.
    Empty,
    /// Deletion is pending; it can be brought back.
    Deleted {
        until: Option<Time>,
    },
    /// Between two states (the word is the provider's): an operation waits for it.
    Settling(String),
    /// Left alone on purpose and reported as skipped.
    Protected(String),
    /// In the way of a key of ours and not ours to overwrite: reported as a conflict.
    Blocked(String),
}

/// What a listing proves about a key of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Freshness {
    /// It is exactly as we left it.
    Same,
    /// It may have changed; reading the value tells.
    Unknown,
    /// The listing cannot tell, and reading is impossible or not worth it now: the ledger is believed.
    Unseen,
    /// It was changed for certain; the reason is shown, and the value is written again.
    Changed(String),
}

/// A key that should be listed and is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    Gone,
    /// The listing lags behind our own recent write: the ledger is believed.
    Lagging,
}

/// A key as the source wants it at the destination.
#[derive(Debug, Clone)]
pub struct Desired {
    pub source_key: String,
    /// In the destination's alphabet.
    pub key: String,
    pub fold: String,
    pub value: SecretValue,
    /// Metadata of the source secret, in the source's order.
    pub metadata: Vec<(String, String)>,
}

/// The result of reading one value.
#[derive(Debug, Clone)]
pub struct Read {
    /// `None`: it holds something that is no text, or nothing; `problem` says what.
    pub value: Option<SecretValue>,
    /// A more exact stamp than the listing's, where reading gives one.
    pub stamp: Option<Stamp>,
    /// Set when the content must not be overwritten or imported (binary, not UTF-8).
    pub problem: Option<String>,
}

/// One operation on one key.
#[derive(Debug)]
pub struct Op<'a> {
    /// `Create`, `Update`, `Restore` (bring back, then make equal) or `Delete`.
    pub action: Action,
    pub key: &'a str,
    pub entry: Option<&'a Entry>,
    pub row: Option<&'a LedgerRow>,
    /// What the source wants; `None` for deletions.
    pub desired: Option<&'a Desired>,
    /// False when only something besides the value differs.
    pub value_differs: bool,
    /// Drawn for this write and recorded before it: use it where the provider takes an
    /// idempotency token (UUID, 36 characters).
    pub token: &'a str,
    /// True when the operator agreed to take over what this sync did not write. The agreement
    /// covers what the plan showed, not a state that only the write meets.
    pub approved: bool,
}

/// What an operation left behind.
#[derive(Debug, Clone, Default)]
pub struct Written {
    pub id: Option<String>,
    /// `None` where the provider's answer does not say; the next run then reads once.
    pub stamp: Option<Stamp>,
    /// Kept in the ledger row.
    pub detail: serde_json::Value,
    /// What really happened, when it differs from the planned action.
    pub instead: Option<Action>,
    /// True when the destination turned out to hold the value already: nothing was written.
    pub untouched: bool,
    /// Shown beside the outcome (a tag that could not be set, a date of final deletion).
    pub note: Option<String>,
    /// The stamp may be shared by another hand's write: [`Itemised::confirm`] is asked once,
    /// this much later.
    pub confirm_in: Option<std::time::Duration>,
}

/// One read-modify-write.
#[derive(Debug)]
pub struct Batch<'a> {
    pub changes: Vec<Op<'a>>,
    /// All keys the source wants and that may be written, changed or not.
    pub desired: &'a [Desired],
    /// Folded keys that must be left exactly as they are (empty values, conflicts, keys that
    /// wait for the operator's approval), wanted or not.
    pub frozen: &'a [String],
    pub ledger: &'a Ledger,
    pub inventory: &'a Inventory,
}

/// The outcome of a batch.
#[derive(Debug, Default)]
pub struct BatchWritten {
    /// Per changed key (by its `key`).
    pub outcomes: Vec<(String, Result<Written, ApiError>)>,
    /// The object's stamp after the write: it becomes the stamp of every row of this sync.
    pub stamp: Option<Stamp>,
    /// The object's handle after the write, likewise of every row of this sync: every value was
    /// written with it.
    pub id: Option<String>,
}
