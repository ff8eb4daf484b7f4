//! What fails at the target of one sync is no failure of its connection.

use kms_sync::service::Service as _;
use kms_sync::service::SyncInput;

use super::yard::Yard;
use crate::conformance::places;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_is_not_blamed_for_the_target_of_a_sync() {
    let yard = Yard::with(vec![places::azure_devops::start().await]).await;
    let place = yard.place();
    let local = kms_sync::service::local::Local::new(yard.store());
    let mut document = yard.document("web", place, "/app", false, None);
    document["destinationConfig"]["devopsProjectId"] = "no-such-project".into();
    let config = document["destinationConfig"].as_object().cloned().expect("an object");
    local.create_sync(SyncInput { document, destination: None }).await.expect("stored");

    let name = place.kind();
    local.test_destination(name, config).await.expect_err("there is no such project");
    let report = local.test_connection(name).await.expect("the connection works");
    let note = report.notes.iter().find(|n| n.contains("no-such-project") || n.contains("sync web")).expect("told beside");
    assert!(note.starts_with("The target of sync web does not work: "), "{note}");

    let findings = local.doctor().await.expect("findings");
    let ok = |what: &str| findings.iter().find(|f| f.what == what).map(|f| f.ok);
    assert_eq!((ok(&format!("connection {name}")), ok("target of sync web")), (Some(true), Some(false)), "{findings:?}");
}
