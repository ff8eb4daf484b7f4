//! References: environment, files, commands.

use std::time::Duration;

use serde_json::json;

use super::super::StoreErrorKind;
use super::super::resolve::{from_command, from_env, secret_file};
use super::{Room, connection};

fn argv(parts: &[&str]) -> Vec<String> {
    parts.iter().map(|p| p.to_string()).collect()
}

#[tokio::test]
async fn every_kind_of_reference_resolves_and_stores_nothing() {
    let room = Room::new();
    let file = room.put("token", "from-file-5b\n\n", 0o600);
    for (reference, expected) in [
        (json!({"env": "CARGO_MANIFEST_DIR"}), std::env::var("CARGO_MANIFEST_DIR").unwrap()),
        (json!({"file": file}), "from-file-5b\n".to_string()),
        (json!({"command": ["printf", "from-%s", "command-7c\n"]}), "from-command-7c".to_string()),
    ] {
        let document = json!({"name": "main", "app": "hanzo-kms", "method": "token", "credentials": {"token": reference}});
        room.store.save_connection(connection(document)).unwrap();
        let loaded = room.store.connection("main").unwrap();
        let resolved = room.store.resolve(&loaded).await.unwrap();
        assert_eq!(resolved.credentials["token"].expose(), expected);
    }
    assert!(!room.on_disk("from-command-7c"));
    assert!(!room.path("state/key.txt").exists(), "no key is made when nothing is sealed");
}

#[tokio::test]
async fn errors_name_the_connection_and_the_field() {
    let room = Room::new();
    let document = json!({"name": "main", "app": "hanzo-kms", "method": "token", "credentials": {"token": {"env": "KMS_SYNC_SURELY_NOT_SET"}}});
    let error = room.store.resolve(&connection(document)).await.unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::Reference);
    for word in ["main", "token", "KMS_SYNC_SURELY_NOT_SET"] {
        assert!(error.text().contains(word), "{error}");
    }
}

#[test]
fn odd_variable_names_are_errors_and_no_panics() {
    for name in ["", "A=B", "A\0B"] {
        assert_eq!(from_env(name).unwrap_err().kind, StoreErrorKind::Reference);
    }
}

#[test]
fn a_secret_file_others_can_read_is_refused() {
    let room = Room::new();
    for mode in [0o644, 0o640, 0o604, 0o660] {
        let path = room.put("token", "x", mode);
        let error = secret_file(&path).unwrap_err();
        assert!(error.text().contains("chmod 600"), "{mode:o}: {error}");
    }
    let path = room.put("token", "x", 0o400);
    assert_eq!(secret_file(&path).unwrap().expose(), "x");
    // Links are the operator's (mounted secrets are links); what counts is the file.
    let link = room.path("link");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    assert_eq!(secret_file(&link).unwrap().expose(), "x");

    assert!(secret_file(&room.path("none")).unwrap_err().text().contains("does not exist"));
    assert!(secret_file(room.dir.path()).unwrap_err().text().contains("not a regular file"));
    assert!(secret_file(&room.put("empty", "\n", 0o600)).unwrap_err().text().contains("empty"));
    assert_eq!(secret_file(&room.put("crlf", "a\r\n", 0o600)).unwrap().expose(), "a");
}

#[tokio::test]
async fn one_trailing_newline_is_trimmed_and_no_shell_looks_at_the_words() {
    let limit = Duration::from_secs(20);
    assert_eq!(from_command(&argv(&["printf", "a\\n\\n"]), limit).await.unwrap().expose(), "a\n");
    assert_eq!(from_command(&argv(&["echo", "$HOME; `id`"]), limit).await.unwrap().expose(), "$HOME; `id`");
}

#[tokio::test]
async fn a_failed_command_tells_standard_error_and_never_standard_output() {
    let script = "echo canary-on-stdout; printf 'vault is \\033[31msealed' >&2; exit 3";
    let error = from_command(&argv(&["sh", "-c", script]), Duration::from_secs(20)).await.unwrap_err();
    let text = error.text();
    assert!(text.contains("sealed") && text.contains('3') && !text.contains("canary") && !text.contains('\u{1b}'), "{text}");

    for (command, word) in [
        (argv(&["kms-sync-no-such-program"]), "not found"),
        (argv(&[]), "empty"),
        (argv(&["true"]), "printed nothing"),
        (argv(&["printf", "\\377\\376"]), "UTF-8"),
        (argv(&["head", "-c", "3000000", "/dev/zero"]), "more than"),
    ] {
        let error = from_command(&command, Duration::from_secs(20)).await.unwrap_err();
        assert!(error.text().contains(word), "{command:?}: {error}");
    }
}

#[tokio::test]
async fn a_command_that_hangs_is_killed_with_its_children() {
    let room = Room::new();
    let pid_file = room.path("pid");
    let script = format!("sleep 300 & echo $! > {}; wait", pid_file.display());
    let error = from_command(&argv(&["sh", "-c", &script]), Duration::from_millis(400)).await.unwrap_err();
    assert!(error.text().contains("did not end"), "{error}");
    let pid: u32 = std::fs::read_to_string(&pid_file).unwrap().trim().parse().unwrap();
    let gone = || {
        // Killed and not yet reaped by whoever inherited it counts as gone.
        std::fs::read_to_string(format!("/proc/{pid}/stat")).map_or(true, |stat| stat.contains(") Z "))
    };
    let until = std::time::Instant::now() + Duration::from_secs(10);
    while !gone() && std::time::Instant::now() < until {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(gone());
}

#[tokio::test]
async fn a_cancelled_caller_leaves_no_command_behind() {
    let room = Room::new();
    let pid_file = room.path("pid");
    let script = format!("echo $$ > {}; exec sleep 300", pid_file.display());
    let words = argv(&["sh", "-c", &script]);
    let task = tokio::spawn(async move { from_command(&words, Duration::from_secs(60)).await });
    let pid: u32 = loop {
        match std::fs::read_to_string(&pid_file).ok().and_then(|t| t.trim().parse().ok()) {
            Some(pid) => break pid,
            None => tokio::time::sleep(Duration::from_millis(2)).await,
        }
    };
    task.abort();
    assert!(task.await.unwrap_err().is_cancelled());
    let until = std::time::Instant::now() + Duration::from_secs(10);
    let gone = || std::fs::read_to_string(format!("/proc/{pid}/stat")).map_or(true, |stat| stat.contains(") Z "));
    while !gone() && std::time::Instant::now() < until {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(gone());
}

#[test]
fn relative_files_belong_to_the_place_they_were_named_in() {
    let room = Room::new();
    let reference = |path: &str| json!({"name": "main", "app": "hanzo-kms", "method": "token", "credentials": {"token": {"file": path}}});
    let stored = room.store.save_connection(connection(reference("token.txt"))).unwrap();
    let here = std::env::current_dir().unwrap();
    assert!(format!("{:?}", stored.credentials["token"]).contains(here.to_str().unwrap()));

    room.put("config/connections/main.json", reference("token.txt").to_string(), 0o600);
    let loaded = room.store.connection("main").unwrap();
    assert!(format!("{:?}", loaded.credentials["token"]).contains(room.path("config/token.txt").to_str().unwrap()));
}
