//! What the cases may know of a destination.

use std::collections::BTreeMap;

use kms_sync::sandbox::host::{Effect, Host};
use serde_json::Value;

/// What a destination can and cannot do, as data.
#[derive(Debug, Clone, Copy)]
pub struct Nature {
    /// Its secrets can be imported into the source.
    pub imports: bool,
    /// Values can be read back.
    pub readable: bool,
    /// The key schema names the keys (not the object around them).
    pub schema: bool,
    /// All keys live in one object: one write for a whole run.
    pub document: bool,
    /// Holds empty values.
    pub empty: bool,
    /// Holds values with line breaks.
    pub multiline: bool,
    /// Names may hold slashes.
    pub slashes: bool,
    /// Longest name, in characters.
    pub longest: Option<usize>,
    /// Largest value, in bytes.
    pub largest: Option<usize>,
    /// Source keys that cannot be names there, each with what its refusal says.
    pub bad_names: &'static [(&'static str, &'static str)],
    /// Two source keys that are one name there.
    pub collapsing: Option<(&'static str, &'static str)>,
    /// A name that can stand there and cannot be a source key.
    pub unimportable: Option<&'static str>,
    /// Which run mends an outside edit of a value.
    pub mends: Mends,
    /// In every request that creates keys and in no request that reads.
    pub creation: &'static str,
    /// In every request that lists.
    pub listing: &'static str,
    /// The most requests at once while many keys are created.
    pub writers: usize,
    /// The most requests at once while everything is read.
    pub readers: usize,
}

/// How the service refuses to create a key.
#[derive(Debug, Clone, Copy)]
pub struct Refusal {
    /// Its word for it, as people are told.
    pub code: &'static str,
    /// The header in which it tells the request's id.
    pub id: &'static str,
}

/// When an outside edit is repaired.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mends {
    /// The next run sees it.
    NextRun,
    /// It can only be suspected: a run that somebody watches, or a drift check, writes again.
    Attended,
    /// Nothing there tells.
    Never,
}

/// A destination under test: a running sandbox and its owner's view of it.
pub trait Place: Send + Sync {
    fn kind(&self) -> &'static str;
    fn nature(&self) -> Nature;
    fn host(&self) -> &Host;
    /// The connection document; its name is `place`.
    fn connection(&self) -> Value;
    /// `destinationConfig`.
    fn config(&self) -> Value;

    /// `destinationConfig` of another target that the same connection reaches.
    fn elsewhere(&self) -> Value;
    /// Everything that lives at that other target.
    fn values_elsewhere(&self) -> BTreeMap<String, String>;

    /// The name that schema and source key become there.
    fn key(&self, text: &str) -> String {
        text.to_string()
    }

    /// Everything that lives there, with real values.
    fn values(&self) -> BTreeMap<String, String>;
    /// Another hand writes a key, new or not.
    fn put(&self, key: &str, value: &str);
    /// Another hand takes a key away.
    fn remove(&self, key: &str);
    /// Time passes there, between what was and the next run.
    fn rest(&self) {}

    /// Refuses to create these keys, where the service looks at names, else as many of the next.
    /// `None` where a write is refused as a whole or not at all.
    fn refuse(&self, keys: &[String]) -> Option<Refusal>;

    /// Refuses to create one key; false where that cannot be.
    fn refuse_one(&self, key: &str) -> bool {
        self.refuse(&[key.to_string()]).is_some()
    }

    /// Ends [`Self::refuse`].
    fn forgive(&self) {
        self.host().faults.clear();
    }

    /// True for a line of the request log that changes something.
    fn is_write(&self, line: &str) -> bool {
        !line.starts_with("GET ")
    }

    /// Requests that prove `keys` keys unchanged.
    fn floor(&self, keys: usize) -> usize;
    /// How the service answers when it throttles, with a short wait.
    fn throttling(&self) -> Effect;
}

/// A JSON answer with a status.
pub fn answer(status: u16, headers: &[(&str, &str)], body: &Value) -> Effect {
    let mut all: Vec<(String, String)> = headers.iter().map(|(k, v)| ((*k).to_string(), (*v).to_string())).collect();
    if !all.iter().any(|(k, _)| k == "content-type") {
        all.push(("content-type".into(), "application/json".into()));
    }
    Effect::Answer { status, headers: all, body: body.to_string() }
}
