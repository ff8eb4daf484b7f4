//! `sync --rewrite`: values that cannot be read back are written again, whatever the ledger says.

use std::time::Duration;

use kms_sync::destination::bitbucket::Tempo;
use kms_sync::model::run::{Outcome, RunStatus};
use kms_sync::service::RunRequest;
use serde_json::json;

use super::rig::{REPO, Rig, many, quick, refs};
use crate::conformance::bench::{Bench, SYNC, ended, fate};
use crate::conformance::places;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_read_back_is_written_again_when_asked() {
    for (place, unseen) in [(places::bitbucket::start().await, true), (places::azure_devops::start().await, false)] {
        let b = Bench::new(place).await;
        let values = b.fill(3, "one");
        b.create(json!({})).await;
        b.synced().await;
        b.settled().await;
        // An edit that nothing shows.
        if unseen {
            b.put("K_001", "theirs");
            b.settled().await;
        }
        let record = b.run(RunRequest { rewrite: true, ..Bench::request(SYNC) }).await;
        ended(&record, RunStatus::Succeeded);
        assert_eq!(record.counts.updated, 3, "{record:#?}");
        assert!(fate(&record, "K_001").is_some_and(|(o, why)| o == Outcome::Updated && why.contains("written again as asked")), "{record:#?}");
        b.holds(&values);
        b.settled().await;
    }
    // Where values can be read, reading is enough.
    let b = Bench::new(places::oci::on(kms_sync::sandbox::oci::State::new()).await).await;
    b.fill(3, "one");
    b.create(json!({})).await;
    b.synced().await;
    let record = b.run(RunRequest { rewrite: true, ..Bench::request(SYNC) }).await;
    assert_eq!((record.counts.updated, record.counts.unchanged), (0, 3), "{record:#?}");
}

#[tokio::test]
async fn what_the_hour_has_no_room_for_is_told_before() {
    let mut rig = Rig::new().await;
    rig.sync(&refs(&many(40))).await;
    rig.pace(Tempo { budget: 60, window: Duration::from_secs(3600), ..quick() });
    // Every value is known to the ledger, and all of them change.
    let changed: Vec<(String, String)> = many(40).into_iter().map(|(k, v)| (k, format!("{v}, changed"))).collect();
    let cx = rig.cx();
    let (_, _, plan) = rig.plan(&cx, &refs(&changed), true).await.expect("a plan");
    assert!(plan.warnings.iter().any(|w| w.contains("about 40 calls are needed")), "{:?}", plan.warnings);
    let (_, _, plan) = rig.plan(&cx, &refs(&many(40)), true).await.expect("a plan");
    assert!(!plan.warnings.iter().any(|w| w.contains("calls are needed")), "{:?}", plan.warnings);
    assert_eq!(rig.variables(REPO).len(), 40);
}
