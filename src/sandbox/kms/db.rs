//! What the sandbox KMS remembers.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use rand::Rng as _;

use super::events::{Happening, Kind};
use super::switches::Switches;

/// Project, environment, path.
pub(super) type Place = (String, String, String);

pub(super) struct Db {
    pub switches: Switches,
    pub organization: String,
    pub projects: Vec<Project>,
    pub folders: BTreeMap<Place, Folder>,
    pub identities: Vec<Identity>,
    pub tokens: HashMap<String, Token>,
    pub service_tokens: HashMap<String, ServiceToken>,
    pub requests: Vec<ChangeRequest>,
    pub syncs: Vec<super::syncs::Sync>,
    /// Start and count of the present window per bucket.
    pub windows: [(Option<Instant>, u64); 4],
    /// Grows with every change; rendered lists are kept until then.
    pub version: u64,
    pub rendered: HashMap<String, (u64, String, bytes::Bytes)>,
    /// Open streams per project and identity.
    pub streams: HashMap<(String, String), usize>,
}

impl Default for Db {
    fn default() -> Self {
        Self {
            switches: Switches::default(),
            organization: new_id(),
            projects: Vec::new(),
            folders: BTreeMap::new(),
            identities: Vec::new(),
            tokens: HashMap::new(),
            service_tokens: HashMap::new(),
            requests: Vec::new(),
            syncs: Vec::new(),
            windows: Default::default(),
            version: 0,
            rendered: HashMap::new(),
            streams: HashMap::new(),
        }
    }
}

pub(super) struct Project {
    pub id: String,
    pub name: String,
    pub slug: String,
    pub kind: String,
    pub environments: Vec<Environment>,
}

pub(super) struct Environment {
    pub id: String,
    pub slug: String,
    pub name: String,
}

pub(super) struct Folder {
    pub id: String,
    pub secrets: BTreeMap<String, Secret>,
    pub personal: BTreeMap<String, String>,
    pub imports: Vec<Import>,
    pub created: jiff::Timestamp,
    pub updated: jiff::Timestamp,
}

/// An import link.
#[derive(Debug, Clone)]
pub struct Import {
    pub id: String,
    pub environment: String,
    pub path: String,
    pub replication: bool,
}

/// A secret as it is seeded.
#[derive(Debug, Clone, Default)]
pub struct NewSecret {
    pub value: String,
    pub comment: String,
    pub metadata: Vec<(String, String)>,
    pub tags: Vec<String>,
    pub skip_multiline_encoding: bool,
}

pub(super) struct Secret {
    pub id: String,
    pub value: String,
    pub comment: String,
    pub metadata: Vec<(String, String)>,
    pub tags: Vec<String>,
    pub skip_multiline_encoding: bool,
    pub version: u64,
    pub created: jiff::Timestamp,
    pub updated: jiff::Timestamp,
}

#[derive(Clone)]
pub(super) struct Identity {
    pub id: String,
    pub name: String,
    pub client_id: String,
    pub client_secret: String,
    pub secret_uses: Option<u64>,
    /// Seconds; 0 never expires.
    pub ttl: u64,
    pub max_ttl: u64,
    pub token_uses: Option<u64>,
    pub failures: u32,
    pub last_failure: Option<Instant>,
    pub locked_until: Option<Instant>,
}

impl Identity {
    pub fn new(name: &str, client_secret: &str) -> Self {
        Self {
            id: new_id(),
            name: name.into(),
            client_id: new_id(),
            client_secret: client_secret.into(),
            secret_uses: None,
            ttl: 2_592_000,
            max_ttl: 2_592_000,
            token_uses: None,
            failures: 0,
            last_failure: None,
            locked_until: None,
        }
    }
}

pub(super) struct Token {
    pub identity: String,
    pub dies_at: Option<Instant>,
    /// Renewing past this kills the token.
    pub ceiling: Option<Instant>,
    pub uses: Option<u64>,
}

#[derive(Clone)]
pub(super) struct ServiceToken {
    pub id: String,
    pub project: String,
    pub scopes: Vec<(String, String)>,
}

/// Writes that wait for approval.
pub(super) struct ChangeRequest {
    pub id: String,
    pub slug: String,
    pub place: Place,
    /// Key, and its new value; `None` deletes.
    pub changes: Vec<(String, Option<NewSecret>)>,
    pub merged: bool,
    pub closed: bool,
    pub created: jiff::Timestamp,
}

impl ChangeRequest {
    pub fn open(&self) -> bool {
        !self.merged && !self.closed
    }
}

impl Db {
    /// Marks a change.
    pub fn touch(&mut self) {
        self.version += 1;
    }

    pub fn project(&self, id: &str) -> Option<&Project> {
        self.projects.iter().find(|p| p.id == id)
    }

    pub fn environment(&self, project: &str, slug: &str) -> Option<&Environment> {
        self.project(project)?.environments.iter().find(|e| e.slug == slug)
    }

    pub fn folder(&self, project: &str, environment: &str, path: &str) -> Option<&Folder> {
        self.folders.get(&(project.to_string(), environment.to_string(), tidy(path)))
    }

    pub fn folder_mut(&mut self, project: &str, environment: &str, path: &str) -> Option<&mut Folder> {
        self.folders.get_mut(&(project.to_string(), environment.to_string(), tidy(path)))
    }

    /// A folder, made with all above it when it is missing.
    pub fn make_folder(&mut self, project: &str, environment: &str, path: &str) -> &mut Folder {
        self.touch();
        let path = tidy(path);
        for (i, _) in path.match_indices('/') {
            let above = if i == 0 { "/" } else { &path[..i] };
            self.folders.entry((project.into(), environment.into(), above.into())).or_insert_with(Folder::new);
        }
        self.folders.entry((project.into(), environment.into(), path)).or_insert_with(Folder::new)
    }

    /// Sets a secret; true when it is new.
    pub fn put(&mut self, project: &str, environment: &str, path: &str, key: &str, new: NewSecret) -> bool {
        let now = jiff::Timestamp::now();
        let folder = self.make_folder(project, environment, path);
        folder.updated = now;
        match folder.secrets.get_mut(key) {
            Some(secret) => {
                secret.value = new.value;
                secret.version += 1;
                secret.updated = now;
                if !new.metadata.is_empty() {
                    secret.metadata = new.metadata;
                }
                false
            }
            None => {
                let secret = Secret {
                    id: new_id(),
                    value: new.value,
                    comment: new.comment,
                    metadata: new.metadata,
                    tags: new.tags,
                    skip_multiline_encoding: new.skip_multiline_encoding,
                    version: 1,
                    created: now,
                    updated: now,
                };
                folder.secrets.insert(key.into(), secret);
                true
            }
        }
    }

    /// What subscribers hear of a change: the folder itself, and those that import it (5 levels).
    pub fn happened(&self, kind: Kind, project: &str, environment: &str, path: &str, key: &str) -> Vec<Happening> {
        let path = tidy(path);
        let mut told = vec![Happening::new(kind, project, environment, &path, key)];
        let mut level = vec![(environment.to_string(), path)];
        for _ in 0..5 {
            let mut next = Vec::new();
            for (place, folder) in &self.folders {
                let dependent = (place.1.clone(), place.2.clone());
                let feeds = place.0 == project && folder.imports.iter().any(|i| level.contains(&(i.environment.clone(), i.path.clone())));
                if feeds && !told.iter().any(|h| h.environment == dependent.0 && h.path == dependent.1) {
                    told.push(Happening::new(Kind::Imports, project, &dependent.0, &dependent.1, ""));
                    next.push(dependent);
                }
            }
            level = next;
        }
        told
    }

    /// Issues a token to an identity.
    pub fn issue(&mut self, identity: &Identity) -> String {
        use base64::Engine as _;
        let encode = |text: String| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(text);
        let header = encode(r#"{"alg":"HS256","typ":"JWT"}"#.to_string());
        let claims = serde_json::json!({
            "identityId": identity.id,
            "identityName": identity.name,
            "authTokenType": "identityAccessToken",
            "organizationId": self.organization,
            "identityAccessTokenId": new_id(),
        });
        let token = format!("{header}.{}.{}", encode(claims.to_string()), random_text(43));
        let after = |seconds: u64| (seconds > 0).then(|| Instant::now() + Duration::from_secs(seconds));
        let row = Token { identity: identity.id.clone(), dies_at: after(identity.ttl), ceiling: after(identity.max_ttl), uses: identity.token_uses };
        self.tokens.insert(token.clone(), row);
        token
    }

    /// Merges a request; what subscribers hear, or `None` when it is not open.
    pub fn merge_request(&mut self, slug: &str) -> Option<Vec<Happening>> {
        let request = self.requests.iter_mut().find(|r| r.slug == slug && r.open())?;
        request.merged = true;
        let (place, changes) = (request.place.clone(), request.changes.clone());
        let mut told = Vec::new();
        for (key, change) in changes {
            let kind = match change {
                Some(secret) if self.put(&place.0, &place.1, &place.2, &key, secret.clone()) => Kind::Created,
                Some(_) => Kind::Updated,
                None => {
                    if let Some(folder) = self.folders.get_mut(&place) {
                        folder.secrets.remove(&key);
                    }
                    Kind::Deleted
                }
            };
            told.extend(self.happened(kind, &place.0, &place.1, &place.2, &key));
        }
        self.touch();
        Some(told)
    }
}

impl Folder {
    fn new() -> Self {
        let now = jiff::Timestamp::now();
        Self { id: new_id(), secrets: BTreeMap::new(), personal: BTreeMap::new(), imports: Vec::new(), created: now, updated: now }
    }
}

/// The path as the server keeps it.
pub(super) fn tidy(path: &str) -> String {
    match path.trim_end_matches('/') {
        "" => "/".to_string(),
        path => path.to_string(),
    }
}

pub(super) fn new_id() -> String {
    uuid::Uuid::new_v4().to_string()
}

pub(super) fn random_text(length: usize) -> String {
    rand::rng().sample_iter(rand::distr::Alphanumeric).take(length).map(char::from).collect()
}
