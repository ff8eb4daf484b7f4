//! The engine's socket: HTTP/1.1 over a Unix socket that only its owner can use.
//!
//! Here is how it listens and whom it lets in; what it answers stands in [`super::routes`].
//! Cleaners of temporary directories take sockets away: the engine looks for its own every
//! other second and makes it again.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{Service, ServiceError, ServiceErrorKind, routes};
use crate::engine::hub::Hub;
use crate::store::Dirs;

/// Pause between looks at the socket's file: one `lstat`.
const LOOK: Duration = Duration::from_secs(2);
/// How long a client may take for the head of a request, and an idle connection stays open.
const HEAD_TIME: Duration = Duration::from_secs(30);
/// The longest head of a request, and how much is held of an answer that nobody takes, in bytes.
const BUFFER: usize = 64 * 1024;
/// How long one that will be refused may take to ask.
const ASKING: Duration = Duration::from_millis(250);
/// Connections at once; more are refused, so that the engine's own have file descriptors left.
const CONNECTIONS: usize = 128;

/// A listening socket; it goes when this is dropped.
pub struct Socket {
    file: Arc<File>,
    stop: CancellationToken,
    /// Ends what the stop could not end.
    abandon: CancellationToken,
    tasks: TaskTracker,
}

impl Socket {
    /// Listens. The caller holds the engine lock, so an old socket file is a dead one's. What
    /// cannot be done now is told, and tried again.
    pub fn serve(dirs: &Dirs, service: Arc<dyn Service>, hub: Arc<Hub>) -> Self {
        let (stop, abandon, tasks) = (CancellationToken::new(), CancellationToken::new(), TaskTracker::new());
        let file = Arc::new(File { dirs: dirs.clone(), path: dirs.socket(), mine: std::sync::Mutex::default() });
        let mut keeper = Keeper { file: file.clone(), hub, listener: None, told: None };
        keeper.bind();
        let door = Door {
            app: routes::router(service, stop.clone()),
            room: Arc::new(Semaphore::new(CONNECTIONS)),
            stop: stop.clone(),
            abandon: abandon.clone(),
            tasks: tasks.clone(),
        };
        tasks.spawn(keeper.listen(door));
        Self { file, stop, abandon, tasks }
    }

    /// Stops listening, after the answers under way have left.
    pub async fn close(self) {
        self.stop.cancel();
        self.tasks.close();
        // Who does not take an answer in time goes without.
        let _ = tokio::time::timeout(Duration::from_secs(2), self.tasks.wait()).await;
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.stop.cancel();
        self.abandon.cancel();
        if self.file.there() {
            // Gone is as good.
            let _ = std::fs::remove_file(&self.file.path);
        }
    }
}

/// The socket's file, and which one is ours.
struct File {
    dirs: Dirs,
    path: PathBuf,
    /// Device and inode.
    mine: std::sync::Mutex<Option<(u64, u64)>>,
}

fn mark(path: &Path) -> Option<(u64, u64)> {
    std::fs::symlink_metadata(path).ok().map(|m| (m.dev(), m.ino()))
}

impl File {
    fn mine(&self) -> std::sync::MutexGuard<'_, Option<(u64, u64)>> {
        self.mine.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// True while the file that we made is where it belongs.
    fn there(&self) -> bool {
        let mine = *self.mine();
        mine.is_some() && mark(&self.path) == mine
    }

    /// Makes it: under another name first, so that nobody meets one that others could use, or
    /// none in place of a dead one's.
    fn make(&self) -> std::io::Result<UnixListener> {
        self.dirs.prepare_runtime().map_err(std::io::Error::other)?;
        let fresh = self.path.with_extension("new");
        match std::fs::remove_file(&fresh) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(&fresh)?;
        // The directory is private already; this keeps it so when the directory is opened up.
        std::fs::set_permissions(&fresh, std::fs::Permissions::from_mode(0o600))?;
        let made = mark(&fresh);
        std::fs::rename(&fresh, &self.path)?;
        *self.mine() = made;
        Ok(listener)
    }
}

/// Listens, and makes the socket again when it went away.
struct Keeper {
    file: Arc<File>,
    hub: Arc<Hub>,
    listener: Option<UnixListener>,
    /// Why it could not be made, as last told.
    told: Option<String>,
}

impl Keeper {
    fn bind(&mut self) {
        match self.file.make() {
            Ok(listener) => {
                self.listener = Some(listener);
                self.told = None;
            }
            Err(error) => {
                let text = format!("no other terminal can attach: the socket {} could not be made: {error}", self.file.path.display());
                if self.told.as_ref() != Some(&text) {
                    self.hub.notice("warn", text.clone(), None);
                }
                self.told = Some(text);
            }
        }
    }

    async fn listen(mut self, door: Door) {
        let mut looks = tokio::time::interval(LOOK);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut failed = false;
        loop {
            let came = async {
                match &self.listener {
                    Some(listener) => listener.accept().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = door.stop.cancelled() => return,
                _ = looks.tick() => {
                    if self.listener.is_some() && self.file.there() {
                        continue;
                    }
                    let lost = self.listener.take().is_some();
                    self.bind();
                    if lost && self.listener.is_some() {
                        self.hub.notice("warn", format!("the socket {} was taken away: it is made again", self.file.path.display()), None);
                    }
                }
                accepted = came => match accepted {
                    Ok((stream, _)) => {
                        failed = false;
                        door.admit(stream);
                    }
                    Err(error) => {
                        if !std::mem::replace(&mut failed, true) {
                            tracing::warn!("a connection to the socket failed: {error}");
                        }
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                }
            }
        }
    }
}

/// Lets connections in.
struct Door {
    app: axum::Router,
    room: Arc<Semaphore>,
    stop: CancellationToken,
    abandon: CancellationToken,
    tasks: TaskTracker,
}

impl Door {
    /// Serves a connection of this user (and of root); nobody else's.
    fn admit(&self, stream: UnixStream) {
        let me = rustix::process::geteuid().as_raw();
        match stream.peer_cred() {
            Ok(peer) if peer.uid() == me || peer.uid() == 0 => {}
            Ok(peer) => return tracing::warn!("a connection of user {} to the socket was refused", peer.uid()),
            Err(error) => return tracing::warn!("a connection of an unknown user to the socket was refused: {error}"),
        }
        let Ok(place) = self.room.clone().try_acquire_owned() else {
            self.tasks.spawn(full(stream));
            return;
        };
        let service = TowerToHyperService::new(self.app.clone());
        let (stop, abandon) = (self.stop.clone(), self.abandon.clone());
        self.tasks.spawn(async move {
            let mut http = http1::Builder::new();
            http.timer(TokioTimer::new()).header_read_timeout(HEAD_TIME).max_buf_size(BUFFER);
            let mut connection = pin!(http.serve_connection(TokioIo::new(stream), service));
            let served = async {
                tokio::select! {
                    served = connection.as_mut() => served,
                    () = stop.cancelled() => {
                        connection.as_mut().graceful_shutdown();
                        connection.await
                    }
                }
            };
            tokio::select! {
                served = served => {
                    if let Err(error) = served {
                        tracing::debug!("a connection to the socket ended: {error}");
                    }
                }
                () = abandon.cancelled() => {}
            }
            drop(place);
        });
    }
}

/// The answer when there is no room for another connection.
async fn full(mut stream: UnixStream) {
    // Clients take an answer before their question for a broken connection.
    let _ = tokio::time::timeout(ASKING, head(&mut stream)).await;
    let text = format!("There are {CONNECTIONS} connections already: close some, or try again.");
    let body = serde_json::json!({"statusCode": 503, "message": text, "error": "Service Unavailable"}).to_string();
    let answer = format!(
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\ncontent-length: {}\r\nretry-after: 1\r\nconnection: close\r\n\r\n{body}",
        body.len()
    );
    // So little fits the socket's buffer; who does not take it goes without.
    let _ = tokio::time::timeout(Duration::from_secs(1), stream.write_all(answer.as_bytes())).await;
}

/// Reads to the end of a request's head.
async fn head(stream: &mut UnixStream) -> std::io::Result<()> {
    let mut read = Vec::new();
    while read.len() < BUFFER && !read.windows(4).any(|w| w == b"\r\n\r\n") {
        if stream.read_buf(&mut read).await? == 0 {
            break;
        }
    }
    Ok(())
}

impl From<std::io::Error> for ServiceError {
    fn from(error: std::io::Error) -> Self {
        Self::new(ServiceErrorKind::Storage, error.to_string())
    }
}
