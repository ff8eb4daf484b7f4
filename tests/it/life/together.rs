//! Runs that are asked for together read each source once; what is asked for later sees what
//! was edited meanwhile.

use serde_json::{Value, json};

use super::yard::Yard;

const SYNCS: usize = 4;

/// Four syncs of one folder and one of another, none on auto-sync.
async fn furnish(yard: &Yard) {
    yard.settings(&json!({"maxRuns": 2, "runsPerConnection": 2}));
    yard.rig.set("KEY", "one");
    for n in 0..SYNCS {
        let place = &yard.places[n % yard.places.len()];
        yard.create(&yard.document(&format!("sync-{n}"), &**place, "/app", false, Some(&format!("s{n}_{{{{secretKey}}}}")))).await;
    }
    yard.rig.kms.add_folder(&yard.rig.project, "dev", "/other");
    yard.rig.kms.set(&yard.rig.project, "dev", "/other", "KEY", "one");
    yard.create(&yard.document("other", yard.place(), "/other", false, Some("other_{{secretKey}}"))).await;
}

fn asked(yard: &Yard, folder: &str) -> usize {
    let folder = format!("secretPath={}", folder.replace('/', "%2F"));
    yard.rig.kms_host.log.lines().iter().filter(|l| l.starts_with("GET /api/v4/secrets?") && l.contains(&folder)).count()
}

/// Requests to the KMS for secrets, as the records tell of them.
fn told(answer: &Value) -> Vec<u64> {
    let runs = answer["runs"].as_array().expect("runs");
    runs.iter().map(|r| r["requests"]["byCall"]["kms"]["GET /api/v4/secrets"].as_u64().unwrap_or(0)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_at_once_reads_each_source_once() {
    let yard = Yard::apart().await;
    furnish(&yard).await;
    // By the command itself, and by an engine that runs.
    for value in ["one", "two"] {
        let _engine = if value == "two" { Some(yard.engine(&[]).await) } else { None };
        yard.rig.set("KEY", value);
        yard.rig.kms_host.log.clear();
        let answer = yard.rig.run(&["sync", "sync-0", "sync-1", "sync-2", "sync-3", "--json"]).await.expect(0);
        let runs = answer["runs"].as_array().expect("runs");
        assert_eq!(runs.len(), SYNCS);
        assert!(runs.iter().all(|r| r["status"] == "succeeded"), "{answer:#}");
        let lines = yard.rig.kms_host.log.lines();
        assert_eq!(asked(&yard, "/app"), 1, "{lines:#?}");
        // Of everything that a reading is made of there is one of each kind and place.
        let mut readings: Vec<&String> = lines.iter().filter(|l| l.starts_with("GET ")).collect();
        readings.sort_unstable();
        let all = readings.len();
        readings.dedup();
        assert_eq!(readings.len(), all, "{lines:#?}");
        // Whoever read counts it, the others count nothing.
        let mut counted = told(&answer);
        counted.sort_unstable();
        assert_eq!(counted, [0, 0, 0, 1], "{answer:#}");
        for place in &yard.places {
            assert!(place.values().iter().filter(|(k, _)| k.starts_with('s')).all(|(_, v)| v == value), "{:?}", place.values());
        }
        // With another source among them each is read once.
        yard.rig.kms_host.log.clear();
        let answer = yard.rig.run(&["sync", "--all", "--json"]).await.expect(0);
        assert_eq!((asked(&yard, "/app"), asked(&yard, "/other")), (1, 1), "{:#?}", yard.rig.kms_host.log.lines());
        assert_eq!((told(&answer).len(), told(&answer).iter().sum::<u64>()), (SYNCS + 1, 2), "{answer:#}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_asked_for_after_an_edit_sees_the_edit() {
    use kms_sync::sandbox::host::{Effect, Fault};

    let yard = Yard::apart().await;
    furnish(&yard).await;
    let _engine = yard.engine(&[]).await;
    // The first one's reading is answered late, with what was there when it was asked.
    let slow = Effect::LateAnswer(std::time::Duration::from_millis(800));
    yard.rig.kms_host.faults.add(Fault::next("/api/v4/secrets", 1, slow));
    yard.rig.kms_host.log.clear();
    let first = yard.spawn(&["sync", "sync-0"]);
    super::yard::sure("a reading under way", || asked(&yard, "/app") == 1).await;
    yard.rig.set("KEY", "edited");
    let answer = yard.rig.run(&["sync", "sync-1", "--json"]).await.expect(0);
    assert_eq!(told(&answer), [1], "{answer:#}");
    assert!(yard.places[1].values().values().any(|v| v == "edited"), "{:?}", yard.places[1].values());
    drop(first);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn once_reads_each_source_once_and_counts_it() {
    let yard = Yard::apart().await;
    furnish(&yard).await;
    for n in 0..SYNCS {
        yard.rig.run(&["enable", &format!("sync-{n}")]).await.expect(0);
    }
    yard.rig.kms_host.log.clear();
    yard.rig.run(&["run", "--once"]).await.expect(0);
    assert_eq!(asked(&yard, "/app"), 1, "{:#?}", yard.rig.kms_host.log.lines());
    let mut counted = 0;
    for n in 0..SYNCS {
        counted += told(&yard.rig.run(&["history", &format!("sync-{n}"), "--json"]).await.expect(0)).iter().sum::<u64>();
    }
    assert_eq!(counted, 1);
}
