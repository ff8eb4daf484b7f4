//! The engine's socket speaks the documented API: what `curl --unix-socket` would send.

use serde_json::{Value, json};

use super::yard::{PATIENCE, Yard, socket_of};

pub struct Curl(pub reqwest::Client);

impl Curl {
    pub fn new(yard: &Yard) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        Self(reqwest::Client::builder().unix_socket(socket_of(yard)).build().expect("a client"))
    }

    pub async fn get(&self, path: &str) -> (u16, Value) {
        let answer = self.0.get(format!("http://localhost{path}")).send().await.expect("an answer");
        (answer.status().as_u16(), answer.json().await.expect("JSON"))
    }

    /// The answer's text, for what a [`Value`] does not keep.
    pub async fn text(&self, method: reqwest::Method, path: &str, body: &str) -> String {
        let request = self.0.request(method, format!("http://localhost{path}")).header("content-type", "application/json").body(body.to_string());
        let answer = request.send().await.expect("an answer");
        let status = answer.status().as_u16();
        let text = answer.text().await.expect("a body");
        assert_eq!(status, 200, "{text}");
        text
    }

    async fn post(&self, path: &str, body: &str, kind: &str) -> (u16, Value) {
        let request = self.0.post(format!("http://localhost{path}")).header("content-type", kind).body(body.to_string());
        let answer = request.send().await.expect("an answer");
        (answer.status().as_u16(), answer.json().await.expect("JSON"))
    }

    /// Any method, body and content type; none when it is empty.
    pub async fn send(&self, method: &str, path: &str, body: &str, kind: &str) -> (u16, Value) {
        let method = reqwest::Method::from_bytes(method.as_bytes()).expect("a method");
        let mut request = self.0.request(method, format!("http://localhost{path}")).body(body.to_string());
        if !kind.is_empty() {
            request = request.header("content-type", kind);
        }
        let answer = request.send().await.expect("an answer");
        let status = answer.status().as_u16();
        let text = answer.text().await.expect("a body");
        (status, serde_json::from_str(&text).unwrap_or_else(|e| panic!("{status} {e}: {text}")))
    }

    /// Asks until the sync is not pending or running any more.
    pub async fn settled(&self, path: &str) -> Value {
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
        let (status, answer) = curl.post(&format!("/api/v1/secret-syncs/{kind}"), &document.to_string(), "application/json").await;
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sample_update_changes_a_sync_over_the_socket() {
    let yard = Yard::aws().await;
    yard.settings(&json!({"pollIntervalSecs": 10, "driftHours": null}));
    yard.rig.set("KEY", "one");
    let engine = yard.engine(&[]).await;
    let curl = Curl::new(&yard);
    let path = "/api/v1/secret-syncs/aws-secrets-manager";
    let mut document = yard.document("my-sync", yard.place(), "/app", true, None);
    document.as_object_mut().expect("an object").remove("destination");
    let (status, made) = curl.post(path, &document.to_string(), "application/json").await;
    assert_eq!(status, 200, "{made:#}");
    let id = made["secretSync"]["id"].as_str().expect("an id").to_string();
    curl.settled(&format!("{path}/{id}")).await;

    // The update request of the documentation, as curl sends it: whole objects, other members kept.
    let change = json!({"name": "my-aws-sync", "description": "an example sync",
        "syncOptions": {"initialSyncBehavior": "overwrite-destination", "keySchema": "app_{{secretKey}}", "disableSecretDeletion": true},
        "destinationConfig": yard.place().config()});
    let (status, answer) = curl.send("PATCH", &format!("{path}/{id}"), &change.to_string(), "application/json").await;
    assert_eq!(status, 200, "{answer:#}");
    let sync = &answer["secretSync"];
    let expected = (json!(id), json!("my-aws-sync"), json!("an example sync"), json!(2), json!(true));
    assert_eq!((sync["id"].clone(), sync["name"].clone(), sync["description"].clone(), sync["version"].clone(), sync["isEnabled"].clone()), expected);
    assert_eq!((&sync["syncOptions"]["keySchema"], &sync["folder"]["path"]), (&json!("app_{{secretKey}}"), &json!("/app")));
    // The engine carries it out by itself, and the old name is gone.
    super::yard::sure("the key by its new name", || yard.place().values().contains_key("app_KEY")).await;
    assert!(yard.place().values().contains_key("KEY"), "deletion is off now");
    let (status, _) = curl.get(&format!("{path}/sync-name/my-sync")).await;
    assert_eq!(status, 404);

    // Auto-sync off by either of its names.
    let begun = std::time::Instant::now();
    let (status, answer) = loop {
        let (status, answer) = curl.send("PATCH", &format!("{path}/{id}"), "{\"isAutoSyncEnabled\":false}", "application/json").await;
        // While its run is going a sync is not edited.
        let going = status == 400 && answer["message"].as_str().is_some_and(|m| m.contains("is going"));
        if !going || begun.elapsed() > PATIENCE {
            break (status, answer);
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    };
    assert_eq!((status, &answer["secretSync"]["isEnabled"]), (200, &json!(false)), "{answer:#}");

    // A bad update changes nothing.
    let bad = json!({"syncOptions": {"initialSyncBehavior": "overwrite-destination", "keySchema": "no placeholder"}});
    let (status, answer) = curl.send("PATCH", &format!("{path}/{id}"), &bad.to_string(), "application/json").await;
    assert_eq!((status, &answer["error"]), (422, &json!("ValidationFailure")), "{answer:#}");
    let (_, after) = curl.get(&format!("{path}/{id}")).await;
    assert_eq!((&after["secretSync"]["version"], &after["secretSync"]["syncOptions"]), (&json!(3), &sync["syncOptions"]), "{:#?}", engine.lines());

    let (status, gone) = curl.send("DELETE", &format!("{path}/{id}?removeSecrets=false"), "", "").await;
    assert_eq!((status, &gone["secretSync"]["id"]), (200, &json!(id)));
    assert_eq!(yard.store().syncs().len(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_socket_does_not_take_is_told_in_the_documented_shape() {
    let yard = Yard::aws().await;
    let _engine = yard.engine(&[]).await;
    let curl = Curl::new(&yard);
    let document = yard.document("web", yard.place(), "/app", false, None).to_string();
    let path = "/api/v1/secret-syncs/aws-secrets-manager";
    for (method, path, body, kind, status, error) in [
        ("GET", "/", "", "", 404, "Not Found"),
        ("GET", "/api/v1/nothing/here", "", "", 404, "Not Found"),
        ("POST", "/api/v1/secret-syncs/github", &*document, "application/json", 404, "NotFound"),
        ("PATCH", "/api/v1/secret-syncs/aws-secrets-manager/3c90c3cc-0d44-4b50-8888-8dd25736052a", "{}", "application/json", 404, "NotFound"),
        ("POST", path, &*document, "text/xml", 415, "Unsupported Media Type"),
        ("POST", path, &*document, "text/plain; charset=utf-8", 415, "Unsupported Media Type"),
        ("POST", path, &*document, "application/x-www-form-urlencoded", 415, "Unsupported Media Type"),
        ("POST", path, &*document, "application/jsonx", 415, "Unsupported Media Type"),
        ("PATCH", "/api/v1/secret-syncs/aws-secrets-manager/x", "{}", "multipart/form-data", 415, "Unsupported Media Type"),
        ("PUT", path, &*document, "application/json", 405, "Method Not Allowed"),
    ] {
        let (got, answer) = curl.send(method, path, body, kind).await;
        assert_eq!((got, &answer["statusCode"], &answer["error"]), (status, &json!(status), &json!(error)), "{method} {path}: {answer:#}");
        assert!(answer["message"].as_str().is_some_and(|m| !m.is_empty()), "{answer:#}");
    }
    assert_eq!(yard.store().syncs().len(), 0, "nothing was stored");
    // With no type at all a document is a document.
    for (name, kind) in [("one", ""), ("two", "Application/JSON"), ("three", "application/json; charset=utf-8")] {
        let document = yard.document(name, yard.place(), "/app", false, Some(&format!("{name}_{{{{secretKey}}}}"))).to_string();
        let (status, answer) = curl.send("POST", path, &document, kind).await;
        assert_eq!(status, 200, "{answer:#}");
    }
    // This program's own routes answer in its own shape.
    let (status, answer) = curl.send("POST", "/v1/service/syncs", "[]", "text/plain").await;
    assert_eq!((status, &answer["kind"]), (415, &json!("invalid")), "{answer:#}");
}
