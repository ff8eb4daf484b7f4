//! The engine's socket speaks the documented API: what `curl --unix-socket` would send.

use serde_json::{Value, json};

use super::yard::{PATIENCE, Yard, socket_of};

struct Curl(reqwest::Client);

impl Curl {
    fn new(yard: &Yard) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        Self(reqwest::Client::builder().unix_socket(socket_of(yard)).build().expect("a client"))
    }

    async fn get(&self, path: &str) -> (u16, Value) {
        let answer = self.0.get(format!("http://localhost{path}")).send().await.expect("an answer");
        (answer.status().as_u16(), answer.json().await.expect("JSON"))
    }

    /// As `curl --data` sends it: typed as a form unless a header says otherwise.
    async fn post(&self, path: &str, body: &str, kind: &str) -> (u16, Value) {
        let request = self.0.post(format!("http://localhost{path}")).header("content-type", kind).body(body.to_string());
        let answer = request.send().await.expect("an answer");
        (answer.status().as_u16(), answer.json().await.expect("JSON"))
    }

    /// Asks until the sync is not pending or running any more.
    async fn settled(&self, path: &str) -> Value {
        let begun = std::time::Instant::now();
        loop {
            let (status, answer) = self.get(path).await;
            assert_eq!(status, 200, "{answer}");
            let word = answer["secretSync"]["syncStatus"].as_str().unwrap_or_default();
            if !matches!(word, "pending" | "running") {
                return answer;
            }
            assert!(begun.elapsed() < PATIENCE, "{answer:#}");
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sample_requests_create_and_run_a_sync_at_every_destination() {
    let yard = Yard::new().await;
    for i in 0..4 {
        yard.rig.set(&format!("KEY_{i}"), "one");
    }
    let _engine = yard.engine(&[]).await;
    let curl = Curl::new(&yard);
    for place in &yard.places {
        let kind = place.kind();
        // The documented request names no destination: the address does.
        let mut document = yard.document(&format!("to-{kind}"), &**place, "/app", true, None);
        document.as_object_mut().expect("an object").remove("destination");
        document["description"] = "an example sync".into();
        document["syncOptions"]["disableSecretDeletion"] = true.into();
        let types = ["application/json", "application/x-www-form-urlencoded"];
        let (status, answer) =
            curl.post(&format!("/api/v1/secret-syncs/{kind}"), &document.to_string(), types[usize::from(kind == "bitbucket")]).await;
        assert_eq!(status, 200, "{kind}: {answer:#}");
        let sync = &answer["secretSync"];
        assert_eq!((&sync["destination"], &sync["isEnabled"], &sync["version"]), (&json!(kind), &json!(true), &json!(1)), "{answer:#}");
        let id = sync["id"].as_str().expect("an id");
        let done = curl.settled(&format!("/api/v1/secret-syncs/{kind}/{id}")).await;
        assert_eq!(done["secretSync"]["syncStatus"], "succeeded", "{done:#}");
        assert!(done["secretSync"]["lastSyncedAt"].is_string(), "{done:#}");
        assert_eq!(place.values().len(), 4, "{kind}");
        let (status, named) = curl.get(&format!("/api/v1/secret-syncs/{kind}/sync-name/to-{kind}")).await;
        assert_eq!((status, &named["secretSync"]["id"]), (200, &sync["id"]));
    }
    let (_, all) = curl.get(&format!("/api/v1/secret-syncs?projectId={}", yard.rig.project)).await;
    assert_eq!(all["secretSyncs"].as_array().map(Vec::len), Some(5));
    let (_, options) = curl.get("/api/v1/secret-syncs/options").await;
    assert_eq!(options["secretSyncOptions"].as_array().map(Vec::len), Some(5));

    // Later changes arrive by the same door.
    let id = all["secretSyncs"].as_array().and_then(|a| a.iter().find(|s| s["destination"] == "aws-secrets-manager")).expect("a sync")["id"].clone();
    let id = id.as_str().expect("an id");
    yard.rig.set("KEY_4", "two");
    let (status, answer) = curl.post(&format!("/api/v1/secret-syncs/aws-secrets-manager/{id}/sync-secrets"), "", "application/json").await;
    // The engine may have heard of the change first.
    assert!(status == 200 || answer["message"].as_str().is_some_and(|m| m.contains("going already")), "{answer:#}");
    super::yard::sure("the new key", || yard.places[0].values().len() == 5).await;
    // Passing the other syncs' runs by: the sync is found under its own kind alone.
    let (status, _) = curl.get(&format!("/api/v1/secret-syncs/bitbucket/{id}")).await;
    assert_eq!(status, 400);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_requests_are_answered_as_documented() {
    let yard = Yard::aws().await;
    let _engine = yard.engine(&[]).await;
    let curl = Curl::new(&yard);
    let path = "/api/v1/secret-syncs/aws-secrets-manager";
    let mut document = yard.document("Not A Slug", yard.place(), "/app", true, None);
    document["destinationConfig"] = json!({"mappingBehavior": "one-to-one"});
    let (status, answer) = curl.post(path, &document.to_string(), "application/json").await;
    assert_eq!((status, &answer["statusCode"], &answer["error"]), (422, &json!(422), &json!("ValidationFailure")), "{answer:#}");
    let issues = answer["message"].as_array().expect("a list of issues");
    let at = |path: Value| issues.iter().find(|i| i["path"] == path);
    assert!(at(json!(["name"])).is_some() && at(json!(["destinationConfig", "region"])).is_some(), "{answer:#}");
    for body in ["{\"name\":", "[]", "\"text\"", ""] {
        let (status, answer) = curl.post(path, body, "application/json").await;
        assert_eq!(status, 422, "{body:?}: {answer:#}");
        assert!(answer["message"].as_array().is_some_and(|a| !a.is_empty()), "{answer:#}");
    }
    let (status, answer) = curl.get("/api/v1/secret-syncs/github").await;
    assert_eq!((status, &answer["error"]), (404, &json!("NotFound")));
    let (status, _) = curl.get(&format!("{path}/3c90c3cc-0d44-4b50-8888-8dd25736052a")).await;
    assert_eq!(status, 404);
    assert_eq!(yard.store().syncs().len(), 0, "nothing was stored");
}
