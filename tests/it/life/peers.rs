//! Who may speak to the engine's socket: its own user and root, whatever its modes say.

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;

use super::yard::{Yard, socket_of};

/// Names the socket that [`a_visitor`] knocks at.
const SOCKET: &str = "KMS_SYNC_TEST_SOCKET";
/// The user `nobody`, by custom; any other than ours will do.
const STRANGER: u32 = 65_534;

fn ask(socket: &Path) -> std::io::Result<String> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(super::yard::PATIENCE))?;
    // Whoever is turned away may find the other end closed already.
    let _ = stream.write_all(b"GET /api/status HTTP/1.1\r\nhost: engine\r\nconnection: close\r\n\r\n");
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Err(error) if error.kind() != std::io::ErrorKind::ConnectionReset => Err(error),
        _ => Ok(String::from_utf8_lossy(&answer).into_owned()),
    }
}

/// What [`knocks`] starts under another user; by itself there is nothing to test here.
#[test]
fn a_visitor() {
    let Some(socket) = std::env::var_os(SOCKET) else { return };
    println!("answer: {:?}", ask(Path::new(&socket)));
}

/// Asks the engine as this user and tells what came back.
fn knocks(socket: &Path, user: u32) -> String {
    let mut command = std::process::Command::new(std::env::current_exe().expect("this program"));
    command.args(["--exact", "life::peers::a_visitor", "--nocapture", "--test-threads=1"]).env_clear().env(SOCKET, socket).current_dir("/");
    let output = command.uid(user).gid(user).output().expect("this program once more");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let at = text.find("answer: ").unwrap_or_else(|| panic!("{text} {}", String::from_utf8_lossy(&output.stderr)));
    text[at..].lines().next().unwrap_or_default().to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_user_is_turned_away_at_a_socket_that_anybody_may_open() {
    let yard = Yard::aws().await;
    let engine = yard.engine(&[]).await;
    let socket = socket_of(&yard);
    let state = yard.rig.state_dir();
    for (path, mode) in [(state.parent().expect("a home"), 0o755), (&*state, 0o755), (&*socket, 0o777)] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("a mode");
    }
    let own = tokio::task::block_in_place(|| ask(&socket)).expect("an answer");
    assert!(own.starts_with("HTTP/1.1 200 "), "{own}");
    if !rustix::process::geteuid().is_root() {
        eprintln!("NOT TESTED: only root can knock at the engine's socket as another user.");
        return;
    }
    assert_eq!(tokio::task::block_in_place(|| knocks(&socket, STRANGER)), "answer: Ok(\"\")", "not a word");
    engine.says(&format!("a connection of user {STRANGER} to the socket was refused")).await;
    // The engine is well, and its own user is served.
    let own = tokio::task::block_in_place(|| knocks(&socket, 0));
    assert!(own.starts_with("answer: Ok(\"HTTP/1.1 200 "), "{own}");
}
