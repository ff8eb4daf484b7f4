//! The odd cases of real servers, to turn on one by one.

use std::collections::HashSet;
use std::time::Duration;

/// Which server this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Generation {
    /// 2025 and later: v4 secrets API, v3 still served.
    Now,
    /// The first builds with v4: other defaults, and only `include_imports` is known.
    EarlyV4,
    /// Mid-2024: v3 only, 401 and 403 the other way round.
    Y2024,
}

/// A right that can be taken away from every identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Right {
    ListProjects,
    ReadProject,
    ReadFolders,
    ReadImports,
    ReadSecrets,
    WriteSecrets,
    Subscribe,
    ReadSyncs,
    EditSyncs,
}

/// Requests per 60 s window and bucket.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    pub read: u64,
    pub write: u64,
    pub secrets: u64,
    pub auth: u64,
}

/// All switches. The defaults are a current server with generous limits.
#[derive(Debug, Clone)]
pub struct Switches {
    pub generation: Generation,
    pub limits: Limits,
    /// Send `x-ratelimit-*`.
    pub rate_headers: bool,
    /// Send `retry-after` with a 429.
    pub retry_after: bool,
    pub etags: bool,
    pub denied: HashSet<Right>,
    /// Values are masked for everybody.
    pub hide_values: bool,
    /// Keys whose value is masked.
    pub hidden_keys: HashSet<String>,
    /// Folders (environment, path) that imports silently leave out.
    pub unreadable_imports: HashSet<(String, String)>,
    /// Folders (environment, path) under a change policy.
    pub approvals: HashSet<(String, String)>,
    /// The plan includes the event stream.
    pub events: bool,
    /// Time between the stream's keep-alive bytes.
    pub keep_alive: Duration,
    /// Names are written in capitals.
    pub capitalise: bool,
    /// Names that every write refuses, alone or in a batch.
    pub refused_names: HashSet<String>,
    /// Every login is answered like one of a locked identity.
    pub locked: bool,
    /// Secret syncs call auto-sync `isEnabled`, as the first release with them did.
    pub first_syncs: bool,
}

impl Default for Switches {
    fn default() -> Self {
        Self {
            generation: Generation::Now,
            limits: Limits { read: 6_000, write: 6_000, secrets: 6_000, auth: 600 },
            rate_headers: true,
            retry_after: true,
            etags: true,
            denied: HashSet::new(),
            hide_values: false,
            hidden_keys: HashSet::new(),
            unreadable_imports: HashSet::new(),
            approvals: HashSet::new(),
            events: true,
            keep_alive: Duration::from_secs(15),
            capitalise: false,
            refused_names: HashSet::new(),
            locked: false,
            first_syncs: false,
        }
    }
}
