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
