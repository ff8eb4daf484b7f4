//! The documented answer about one sync: every member of the sample answers, in their order,
//! before anything ran and after one job of each kind.

use std::collections::BTreeSet;

use kms_sync::destination::registry;
use reqwest::Method;
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Value, json};

use super::documented::Curl;
use super::yard::{PATIENCE, Yard};

/// The documented sample answers.
fn sample(kind: &str) -> &'static str {
    match kind {
        "aws-secrets-manager" => include_str!("samples/answers/aws-secrets-manager.json"),
        "azure-key-vault" => include_str!("samples/answers/azure-key-vault.json"),
        "azure-devops" => include_str!("samples/answers/azure-devops.json"),
        "bitbucket" => include_str!("samples/answers/bitbucket.json"),
        "oci-vault" => include_str!("samples/answers/oci-vault.json"),
        other => panic!("no sample for {other}"),
    }
}

/// An object's members in the order they stand in the text: [`Value`] sorts them.
struct Members(Vec<(String, Members)>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(reader: D) -> Result<Self, D::Error> {
        reader.deserialize_any(Walk)
    }
}

struct Walk;

impl<'de> Visitor<'de> for Walk {
    type Value = Members;

    fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
        let mut all = Vec::new();
        while let Some(member) = map.next_entry()? {
            all.push(member);
        }
        Ok(Members(all))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Members, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Members(Vec::new()))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Members, E> {
        Ok(Members(Vec::new()))
    }

    fn visit_u64<E>(self, _: u64) -> Result<Members, E> {
        Ok(Members(Vec::new()))
    }

    fn visit_str<E>(self, _: &str) -> Result<Members, E> {
        Ok(Members(Vec::new()))
    }

    fn visit_unit<E>(self) -> Result<Members, E> {
        Ok(Members(Vec::new()))
    }
}

impl Members {
    #[track_caller]
    fn of(text: &str) -> Self {
        let mut whole: Members = serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"));
        assert_eq!(whole.names(), ["secretSync"], "{text}");
        whole.0.remove(0).1
    }

    fn names(&self) -> Vec<&str> {
        self.0.iter().map(|(name, _)| name.as_str()).collect()
    }

    fn of_member(&self, name: &str) -> Vec<&str> {
        self.0.iter().find(|(n, _)| n == name).map(|(_, inner)| inner.names()).unwrap_or_default()
    }
}

/// The answer names what the sample names, in its order; what is ours stands behind it.
#[track_caller]
fn like_the_sample(kind: &str, answer: &str) {
    let (sample, got) = (Members::of(sample(kind)), Members::of(answer));
    let mut wanted = sample.names();
    // One page's sample lacks it; the server's own answer has it at every destination.
    if !wanted.contains(&"projectId") {
        let at = wanted.iter().position(|n| *n == "connection").expect("a connection");
        wanted.insert(at, "projectId");
    }
    wanted.extend(["sourceConnection", "waiting"]);
    assert_eq!(got.names(), wanted, "{kind}");
    for member in ["connection", "environment", "folder", "syncOptions"] {
        assert_eq!(got.of_member(member), sample.of_member(member), "{kind}: {member}");
    }
    // What each destination has of its own is stored and told as a set.
    let set = |m: &Members| m.of_member("destinationConfig").into_iter().map(str::to_owned).collect::<BTreeSet<_>>();
    assert_eq!(set(&got), set(&sample), "{kind}");
}

fn sync_of(text: &str) -> Value {
    serde_json::from_str::<Value>(text).unwrap_or_else(|e| panic!("{e}: {text}"))["secretSync"].clone()
}

/// The four members that tell of the last job of one kind.
#[track_caller]
fn job(sync: &Value, of: &str) -> [Value; 4] {
    let names = match of {
        "sync" => ["syncStatus", "lastSyncJobId", "lastSyncMessage", "lastSyncedAt"],
        "import" => ["importStatus", "lastImportJobId", "lastImportMessage", "lastImportedAt"],
        "remove" => ["removeStatus", "lastRemoveJobId", "lastRemoveMessage", "lastRemovedAt"],
        other => panic!("no job {other}"),
    };
    names.map(|n| sync.get(n).unwrap_or_else(|| panic!("{n}: {sync:#}")).clone())
}

/// What the four members say before there was any.
const NOTHING: [Value; 4] = [Value::Null, Value::Null, Value::Null, Value::Null];

/// What the four members say of a run that has succeeded.
#[track_caller]
fn told(run: &Value) -> [Value; 4] {
    assert_eq!(run["status"], "succeeded", "{run:#}");
    assert!(run["finishedAt"].is_string(), "{run:#}");
    [json!("succeeded"), run["id"].clone(), Value::Null, run["finishedAt"].clone()]
}

/// Asks for a sync until its last job of this kind is over.
async fn ended(curl: &Curl, path: &str, of: &str) -> String {
    let begun = std::time::Instant::now();
    loop {
        let text = curl.text(Method::GET, path, "").await;
        let status = job(&sync_of(&text), of)[0].clone();
        if status != "pending" && status != "running" {
            return text;
        }
        assert!(begun.elapsed() < PATIENCE, "{text}");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_has_every_documented_member_in_the_documented_order() {
    let yard = Yard::new().await;
    yard.settings(&json!({"pollIntervalSecs": 3600, "driftHours": null}));
    for i in 0..3 {
        yard.rig.set(&format!("KEY_{i}"), "one");
    }
    let engine = yard.engine(&[]).await;
    let curl = Curl::new(&yard);
    let connections = yard.rig.run(&["connection", "list", "--json"]).await.expect(0);
    for place in &yard.places {
        let (kind, name) = (place.kind(), format!("to-{}", place.kind()));
        let (path, like) = (format!("/api/v1/secret-syncs/{kind}"), sync_of(sample(kind)));
        let mut document = yard.document(&name, &**place, "/app", false, None);
        document["description"] = like["description"].clone();
        for (member, value) in [("keySchema", json!("PIPELINE_{{secretKey}}")), ("disableSecretDeletion", json!(true))] {
            if like["syncOptions"].get(member).is_some() {
                document["syncOptions"][member] = value;
            }
        }
        if like["destinationConfig"].get("devopsProjectName").is_some() {
            document["destinationConfig"]["devopsProjectName"] = "Fabrikam".into();
        }

        let made = curl.text(Method::POST, &path, &document.to_string()).await;
        like_the_sample(kind, &made);
        let sync = sync_of(&made);
        for of in ["sync", "import", "remove"] {
            assert_eq!(job(&sync, of), NOTHING, "{kind}: {of}");
        }
        assert_eq!((&sync["version"], &sync["isEnabled"], &sync["description"]), (&json!(1), &json!(false), &like["description"]));
        assert_eq!((&sync["projectId"], &sync["destination"], &sync["sourceConnection"]), (&json!(yard.rig.project), &json!(kind), &json!("kms")));
        let connection = connections["connections"].as_array().and_then(|all| all.iter().find(|c| c["name"] == kind)).expect("a connection");
        assert_eq!(sync["connection"], json!({"app": connection["app"], "name": kind, "id": connection["id"]}));
        assert_eq!(sync["connectionId"], connection["id"]);
        assert_eq!((&sync["syncOptions"], &sync["destinationConfig"]), (&document["syncOptions"], &document["destinationConfig"]));
        // What only the source knows is not known before it was asked.
        assert_eq!(sync["environment"], json!({"slug": "dev", "name": null, "id": null}));
        assert_eq!((&sync["folderId"], &sync["folder"]), (&Value::Null, &json!({"id": null, "path": "/app"})));

        let id = sync["id"].as_str().expect("an id");
        let importable = registry::find(kind).expect("a destination").spec().can_import();
        let jobs: Vec<&str> = ["sync", "import", "remove"].into_iter().filter(|of| *of != "import" || importable).collect();
        for (n, of) in jobs.iter().enumerate() {
            curl.text(Method::POST, &format!("{path}/{id}/{of}-secrets"), "").await;
            let text = ended(&curl, &format!("{path}/{id}"), of).await;
            like_the_sample(kind, &text);
            let sync = sync_of(&text);
            // Each job has its own members, and they stay when another kind of job follows.
            let history = yard.rig.run(&["history", &name, "--json"]).await.expect(0);
            let runs = history["runs"].as_array().expect("runs");
            assert_eq!(runs.len(), n + 1, "{history:#}\n{:#?}", engine.lines());
            for kind_of_job in ["sync", "import", "remove"] {
                let run = runs.iter().find(|r| r["kind"] == kind_of_job);
                assert_eq!(run.is_some(), jobs[..=n].contains(&kind_of_job), "{history:#}");
                assert_eq!(job(&sync, kind_of_job), run.map_or(NOTHING, told), "{kind}, {kind_of_job} after {of}");
            }
            let environment = json!({"slug": "dev", "name": "Development", "id": yard.rig.kms.environment_id(&yard.rig.project, "dev")});
            assert_eq!(sync["environment"], environment, "{kind} after {of}");
            let folder = json!(yard.rig.kms.folder_id(&yard.rig.project, "dev", "/app").expect("a folder"));
            assert_eq!((&sync["folderId"], &sync["folder"]), (&folder, &json!({"id": folder, "path": "/app"})), "{kind} after {of}");
            // The command line prints the same document.
            let shown = yard.rig.run(&["show", &name, "--json"]).await;
            like_the_sample(kind, &shown.stdout);
            assert_eq!(shown.json()["secretSync"], sync, "{kind} after {of}");
        }
        assert!(place.values().is_empty(), "{kind}: the last job was a removal");
        let refusal = match kind {
            "azure-devops" => "Azure Devops does not support importing secrets.",
            "bitbucket" => "Bitbucket does not support importing secrets.",
            _ => continue,
        };
        let (status, answer) = curl.send("POST", &format!("{path}/{id}/import-secrets"), "", "").await;
        assert_eq!((status, &answer["message"]), (400, &json!(refusal)), "{answer:#}");
        let answer = yard.rig.run(&["import", &name, "--json"]).await.expect(2);
        assert_eq!(answer["error"]["fields"][0]["message"], refusal, "{answer:#}");
    }
    // A list has its syncs in the same order of members.
    let text = curl.text(Method::GET, "/api/v1/secret-syncs", "").await;
    let at = ["id", "name", "description", "folderId", "connectionId", "lastSyncJobId", "destinationConfig"]
        .map(|member| text.find(&format!("\"{member}\":")).unwrap_or_else(|| panic!("{member}: {text}")));
    assert!(at.is_sorted(), "{text}");
}
