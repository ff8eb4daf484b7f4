//! One read-modify-write: what is sent, what is carried, and what is deleted.

use kms_sync::http::ErrorKind;
use kms_sync::model::run::{Outcome, RunRecord, RunStatus};
use kms_sync::sandbox::azure_devops::{State, Variable};
use kms_sync::sandbox::host::{Effect, Fault};
use serde_json::{Value, json};

use super::rig::{config, methods, rig};
use crate::conformance::bench::{Bench, ENVIRONMENT_NAME, ended, fate};
use crate::conformance::places;

#[tokio::test]
async fn a_first_sync_makes_one_group_with_one_reference() {
    let rig = rig().await;
    let mut sync = rig.sync("a");
    let ran = sync.run(&[("DB_PASSWORD", "one"), ("API_KEY", "line\r\ntwo\n")]).await;
    assert_eq!(ran.created, ["API_KEY", "DB_PASSWORD"]);
    assert!(ran.warnings.iter().any(|w| w.contains("no variable group")), "{:?}", ran.warnings);
    assert_eq!(methods(&rig.requests()), "GET POST");
    let body = rig.state.last_body().expect("a body");
    assert_eq!(body["name"], "Production Environment");
    assert_eq!(body["type"], "Vsts");
    let references = body["variableGroupProjectReferences"].as_array().expect("references");
    assert_eq!(references.len(), 1);
    assert_eq!(references[0]["projectReference"]["id"], rig.project.as_str());
    assert_eq!(references[0]["name"], "Production Environment");
    assert_eq!(references[0]["description"], body["description"]);
    let stored = rig.state.variables(rig.group());
    assert_eq!(stored["API_KEY"], Variable::secret("line\r\ntwo\n"));
    assert_eq!(stored["DB_PASSWORD"], Variable::secret("one"));
}

#[tokio::test]
async fn unchanged_is_one_request_and_a_change_is_two() {
    for n in [1, 100, 1000] {
        let rig = rig().await;
        let mut sync = rig.sync("a");
        let keys: Vec<(String, String)> = (0..n).map(|i| (format!("KEY_{i:04}"), format!("value {i}"))).collect();
        let mut want: Vec<(&str, &str)> = keys.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        assert_eq!(sync.run(&want).await.created.len(), n);
        for full in [false, true] {
            sync.full = full;
            rig.requests();
            let ran = sync.run(&want).await;
            assert_eq!((ran.writes(), ran.unchanged), (0, n));
            assert_eq!(methods(&rig.requests()), "GET", "full: {full}");
        }
        want[0].1 = "another";
        let ran = sync.run(&want).await;
        assert_eq!(ran.updated, ["KEY_0000"]);
        assert_eq!(methods(&rig.requests()), "GET PUT");
        assert_eq!(rig.value("KEY_0000").as_deref(), Some("another"));
        let ran = sync.run(&want).await;
        assert_eq!((ran.writes(), ran.unchanged), (0, n));
    }
}

#[tokio::test]
async fn everything_foreign_is_carried_byte_for_byte() {
    let rig = rig().await;
    let foreign = [
        ("PLAIN", Variable::plain("plain $(x) \u{1f511}")),
        ("EMPTY", Variable::plain("")),
        ("HIDDEN", Variable::secret("theirs")),
        ("FIXED", Variable::plain("ro").read_only()),
        ("FIXED_SECRET", Variable::secret("ros").read_only()),
        ("ODD", Variable::plain("v").with("contentType", json!("x")).with("nested", json!([1, {"a": null}, 2.5]))),
    ];
    let id = rig.state.group(&rig.project, "Production Environment", &foreign);
    for description in [None, Some(""), Some("two\nlines, edited by hand")] {
        rig.state.describe(id, description);
        let mut sync = rig.sync("a");
        sync.run(&[("MINE", "v1")]).await;
        let stored = rig.state.variables(id);
        for (name, variable) in &foreign {
            assert_eq!(stored[*name], *variable, "{name}");
        }
        assert_eq!(stored["MINE"], Variable::secret("v1"));
        assert_eq!(rig.state.facts(id).expect("facts").0.as_deref(), description);
        let body = rig.state.last_body().expect("a body");
        let variables = body["variables"].as_object().expect("variables");
        for secret in ["HIDDEN", "FIXED_SECRET"] {
            assert!(!variables[secret].as_object().expect("entry").contains_key("value"), "{secret} is sent without a value");
        }
        let members: Vec<&str> = body.as_object().expect("body").keys().map(String::as_str).collect();
        assert!(members.iter().all(|m| ["name", "description", "type", "variables", "variableGroupProjectReferences"].contains(m)), "{members:?}");
        let mut away = rig.sync("a");
        away.ledger = sync.ledger.clone();
        away.remove().await.expect("removed");
        assert_eq!(rig.state.variables(id).len(), foreign.len(), "only ours is taken away");
    }
}

#[tokio::test]
async fn references_are_carried_verbatim_and_only_our_project_is_named_on_deletion() {
    let rig = rig().await;
    let other = rig.state.project("Other");
    let mut sync = rig.sync("a");
    sync.run(&[("A", "1")]).await;
    let id = rig.group();
    rig.state.share(id, &other);
    sync.run(&[("A", "2")]).await;
    let references = rig.state.last_body().expect("a body")["variableGroupProjectReferences"].clone();
    let ids: Vec<&str> = references.as_array().expect("two").iter().filter_map(|r| r["projectReference"]["id"].as_str()).collect();
    assert_eq!(ids, [rig.project.as_str(), other.as_str()]);
    assert_eq!(references[1]["projectReference"]["name"], "Other");
    rig.requests();
    sync.remove().await.expect("removed");
    let lines = rig.requests();
    let delete = lines.iter().find(|l| l.starts_with("DELETE")).expect("a deletion");
    assert!(delete.contains(&format!("projectIds={}&", rig.project)), "{delete}");
    assert!(rig.state.find(&other, "Production Environment").is_some(), "the other project keeps it");
}

#[tokio::test]
async fn vanished_keys_go_unless_deletion_is_off() {
    let rig = rig().await;
    let mut sync = rig.sync("a");
    sync.run(&[("A", "1"), ("B", "2")]).await;
    sync.deletes = false;
    assert_eq!(sync.run(&[("A", "1")]).await.writes(), 0);
    sync.deletes = true;
    rig.requests();
    let ran = sync.run(&[("A", "1")]).await;
    assert_eq!(ran.deleted, ["B"]);
    assert_eq!(methods(&rig.requests()), "GET PUT");
    assert_eq!(rig.state.variables(rig.group()).len(), 1);
}

#[tokio::test]
async fn the_last_variable_takes_the_group_with_it_only_when_we_made_it() {
    let rig = rig().await;
    let mut sync = rig.sync("a");
    sync.run(&[("A", "1")]).await;
    // A ledger from another machine knows it too: forget the local facts.
    rig.requests();
    let ran = sync.remove().await.expect("removed");
    assert_eq!(ran.deleted, ["A"]);
    assert_eq!(methods(&rig.requests()), "GET DELETE");
    assert!(rig.state.groups().is_empty());

    let id = rig.state.group(&rig.project, "Production Environment", &[("A", Variable::secret("theirs"))]);
    let mut sync = rig.sync("b");
    sync.run(&[("A", "ours")]).await;
    let error = sync.remove().await.expect_err("refused");
    assert_eq!(error.kind, ErrorKind::Invalid);
    assert!(error.text().contains("left empty") && error.text().contains("delete the group"), "{error}");
    assert_eq!(rig.state.variables(id)["A"], Variable::secret("ours"));
    // With a variable of somebody else the removal is an ordinary one.
    rig.state.set(id, "THEIRS", Variable::plain("x"));
    sync.remove().await.expect("removed");
    assert_eq!(rig.state.variables(id).keys().collect::<Vec<_>>(), ["THEIRS"]);
}

#[tokio::test]
async fn an_own_variable_is_made_secret_again_and_a_missing_one_restored() {
    let rig = rig().await;
    let mut sync = rig.sync("a");
    sync.run(&[("A", "1"), ("B", "2")]).await;
    let id = rig.group();
    rig.state.set(id, "A", Variable::plain("1"));
    let ran = sync.run(&[("A", "1"), ("B", "2")]).await;
    assert_eq!(ran.updated, ["A"], "{ran:?}");
    assert_eq!(rig.state.variables(id)["A"], Variable::secret("1"));
    rig.state.unset(id, "B");
    let ran = sync.run(&[("A", "1"), ("B", "2")]).await;
    assert_eq!(ran.created, ["B"]);
    assert_eq!(rig.state.variables(id)["B"], Variable::secret("2"));
}

#[tokio::test]
async fn every_write_carries_all_our_values_and_so_mends_what_cannot_be_seen() {
    let rig = rig().await;
    let mut sync = rig.sync("a");
    sync.run(&[("A", "1"), ("B", "2")]).await;
    rig.state.set(rig.group(), "A", Variable::secret("tampered"));
    let ran = sync.run(&[("A", "1"), ("B", "3")]).await;
    assert_eq!(ran.updated, ["B"]);
    assert_eq!(rig.value("A").as_deref(), Some("1"));
}

#[tokio::test]
async fn empty_values_are_reported_and_what_is_there_stays() {
    let rig = rig().await;
    let mut sync = rig.sync("a");
    sync.run(&[("A", "1"), ("B", "2")]).await;
    rig.requests();
    let ran = sync.run(&[("A", ""), ("B", "2"), ("NEW", "")]).await;
    assert_eq!((ran.writes(), ran.unchanged, ran.skipped.len()), (0, 1, 2), "{ran:?}");
    assert_eq!(methods(&rig.requests()), "GET");
    let ran = sync.run(&[("A", ""), ("B", "9"), ("NEW", "")]).await;
    assert_eq!(ran.updated, ["B"]);
    assert_eq!(rig.value("A").as_deref(), Some("1"), "neither written nor deleted");
    assert!(!rig.state.variables(rig.group()).contains_key("NEW"));
}

#[tokio::test]
async fn without_a_usable_key_nothing_is_made() {
    let rig = rig().await;
    for want in [&[][..], &[("A", ""), (" bad", "x")][..]] {
        let ran = rig.sync("a").run(want).await;
        assert_eq!(ran.writes(), 0);
    }
    assert_eq!(methods(&rig.requests()), "GET GET");
    assert!(rig.state.groups().is_empty());
    // Nor is anything written where a group of that name is there: a stranger's, and ours.
    let id = rig.state.group(&rig.project, "Production Environment", &[("THEIRS", Variable::secret("t")), ("PLAIN", Variable::plain("p"))]);
    let before = (rig.state.variables(id), rig.state.facts(id));
    for full in [false, true] {
        let mut sync = rig.sync("b");
        sync.full = full;
        let ran = sync.run(&[("A", ""), (" bad", "x")]).await;
        assert_eq!((ran.writes(), ran.skipped.len(), methods(&rig.requests()).as_str()), (0, 2, "GET"), "full: {full}");
    }
    assert_eq!((rig.state.variables(id), rig.state.facts(id)), before);
    rig.state.delete(id);
    let mut sync = rig.sync("c");
    sync.run(&[("A", "1"), ("B", "2")]).await;
    let before = (rig.state.variables(rig.group()), rig.state.facts(rig.group()));
    rig.requests();
    for full in [false, true] {
        sync.full = full;
        let ran = sync.run(&[("A", ""), ("B", ""), (" bad", "x")]).await;
        assert_eq!((ran.writes(), ran.skipped.len(), methods(&rig.requests()).as_str()), (0, 3, "GET"), "full: {full}");
    }
    assert_eq!((rig.state.variables(rig.group()), rig.state.facts(rig.group())), before);
}

#[tokio::test]
async fn case_is_kept_as_stored_and_twins_are_left_alone() {
    let rig = rig().await;
    let id = rig.state.group(
        &rig.project,
        "Production Environment",
        &[("Db_Password", Variable::plain("x")), ("T", Variable::plain("1")), ("t", Variable::plain("2"))],
    );
    let mut sync = rig.sync("a");
    let ran = sync.run(&[("DB_PASSWORD", "v"), ("T", "9"), ("twin", "a"), ("TWIN", "b"), ("OK", "x")]).await;
    assert_eq!(ran.conflicts.len(), 2, "{ran:?}");
    let stored = rig.state.variables(id);
    assert_eq!(stored["Db_Password"], Variable::secret("v"));
    assert!(!stored.contains_key("DB_PASSWORD"));
    assert_eq!((&stored["T"], &stored["t"]), (&Variable::plain("1"), &Variable::plain("2")));
    let ran = sync.run(&[("DB_PASSWORD", "v"), ("OK", "x")]).await;
    assert_eq!((ran.writes(), ran.unchanged), (0, 2));
}

#[tokio::test]
async fn a_group_of_another_kind_is_never_written() {
    let rig = rig().await;
    for kind in ["AzureKeyVault", "azurekeyvault", "Future"] {
        let id = rig.state.group(&rig.project, "Production Environment", &[("A", Variable::plain("x"))]);
        rig.state.retype(id, kind, Some(json!({"vault": "kv", "serviceEndpointId": "e"})));
        let error = rig.sync("a").try_run(&kms_sync::http::Cx::quiet(), &[("A", "1"), ("B", "2")]).await.expect_err("refused");
        assert_eq!(error.kind, ErrorKind::Conflict);
        assert!(error.text().contains("variableGroupName"), "{error}");
        assert_eq!(methods(&rig.requests()), "GET");
        rig.state.delete(id);
    }
}

#[tokio::test]
async fn a_group_name_of_ones_own_is_used() {
    let rig = rig().await;
    let mut sync = rig.sync("a");
    sync.config = config(&[("devopsProjectId", &rig.project), ("variableGroupName", "billing/prod #1 & 50% *")]);
    sync.run(&[("A", "1")]).await;
    assert!(rig.state.find(&rig.project, "billing/prod #1 & 50% *").is_some());
    rig.requests();
    assert_eq!(sync.run(&[("A", "1")]).await.unchanged, 1);
    assert_eq!(methods(&rig.requests()), "GET");
}

#[tokio::test]
async fn what_waits_for_the_operator_is_not_written_along() {
    let rig = rig().await;
    let id = rig.state.group(&rig.project, "Production Environment", &[("THEIRS", Variable::secret("x"))]);
    let mut sync = rig.sync("a");
    sync.approve = false;
    let ran = sync.run(&[("OURS", "1"), ("THEIRS", "2")]).await;
    assert_eq!((ran.created.len(), ran.skipped.len()), (1, 1));
    assert_eq!(rig.state.variables(id)["THEIRS"], Variable::secret("x"));
    assert_eq!(rig.state.variables(id)["OURS"], Variable::secret("1"));
}

#[tokio::test]
async fn an_answer_without_the_variables_is_completed_by_a_reading() {
    let rig = rig().await;
    let mut sync = rig.sync("a");
    sync.run(&[("A", "1")]).await;
    let id = rig.group();
    let bare = json!({"id": id, "name": "Production Environment", "type": "Vsts"}).to_string();
    let headers = vec![("content-type".to_string(), "application/json".to_string())];
    rig.host.faults.add(Fault::next("PUT", 1, Effect::Answer { status: 200, headers, body: bare }));
    rig.requests();
    let ran = sync.run(&[("A", "2"), ("B", "1")]).await;
    // The fault kept the service from seeing the write, so the reading shows that B is not there.
    assert_eq!(methods(&rig.requests()), "GET PUT GET");
    assert_eq!(ran.failed.len(), 1, "{ran:?}");
    assert!(ran.failed[0].1.text().contains("does not hold it"));
}

#[tokio::test]
async fn hostile_values_arrive_unchanged() {
    let rig = rig().await;
    let values: Vec<String> = [4096, 4097, 25 * 1024, 32_767, 1 << 20]
        .iter()
        .map(|n| "x".repeat(*n))
        .chain(["$(x)", "##vso[task.setvariable]", "\"'\\", "trailing\n", "\r\n", " ", "zażółć \u{1f511}\u{202e}"].map(String::from))
        .collect();
    let names: Vec<String> = (0..values.len()).map(|i| format!("V{i}")).collect();
    let want: Vec<(&str, &str)> = names.iter().zip(&values).map(|(n, v)| (n.as_str(), v.as_str())).collect();
    let ran = rig.sync("a").run(&want).await;
    let stored = rig.state.variables(rig.group());
    for (name, value) in &want {
        assert!(stored[*name].value.as_deref() == Some(*value), "{name}");
    }
    assert!(ran.notes.iter().any(|n| n.contains("Windows")) && ran.notes.iter().any(|n| n.contains("1048576")), "{:?}", ran.notes);
}

/// A write answered with a group of these variables, as it is shown (values never are).
fn answered(id: i64, modified_on: &str, variables: Value) -> Effect {
    let group = json!({"id": id, "type": "Vsts", "name": ENVIRONMENT_NAME, "description": null, "modifiedOn": modified_on, "variables": variables});
    Effect::Answer { status: 200, headers: vec![("content-type".into(), "application/json".into())], body: group.to_string() }
}

/// The group as an answer has shown it; the secrets hold these values.
fn leave(state: &State, id: i64, modified_on: &str, variables: &[(&str, Variable)]) {
    state.variables(id).keys().for_each(|name| state.unset(id, name));
    variables.iter().for_each(|(name, variable)| state.set(id, name, variable.clone()));
    state.stamp(id, modified_on);
}

#[track_caller]
fn fails(record: &RunRecord, key: &str, words: &str) {
    let told = fate(record, key);
    assert!(told.is_some_and(|(outcome, reason)| outcome == Outcome::Failed && reason.contains(words)), "{key}: {told:?}");
}

/// Section 7.3, rule 4: all that was sent must stand in the answer as secrets. The whole engine:
/// what the answer does not prove is not in the ledger either.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_the_answer_shows_as_plain_has_failed_and_is_written_again() {
    const STAMP: &str = "2026-01-01T00:00:00.08Z";
    let secret = json!({"isSecret": true, "value": null});
    for existing in [true, false] {
        let state = State::new("contoso");
        let b = Bench::new(places::azure_devops::on(state.clone()).await).await;
        let project = b.place.config()["devopsProjectId"].as_str().expect("a project").to_string();
        b.create(json!({})).await;
        for key in ["OK", "SHOWN"] {
            b.set(key, "one");
        }
        let (id, method) = if existing {
            b.synced().await;
            for key in ["OK", "SHOWN"] {
                b.set(key, "two");
            }
            (state.find(&project, ENVIRONMENT_NAME).expect("the group"), "PUT")
        } else {
            (1, "POST")
        };
        let variables = json!({"OK": secret, "SHOWN": {"value": "x"}});
        b.place.host().faults.add(Fault::next(method, 1, answered(id, STAMP, variables)));
        b.mark();
        let record = b.sync().await;
        ended(&record, RunStatus::Failed);
        fails(&record, "SHOWN", "holds it as a plain variable");
        let done = if existing { record.counts.updated } else { record.counts.created };
        assert_eq!((done, record.counts.failed), (1, 1), "{method}: {record:#?}");
        assert_eq!(b.writes().len(), 1, "{method}");
        // Under the very stamp of that answer the key is a secret with another value: a ledger
        // that believed the write would now let it be.
        let value = if existing { "two" } else { "one" };
        if !existing {
            assert_eq!(state.group(&project, ENVIRONMENT_NAME, &[("OK", Variable::secret(value))]), id);
        }
        leave(&state, id, STAMP, &[("OK", Variable::secret(value)), ("SHOWN", Variable::secret("another"))]);
        let mut record = b.sync().await;
        if !existing {
            // It was never ours, as far as anything proves: the operator is asked.
            ended(&record, RunStatus::NeedsApproval);
            record = b.allowed().await;
        }
        ended(&record, RunStatus::Succeeded);
        assert_eq!((record.counts.writes(), record.counts.unchanged), (1, 1), "{method}: {record:#?}");
        b.holds([("OK", value), ("SHOWN", value)]);
        b.settled().await;
    }
}

/// The same rule for what must go: by a run whose source has lost keys, and by a removal.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_key_that_the_answer_still_shows_has_failed_and_is_removed_again() {
    const STAMP: &str = "2026-01-01T00:00:00.08Z";
    let secret = json!({"isSecret": true, "value": null});
    for removal in [false, true] {
        let state = State::new("contoso");
        let b = Bench::new(places::azure_devops::on(state.clone()).await).await;
        let project = b.place.config()["devopsProjectId"].as_str().expect("a project").to_string();
        b.create(json!({})).await;
        let kept = b.fill(if removal { 0 } else { 8 }, "one");
        for key in ["GONE", "STAYS"] {
            b.set(key, "one");
        }
        b.synced().await;
        let id = state.find(&project, ENVIRONMENT_NAME).expect("the group");
        if removal {
            // Else the group would go as a whole.
            b.put("THEIRS", "one");
        }
        let left: Vec<&str> = kept.keys().map(String::as_str).chain(removal.then_some("THEIRS")).collect();
        let after: Vec<(&str, Variable)> = left.iter().copied().chain(["STAYS"]).map(|k| (k, Variable::secret("one"))).collect();
        let shown: Value = after.iter().map(|(key, _)| ((*key).to_string(), secret.clone())).collect::<serde_json::Map<_, _>>().into();
        ["GONE", "STAYS"].iter().for_each(|key| b.unset(key));
        let run = async || if removal { b.removal().await } else { b.sync().await };
        b.place.host().faults.add(Fault::next("PUT", 1, answered(id, STAMP, shown)));
        let record = run().await;
        ended(&record, RunStatus::Failed);
        fails(&record, "STAYS", "still holds it");
        assert_eq!((record.counts.deleted, record.counts.failed), (1, 1), "{record:#?}");
        leave(&state, id, STAMP, &after);
        // It is ours as before: it goes, without a question.
        let record = run().await;
        ended(&record, RunStatus::Succeeded);
        assert_eq!((record.counts.deleted, record.counts.writes()), (1, 1), "{record:#?}");
        b.holds(left.iter().map(|key| (key, "one")));
    }
}
