//! What a poll sends and gets, and what people see while it gets nothing.

use std::time::Duration;

use kms_sync::sandbox::host::{Effect, Fault};
use serde_json::{Value, json};

use super::watched::watched;
use super::yard::{Yard, sure, until};

/// No stream of events: what is found is found by the clock.
fn clock_only(yard: &Yard) {
    yard.rig.kms.switch(|s| s.events = false);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_poll_is_conditional_and_unchanged_is_a_304() {
    let yard = Yard::aws().await;
    yard.settings(&json!({"pollIntervalSecs": 10, "driftHours": null}));
    clock_only(&yard);
    let (_host, readings) = watched(&yard).await;
    yard.rig.set("KEY", "one");
    yard.create(&yard.document("web", yard.place(), "/app", true, None)).await;
    let engine = yard.engine(&[]).await;
    engine.says("web: 1 created").await;
    let all = || readings.all();
    let tag = all().last().and_then(|r| r.etag.clone()).expect("a tag");
    assert_eq!((&all()[0].if_none_match, all()[0].status, all()[0].etag.as_ref()), (&None, 200, Some(&tag)));
    let known = all().len();
    let destination = yard.place().host().log.lines().len();
    let unchanged = until("a second poll", || all().get(known).cloned(), || engine.lines().join("\n")).await;
    assert_eq!((unchanged.if_none_match.as_deref(), unchanged.status), (Some(&*tag), 304));
    assert_eq!(yard.place().host().log.lines().len(), destination, "the destination was not asked");

    // A change is a 200 with another tag, and from then on that one is sent.
    yard.rig.set("KEY", "two");
    engine.says("web: 1 updated").await;
    let changed = all().into_iter().rfind(|r| r.status == 200).expect("a reading");
    let next = changed.etag.clone().expect("a tag");
    assert!(changed.if_none_match.as_deref() == Some(&*tag) && next != tag, "{:?}", all());
    let known = all().len();
    let again = until("another poll", || all().get(known).cloned(), || engine.lines().join("\n")).await;
    assert_eq!((again.if_none_match.as_deref(), again.status), (Some(&*next), 304));

    // Over a restart, too: what was carried is not read again.
    drop(engine);
    let known = all().len();
    let _engine = yard.engine(&[]).await;
    let first = until("the first poll after the restart", || all().get(known).cloned(), String::new).await;
    assert_eq!((first.if_none_match.as_deref(), first.status), (Some(&*next), 304));
}

/// The member `waiting` of a sync, by the command line.
async fn waiting(yard: &Yard, name: &str) -> Value {
    yard.rig.run(&["show", name, "--json"]).await.expect(0)["secretSync"]["waiting"].clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_that_is_away_is_seen_until_it_is_back() {
    let yard = Yard::aws().await;
    clock_only(&yard);
    yard.settings(&json!({"pollIntervalSecs": 10, "driftHours": null}));
    yard.rig.set("KEY", "one");
    let document = yard.document("web", yard.place(), "/app", true, None);
    yard.create(&document).await;
    let engine = yard.engine(&[]).await;
    engine.says("web: 1 created").await;
    assert_eq!(waiting(&yard, "web").await, Value::Null);

    let begun = kms_sync::model::now();
    yard.rig.kms_host.faults.add(Fault::always("/api/v4/secrets", 1.0, Effect::status(503, "{}")));
    engine.says("dev:/app could not be read").await;
    let wait = waiting(&yard, "web").await;
    let reason = wait["reason"].as_str().unwrap_or_default();
    assert!(reason.starts_with("dev:/app cannot be read: "), "{wait:#}");
    let time = |name: &str| wait[name].as_str().and_then(|t| t.parse::<kms_sync::model::Time>().ok()).unwrap_or_else(|| panic!("{wait:#}"));
    assert!(time("since") >= begun && time("nextAt") > time("since"), "{wait:#}");
    // The list says the same, and so does the board of whoever is attached.
    let list = yard.rig.run(&["list", "--json"]).await.expect(0);
    assert_eq!(list["secretSyncs"][0]["waiting"], wait);
    assert_eq!(list["secretSyncs"][0]["syncStatus"], "succeeded", "what was documented is as it was");
    let remote = kms_sync::service::attach::reach(&yard.dirs()).await.expect("the engine");
    let board = kms_sync::service::Service::watch(&*remote).await.expect("a picture").board;
    let next = board.cards["web"].next.clone().expect("a next look");
    assert!(next.why.starts_with("since ") && next.why.contains("dev:/app cannot be read"), "{next:?}");
    assert_eq!(next.at.to_string(), wait["nextAt"].as_str().unwrap_or_default());
    // What is printed can be given back.
    let shown = yard.rig.run(&["show", "web", "--json"]).await.expect(0);
    yard.rig.run_with(&["update", "web", "-f", "-"], &shown).await.expect(0);

    yard.rig.kms_host.faults.clear();
    engine.says("dev:/app can be read again").await;
    sure("an end of waiting", || futures::executor::block_on(remote_wait(&yard)) == Value::Null).await;

    // Nobody waits when nobody is the engine.
    yard.rig.kms_host.faults.add(Fault::always("/api/v4/secrets", 1.0, Effect::status(503, "{}")));
    until("the outage", || Some(futures::executor::block_on(remote_wait(&yard))).filter(|w| !w.is_null()), String::new).await;
    drop(engine);
    assert_eq!(waiting(&yard, "web").await, Value::Null);
}

/// The same member, by the engine's socket.
async fn remote_wait(yard: &Yard) -> Value {
    let local = kms_sync::service::local::Local::new(yard.store());
    let doc = kms_sync::service::Service::sync(&*local, "web").await.expect("a sync");
    serde_json::to_value(doc.waiting).expect("JSON")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_syncs_first_run_is_one_run() {
    let yard = Yard::aws().await;
    clock_only(&yard);
    yard.settings(&json!({"pollIntervalSecs": 10, "driftHours": null}));
    for i in 0..4 {
        yard.rig.set(&format!("KEY_{i}"), "one");
    }
    // Slow enough for every clock to have its chance.
    yard.place().host().faults.add(Fault::always("CreateSecret", 1.0, Effect::Delay(Duration::from_millis(1500))));
    let engine = yard.engine(&[]).await;
    for (n, folder) in ["/app", "/app", "/other"].into_iter().enumerate() {
        yard.rig.kms.add_folder(&yard.rig.project, "dev", folder);
        yard.rig.kms.set(&yard.rig.project, "dev", folder, "KEY_0", "one");
        let name = format!("sync-{n}");
        let document = yard.document(&name, yard.place(), folder, true, Some(&format!("s{n}_{{{{secretKey}}}}")));
        let answer = yard.rig.run_with(&["create", "-f", "-", "--json"], &document).await.expect(0);
        assert_eq!(answer["run"]["status"], "succeeded", "{answer:#}");
        assert_eq!(answer["run"]["trigger"], "created");
    }
    // A whole round of polls later there is still one run of each, and one request per key.
    yard.rig.kms_host.log.clear();
    sure("polls of both folders", || yard.rig.kms_host.log.count("GET /api/v4/secrets?") >= 4).await;
    for n in 0..3 {
        let history = yard.rig.run(&["history", &format!("sync-{n}"), "--json"]).await.expect(0);
        assert_eq!(history["runs"].as_array().map(Vec::len), Some(1), "{history:#}\n{:#?}", engine.lines());
    }
    assert_eq!(yard.place().host().log.count("CreateSecret"), 9);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_at_the_end_of_a_chain_of_imports_counts() {
    let yard = Yard::aws().await;
    clock_only(&yard);
    yard.settings(&json!({"pollIntervalSecs": 10, "driftHours": null}));
    yard.rig.set("OWN", "one");
    let chain = ["/app", "/shared", "/deep", "/deeper"];
    for (n, link) in chain.windows(2).enumerate() {
        yard.rig.kms.add_folder(&yard.rig.project, "dev", link[1]);
        yard.rig.kms.set(&yard.rig.project, "dev", link[1], &format!("LENT_{n}"), "one");
        yard.rig.kms.add_import(&yard.rig.project, "dev", link[0], "dev", link[1]);
    }
    yard.create(&yard.document("web", yard.place(), "/app", true, None)).await;
    let engine = yard.engine(&[]).await;
    engine.says("web: 4 created").await;
    yard.rig.kms.set(&yard.rig.project, "dev", "/deeper", "LENT_2", "two");
    engine.says("web: 1 updated").await;
    assert_eq!(yard.place().values()["LENT_2"], "two");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shorter_interval_counts_at_once() {
    let yard = Yard::aws().await;
    clock_only(&yard);
    yard.settings(&json!({"pollIntervalSecs": 3600, "driftHours": null}));
    yard.rig.set("KEY", "one");
    yard.create(&yard.document("web", yard.place(), "/app", true, None)).await;
    let engine = yard.engine(&[]).await;
    engine.says("web: 1 created").await;
    yard.settings(&json!({"pollIntervalSecs": 10, "driftHours": null}));
    yard.rig.set("KEY", "two");
    engine.says("web: 1 updated").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_of_the_server_makes_only_the_sources_it_names_be_asked() {
    let yard = Yard::aws().await;
    yard.settings(&json!({"pollIntervalSecs": 3600, "driftHours": null}));
    for folder in ["/app", "/other"] {
        yard.rig.kms.add_folder(&yard.rig.project, "dev", folder);
        yard.rig.kms.set(&yard.rig.project, "dev", folder, "KEY", "one");
        let name = folder.trim_start_matches('/');
        yard.create(&yard.document(name, yard.place(), folder, true, Some(&format!("{name}_{{{{secretKey}}}}")))).await;
    }
    let engine = yard.engine(&[]).await;
    engine.says("app: 1 created").await;
    engine.says("other: 1 created").await;
    sure("a stream of events", || yard.rig.kms_host.log.count("project-events") > 0).await;
    yard.rig.kms_host.log.clear();
    // Until the stream is open a change is told to nobody.
    until(
        "a hint",
        || {
            yard.rig.set("KEY", &format!("{:?}", std::time::Instant::now()));
            let lines = engine.lines();
            lines.iter().any(|l| l.contains("app: 1 updated")).then_some(())
        },
        || engine.lines().join("\n"),
    )
    .await;
    let asked = |folder: &str| yard.rig.kms_host.log.lines().iter().filter(|l| l.contains("GET /api/v4/secrets?") && l.contains(folder)).count();
    assert!(asked("secretPath=%2Fapp") > 0, "{:#?}", yard.rig.kms_host.log.lines());
    assert_eq!(asked("secretPath=%2Fother"), 0, "{:#?}", yard.rig.kms_host.log.lines());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn create_and_plan_say_what_they_wait_for() {
    let yard = Yard::aws().await;
    yard.rig.set("KEY", "one");
    let later = || Effect::Answer { status: 429, headers: vec![("retry-after".into(), "3".into())], body: "{}".into() };
    let patience = || Fault::next("/api/v4/secrets", 1, later());
    let said = |stderr: &str| stderr.lines().any(|l| l.starts_with("web: waits: ") && l.contains(", until ") && l.ends_with('Z'));
    for engine in [false, true] {
        let _engine = if engine { Some(yard.engine(&[]).await) } else { None };
        yard.rig.kms_host.faults.add(patience());
        let created = yard.rig.run_with(&["create", "-f", "-", "--json"], &yard.document("web", yard.place(), "/app", true, None)).await;
        assert_eq!(created.expect(0)["run"]["status"], "succeeded");
        assert!(said(&created.stderr), "engine: {engine}: {}", created.stderr);
        yard.rig.kms_host.faults.add(patience());
        let plan = yard.rig.run(&["plan", "web", "--json"]).await;
        assert_eq!(plan.expect(0)["unchanged"], 1);
        assert!(said(&plan.stderr), "engine: {engine}: {}", plan.stderr);
        yard.rig.kms_host.faults.add(patience());
        let import = yard.rig.run(&["import", "web", "--json"]).await;
        import.json();
        assert!(said(&import.stderr), "engine: {engine}: {}", import.stderr);
        yard.rig.run(&["delete", "web", "--yes"]).await.expect(0);
    }
}
