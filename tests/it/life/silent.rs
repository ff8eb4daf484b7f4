//! Engines that do not answer: the socket taken away, the process stopped.

use std::time::{Duration, Instant};

use kms_sync::service::attach::reach;
use rustix::process::Signal;

use super::yard::{PATIENCE, Yard, socket_of, sure};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_socket_that_was_taken_away_is_made_again() {
    use std::os::unix::fs::PermissionsExt;
    let yard = Yard::aws().await;
    yard.rig.set("KEY", "one");
    yard.create(&yard.document("web", yard.place(), "/app", false, None)).await;
    let mut engine = yard.engine(&[]).await;
    let socket = socket_of(&yard);
    std::fs::remove_file(&socket).expect("a socket");
    // A command that comes at once waits for it.
    let answer = yard.rig.run(&["sync", "web", "--json"]).await.expect(0);
    assert_eq!(answer["runs"][0]["status"], "succeeded");
    let line = engine.says("was taken away").await;
    assert!(line.contains("WARN") && line.contains("engine.sock"), "{line}");
    engine.says("web: 1 created").await;
    assert_eq!(socket.metadata().expect("a socket").permissions().mode() & 0o777, 0o600);

    // Something else in its place: a file, a link to a file of somebody's, another's socket.
    let precious = yard.rig.config_dir().join("precious");
    std::fs::write(&precious, "precious").expect("a file");
    for n in 0..3 {
        std::fs::remove_file(&socket).expect("a socket");
        match n {
            0 => std::fs::write(&socket, "a file").expect("a file"),
            1 => std::os::unix::fs::symlink(&precious, &socket).expect("a link"),
            _ => drop(std::os::unix::net::UnixListener::bind(&socket).expect("a socket")),
        }
        sure("an answer", || futures::executor::block_on(reach(&yard.dirs())).is_ok()).await;
    }
    assert_eq!(std::fs::read_to_string(&precious).ok().as_deref(), Some("precious"));
    assert!(engine.runs());
    // One file per engine, and none is left.
    engine.signal(Signal::TERM);
    assert_eq!(engine.end().await.code(), Some(0));
    let left: Vec<_> = std::fs::read_dir(yard.rig.state_dir()).expect("a directory").filter_map(Result::ok).map(|e| e.file_name()).collect();
    assert!(!left.iter().any(|n| n.to_string_lossy().starts_with("engine.") && n != "engine.lock"), "{left:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_whole_runtime_directory_that_went_away_is_made_again() {
    let yard = Yard::aws().await;
    let runtime = tempfile::tempdir().expect("a directory");
    let mut command = yard.rig.command();
    command.env("XDG_RUNTIME_DIR", runtime.path()).args(["run"]);
    let mut engine = yard.start(command);
    engine.says("ready").await;
    let alive = || futures::executor::block_on(reach(&yard.dirs())).is_ok();
    sure("an answer", alive).await;
    std::fs::remove_dir_all(runtime.path().join("kms-sync")).expect("a directory");
    engine.says("was taken away").await;
    sure("an answer", alive).await;
    assert!(engine.runs());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_give_a_stopped_engine_up_and_say_what_helps() {
    let yard = Yard::aws().await;
    yard.rig.set("KEY", "one");
    yard.create(&yard.document("web", yard.place(), "/app", false, None)).await;
    let engine = yard.engine(&[]).await;
    engine.signal(Signal::STOP);
    let begun = Instant::now();
    let asked = [&["sync", "web"][..], &["import", "web"], &["disable", "web"], &["cancel", "web"], &["delete", "web", "--yes"], &["run", "--once"]];
    let all = asked.map(|args| {
        let yard = &yard;
        async move { (args, yard.rig.run(args).await) }
    });
    for (args, answer) in futures::future::join_all(all).await {
        assert_eq!(answer.code, 1, "{args:?}: {}", answer.stderr);
        for word in [&format!("pid {}", engine.id()), "kms-sync run", "has not answered", &format!("kill -CONT {}", engine.id())] {
            assert!(answer.stderr.contains(word), "{args:?}: {word}: {}", answer.stderr);
        }
    }
    assert!(begun.elapsed() < Duration::from_secs(25), "{:?}", begun.elapsed());
    // What only looks needs no engine.
    yard.rig.run(&["list"]).await.expect(0);
    // The remedy helps.
    engine.signal(Signal::CONT);
    yard.rig.run(&["sync", "web"]).await.expect(0);
    assert_eq!(yard.place().values().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_that_waits_for_a_run_notices_that_the_engine_stopped() {
    let yard = Yard::aws().await;
    for i in 0..30 {
        yard.rig.set(&format!("KEY_{i:02}"), "one");
    }
    let slow = kms_sync::sandbox::host::Effect::Delay(Duration::from_millis(200));
    yard.place().host().faults.add(kms_sync::sandbox::host::Fault::always("CreateSecret", 1.0, slow));
    yard.create(&yard.document("web", yard.place(), "/app", false, None)).await;
    let engine = yard.engine(&[]).await;
    let command = yard.spawn(&["sync", "web"]);
    sure("a write", || !yard.place().values().is_empty()).await;
    engine.signal(Signal::STOP);
    let begun = Instant::now();
    let line = loop {
        if let Some(line) = command.lines().into_iter().find(|l| l.contains("kill -CONT")) {
            break line;
        }
        assert!(begun.elapsed() < PATIENCE * 2, "{:?}", command.lines());
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert!(line.contains("error:"), "{line}");
    engine.signal(Signal::CONT);
    engine.says("web: 30 created").await;
}
