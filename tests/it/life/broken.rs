//! Configuration that cannot be used: it stops what it is about, and everybody is told.

use rustix::process::Signal;
use serde_json::json;

use super::documented::Curl;
use super::yard::{Process, Yard, sure};

fn lines(engine: &Process, what: &str) -> usize {
    engine.lines().iter().filter(|l| l.contains(what)).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_sync_file_is_told_at_start_on_change_and_at_sighup() {
    let yard = Yard::aws().await;
    yard.rig.set("KEY", "one");
    yard.create(&yard.document("web", yard.place(), "/app", true, Some("web_{{secretKey}}"))).await;
    let mut document = yard.document("shop", yard.place(), "/app", true, Some("shop_{{secretKey}}"));
    yard.create(&document).await;
    let file = yard.rig.config_dir().join("syncs/shop.json");
    let good = std::fs::read(&file).expect("a file");
    document["syncOptions"]["keySchema"] = "no placeholder".into();
    std::fs::write(&file, document.to_string()).expect("a file");

    // At the start: file, field and rule.
    let engine = yard.engine(&[]).await;
    let line = engine.says("shop.json").await;
    for word in ["ERROR", "syncOptions.keySchema", "[secret-key-placeholder]", "does not run"] {
        assert!(line.contains(word), "{word}: {line}");
    }
    engine.says("web: 1 created").await;
    assert_eq!(lines(&engine, "secret-key-placeholder"), 1, "{:?}", engine.lines());

    // The listings show it, and exit 1.
    let listed = yard.rig.run(&["list"]).await;
    assert_eq!(listed.code, 1, "{}", listed.stderr);
    assert!(listed.stderr.contains("shop.json") && listed.stderr.contains("[secret-key-placeholder]"), "{}", listed.stderr);
    let row = listed.stdout.lines().find(|l| l.starts_with("shop")).unwrap_or_else(|| panic!("no row: {}", listed.stdout));
    assert!(row.contains("broken"), "{row}");
    let listed = yard.rig.run(&["list", "--json"]).await.expect(1);
    assert_eq!(listed["secretSyncs"].as_array().map(Vec::len), Some(1), "{listed:#}");
    assert_eq!((&listed["broken"][0]["name"], &listed["broken"][0]["fields"][0]["rule"]), (&json!("shop"), &json!("secret-key-placeholder")));
    let (_, answer) = Curl::new(&yard).get("/api/v1/secret-syncs").await;
    assert_eq!((&answer["broken"][0]["name"], answer["secretSyncs"].as_array().map(Vec::len)), (&json!("shop"), Some(1)), "{answer:#}");

    // An unrelated change says nothing anew; another reason does, and the end of it.
    yard.create(&yard.document("other", yard.place(), "/app", false, Some("o_{{secretKey}}"))).await;
    std::fs::write(&file, "{\"name\":").expect("a file");
    engine.says("is truncated").await;
    assert_eq!(lines(&engine, "secret-key-placeholder"), 1, "{:?}", engine.lines());
    engine.signal(Signal::HUP);
    sure("a second line after SIGHUP", || lines(&engine, "is truncated") == 2).await;
    std::fs::write(&file, good).expect("a file");
    engine.says("syncs/shop.json is mended").await;
    engine.says("shop: 1 created").await;
    assert_eq!(yard.rig.run(&["list"]).await.code, 0);

    // Broken while it runs: what was good before does not stand in.
    std::fs::write(&file, "[]").expect("a file");
    sure("a line", || engine.lines().iter().any(|l| l.contains("shop.json") && l.contains("one JSON object"))).await;
    yard.rig.set("KEY_2", "two");
    engine.says("web: 1 created").await;
    sure("web's key", || yard.place().values().contains_key("web_KEY_2")).await;
    assert!(!yard.place().values().contains_key("shop_KEY_2"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_account_is_told_with_the_syncs_that_stand_still() {
    let yard = Yard::aws().await;
    yard.rig.set("KEY", "one");
    yard.create(&yard.document("web", yard.place(), "/app", true, None)).await;
    let file = yard.rig.config_dir().join("connections/kms.json");
    let good = std::fs::read_to_string(&file).expect("a file");
    std::fs::write(&file, good.replace("\"hanzo-kms\"", "\"hanzo-kmz\"")).expect("a file");
    let engine = yard.engine(&[]).await;
    let line = engine.says("kms.json").await;
    assert!(line.contains("ERROR") && line.contains("app") && line.contains("[choice]"), "{line}");
    engine.says("auto-sync of web stands still").await;
    let listed = yard.rig.run(&["connection", "list", "--json"]).await.expect(1);
    assert_eq!(listed["broken"][0]["name"], "kms", "{listed:#}");
    std::fs::write(&file, good).expect("a file");
    engine.says("connections/kms.json is mended").await;
    engine.says("web: 1 created").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn broken_settings_are_bad_input_with_path_member_and_rule() {
    let yard = Yard::aws().await;
    yard.rig.set("KEY", "one");
    yard.create(&yard.document("web", yard.place(), "/app", false, None)).await;
    let file = yard.rig.config_dir().join("settings.json");
    let words = |what: &str| [file.display().to_string(), what.to_string()];
    for (content, said) in [
        ("{\"pollIntervalSecs\":1}", words("pollIntervalSecs: ")),
        ("{\"polIntervalSecs\":60}", words("[unknown-field]")),
        ("{", words("is truncated")),
    ] {
        std::fs::write(&file, content).expect("a file");
        for args in [&["run"][..], &["run", "--once"], &["sync", "web"], &["sync", "--all"], &["plan", "web"], &["enable", "web"]] {
            let answer = yard.rig.run(args).await;
            assert_eq!(answer.code, 2, "{args:?} {content}: {}", answer.stderr);
            assert!(said.iter().all(|w| answer.stderr.contains(w)), "{args:?} {content}: {}", answer.stderr);
        }
        let answer = yard.rig.run(&["sync", "web", "--json"]).await.expect(2);
        assert!(answer["error"]["kind"] == "invalid" && said.iter().all(|w| answer["error"]["message"].as_str().unwrap().contains(w)), "{answer:#}");
        // What only looks at files goes on, with a word beside the result.
        for args in [&["list"][..], &["show", "web"], &["list", "--json"], &["show", "web", "--json"]] {
            let answer = yard.rig.run(args).await;
            assert_eq!(answer.code, 0, "{args:?}: {}", answer.stderr);
            assert!(answer.stderr.contains("warning: ") && said.iter().all(|w| answer.stderr.contains(w)), "{args:?}: {}", answer.stderr);
            assert!(answer.stdout.contains("web") && !answer.stdout.contains("settings.json"), "{}", answer.stdout);
            if args.contains(&"--json") {
                answer.json();
            }
        }
        let doctor = yard.rig.run(&["doctor", "--json"]).await.expect(1);
        let failed = doctor["findings"].as_array().unwrap().iter().find(|f| f["what"] == "settings").unwrap();
        assert_eq!(failed["ok"], false, "{failed:#}");
        assert!(said.iter().all(|w| failed["detail"].as_str().unwrap().contains(w)), "{failed:#}");
    }
}

/// The program as a user whom modes bind: root is asked to be nobody, with directories of nobody's.
fn as_a_plain_user(yard: &Yard, args: &[&str]) -> (Option<i32>, String, String) {
    use std::os::unix::process::CommandExt;
    let mut command = yard.rig.command();
    if rustix::process::geteuid().is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    let output = command.args(args).output().expect("the program starts");
    let text = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

const NOBODY: u32 = 65_534;

fn give_away(path: &std::path::Path) {
    std::os::unix::fs::chown(path, Some(NOBODY), Some(NOBODY)).expect("root may");
    if path.is_dir() {
        std::fs::read_dir(path).expect("a directory").for_each(|e| give_away(&e.expect("an entry").path()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_state_directory_that_cannot_be_written_has_its_remedy() {
    use std::os::unix::fs::PermissionsExt;
    let yard = Yard::aws().await;
    yard.rig.set("KEY", "one");
    yard.create(&yard.document("web", yard.place(), "/app", false, None)).await;
    let state = yard.rig.state_dir();
    if rustix::process::geteuid().is_root() {
        give_away(state.parent().expect("a home"));
    }
    let mode = |mode: u32| std::fs::set_permissions(&state, std::fs::Permissions::from_mode(mode)).expect("our directory");
    assert_eq!(as_a_plain_user(&yard, &["sync", "web"]).0, Some(0));
    std::fs::remove_file(state.join("engine.lock")).expect("a lock");
    mode(0o500);
    let remedy = format!("Its mode is 0500: chmod u+rwx {}", state.display());
    let (code, _, said) = as_a_plain_user(&yard, &["sync", "web"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains(&remedy) && !said.contains("who owns it"), "{said}");
    let (code, doctor, _) = as_a_plain_user(&yard, &["doctor", "--json"]);
    let doctor: serde_json::Value = serde_json::from_str(&doctor).expect("JSON");
    let found = doctor["findings"].as_array().unwrap().iter().find(|f| f["what"] == "state directory").unwrap();
    assert_eq!((code, &found["ok"], &found["fix"]), (Some(1), &json!(false), &json!(remedy)), "{found:#}");
    // And it helps.
    mode(0o700);
    assert_eq!(as_a_plain_user(&yard, &["sync", "web"]).0, Some(0));
}
