//! What went wrong with files, keys or the database of this machine, in the operator's words.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::model::Problems;
use crate::model::text::{brief, sanitise};

/// The class of a storage failure; faces decide exit codes on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, strum::Display)]
#[strum(serialize_all = "kebab-case")]
pub enum StoreErrorKind {
    /// Nothing of that name is stored.
    NotFound,
    /// The input breaks a rule (`problems` may say which).
    Invalid,
    /// A directory or file is not safe to use: wrong mode, owner, kind, or a symlink.
    Refused,
    /// A file is truncated, garbled, or of a newer version.
    Broken,
    /// The state database is damaged, or of a newer version.
    Database,
    /// Another process holds what is needed for longer than we wait.
    Busy,
    /// The disk or a quota is full.
    Full,
    /// A credential reference (environment variable, file, command) did not resolve.
    Reference,
    /// The key that sealed a credential needs a passphrase, or is not here.
    Locked,
    /// Any other failure of the operating system.
    Io,
}

/// A storage failure. Holds no secret: file contents never enter the texts.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{}", self.text())]
pub struct StoreError {
    pub kind: StoreErrorKind,
    /// What failed and why, without the path.
    pub message: String,
    /// The file or directory concerned.
    pub path: Option<PathBuf>,
    /// What the operator can do.
    pub fix: Option<String>,
    /// The broken rules, when the content of a document was bad.
    pub problems: Problems,
}

impl StoreError {
    /// A failure with its class and text.
    pub fn new(kind: StoreErrorKind, message: impl AsRef<str>) -> Self {
        Self { kind, message: brief(message.as_ref(), 800), path: None, fix: None, problems: Problems::default() }
    }

    /// Names the file or directory concerned.
    pub fn at(mut self, path: &Path) -> Self {
        self.path = Some(path.to_path_buf());
        self
    }

    /// Adds what the operator can do.
    pub fn fix(mut self, fix: impl Into<String>) -> Self {
        self.fix = Some(fix.into());
        self
    }

    /// A failure of the operating system while `doing` something to `path`.
    pub fn io(doing: &str, path: &Path, error: &io::Error) -> Self {
        let (kind, fix) = match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
                (StoreErrorKind::Full, Some("Make room on that file system; what was there before is unharmed.".to_string()))
            }
            io::ErrorKind::PermissionDenied => {
                let look = || format!("See who owns it: ls -ld {}; kms-sync must run as that user.", shown(path));
                (StoreErrorKind::Io, Some(denial(path).unwrap_or_else(look)))
            }
            io::ErrorKind::ReadOnlyFilesystem => {
                (StoreErrorKind::Io, Some("That file system is read-only; choose another place with --config-dir or --state-dir.".to_string()))
            }
            _ => (StoreErrorKind::Io, None),
        };
        Self { fix, ..Self::new(kind, format!("cannot {doing}: {error}")).at(path) }
    }

    /// One text with the path, the reason and the fix.
    pub fn text(&self) -> String {
        let mut out = String::new();
        if let Some(path) = &self.path {
            out.push_str(&sanitise(&path.display().to_string()));
            out.push_str(": ");
        }
        out.push_str(&self.message);
        if let Some(fix) = &self.fix {
            out.push_str(if self.message.ends_with('.') { " " } else { ". " });
            out.push_str(fix);
        }
        out
    }
}

/// What helps where the system refuses something about a path, when owner or mode of what stands
/// there, or of the directory in which it was to be made, explain it.
pub fn denial(path: &Path) -> Option<String> {
    let me = rustix::process::geteuid().as_raw();
    let there = path.ancestors().filter_map(|p| std::fs::metadata(p).ok().map(|meta| (p, meta)));
    // The first that stands there, and the directory around it: no other is touched.
    there.take(2).find_map(|(place, meta)| remedy(place, meta.is_dir(), meta.uid(), meta.mode(), me))
}

fn remedy(place: &Path, directory: bool, owner: u32, mode: u32, me: u32) -> Option<String> {
    let (bits, word) = if directory { (0o700, "u+rwx") } else { (0o600, "u+rw") };
    let shown = shown(place);
    if owner != me {
        return Some(format!("It belongs to user {owner}, and kms-sync runs as user {me}: run it as user {owner}, or: chown {me} {shown}"));
    }
    (mode & bits != bits).then(|| format!("Its mode is {:04o}: chmod {word} {shown}", mode & 0o7777))
}

/// A stored file that cannot be used, with its path and a fix.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {reason} {fix}", sanitise(&path.display().to_string()))]
pub struct Broken {
    pub path: PathBuf,
    /// A sentence.
    pub reason: String,
    /// A sentence.
    pub fix: String,
    /// The broken rules, when it is JSON that breaks some.
    pub problems: Problems,
}

impl Broken {
    /// The reason of `error`, pinned to `path`.
    pub fn of(path: &Path, error: StoreError) -> Self {
        let mut reason = error.message;
        if !reason.ends_with('.') {
            reason.push('.');
        }
        Self {
            path: error.path.unwrap_or_else(|| path.to_path_buf()),
            reason,
            fix: error.fix.unwrap_or_else(|| "Mend the file, or move it out of the directory.".to_string()),
            problems: error.problems,
        }
    }
}

impl From<Problems> for StoreError {
    fn from(problems: Problems) -> Self {
        Self { problems: problems.clone(), ..Self::new(StoreErrorKind::Invalid, problems.to_string()) }
    }
}

impl From<Broken> for StoreError {
    fn from(broken: Broken) -> Self {
        let error = StoreError::new(StoreErrorKind::Broken, &broken.reason).at(&broken.path).fix(broken.fix);
        StoreError { problems: broken.problems, ..error }
    }
}

/// One entry of a configuration directory: usable or not, it never hides the others.
#[derive(Debug, Clone)]
pub struct Loaded<T> {
    /// The file's name without `.json`.
    pub name: String,
    pub path: PathBuf,
    pub result: Result<T, Broken>,
}

/// A path as a shell word that can be copied, with control characters made visible.
pub fn shown(path: &Path) -> String {
    let text = sanitise(&path.display().to_string());
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:@%,=".contains(c);
    if !text.is_empty() && text.chars().all(plain) { text } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_refused_has_the_remedy_of_its_owner_and_mode() {
        let dir = Path::new("/var/lib/kms sync");
        assert_eq!(remedy(dir, true, 7, 0o40500, 7).as_deref(), Some("Its mode is 0500: chmod u+rwx '/var/lib/kms sync'"));
        assert_eq!(remedy(dir, true, 7, 0o40700, 7), None);
        assert_eq!(remedy(Path::new("/f"), false, 7, 0o100400, 7).as_deref(), Some("Its mode is 0400: chmod u+rw /f"));
        let other = remedy(dir, true, 0, 0o40755, 7).unwrap();
        assert!(other.contains("belongs to user 0") && other.ends_with("chown 7 '/var/lib/kms sync'"), "{other}");
    }
}
