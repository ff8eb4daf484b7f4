//! Taking over from the KMS server's own engine: what is said where a sync is created, what
//! `take-over` switches off, and that the first plan finds the server's work as it should be.

use kms_sync::sandbox::host::{Effect, Fault};
use kms_sync::sandbox::kms::{Generation, NewSync, Right};
use serde_json::{Value, json};

use crate::conformance::place::Place;
use crate::conformance::places;
use crate::life::documented::Curl;
use crate::life::yard::Yard;

/// A sync of the server to a place, like the one of [`Yard::document`].
fn server_sync(place: &dyn Place, name: &str) -> NewSync {
    NewSync {
        name: name.into(),
        destination: place.kind().into(),
        environment: "dev".into(),
        path: "/app".into(),
        auto: true,
        options: json!({"initialSyncBehavior": "overwrite-destination"}),
        config: place.config(),
        connection: "server-connection".into(),
    }
}

fn add(yard: &Yard, sync: NewSync) -> String {
    yard.rig.kms.add_sync(&yard.rig.project, sync)
}

fn warnings(answer: &Value) -> Vec<String> {
    let told = answer["secretSync"]["warnings"].as_array().cloned().unwrap_or_default();
    told.iter().filter_map(|w| w.as_str().map(str::to_string)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sync_of_the_server_is_warned_of_at_creation_and_switched_off_when_asked() {
    let yard = Yard::apart().await;
    yard.rig.set("KEY_1", "one");
    let (aws, vault) = (&*yard.places[0], &*yard.places[1]);
    yard.rig.kms.add_folder(&yard.rig.project, "dev", "/other");
    let same = add(&yard, server_sync(aws, "legacy"));
    let other = add(&yard, NewSync { path: "/other".into(), ..server_sync(aws, "from-other-folder") });
    let region = add(&yard, NewSync { config: json!({"region": "ap-south-1", "mappingBehavior": "one-to-one"}), ..server_sync(aws, "far") });
    let off = add(&yard, NewSync { auto: false, ..server_sync(aws, "off") });
    let kind = add(&yard, server_sync(vault, "vault"));
    let auto = |id: &str| yard.rig.kms.sync_is_auto(id);

    let created = yard.rig.run_with(&["create", "-f", "-", "--json"], &yard.document("web", aws, "/app", true, None)).await;
    let told = warnings(&created.expect(0));
    assert_eq!(told.len(), 2, "{told:#?}");
    assert!(told[0].contains(&format!("own sync legacy (id {same}, from dev:/app)")) && told[0].contains("`kms-sync take-over web`"), "{told:#?}");
    assert!(told[1].contains("if that reaches the same account") && told[1].contains(&format!("take-over web --id {other}`")), "{told:#?}");
    assert!(told.iter().all(|w| created.stderr.contains(w)), "{}", created.stderr);
    let updated = yard.rig.run_with(&["update", "web", "-f", "-", "--json"], &json!({"description": "new"})).await.expect(0);
    assert_eq!(warnings(&updated), told);
    let manual = yard.rig.run_with(&["update", "web", "-f", "-", "--json"], &json!({"isEnabled": false})).await.expect(0);
    assert!(warnings(&manual).is_empty(), "one engine on auto-sync fights nobody: {manual:#}");
    let enabled = yard.rig.run(&["enable", "web", "--json"]).await;
    assert_eq!(warnings(&enabled.expect(0)), told);
    assert!(told.iter().all(|w| enabled.stderr.contains(w)), "{}", enabled.stderr);
    let disabled = yard.rig.run(&["disable", "web", "--json"]).await;
    assert!(warnings(&disabled.expect(0)).is_empty() && !disabled.stderr.contains("warning"), "{}", disabled.stderr);

    // Nothing without an answer, and no run looks for syncs of the server.
    let unasked = yard.rig.run(&["take-over", "web", "--json"]).await;
    assert_eq!((unasked.code, unasked.json()["error"]["kind"].as_str()), (2, Some("invalid")), "{}", unasked.stderr);
    assert_eq!(auto(&same), Some(true));
    let looks = yard.rig.kms_host.log.count("/secret-syncs");
    yard.rig.run(&["sync", "web", "--json"]).await.expect(0);
    yard.rig.run(&["plan", "web", "--json"]).await.expect(0);
    assert_eq!(yard.rig.kms_host.log.count("/secret-syncs"), looks);

    let done = yard.rig.run(&["take-over", "web", "--yes", "--json"]).await;
    let answer = done.expect(0);
    assert_eq!((answer["switchedOff"][0]["id"].as_str(), answer["switchedOff"].as_array().map(Vec::len)), (Some(same.as_str()), Some(1)));
    assert_eq!((&answer["left"][0]["id"], &answer["failed"]), (&json!(other), &json!([])));
    assert!(done.stderr.contains("auto-sync of legacy is off at the KMS server") && done.stderr.contains("kms-sync enable web"), "{}", done.stderr);
    let all = [&same, &other, &region, &off, &kind].map(|id| auto(id));
    assert_eq!(all, [Some(false), Some(true), Some(true), Some(false), Some(true)]);
    assert_eq!(yard.rig.kms_host.log.count("PATCH /api/v1/secret-syncs/aws-secrets-manager/"), 1);

    // What only the account decides is switched off by its id alone.
    let open = yard.rig.run(&["take-over", "web", "--yes"]).await;
    assert!(open.code == 2 && open.stderr.contains("--id"), "{}", open.stderr);
    yard.rig.run(&["take-over", "web", "--yes", "--id", &region]).await.expect(2);
    yard.rig.run(&["take-over", "web", "--yes", "--id", &other]).await.expect(0);
    assert_eq!((auto(&other), auto(&region)), (Some(false), Some(true)));
    let nothing = yard.rig.run(&["take-over", "web", "--yes", "--json"]).await;
    assert_eq!(nothing.expect(0), json!({"switchedOff": [], "failed": [], "left": []}));
    assert!(nothing.stderr.contains("nothing to take over"), "{}", nothing.stderr);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_does_not_tell_is_met_with_silence_and_asked_for_a_take_over_with_advice() {
    let yard = Yard::aws().await;
    let sync = add(&yard, server_sync(yard.place(), "legacy"));
    // A login that nobody asked for is not tried before one is known to work.
    let logins = || yard.rig.kms_host.log.count("universal-auth/login");
    let first = yard.document("first", yard.place(), "/app", true, None);
    let first = yard.rig.run_with(&["create", "-f", "-", "--no-run", "--json"], &first).await.expect(0);
    assert_eq!((warnings(&first), logins()), (Vec::new(), 0));
    yard.rig.run(&["sync", "first"]).await.expect(0);
    let create = async |name: &str| {
        let document = yard.document(name, yard.place(), "/app", true, None);
        let asked = yard.rig.kms_host.log.count("/secret-syncs");
        let answer = yard.rig.run_with(&["create", "-f", "-", "--no-run", "--json"], &document).await;
        let told: Vec<String> = warnings(&answer.expect(0)).into_iter().filter(|w| w.contains("server")).collect();
        assert!(told.is_empty() && !answer.stderr.contains("server"), "{told:?} {}", answer.stderr);
        assert!(yard.rig.kms_host.log.count("/secret-syncs") > asked, "it was asked");
        yard.rig.run(&["take-over", name, "--yes"]).await
    };
    yard.rig.kms.switch(|s| s.denied = [Right::ReadSyncs].into());
    let denied = create("denied").await;
    assert!(denied.code == 1 && denied.stderr.contains("Give the machine identity this right"), "{}", denied.stderr);
    yard.rig.kms.switch(|s| (s.denied, s.generation) = (Default::default(), Generation::Y2024));
    let old = create("old").await;
    assert!(old.code == 0 && old.stderr.contains("nothing to take over"), "{}", old.stderr);
    yard.rig.kms.switch(|s| s.generation = Generation::Now);
    yard.rig.kms_host.faults.add(Fault::always("/secret-syncs", 1.0, Effect::status(200, "<html>Sign in</html>")));
    let page = create("page").await;
    assert_eq!(page.code, 1, "{}", page.stderr);
    yard.rig.kms_host.faults.clear();

    yard.rig.kms.switch(|s| s.denied = [Right::EditSyncs].into());
    let refused = yard.rig.run(&["take-over", "page", "--yes", "--json"]).await;
    let answer = refused.expect(1);
    assert_eq!(answer["failed"][0]["id"], sync.as_str(), "{answer:#}");
    let reason = answer["failed"][0]["reason"].as_str().unwrap_or_default();
    assert!(reason.contains("right to edit secret syncs") && reason.contains("off in the dashboard"), "{reason}");
    assert_eq!(yard.rig.kms.sync_is_auto(&sync), Some(true));

    // The first release has another name for it, and ignores the present one.
    yard.rig.kms.switch(|s| (s.denied, s.first_syncs) = (Default::default(), true));
    yard.rig.run(&["take-over", "page", "--yes"]).await.expect(0);
    assert_eq!(yard.rig.kms.sync_is_auto(&sync), Some(false));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_engine_s_socket_warns_too_and_takes_over() {
    let yard = Yard::aws().await;
    yard.rig.set("KEY_1", "one");
    let sync = add(&yard, server_sync(yard.place(), "legacy"));
    let engine = yard.engine(&[]).await;
    let curl = Curl::new(&yard);
    let document = yard.document("web", yard.place(), "/app", true, None).to_string();
    let (status, answer) = curl.send("POST", "/api/v1/secret-syncs/aws-secrets-manager", &document, "application/json").await;
    assert_eq!(status, 200, "{answer:#}");
    assert!(warnings(&answer).iter().any(|w| w.contains(&sync)), "{answer:#}");
    yard.rig.run(&["take-over", "web", "--yes"]).await.expect(0);
    assert_eq!(yard.rig.kms.sync_is_auto(&sync), Some(false));
    drop(engine);
}

/// The server's engine writes the plain values; all keys in one object in the order of its map,
/// and with white space of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_plan_after_the_server_s_engine_is_empty() {
    let values = [("ZETA", "last"), ("ALPHA", "first"), ("MID_KEY", "with \"quotes\" and ü")];
    for place in [places::aws::start().await, places::aws_object::start().await, places::azure_key_vault::start().await, places::oci::start().await] {
        let yard = Yard::with(vec![place]).await;
        let place = yard.place();
        for (key, value) in values {
            yard.rig.set(key, value);
            place.put(&place.key(key), value);
        }
        let mut document = yard.document("web", place, "/app", true, None);
        document["syncOptions"]["initialSyncBehavior"] = "overwrite-destination".into();
        yard.create(&document).await;
        let plan = yard.rig.run(&["plan", "web", "--json"]).await.expect(0);
        assert_eq!((&plan["changes"], &plan["needsApproval"], &plan["unchanged"]), (&json!([]), &json!([]), &json!(3)), "{}: {plan:#}", place.kind());
        yard.rig.set("ZETA", "newer");
        let plan = yard.rig.run(&["plan", "web", "--json"]).await.expect(10);
        assert_eq!(plan["changes"].as_array().map(Vec::len), Some(1), "{}: {plan:#}", place.kind());
    }
}
