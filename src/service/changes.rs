//! The configuration's files, watched: what changes there counts at once.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::local::Local;
use crate::store::Dirs;

/// Editors write several times: files are read again when they have been quiet this long.
const QUIET: Duration = Duration::from_millis(300);
/// How often files that cannot be watched are looked at.
const LOOKS: Duration = Duration::from_secs(10);

/// Watches until it is dropped.
pub(super) type Watcher = Box<dyn notify::Watcher + Send + Sync>;

/// Reads the configuration again when its files change.
pub(super) fn watch_files(dirs: &Dirs, local: &Arc<Local>) -> Option<Watcher> {
    let (changed, mut changes) = tokio::sync::mpsc::unbounded_channel();
    let told = move |event: notify::Result<notify::Event>| {
        if event.is_ok_and(|e| !e.kind.is_access()) {
            // The service may have ended.
            let _ = changed.send(());
        }
    };
    let (watcher, trouble) = watcher(&dirs.config, told);
    if let Some(trouble) = trouble {
        local.engine().hub().notice("warn", trouble, None);
    }
    let local = Arc::downgrade(local);
    tokio::spawn(async move {
        while changes.recv().await.is_some() {
            while tokio::time::timeout(QUIET, changes.recv()).await.is_ok_and(|c| c.is_some()) {}
            let Some(local) = local.upgrade() else { return };
            // Reading files is no work for the async threads.
            let _ = tokio::task::spawn_blocking(move || local.look_again()).await;
        }
    });
    watcher
}

/// A watcher of a directory; where the system has none to give (its number is limited), one that
/// looks every [`LOOKS`]. With it, or instead of it, what there is to say.
fn watcher<F>(dir: &Path, told: F) -> (Option<Watcher>, Option<String>)
where
    F: FnMut(notify::Result<notify::Event>) + Clone + Send + 'static,
{
    let begun = |mut watcher: Watcher| watcher.watch(dir, notify::RecursiveMode::Recursive).map(|()| watcher);
    let error = match notify::recommended_watcher(told.clone()).and_then(|w| begun(Box::new(w))) {
        Ok(watcher) => return (Some(watcher), None),
        Err(error) => error,
    };
    let looks = notify::Config::default().with_poll_interval(LOOKS).with_compare_contents(true);
    match notify::PollWatcher::new(told, looks).and_then(|w| begun(Box::new(w))) {
        Ok(watcher) => (
            Some(watcher),
            Some(format!("the system cannot watch the configuration's files ({error}): they are looked at every {} s", LOOKS.as_secs())),
        ),
        Err(error) => (None, Some(format!("the configuration's files cannot be watched ({error}): after a change send SIGHUP, or start again"))),
    }
}
