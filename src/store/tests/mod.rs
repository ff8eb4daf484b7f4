//! Tests of the store, by subject, with what they share.

mod config;
mod crash;
mod database;
mod doctor;
mod files;
mod lock;
mod references;
mod sealing;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use super::{Dirs, Store};
use crate::destination::registry;
use crate::model::connection::Connection;

/// A store in directories of its own, removed at the end of the test.
pub struct Room {
    pub dir: tempfile::TempDir,
    pub store: Store,
}

impl Room {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dirs_in(dir.path())).unwrap();
        Self { dir, store }
    }

    /// Another handle on the same directories, as another process would have.
    pub fn again(&self) -> Store {
        Store::open(dirs_in(self.dir.path())).unwrap()
    }

    pub fn path(&self, relative: &str) -> PathBuf {
        self.dir.path().join(relative)
    }

    pub fn put(&self, relative: &str, text: impl AsRef<[u8]>, mode: u32) -> PathBuf {
        let path = self.path(relative);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        chmod(&path, mode);
        path
    }

    /// True when any file below the directories holds the text.
    pub fn on_disk(&self, text: &str) -> bool {
        fn search(dir: &Path, needle: &[u8]) -> bool {
            std::fs::read_dir(dir).unwrap().flatten().any(|entry| {
                let path = entry.path();
                if path.is_dir() {
                    return search(&path, needle);
                }
                std::fs::read(&path).is_ok_and(|bytes| bytes.windows(needle.len()).any(|w| w == needle))
            })
        }
        search(self.dir.path(), text.as_bytes())
    }
}

pub fn dirs_in(root: &Path) -> Dirs {
    Dirs::resolve(Some(root.join("config")), Some(root.join("state"))).unwrap()
}

pub fn chmod(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

pub fn mode(path: &Path) -> u32 {
    std::fs::symlink_metadata(path).unwrap().permissions().mode() & 0o777
}

pub fn connection(document: Value) -> Connection {
    Connection::parse(&document, registry::app, &["hanzo-kms"]).unwrap()
}

/// A KMS account with a literal secret.
pub fn account(name: &str, secret: &str) -> Connection {
    connection(json!({
        "name": name, "app": "hanzo-kms", "method": "universal-auth",
        "credentials": {"clientId": "client-1", "clientSecret": secret},
        "baseUrl": "http://127.0.0.1:7400"
    }))
}

/// Starts this test binary again as a child that does `task` in `root`, see [`child`].
pub fn spawn(task: &str, root: &Path, env: &[(&str, &str)]) -> Child {
    start(Command::new(std::env::current_exe().unwrap()), task, root, env)
}

/// Like [`spawn`], with files that cannot grow beyond `kib`: a write fails half-way, as on a
/// full disk.
pub fn spawn_limited(task: &str, root: &Path, kib: u32) -> Child {
    let mut shell = Command::new("bash");
    let script = format!("trap '' XFSZ; ulimit -f {kib}; exec \"$0\" \"$@\"");
    shell.arg("-c").arg(script).arg(std::env::current_exe().unwrap());
    start(shell, task, root, &[])
}

fn start(mut command: Command, task: &str, root: &Path, env: &[(&str, &str)]) -> Child {
    command
        .args(["--exact", "store::tests::child", "--nocapture", "--test-threads=1"])
        .env("KMS_SYNC_TEST_TASK", task)
        .env("KMS_SYNC_TEST_ROOT", root)
        .envs(env.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap()
}

/// Reads a child's output up to the line that starts with `word`, and returns its rest.
pub fn await_line(child: &mut Child, word: &str) -> String {
    use std::io::BufRead;
    let out = child.stdout.as_mut().unwrap();
    for line in std::io::BufReader::new(out).lines() {
        let line = line.unwrap();
        if let Some(at) = line.find(word) {
            return line[at + word.len()..].trim().to_string();
        }
    }
    panic!("the child ended without saying {word:?}");
}

/// Not a test by itself: what the children of other tests do. Passes at once without a task.
#[test]
fn child() {
    let Ok(task) = std::env::var("KMS_SYNC_TEST_TASK") else {
        return;
    };
    let root = PathBuf::from(std::env::var_os("KMS_SYNC_TEST_ROOT").unwrap());
    match task.as_str() {
        "hold-lock" => lock::child_holds(&root),
        "write-files" => crash::child_writes_files(&root),
        "write-ledger" => crash::child_writes_ledger(&root),
        "full" => crash::child_meets_a_full_disk(&root),
        "reseal" => sealing::child_reseals(&root),
        "unseal" => sealing::child_unseals(&root),
        other => panic!("no such task: {other}"),
    }
}
