//! Where things live: configuration for people and version control, state for the machine,
//! and the runtime directory for the engine's socket.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::error::{StoreError, StoreErrorKind};
use super::files;

/// The longest socket path every supported system can bind (`sun_path` holds 104 to 108 bytes).
const MAX_SOCKET_PATH: usize = 100;

/// The directories of one kms-sync. Absolute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dirs {
    pub config: PathBuf,
    pub state: PathBuf,
    /// Differs per state directory. Made by [`Dirs::prepare_runtime`], not before.
    pub runtime: PathBuf,
}

impl Dirs {
    /// The given directories, or the XDG defaults (`~/.config/kms-sync`,
    /// `~/.local/state/kms-sync`, `$XDG_RUNTIME_DIR/kms-sync/…`).
    pub fn resolve(config: Option<PathBuf>, state: Option<PathBuf>) -> Result<Self, StoreError> {
        let project = || {
            directories::ProjectDirs::from("ai", "hanzo", "kms-sync").ok_or_else(|| {
                StoreError::new(StoreErrorKind::Invalid, "there is no home directory to keep the configuration in")
                    .fix("Set HOME, or give --config-dir and --state-dir.")
            })
        };
        let config = match config {
            Some(dir) => dir,
            None => project()?.config_dir().to_path_buf(),
        };
        let state = match state {
            Some(dir) => dir,
            None => {
                let project = project()?;
                project.state_dir().unwrap_or_else(|| project.data_local_dir()).to_path_buf()
            }
        };
        let config = absolute(&config)?;
        let state = absolute(&state)?;
        let runtime = runtime_of(&state, std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from));
        Ok(Self { config, state, runtime })
    }

    /// The engine's socket. Its directory exists after [`Self::prepare_runtime`].
    pub fn socket(&self) -> PathBuf {
        self.runtime.join("engine.sock")
    }

    /// Makes the runtime directory, 0700, or checks the one that is there.
    pub fn prepare_runtime(&self) -> Result<(), StoreError> {
        files::ensure_dir(&self.runtime, false)
    }

    /// Checks that nobody else can have put a socket there: its directory is ours (or root's)
    /// and closed to others, and so is the socket.
    pub fn vouch(socket: &Path) -> Result<(), StoreError> {
        let missing = |path: &Path| StoreError::new(StoreErrorKind::NotFound, "is not there").at(path);
        let dir = socket.parent().unwrap_or(Path::new("/"));
        files::check_dir(dir, &files::look(dir)?.ok_or_else(|| missing(dir))?, false)?;
        files::check_socket(socket, &files::look(socket)?.ok_or_else(|| missing(socket))?)
    }

    pub(super) fn syncs(&self) -> PathBuf {
        self.config.join("syncs")
    }

    pub(super) fn connections(&self) -> PathBuf {
        self.config.join("connections")
    }

    pub(super) fn settings(&self) -> PathBuf {
        self.config.join("settings.json")
    }

    pub(super) fn database(&self) -> PathBuf {
        self.state.join("kms-sync.db")
    }
}

fn absolute(dir: &Path) -> Result<PathBuf, StoreError> {
    if dir.as_os_str().is_empty() {
        return Err(StoreError::new(StoreErrorKind::Invalid, "the directory's name is empty").fix("Give --config-dir and --state-dir a path."));
    }
    std::path::absolute(dir).map_err(|e| StoreError::io("make the path absolute", dir, &e))
}

/// Links resolved as far as the path exists, so that two spellings of one directory agree
/// before and after it is made.
fn canonical(path: &Path) -> PathBuf {
    for ancestor in path.ancestors() {
        if let Ok(real) = std::fs::canonicalize(ancestor) {
            return match path.strip_prefix(ancestor) {
                Ok(rest) if !rest.as_os_str().is_empty() => real.join(rest),
                _ => real,
            };
        }
    }
    path.to_path_buf()
}

/// True unless this directory belongs to somebody else (after `su` the variable is often the
/// other user's), or is missing where we cannot make it.
fn ours(dir: &Path) -> bool {
    match std::fs::metadata(dir) {
        Ok(meta) => meta.is_dir() && meta.uid() == rustix::process::geteuid().as_raw(),
        Err(_) => {
            let above = dir.ancestors().skip(1).find(|a| a.exists());
            above.is_some_and(|a| rustix::fs::access(a, rustix::fs::Access::WRITE_OK).is_ok())
        }
    }
}

/// One directory per state directory. Without `XDG_RUNTIME_DIR` the socket lives in the state
/// directory itself, unless the path is longer than a socket's address may be.
fn runtime_of(state: &Path, xdg: Option<PathBuf>) -> PathBuf {
    let real = canonical(state);
    let mark = blake3::hash(real.as_os_str().as_encoded_bytes()).to_hex();
    let fits = |dir: &Path| dir.join("engine.sock").as_os_str().len() <= MAX_SOCKET_PATH;
    if let Some(dir) = xdg.filter(|d| d.is_absolute() && ours(d)).map(|d| d.join("kms-sync").join(&mark[..16])).filter(|d| fits(d)) {
        return dir;
    }
    if fits(&real) { real } else { std::env::temp_dir().join(format!("kms-sync-{}-{}", rustix::process::geteuid().as_raw(), &mark[..16])) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_directory_has_a_socket_of_its_own() {
        let given = tempfile::tempdir().unwrap();
        let xdg = || Some(given.path().to_path_buf());
        let (a, b) = (runtime_of(Path::new("/a/state"), xdg()), runtime_of(Path::new("/b/state"), xdg()));
        assert_ne!(a, b);
        assert!(a.starts_with(given.path().join("kms-sync")));
        // One that is no directory, or that nobody can make, is as good as none.
        let file = given.path().join("file");
        std::fs::write(&file, "").unwrap();
        for bad in [file.clone(), PathBuf::from("relative")] {
            assert_eq!(runtime_of(Path::new("/a/state"), Some(bad)), Path::new("/a/state"));
        }
        assert_eq!(runtime_of(Path::new("/a/state"), None), Path::new("/a/state"));
        assert_eq!(runtime_of(Path::new("/a/state"), Some("relative".into())), Path::new("/a/state"));
    }

    #[test]
    fn a_long_state_path_still_has_a_bindable_socket() {
        let long = PathBuf::from("/").join("d".repeat(150));
        assert!(runtime_of(&long, None).join("engine.sock").as_os_str().len() < 104);
    }

    #[test]
    fn given_directories_become_absolute() {
        let dirs = Dirs::resolve(Some("c".into()), Some("s".into())).unwrap();
        assert!(dirs.config.is_absolute() && dirs.state.is_absolute() && dirs.config.ends_with("c"));
        assert!(Dirs::resolve(Some("".into()), Some("s".into())).is_err());
    }
}
