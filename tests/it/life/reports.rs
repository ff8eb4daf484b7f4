//! Drift checks that only report: nothing is written, and everybody can see what was found.

use std::time::{Duration, Instant};

use kms_sync::model::Memory;
use kms_sync::model::board::Next;
use kms_sync::service::Service;
use kms_sync::service::attach::reach;
use serde_json::{Value, json};

use super::yard::{Yard, sure, until};

/// What is overdue when an engine starts is spread over this time, of an hour's period. With
/// several syncs the first one is looked at much sooner.
const SPREAD: Duration = Duration::from_secs(100);
const SYNCS: usize = 8;

/// Syncs whose last check was days ago, and whose destination somebody else has edited since.
async fn furnish(yard: &Yard) {
    yard.settings(&json!({"pollIntervalSecs": 3600, "driftHours": 1, "driftAction": "report"}));
    yard.rig.kms.switch(|s| s.events = false);
    for key in ["KEY_1", "KEY_2", "KEY_3"] {
        yard.rig.set(key, "ours");
    }
    for n in 0..SYNCS {
        yard.create(&yard.document(&format!("web-{n}"), yard.place(), "/app", true, Some(&format!("w{n}_{{{{secretKey}}}}")))).await;
    }
    yard.rig.run(&["sync", "--all"]).await.expect(0);
    let store = yard.store();
    let ago = kms_sync::model::Time::from_second(kms_sync::model::now().as_second() - 50 * 3600).expect("a time");
    for n in 0..SYNCS {
        let id = store.sync_state(&format!("web-{n}")).expect("its state").id;
        store.put(&format!("drift:{id}"), ago.to_string().into());
        yard.place().put(&format!("w{n}_KEY_2"), "theirs");
    }
    yard.place().host().log.clear();
}

async fn shown(yard: &Yard, name: &str) -> Value {
    yard.rig.run(&["show", name, "--json"]).await.expect(0)["secretSync"].clone()
}

/// What the dashboard shows of the sync's next look.
async fn next(yard: &Yard, name: &str) -> Option<Next> {
    let board = reach(&yard.dirs()).await.ok()?.watch().await.ok()?.board;
    board.cards.get(name)?.next.clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_has_drifted_is_told_and_left_alone_until_somebody_asks() {
    let yard = Yard::aws().await;
    furnish(&yard).await;
    let mut engine = yard.engine(&[]).await;
    let begun = Instant::now();
    let name = loop {
        let told = engine.lines().iter().find_map(|l| Some(l[..l.find(" has drifted: 1 key would change")?].rsplit(' ').next()?.to_string()));
        if let Some(name) = told {
            break name;
        }
        assert!(begun.elapsed() < SPREAD + Duration::from_secs(10), "{:#?}", engine.lines());
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    let writes: Vec<String> = yard.place().host().log.lines().into_iter().filter(|l| yard.place().is_write(l)).collect();
    assert_eq!((writes, yard.place().values().values().filter(|v| *v == "theirs").count()), (Vec::new(), SYNCS));

    // The list, the sync and the dashboard say it; the last run is as good as it was.
    until("the state", || futures::executor::block_on(next(&yard, &name)).filter(|n| n.drifted), || engine.lines().join("\n")).await;
    let listed = yard.rig.run(&["list", "--json"]).await.expect(0);
    let listed = listed["secretSyncs"].as_array().expect("syncs").iter().find(|s| s["name"] == name.as_str()).expect("the sync").clone();
    let reason = listed["waiting"]["reason"].as_str().unwrap_or_default();
    assert!(reason.starts_with("has drifted: 1 key would change at the destination") && reason.contains("driftAction is report"), "{listed:#}");
    assert_eq!((&listed["waiting"]["nextAt"], &listed["syncStatus"]), (&Value::Null, &json!("succeeded")), "{listed:#}");
    assert!(next(&yard, &name).await.is_some_and(|n| n.why == reason));
    // A look is no run.
    let history = yard.rig.run(&["history", &name, "--json"]).await.expect(0);
    assert_eq!(history["runs"].as_array().map(Vec::len), Some(1), "{history:#}");

    // The next engine knows it, too.
    engine.kill();
    let _engine = yard.engine(&[]).await;
    sure("the state", || futures::executor::block_on(next(&yard, &name)).is_some_and(|n| n.drifted)).await;
    assert_eq!(shown(&yard, &name).await["waiting"], listed["waiting"]);

    // A run by hand mends it, and the state goes.
    let record = yard.rig.run(&["sync", &name, "--json"]).await.expect(0);
    assert_eq!((&record["runs"][0]["trigger"], &record["runs"][0]["counts"]["updated"]), (&json!("manual"), &json!(1)), "{record:#}");
    sure("an end of the state", || futures::executor::block_on(next(&yard, &name)).is_some_and(|n| !n.drifted && n.why == "poll")).await;
    sure("what is recorded of it", || futures::executor::block_on(shown(&yard, &name))["waiting"] == Value::Null).await;
    assert_eq!(yard.place().values().values().filter(|v| *v == "theirs").count(), SYNCS - 1);
}
