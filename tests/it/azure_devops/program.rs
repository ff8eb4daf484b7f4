//! The whole program over an embedded KMS and this destination, as a script sees it.

use kms_sync::sandbox::azure_devops::{State, Variable, router};
use kms_sync::sandbox::host::Host;
use serde_json::{Value, json};

use crate::support::rig::Rig;

const PROJECT: &str = "12345678-90ab-cdef-1234-567890abcdef";
const LIST: &str = "GET /{project}/_apis/distributedtask/variablegroups";
const PUT: &str = "PUT /_apis/distributedtask/variablegroups/{id}";

async fn world() -> (Rig, State, Host) {
    let rig = Rig::new().await;
    let state = State::new("contoso");
    state.token("pat-canary");
    state.project_with(PROJECT, "example-project");
    let host = Host::start(router(state.clone()), None).await.expect("a port");
    let connection = json!({"name": "devops", "app": "azure-devops", "method": "access-token", "endpoint": host.url,
        "credentials": {"orgName": "contoso", "accessToken": "pat-canary"}});
    rig.run_with(&["connection", "add", "-f", "-"], &connection).await.expect(0);
    rig.run(&["connection", "test", "devops"]).await.expect(0);
    (rig, state, host)
}

/// The documented request, on this rig's project and folder.
fn request(rig: &Rig) -> Value {
    json!({"name": "my-devops-sync", "projectId": rig.project, "description": "an example sync", "connectionId": "devops",
        "environment": "dev", "secretPath": "/app", "isEnabled": true,
        "syncOptions": {"initialSyncBehavior": "overwrite-destination", "disableSecretDeletion": false},
        "destinationConfig": {"devopsProjectId": PROJECT, "devopsProjectName": "example-project"}})
}

async fn sync(rig: &Rig, more: &[&str]) -> Value {
    let mut args = vec!["sync", "my-devops-sync", "--json"];
    args.extend(more);
    let answer = rig.run(&args).await;
    assert_eq!(answer.code, 0, "{} {}", answer.stdout, answer.stderr);
    answer.json()["runs"][0].clone()
}

fn calls(run: &Value) -> Value {
    run["requests"]["byCall"]["azure-devops"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_life_of_a_sync_costs_what_it_must() {
    let (rig, state, _host) = world().await;
    for (key, value) in [("DB_PASSWORD", "one"), ("API_KEY", "line\ntwo"), ("EMPTY", "")] {
        rig.set(key, value);
    }
    rig.run_with(&["create", "-f", "-", "--destination", "azure-devops", "--no-run"], &request(&rig)).await.expect(0);
    let run = sync(&rig, &[]).await;
    assert_eq!((&run["counts"]["created"], &run["counts"]["skipped"]), (&json!(2), &json!(1)), "{run}");
    assert_eq!(calls(&run), json!({LIST: 1, "POST /_apis/distributedtask/variablegroups": 1}));
    let id = state.find(PROJECT, "Development").expect("the environment's name, not its slug");
    assert_eq!(state.variables(id)["API_KEY"], Variable::secret("line\ntwo"));

    for more in [&[][..], &["--verify"][..]] {
        let run = sync(&rig, more).await;
        assert_eq!(calls(&run), json!({LIST: 1}), "{run}");
        assert_eq!(run["counts"]["unchanged"], 2);
    }
    rig.set("DB_PASSWORD", "two");
    let run = sync(&rig, &[]).await;
    assert_eq!(run["counts"]["updated"], 1);
    assert_eq!(calls(&run), json!({LIST: 1, PUT: 1}));
    assert_eq!(calls(&sync(&rig, &[]).await), json!({LIST: 1}));

    // A foreign edit cannot be seen, only that there was one: an attended run repairs it.
    state.set(id, "DB_PASSWORD", Variable::secret("tampered"));
    let plan = rig.run(&["plan", "my-devops-sync", "--json"]).await.expect(10);
    assert_eq!(plan["changes"].as_array().map(Vec::len), Some(2), "{plan}");
    let run = sync(&rig, &[]).await;
    assert_eq!(run["counts"]["updated"], 2, "{run}");
    assert_eq!(state.variables(id)["DB_PASSWORD"], Variable::secret("two"));
    assert_eq!(calls(&sync(&rig, &["--verify"]).await), json!({LIST: 1}));

    // Ours go when they vanish, a stranger's variable stays.
    state.set(id, "THEIRS", Variable::plain("x"));
    rig.unset("API_KEY");
    assert_eq!(sync(&rig, &[]).await["counts"]["deleted"], 1);
    assert_eq!(state.variables(id).keys().collect::<Vec<_>>(), ["DB_PASSWORD", "THEIRS"]);
    rig.run(&["remove-secrets", "my-devops-sync", "--yes", "--json"]).await.expect(0);
    assert_eq!(state.variables(id).keys().collect::<Vec<_>>(), ["THEIRS"]);
    state.delete(id);

    let run = sync(&rig, &[]).await;
    assert_eq!(run["counts"]["created"], 1, "{run}");
    rig.run(&["remove-secrets", "my-devops-sync", "--yes", "--json"]).await.expect(0);
    assert!(state.groups().is_empty(), "an emptied group that we made goes too");
}

/// Number 31: the most memory that a first run took, in KiB, and what it did.
async fn peak(keys: usize) -> (u64, Value) {
    let (rig, _state, _host) = world().await;
    for n in 0..keys {
        rig.set(&format!("SECRET{n:04}"), &"v".repeat(256));
    }
    rig.run_with(&["create", "-f", "-", "--destination", "azure-devops", "--no-run"], &request(&rig)).await.expect(0);
    let mut command = rig.command();
    command.args(["sync", "my-devops-sync", "--json"]).stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::null());
    let mut child = command.spawn().expect("the program starts");
    let status = format!("/proc/{}/status", child.id());
    let mut out = child.stdout.take().expect("a pipe");
    let printed = tokio::task::spawn_blocking(move || std::io::read_to_string(&mut out).expect("its output"));
    let mut most = 0;
    while child.try_wait().expect("a child").is_none() {
        // The kernel keeps the peak; a process that has just ended has none any more.
        let told = std::fs::read_to_string(&status).unwrap_or_default();
        let line = told.lines().find(|l| l.starts_with("VmHWM:"));
        most = line.and_then(|l| l.split_ascii_whitespace().nth(1)?.parse().ok()).unwrap_or(0).max(most);
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
    let printed: Value = serde_json::from_str(&printed.await.expect("read")).expect("one document");
    (most, printed["runs"][0]["counts"]["created"].clone())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_variables_take_memory_for_some_copies_and_no_more() {
    let (few, many) = (peak(10).await, peak(10_000).await);
    assert_eq!((&few.1, &many.1), (&json!(10), &json!(10_000)));
    // 2.7 MiB of names and values.
    assert!(few.0 > 0 && many.0 < few.0 + 96 * 1024, "{} KiB for 10, {} KiB for 10,000", few.0, many.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_there_is_taken_over_only_when_agreed() {
    let (rig, state, _host) = world().await;
    let id = state.group(PROJECT, "Development", &[("DB_PASSWORD", Variable::secret("theirs")), ("OLD", Variable::plain("x"))]);
    rig.set("DB_PASSWORD", "ours");
    rig.run_with(&["create", "-f", "-", "--destination", "azure-devops", "--no-run"], &request(&rig)).await.expect(0);
    let answer = rig.run(&["sync", "my-devops-sync", "--json"]).await;
    assert_eq!(answer.json()["runs"][0]["status"], "needs-approval", "{}", answer.stdout);
    assert_eq!(state.variables(id)["DB_PASSWORD"], Variable::secret("theirs"));
    let run = sync(&rig, &["--allow-delete"]).await;
    assert_eq!((&run["counts"]["updated"], &run["counts"]["deleted"]), (&json!(1), &json!(1)), "{run}");
    assert_eq!(calls(&run), json!({LIST: 1, PUT: 1}));
    assert_eq!(state.variables(id), [("DB_PASSWORD".to_string(), Variable::secret("ours"))].into());
}

#[tokio::test(flavor = "multi_thread")]
async fn importing_is_refused_with_the_documented_words() {
    let (rig, _state, _host) = world().await;
    let mut document = request(&rig);
    document["syncOptions"]["initialSyncBehavior"] = "import-prioritize-source".into();
    let answer = rig.run_with(&["create", "-f", "-", "--destination", "azure-devops", "--no-run", "--json"], &document).await;
    assert_eq!(answer.code, 2);
    assert!(answer.stdout.contains("\"Azure Devops does not support importing secrets.\""), "{}", answer.stdout);
    assert!(!answer.stdout.contains("pat-canary") && !answer.stderr.contains("pat-canary"));
}

#[tokio::test(flavor = "multi_thread")]
async fn after_the_environment_was_renamed_its_secrets_can_be_taken_away() {
    let (rig, state, _host) = world().await;
    rig.set("DB_PASSWORD", "one");
    rig.run_with(&["create", "-f", "-", "--destination", "azure-devops", "--no-run"], &request(&rig)).await.expect(0);
    sync(&rig, &[]).await;
    let id = state.find(PROJECT, "Development").expect("the group");
    state.set(id, "THEIRS", Variable::plain("x"));
    rig.kms.rename_environment(&rig.project, "dev", "Acceptance");
    let answer = rig.run(&["sync", "my-devops-sync", "--json"]).await;
    assert_eq!(answer.code, 1);
    let message = answer.json()["runs"][0]["message"].as_str().unwrap_or_default().to_string();
    assert!(message.contains("now called \"Acceptance\"") && message.contains("remove-secrets takes this sync's keys out"), "{message}");
    let run = rig.run(&["remove-secrets", "my-devops-sync", "--yes", "--json"]).await.expect(0)["runs"][0].clone();
    assert_eq!(run["counts"]["deleted"], 1, "{run}");
    let reason = run["secrets"][0]["reason"].as_str().unwrap_or_default();
    assert!(reason.contains("\"Development\""), "{run}");
    assert_eq!(state.variables(id).keys().collect::<Vec<_>>(), ["THEIRS"]);
    // The next sync begins at the group of today's name.
    assert_eq!(sync(&rig, &[]).await["counts"]["created"], 1);
    assert!(state.find(PROJECT, "Acceptance").is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_stranger_put_into_a_group_made_anew_is_not_deleted_unasked() {
    let (rig, state, _host) = world().await;
    for key in ["KEPT", "GOING"] {
        rig.set(key, "ours");
    }
    rig.run_with(&["create", "-f", "-", "--destination", "azure-devops", "--no-run"], &request(&rig)).await.expect(0);
    sync(&rig, &[]).await;
    state.delete(state.find(PROJECT, "Development").expect("the group"));
    let theirs = [("KEPT", Variable::secret("theirs")), ("GOING", Variable::secret("theirs"))];
    let id = state.group(PROJECT, "Development", &theirs);
    rig.unset("GOING");
    let answer = rig.run(&["sync", "my-devops-sync", "--json"]).await;
    let run = &answer.json()["runs"][0];
    assert_eq!(run["status"], "needs-approval", "{run}");
    assert_eq!(state.variables(id)["GOING"], Variable::secret("theirs"), "the ledger's row is of a group that is gone");
    sync(&rig, &["--allow-delete"]).await;
    assert_eq!(state.variables(id), [("KEPT".to_string(), Variable::secret("ours"))].into());
}
