//! A file system that is full, a real one where this machine lets us make one.

use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use super::yard::Yard;

/// A shell that mounts a small file system over the state directory, in a name space of its
/// own, fills it up to `left` KiB, runs the program, and copies the state out again. With
/// plain rights a user name space serves; `None` where the machine allows neither.
fn on_a_small_disk(yard: &Yard, left: u32, args: &str) -> Option<(i32, String, String)> {
    let script = r#"
        mount -t tmpfs -o size=4m,mode=700 none "$STATE.disk" || exit 99
        cp -a "$STATE/." "$STATE.disk/" || exit 98
        # The free space in whole pages, less what is to stay free.
        free=$(df -k --output=avail "$STATE.disk" | tail -1)
        [ "$free" -gt "$LEFT" ] && head -c "$(( (free - LEFT) * 1024 ))" /dev/zero > "$STATE.disk/ballast"
        KMS_SYNC_STATE_DIR="$STATE.disk" "$PROGRAM" $ARGS; code=$?
        rm -f "$STATE.disk/ballast"
        cp -a "$STATE.disk/." "$STATE/" || exit 97
        exit $code
    "#;
    on_a_disk(yard, script, left, args)
}

/// The same with a state directory that cannot be written.
fn on_a_read_only_disk(yard: &Yard, args: &str) -> Option<(i32, String, String)> {
    let script = r#"
        mount --bind "$STATE" "$STATE.disk" || exit 99
        mount -o remount,bind,ro "$STATE.disk" || exit 98
        KMS_SYNC_STATE_DIR="$STATE.disk" exec "$PROGRAM" $ARGS
    "#;
    on_a_disk(yard, script, 0, args)
}

fn on_a_disk(yard: &Yard, script: &str, left: u32, args: &str) -> Option<(i32, String, String)> {
    let state = yard.rig.state_dir();
    let template = yard.rig.command();
    let disk = format!("{}.disk", state.display());
    std::fs::create_dir_all(&disk).expect("a directory");
    let shell = |namespaces: &[&str]| {
        let mut command = Command::new("unshare");
        command.args(namespaces).args(["sh", "-c", script]).env_clear();
        for (name, value) in template.get_envs() {
            command.env(name, value.unwrap_or_default());
        }
        command.env("STATE", &state).env("PROGRAM", template.get_program()).env("ARGS", args).env("LEFT", left.to_string());
        command.stdin(Stdio::null()).output().ok()
    };
    let ways: [&[&str]; 2] = [&["--mount"], &["--user", "--map-root-user", "--mount"]];
    let output = ways.into_iter().filter_map(shell).find(|o| o.status.code().is_some_and(|c| c < 97))?;
    let text = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
    Some((output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr)))
}

fn counts(dir: &Path) -> usize {
    std::fs::read_dir(dir).map(|d| d.count()).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_file_system_is_told_and_loses_nothing() {
    let yard = Yard::aws().await;
    for i in 0..60 {
        yard.rig.set(&format!("KEY_{i:02}"), "one");
    }
    yard.create(&yard.document("web", yard.place(), "/app", false, None)).await;
    let before = counts(&yard.rig.config_dir());
    let (mut refused, mut met) = (0, false);
    // From no room at all to a disk that fills in the middle of a run.
    for left in [0, 8, 40, 80, 120] {
        let ran = tokio::task::block_in_place(|| on_a_small_disk(&yard, left, "sync web --json"));
        let Some((code, out, err)) = ran else {
            // `trouble` covers the same with a limit on file sizes, which needs no rights.
            eprintln!("no file system can be made here");
            return;
        };
        assert!(!err.contains("panicked"), "{left}: {err}");
        if code == 0 {
            break;
        }
        refused += 1;
        assert_eq!(code, 1, "{left}: {out}\n{err}");
        let told = format!("{out}{err}");
        assert!(told.contains("disk is full") || told.contains("No space left") || told.contains("database"), "{left}: {told}");
        met |= told.contains("full") || told.contains("No space left");
        assert_eq!(counts(&yard.rig.config_dir()), before);
    }
    assert!(refused >= 1 && met, "no limit was met");
    let good = yard.rig.run(&["sync", "web", "--json"]).await.expect(0);
    assert_eq!(good["runs"][0]["status"], "succeeded");
    assert_eq!(yard.place().values().len(), 60);
    let quiet = yard.rig.run(&["sync", "web", "--json"]).await.expect(0);
    assert_eq!(quiet["runs"][0]["counts"]["unchanged"], 60, "{quiet:#}");
    let history = yard.rig.run(&["history", "web", "--json"]).await.expect(0);
    let odd = |r: &&Value| !matches!(r["status"].as_str(), Some("succeeded" | "failed" | "interrupted"));
    assert_eq!(history["runs"].as_array().into_iter().flatten().find(odd), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_only_state_directory_is_told_with_a_remedy() {
    let yard = Yard::aws().await;
    yard.rig.set("KEY", "one");
    yard.create(&yard.document("web", yard.place(), "/app", false, None)).await;
    yard.rig.run(&["sync", "web"]).await.expect(0);
    for args in ["list", "show web", "plan web", "history web", "sync web", "run", "run --once", "cancel web"] {
        let ran = tokio::task::block_in_place(|| on_a_read_only_disk(&yard, args));
        let Some((code, out, err)) = ran else {
            eprintln!("no file system can be made read-only here");
            return;
        };
        assert_eq!(code, 1, "{args}: {out}\n{err}");
        assert!(err.contains("read-only") && err.contains("--state-dir"), "{args}: {err}");
    }
}
