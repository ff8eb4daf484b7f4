//! Open connections, shared by everything that uses them: one login, one token, one set of
//! pacers per connection, however many syncs run over it.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use crate::destination::{Session, registry};
use crate::http::{ApiError, ErrorKind, Redactor};
use crate::model::connection::{Connection, ResolvedConnection};
use crate::model::sync::SyncConfig;
use crate::model::{Map, Memory, SecretValue};
use crate::source::{self, Source};
use crate::store::Store;

/// An open connection and the state of its file when it was opened.
struct Open<T: ?Sized> {
    print: String,
    session: Arc<T>,
    /// Its credentials, which no text may show.
    secrets: Vec<SecretValue>,
}

/// The pool.
pub struct Pool {
    store: Store,
    sessions: Mutex<HashMap<String, Open<dyn Session>>>,
    sources: Mutex<HashMap<String, Open<dyn Source>>>,
    /// KMS accounts (by id) whose login was rejected.
    refused: Mutex<HashSet<String>>,
}

impl Pool {
    /// An empty pool over the stored connections.
    pub fn new(store: Store) -> Self {
        Self { store, sessions: Mutex::default(), sources: Mutex::default(), refused: Mutex::default() }
    }

    /// A stored connection by name or id; the error names the broken rule of its file.
    pub fn connection(&self, name: &str) -> Result<Connection, ApiError> {
        self.store.connection(name).map_err(|e| ApiError::new(ErrorKind::Invalid, "kms-sync", e.to_string()))
    }

    /// The session of a destination connection.
    pub async fn session(&self, name: &str) -> Result<Arc<dyn Session>, ApiError> {
        let connection = self.connection(name)?;
        let print = fingerprint(&connection);
        if let Some(open) = lock(&self.sessions).get(&connection.id).filter(|o| o.print == print && !o.session.refused()) {
            return Ok(open.session.clone());
        }
        let resolved = self.resolve(&connection).await?;
        let secrets = secrets(&resolved);
        {
            let mut sessions = lock(&self.sessions);
            // Of credentials that were refused others may stand behind a reference by now.
            let good = |o: &&Open<dyn Session>| !o.session.refused() || same(&o.secrets, &secrets);
            if let Some(open) = sessions.get(&connection.id).filter(|o| o.print == print).filter(good) {
                return Ok(open.session.clone());
            }
            sessions.remove(&connection.id);
        }
        let session = self.connected(&connection, resolved)?;
        Ok(keep(&self.sessions, connection.id, Open { print, session, secrets }))
    }

    /// Opens a connection without keeping it.
    pub async fn open(&self, connection: &Connection) -> Result<Arc<dyn Session>, ApiError> {
        self.connected(connection, self.resolve(connection).await?)
    }

    fn connected(&self, connection: &Connection, resolved: ResolvedConnection) -> Result<Arc<dyn Session>, ApiError> {
        let provider = registry::of_app(&connection.app).ok_or_else(|| {
            ApiError::new(
                ErrorKind::Invalid,
                "kms-sync",
                format!("the connection {} is for {}, which is no destination", connection.name, connection.app),
            )
        })?;
        let memory: Arc<dyn Memory> = Arc::new(self.store.clone());
        provider.connect(resolved, memory)
    }

    /// The KMS account a sync reads from: the one it names, or the only one there is.
    pub fn account(&self, named: Option<&str>) -> Result<Connection, ApiError> {
        let invalid = |text: String| ApiError::new(ErrorKind::Invalid, "kms", text);
        if let Some(name) = named {
            let connection = self.connection(name)?;
            if connection.app != source::APP.app {
                return Err(invalid(format!("the connection {name} is no KMS account (its app is {})", connection.app)));
            }
            return Ok(connection);
        }
        let mut accounts: Vec<_> = self.store.connections().into_iter().filter_map(|l| l.result.ok()).filter(|c| c.app == source::APP.app).collect();
        match accounts.len() {
            1 => Ok(accounts.remove(0)),
            0 => Err(invalid("there is no KMS account yet: add a connection of app hanzo-kms".into())),
            n => Err(invalid(format!("there are {n} KMS accounts: name one in sourceConnection"))),
        }
    }

    /// The open KMS account.
    pub async fn source(&self, named: Option<&str>) -> Result<(String, Arc<dyn Source>), ApiError> {
        let connection = self.account(named)?;
        let print = fingerprint(&connection);
        if let Some(open) = lock(&self.sources).get(&connection.id).filter(|o| o.print == print) {
            return Ok((connection.id, open.session.clone()));
        }
        let resolved = self.resolve(&connection).await?;
        let secrets = secrets(&resolved);
        let session = source::connect(resolved)?;
        let kept = keep(&self.sources, connection.id.clone(), Open { print, session, secrets });
        Ok((connection.id, kept))
    }

    /// Opens a KMS account without keeping it.
    pub async fn open_source(&self, connection: &Connection) -> Result<Arc<dyn Source>, ApiError> {
        source::connect(self.resolve(connection).await?)
    }

    /// The KMS rejected this account's login: nothing is tried by itself any more.
    pub fn note_refused(&self, named: Option<&str>) {
        if let Ok(connection) = self.account(named) {
            lock(&self.refused).insert(connection.id);
        }
    }

    /// The operator asks again: accounts and connections that were rejected are opened anew, with
    /// credentials that may have been mended where they are referred to, or at the provider. Not
    /// those of `going`, connections (by name or id) with runs that are queued or going: what was
    /// asked for together is refused together.
    pub fn renew_refused(&self, going: &HashSet<String>) {
        let refused = std::mem::take(&mut *lock(&self.refused));
        lock(&self.sources).retain(|id, _| !refused.contains(id));
        let going: HashSet<String> = going.iter().filter_map(|name| Some(self.connection(name).ok()?.id)).collect();
        lock(&self.sessions).retain(|id, o| !o.session.refused() || going.contains(id));
    }

    /// Opens one connection anew on its next use: its credentials were refused, and a reference
    /// may hold fresh ones by now. A session that stands for that refusal stays while it does not.
    pub fn renew_one(&self, name: &str) {
        if let Ok(connection) = self.connection(name) {
            let mut sessions = lock(&self.sessions);
            if sessions.get(&connection.id).is_some_and(|o| !o.session.refused()) {
                sessions.remove(&connection.id);
            }
        }
    }

    /// Opens every connection anew on its next use: references are read again.
    pub fn renew(&self) {
        lock(&self.refused).clear();
        lock(&self.sources).clear();
        lock(&self.sessions).clear();
    }

    async fn resolve(&self, connection: &Connection) -> Result<ResolvedConnection, ApiError> {
        // Also where every endpoint is plain http and nobody would look at it: an operator who
        // names a file means it to count.
        if let Some(Err(why)) = connection.ca_file.as_deref().map(crate::http::authorities) {
            return Err(ApiError::new(ErrorKind::Invalid, "kms-sync", format!("connection {}: {why}", connection.name)));
        }
        self.store.resolve(connection).await.map_err(|e| ApiError::new(ErrorKind::Invalid, "kms-sync", e.to_string()))
    }

    /// Tells a run's redactor the credentials of every open connection: a server may repeat
    /// what it was sent, and a log may hold the texts of several.
    pub fn teach(&self, redactor: &Redactor) {
        let mut secrets: Vec<SecretValue> = lock(&self.sessions).values().flat_map(|o| o.secrets.clone()).collect();
        secrets.extend(lock(&self.sources).values().flat_map(|o| o.secrets.clone()));
        secrets.iter().for_each(|s| redactor.learn(s));
    }

    /// Ends the open KMS accounts: their tokens are revoked, where they answer in time.
    pub async fn close(&self) {
        let open: Vec<Arc<dyn Source>> = lock(&self.sources).drain().map(|(_, o)| o.session).collect();
        let cx = crate::http::Cx::quiet();
        let closing = futures::future::join_all(open.iter().map(|s| s.close(&cx)));
        // A server that does not answer lets its tokens expire by themselves.
        let _ = tokio::time::timeout(std::time::Duration::from_secs(2), closing).await;
    }

    /// Budget texts of open connections and accounts, by their name.
    pub fn budgets(&self) -> Vec<(String, String)> {
        let mut open: Vec<_> = lock(&self.sessions).iter().filter_map(|(id, o)| Some((id.clone(), o.session.budget()?))).collect();
        open.extend(lock(&self.sources).iter().filter_map(|(id, o)| Some((id.clone(), o.session.budget()?))));
        open.into_iter().map(|(id, text)| (self.store.connection(&id).map_or(id, |c| c.name), text)).collect()
    }
}

/// Where a sync reads from.
pub fn place(config: &SyncConfig) -> source::SourceRef {
    source::SourceRef {
        project_id: config.project_id.clone(),
        environment: config.environment.clone(),
        path: config.secret_path.clone(),
        recursive: config.sync_options.include_all_sub_folders.unwrap_or(false),
    }
}

/// The short text of a sync's destination.
pub fn label(kind: &str, config: &Map) -> String {
    registry::find(kind).map_or_else(|| kind.to_string(), |p| p.label(config))
}

/// Changes when the connection's file does: then it is opened anew.
pub(super) fn fingerprint(connection: &Connection) -> String {
    let credentials: Map = connection.credentials.iter().map(|(k, c)| (k.clone(), c.stored().unwrap_or_default())).collect();
    let c = connection;
    serde_json::json!([c.app, c.method, credentials, c.settings, c.ca_file, c.allow_insecure_http]).to_string()
}

/// Keeps a session, unless another task has opened the same connection in the meantime.
fn keep<T: ?Sized>(slots: &Mutex<HashMap<String, Open<T>>>, id: String, fresh: Open<T>) -> Arc<T> {
    let mut slots = lock(slots);
    match slots.get(&id).filter(|o| o.print == fresh.print) {
        Some(open) => open.session.clone(),
        None => {
            let session = fresh.session.clone();
            slots.insert(id, fresh);
            session
        }
    }
}

/// The credentials of a connection that its app keeps secret.
fn secrets(resolved: &ResolvedConnection) -> Vec<SecretValue> {
    let method = registry::app(&resolved.app).and_then(|spec| spec.methods.iter().find(|m| m.name == resolved.method));
    let fields = method.map(|m| m.fields).unwrap_or_default();
    // A field that the method does not know is taken for a secret.
    let secret = |name: &String| fields.iter().find(|f| f.name == name.as_str()).is_none_or(|f| f.secret);
    resolved.credentials.iter().filter(|(name, _)| secret(name)).map(|(_, value)| value.clone()).collect()
}

/// True when two readings of a connection's credentials brought the same.
fn same(a: &[SecretValue], b: &[SecretValue]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.same_as(b))
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
