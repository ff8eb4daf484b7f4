//! What a service manager is told, and what its reload does.

use std::os::unix::net::UnixDatagram;

use kms_sync::service::Service;
use rustix::process::Signal;
use serde_json::json;

use super::yard::{PATIENCE, Yard, sure};

/// The next word to the service manager.
fn word(socket: &UnixDatagram) -> String {
    let mut buffer = [0; 256];
    let read = tokio::task::block_in_place(|| socket.recv(&mut buffer)).expect("a word in time");
    String::from_utf8_lossy(&buffer[..read]).into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_is_told_of_the_beginning_and_of_the_end() {
    use std::os::linux::net::SocketAddrExt;

    let yard = Yard::aws().await;
    let path = yard.rig.state_dir().with_file_name("notify.sock");
    // systemd hands out either kind of address.
    let hidden = format!("kms-sync-test-{}", std::process::id());
    let abstract_address = std::os::unix::net::SocketAddr::from_abstract_name(&hidden).expect("an address");
    let sockets = [
        (UnixDatagram::bind(&path).expect("a socket"), path.display().to_string()),
        (UnixDatagram::bind_addr(&abstract_address).expect("a socket"), format!("@{hidden}")),
    ];
    for (socket, address) in sockets {
        socket.set_read_timeout(Some(PATIENCE)).expect("a time");
        let mut command = yard.rig.command();
        command.arg("run").env("NOTIFY_SOCKET", &address);
        let mut engine = yard.start(command);
        assert_eq!(word(&socket), "READY=1", "{address}: {:?}", engine.lines());
        // It keeps its word: the engine is there.
        assert!(kms_sync::service::attach::reach(&yard.dirs()).await.is_ok());
        engine.signal(Signal::TERM);
        assert_eq!(word(&socket), "STOPPING=1", "{address}: {:?}", engine.lines());
        assert_eq!(engine.end().await.code(), Some(0));
        socket.set_nonblocking(true).expect("a mode");
        assert!(socket.recv(&mut [0; 8]).is_err(), "nothing else is told");
    }
}

/// What a sync waits for, by the engine's socket.
async fn waits(yard: &Yard) -> Option<String> {
    let remote = kms_sync::service::attach::reach(&yard.dirs()).await.expect("the engine");
    remote.sync("web").await.expect("a sync").waiting.map(|w| w.reason)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reload_reads_what_references_hold_now() {
    let yard = Yard::aws().await;
    yard.settings(&json!({"pollIntervalSecs": 10, "driftHours": null}));
    yard.rig.kms.switch(|s| s.events = false);
    let file = yard.rig.state_dir().with_file_name("client-secret");
    let hold = |text: &str| {
        std::fs::write(&file, text).expect("a file");
        std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).expect("a mode");
    };
    hold(crate::support::rig::CLIENT_SECRET);
    let account = json!({"name": "kms", "app": "hanzo-kms", "method": "universal-auth", "baseUrl": yard.rig.kms_host.url,
        "credentials": {"clientId": yard.rig.client_id, "clientSecret": {"file": file}}});
    yard.rig.run_with(&["connection", "add", "--replace", "-f", "-"], &account).await.expect(0);
    yard.rig.set("KEY", "one");
    yard.create(&yard.document("web", yard.place(), "/app", true, None)).await;
    let engine = yard.engine(&[]).await;
    engine.says("web: 1 created").await;

    // What is open goes on as it was opened, whatever the file holds.
    hold("another-client-secret");
    yard.rig.set("KEY", "two");
    engine.says("web: 1 updated").await;
    let logins = || yard.rig.kms_host.log.count("/auth/universal-auth/login");
    assert_eq!(logins(), 1);

    engine.signal(Signal::HUP);
    engine.says("dev:/app could not be read").await;
    assert_eq!(logins(), 2, "one try with what the file holds now");
    assert!(waits(&yard).await.is_some_and(|w| w.contains("cannot be read")));

    // Nothing is tried again before somebody says so; then the mended file is read.
    hold(crate::support::rig::CLIENT_SECRET);
    yard.rig.set("KEY", "three");
    engine.signal(Signal::HUP);
    sure("the change", || yard.place().values().get("KEY").is_some_and(|v| v == "three")).await;
    assert_eq!(logins(), 3);
}
