//! Files and directories that only their owner may touch: safe reading, atomic writing.
//!
//! Everything here refuses symlinks in place of our own files, and modes that let others in.
//! What the files mean is the business of the callers in `store/`.

use std::fs::{self, DirBuilder, File, Metadata, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use zeroize::Zeroizing;

use super::error::{StoreError, StoreErrorKind, shown};

/// The largest configuration file that is read, in bytes.
pub const MAX_FILE: u64 = 1 << 20;

/// Temporary files start like this; listings skip them and `doctor` reports those left behind.
pub const TEMP_PREFIX: &str = ".kms-sync-";

/// Who else may do what with a file of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Holds or guards secrets: 0600, or 0640 when root owns it and we are not root (the
    /// group is then how the administrator lets us read it).
    Private,
    /// Others may read it, nobody else may write it (0644).
    Readable,
}

fn refused(path: &Path, message: impl AsRef<str>, fix: String) -> StoreError {
    StoreError::new(StoreErrorKind::Refused, message).at(path).fix(fix)
}

fn euid() -> u32 {
    rustix::process::geteuid().as_raw()
}

fn check_owner(path: &Path, meta: &Metadata) -> Result<(), StoreError> {
    let (owner, me) = (meta.uid(), euid());
    if owner == me || owner == 0 {
        return Ok(());
    }
    Err(refused(
        path,
        format!("belongs to user {owner}, and kms-sync runs as user {me}"),
        format!("Run kms-sync as user {owner}, or: chown {me} {}", shown(path)),
    ))
}

/// Checks owner and mode of a file of ours that was opened or inspected.
pub fn check_file(path: &Path, meta: &Metadata, access: Access) -> Result<(), StoreError> {
    if meta.file_type().is_symlink() {
        return Err(symlink(path));
    }
    if !meta.is_file() {
        return Err(refused(path, "is not a regular file", format!("Move it away: mv {0} {0}.old", shown(path))));
    }
    check_owner(path, meta)?;
    let mode = meta.mode() & 0o7777;
    let allowed = match access {
        Access::Private if meta.uid() == 0 && euid() != 0 => 0o640,
        Access::Private => 0o600,
        Access::Readable => 0o644,
    };
    // Bits of the owner are the owner's own affair.
    if mode & 0o077 & !allowed != 0 {
        let what = match access {
            Access::Private => "others may read or write it",
            Access::Readable => "others may write it",
        };
        return Err(refused(path, format!("has mode {mode:04o}: {what}"), format!("chmod {:o} {}", allowed & 0o644, shown(path))));
    }
    Ok(())
}

fn symlink(path: &Path) -> StoreError {
    refused(
        path,
        "is a symbolic link where kms-sync keeps a file or directory of its own",
        format!("Put the real file there: cp --remove-destination \"$(readlink -f {0})\" {0}", shown(path)),
    )
}

/// What stands at a path, links not followed; `None` when nothing does.
pub fn look(path: &Path) -> Result<Option<Metadata>, StoreError> {
    match fs::symlink_metadata(path) {
        Ok(meta) => Ok(Some(meta)),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(StoreError::io("look at it", path, &error)),
    }
}

/// Opens a file of ours for reading after checking what it is; `None` when there is none.
/// Links are not followed, and a named pipe cannot make us wait.
pub fn open(path: &Path, access: Access) -> Result<Option<File>, StoreError> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    match OpenOptions::new().read(true).custom_flags(flags.bits() as i32).open(path) {
        Ok(file) => {
            let meta = file.metadata().map_err(|e| StoreError::io("look at it", path, &e))?;
            check_file(path, &meta, access)?;
            Ok(Some(file))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => match look(path)? {
            Some(meta) => {
                check_file(path, &meta, access)?;
                Err(StoreError::io("open it", path, &error))
            }
            None => Ok(None),
        },
    }
}

/// Reads a whole text file of ours; `None` when there is none. The copy in memory is wiped.
pub fn read(path: &Path, access: Access) -> Result<Option<Zeroizing<String>>, StoreError> {
    let Some(file) = open(path, access)? else {
        return Ok(None);
    };
    read_text(file, path).map(Some)
}

/// Reads an open file to its end, as UTF-8 of at most [`MAX_FILE`] bytes.
pub fn read_text(file: File, path: &Path) -> Result<Zeroizing<String>, StoreError> {
    let size = file.metadata().map_or(0, |m| m.len()).min(MAX_FILE);
    // Room for everything at once: a growing buffer would leave copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(size as usize + 64));
    file.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(|e| StoreError::io("read it", path, &e))?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(StoreError::new(StoreErrorKind::Broken, format!("is larger than {MAX_FILE} bytes")).at(path));
    }
    match String::from_utf8(std::mem::take(&mut *bytes)) {
        Ok(text) => Ok(Zeroizing::new(text)),
        Err(error) => {
            let at = error.utf8_error().valid_up_to();
            drop(Zeroizing::new(error.into_bytes()));
            Err(StoreError::new(StoreErrorKind::Broken, format!("is not UTF-8 text (byte {at})")).at(path))
        }
    }
}

/// Makes a directory (and missing parents) with mode 0700, or checks the one that is there:
/// it must be ours (or root's) and not writable by others. A link given by the operator is
/// followed; `strict` refuses it, for directories that only kms-sync names.
pub fn ensure_dir(path: &Path, strict: bool) -> Result<(), StoreError> {
    match look(path)? {
        Some(meta) => check_dir(path, &meta, strict),
        None => {
            DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|e| StoreError::io("make the directory", path, &e))?;
            match look(path)? {
                Some(meta) => check_dir(path, &meta, strict),
                None => Err(StoreError::new(StoreErrorKind::Io, "vanished while it was made").at(path)),
            }
        }
    }
}

/// Checks a directory that exists, see [`ensure_dir`].
pub fn check_dir(path: &Path, meta: &Metadata, strict: bool) -> Result<(), StoreError> {
    let followed;
    let meta = if meta.file_type().is_symlink() {
        if strict {
            let fix = format!("Put the real directory there: cp -a \"$(readlink -f {0})\" {0}.real && rm {0} && mv {0}.real {0}", shown(path));
            return Err(StoreError { fix: Some(fix), ..symlink(path) });
        }
        check_owner(path, meta)?;
        followed = fs::metadata(path).map_err(|e| StoreError::io("follow the link", path, &e))?;
        &followed
    } else {
        meta
    };
    if !meta.is_dir() {
        return Err(refused(path, "is not a directory", format!("Move it away: mv {0} {0}.old", shown(path))));
    }
    check_owner(path, meta)?;
    let mode = meta.mode() & 0o7777;
    if mode & 0o022 != 0 {
        return Err(refused(path, format!("has mode {mode:04o}: others may write into it"), format!("chmod 700 {}", shown(path))));
    }
    Ok(())
}

/// Checks that a socket is one, and of this user (or root).
pub fn check_socket(path: &Path, meta: &Metadata) -> Result<(), StoreError> {
    use std::os::unix::fs::FileTypeExt;
    if !meta.file_type().is_socket() {
        return Err(refused(path, "is not a socket", format!("Move it away: mv {0} {0}.old", shown(path))));
    }
    check_owner(path, meta)
}

/// A file written and synced under a temporary name, waiting for its rename. Dropped without
/// [`Staged::commit`] it leaves nothing behind.
pub struct Staged {
    temp: tempfile::NamedTempFile,
    path: PathBuf,
}

/// Writes `bytes` under a temporary name beside `path`, mode 0600, and syncs them.
pub fn stage(path: &Path, bytes: &[u8]) -> Result<Staged, StoreError> {
    if let Some(meta) = look(path)? {
        // A wider mode is no reason against writing: the new file has the right one.
        if meta.file_type().is_symlink() {
            return Err(symlink(path));
        }
        if !meta.is_file() {
            check_file(path, &meta, Access::Private)?;
        }
    }
    let fail = |e: &io::Error| StoreError::io("write it", path, e);
    let dir = path.parent().unwrap_or(Path::new("."));
    let mut temp = tempfile::Builder::new().prefix(TEMP_PREFIX).suffix(".tmp").tempfile_in(dir).map_err(|e| fail(&e))?;
    temp.write_all(bytes).map_err(|e| fail(&e))?;
    temp.as_file().sync_all().map_err(|e| fail(&e))?;
    Ok(Staged { temp, path: path.to_path_buf() })
}

impl Staged {
    /// Puts the new file in place of the old one, for good.
    pub fn commit(self) -> Result<(), StoreError> {
        let path = self.path;
        self.temp.persist(&path).map_err(|e| StoreError::io("put the new file in place", &path, &e.error))?;
        sync_dir_of(&path)
    }

    /// Like [`Self::commit`], unless a file of that name exists already: then `false`.
    pub fn commit_new(self) -> Result<bool, StoreError> {
        let path = self.path;
        match self.temp.persist_noclobber(&path) {
            Ok(_) => sync_dir_of(&path).map(|()| true),
            Err(e) if e.error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            Err(e) => Err(StoreError::io("put the new file in place", &path, &e.error)),
        }
    }
}

/// Replaces a file in one step: a crash leaves the old or the new content.
pub fn write(path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    stage(path, bytes)?.commit()
}

/// Removes a file; `false` when there was none.
pub fn remove(path: &Path) -> Result<bool, StoreError> {
    match fs::remove_file(path) {
        Ok(()) => sync_dir_of(path).map(|()| true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(StoreError::io("remove it", path, &error)),
    }
}

/// Makes renames and removals in a file's directory durable.
pub fn sync_dir_of(path: &Path) -> Result<(), StoreError> {
    let dir = path.parent().unwrap_or(Path::new("."));
    File::open(dir).and_then(|d| d.sync_all()).map_err(|e| StoreError::io("sync the directory", dir, &e))
}

/// Names (without `.json`) and paths of the JSON files of a directory, sorted. A directory
/// that does not exist is empty.
pub fn json_files(dir: &Path) -> Result<Vec<(String, PathBuf)>, StoreError> {
    let Some(meta) = look(dir)? else {
        return Ok(Vec::new());
    };
    check_dir(dir, &meta, true)?;
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).map_err(|e| StoreError::io("list it", dir, &e))? {
        let entry = entry.map_err(|e| StoreError::io("list it", dir, &e))?;
        let file = entry.file_name();
        let name = file.to_string_lossy();
        if !name.starts_with('.')
            && let Some(stem) = name.strip_suffix(".json")
        {
            found.push((stem.to_string(), entry.path()));
        }
    }
    found.sort();
    Ok(found)
}
