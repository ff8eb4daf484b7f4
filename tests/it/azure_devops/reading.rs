//! Finding the project and the group: paging, names, pickers, the connection test.

use kms_sync::destination::Provider as _;
use kms_sync::http::{Cx, ErrorKind};
use kms_sync::model::{Forgetful, Map};
use kms_sync::sandbox::azure_devops::{Identity, Scopes, Variable};
use kms_sync::sandbox::host::{Effect, Fault};
use serde_json::json;

use super::rig::{TOKEN, config, connection, methods, rig};

fn json_answer(body: &str, token: Option<&str>) -> Effect {
    let mut headers = vec![("content-type".to_string(), "application/json; charset=utf-8; api-version=7.1".to_string())];
    headers.extend(token.map(|t| ("x-ms-continuationtoken".to_string(), t.to_string())));
    Effect::Answer { status: 200, headers, body: body.into() }
}

#[tokio::test]
async fn the_group_is_found_on_the_third_page() {
    let rig = rig().await;
    rig.state.page(2);
    for i in 0..4 {
        rig.state.group(&rig.project, &format!("prod* {i}"), &[("X", Variable::plain("x"))]);
    }
    let id = rig.state.group(&rig.project, "prod*", &[("A", Variable::secret("old"))]);
    let mut sync = rig.sync("a");
    sync.environment = Some("prod*".into());
    sync.run(&[("A", "new")]).await;
    assert_eq!(methods(&rig.requests()), "GET GET GET PUT");
    assert_eq!(rig.state.variables(id)["A"], Variable::secret("new"));
    assert_eq!(rig.state.groups().len(), 5, "a wildcard adopts nothing else");
}

#[tokio::test]
async fn pages_that_turn_in_a_circle_end_in_an_error_and_empty_ones_do_not() {
    let rig = rig().await;
    rig.host.faults.add(Fault::next("GET", 2, json_answer("{\"count\":0,\"value\":[]}", Some("7"))));
    let error = rig.sync("a").try_run(&Cx::quiet(), &[("A", "1")]).await.expect_err("a circle");
    assert!(error.text().contains("circle"), "{error}");
    assert!(rig.state.groups().is_empty(), "a list in part must not make a twin");
    // A circle of two pages, of groups and of projects.
    rig.requests();
    let turn = |body: &str| {
        for (at, token) in ["7", "8", "7"].into_iter().enumerate() {
            rig.host.faults.add(Fault::next("GET", 1, json_answer(body, Some(token))).after(at as u32));
        }
    };
    turn("{\"count\":0,\"value\":[]}");
    let error = rig.sync("a").try_run(&Cx::quiet(), &[("A", "1")]).await.expect_err("a circle");
    assert!(error.text().contains("circle") && rig.state.groups().is_empty(), "{error}");
    turn("{\"count\":0,\"value\":[]}");
    let error = rig.session().choices(&Cx::quiet(), "devopsProjectId", &Map::new()).await.expect_err("a circle");
    assert!(error.text().contains("circle"), "{error}");
    assert_eq!(rig.requests().len(), 6);
    // Ever new tokens behind empty pages, of groups and of projects.
    let endless = || {
        (0..200).for_each(|n| {
            rig.host.faults.add(Fault::next("GET", 1, json_answer("{\"count\":0,\"value\":[]}", Some(&format!("t{n}")))).after(n));
        })
    };
    endless();
    let error = rig.sync("a").try_run(&Cx::quiet(), &[("A", "1")]).await.expect_err("no end");
    assert!(error.kind == ErrorKind::NotTheService && error.text().contains("page 100 brought nothing new"), "{error}");
    rig.host.faults.clear();
    endless();
    let error = rig.session().choices(&Cx::quiet(), "devopsProjectId", &Map::new()).await.expect_err("no end");
    assert!(error.kind == ErrorKind::NotTheService && error.text().contains("page 100 brought nothing new"), "{error}");
    rig.host.faults.clear();
    assert!(rig.requests().len() == 200 && rig.state.groups().is_empty());
    rig.state.group(&rig.project, "Production Environment", &[("X", Variable::plain("x"))]);
    rig.host.faults.add(Fault::next("GET", 1, json_answer("{\"count\":0,\"value\":[]}", Some("1"))));
    rig.sync("a").run(&[("A", "1")]).await;
    assert_eq!(rig.state.groups().len(), 1);
}

#[tokio::test]
async fn odd_names_find_their_group_and_no_other() {
    let rig = rig().await;
    let long = "n".repeat(200);
    for name in ["Dev*", "a & b", "100%", "a+b", "#1", "x/y", "key \u{1f511}", "Prod (EU)", "ünï", long.as_str()] {
        let decoy = rig.state.group(&rig.project, &name.replace('*', "2").replace(' ', "_ "), &[("X", Variable::plain("x"))]);
        let mut sync = rig.sync(name);
        sync.environment = Some(name.into());
        if rig.state.find(&rig.project, name) == Some(decoy) {
            rig.state.delete(decoy);
        }
        sync.run(&[("A", "1")]).await;
        let id = rig.state.find(&rig.project, name).expect(name);
        assert_eq!(sync.run(&[("A", "1")]).await.unchanged, 1, "{name}");
        assert_eq!(rig.state.variables(id).len(), 1);
        rig.state.groups().into_iter().for_each(|g| rig.state.delete(g));
    }
}

#[tokio::test]
async fn another_case_is_adopted_and_two_of_them_are_a_conflict() {
    let rig = rig().await;
    let upper = rig.state.group(&rig.project, "DEV", &[("X", Variable::plain("x"))]);
    let mut sync = rig.sync("a");
    sync.environment = Some("dev".into());
    let ran = sync.run(&[("A", "1")]).await;
    assert!(ran.warnings.iter().any(|w| w.contains("DEV")), "{:?}", ran.warnings);
    assert_eq!(rig.state.variables(upper).len(), 2);
    rig.state.group(&rig.project, "Dev", &[("X", Variable::plain("x"))]);
    let error = sync.try_run(&Cx::quiet(), &[("A", "2")]).await.expect_err("a conflict");
    assert_eq!(error.kind, ErrorKind::Conflict);
    assert!(error.text().contains("only by case"), "{error}");
    // An exact match is no conflict.
    let exact = rig.state.group(&rig.project, "dev", &[("X", Variable::plain("x"))]);
    rig.sync("b").run(&[("A", "1")]).await;
    let mut sync = rig.sync("c");
    sync.environment = Some("dev".into());
    sync.run(&[("A", "3")]).await;
    assert_eq!(rig.state.variables(exact)["A"], Variable::secret("3"));
}

#[tokio::test]
async fn without_a_name_the_slug_names_the_group() {
    let rig = rig().await;
    for (id, name) in [("a", None), ("b", Some(" "))] {
        let mut sync = rig.sync(id);
        sync.environment = name.map(String::from);
        let ran = sync.run(&[("A", "1")]).await;
        assert!(ran.warnings.iter().any(|w| w.contains("slug")), "{:?}", ran.warnings);
    }
    assert!(rig.state.find(&rig.project, "production").is_some());
}

#[tokio::test]
async fn a_project_by_name_is_resolved_once() {
    let rig = rig().await;
    let mut sync = rig.sync("a");
    sync.config = config(&[("devopsProjectId", "fabrikam")]);
    sync.run(&[("A", "1")]).await;
    assert_eq!(methods(&rig.requests()), "GET GET POST");
    let reference = rig.state.last_body().expect("a body")["variableGroupProjectReferences"][0]["projectReference"]["id"].clone();
    assert_eq!(reference, rig.project.as_str());
    sync.run(&[("A", "1")]).await;
    assert_eq!(methods(&rig.requests()), "GET");
}

#[tokio::test]
async fn an_unknown_project_is_said_in_both_forms() {
    let rig = rig().await;
    for project in ["Nowhere", "00000000-1111-2222-3333-444444444444"] {
        let mut sync = rig.sync("a");
        sync.config = config(&[("devopsProjectId", project)]);
        let error = sync.try_run(&Cx::quiet(), &[("A", "1")]).await.expect_err("unknown");
        assert_eq!(error.kind, ErrorKind::NotFound, "{error}");
        assert!(error.text().contains("cannot see it"), "{error}");
    }
    // Deleted between the plan and the write.
    let mut sync = rig.sync("a");
    let project = rig.project.clone();
    rig.state.before_next_write(move |s| s.remove_project(&project));
    let error = sync.try_run(&Cx::quiet(), &[("A", "1")]).await.expect_err("gone");
    assert_eq!(error.kind, ErrorKind::NotFound, "{error}");
}

#[tokio::test]
async fn projects_are_picked_over_all_pages() {
    let rig = rig().await;
    rig.state.page(100);
    for i in 0..500 {
        rig.state.project(&format!("Project {i:03}"));
    }
    let choices = rig.session().choices(&Cx::quiet(), "devopsProjectId", &Map::new()).await.expect("choices");
    assert_eq!(methods(&rig.requests()), "GET GET GET GET GET GET");
    assert_eq!((choices[0].label.as_str(), choices[0].value.as_str()), ("Fabrikam", rig.project.as_str()));
    let labels: Vec<String> = choices[1..].iter().map(|c| c.label.clone()).collect();
    assert_eq!(labels, (0..500).map(|i| format!("Project {i:03}")).collect::<Vec<_>>(), "each of them once");
    // An organisation in which this token sees none.
    choices.iter().for_each(|c| rig.state.remove_project(&c.value));
    assert_eq!(rig.session().choices(&Cx::quiet(), "devopsProjectId", &Map::new()).await.expect("truthful"), []);
}

#[tokio::test]
async fn a_picker_that_fails_says_why_and_what_to_do() {
    let rig = rig().await;
    let answer =
        |status: u16, kind: &str, body: &str| Effect::Answer { status, headers: vec![("content-type".into(), kind.into())], body: body.into() };
    let denied = r#"{"$id":"1","message":"TF50309: no permission","typeKey":"AccessDeniedException"}"#;
    for (effect, kind, word) in [
        (answer(200, "text/html", "<html>Sign in</html>"), ErrorKind::Auth, "personal access token"),
        (answer(200, "text/html", "<html>proxy</html>"), ErrorKind::NotTheService, "proxy settings"),
        (answer(203, "application/json", "{\"count\":0,\"value\":[]}"), ErrorKind::Auth, "personal access token"),
        (answer(302, "text/html", ""), ErrorKind::Auth, "personal access token"),
        (answer(200, "application/json", "{\"count\":0,\"value\":null}"), ErrorKind::NotTheService, "endpoint"),
        (answer(200, "application/json", "{\"count\":3,\"value\":[]}"), ErrorKind::NotTheService, "0 of 3 came"),
        (answer(403, "application/json", denied), ErrorKind::Permission, "Type the project's id by hand"),
        (answer(404, "text/html", "<html>"), ErrorKind::NotTheService, "orgName"),
    ] {
        rig.host.faults.add(Fault::always("/_apis/projects", 1.0, effect.clone()));
        let error = rig.session().choices(&Cx::quiet(), "devopsProjectId", &Map::new()).await.expect_err("no list");
        assert_eq!(error.kind, kind, "{effect:?}: {error}");
        assert!(error.text().contains(word) && !error.text().contains('<'), "{effect:?}: {error}");
        rig.host.faults.clear();
    }
    // Nothing to pick from is a truthful answer.
    rig.host.faults.add(Fault::next("/_apis/projects", 1, answer(200, "application/json", "{\"count\":0,\"value\":[]}")));
    assert!(rig.session().choices(&Cx::quiet(), "devopsProjectId", &Map::new()).await.expect("truthful").is_empty());
}

#[tokio::test]
async fn the_connection_test_proves_what_it_can() {
    let rig = rig().await;
    let report = rig.session().test(&Cx::quiet(), None).await.expect("good");
    assert!(report.identity.contains("contoso") && report.identity.contains("operator@example.com"), "{report:?}");
    assert_eq!(methods(&rig.requests()), "GET");
    let report = rig.session().test(&Cx::quiet(), Some(&config(&[("devopsProjectId", &rig.project)]))).await.expect("good");
    assert!(report.notes[0].contains("Fabrikam") && report.notes[0].contains("can be listed"), "a form shows the first one: {report:?}");
    let missing = config(&[("devopsProjectId", "Nowhere")]);
    assert_eq!(rig.session().test(&Cx::quiet(), Some(&missing)).await.expect_err("missing").kind, ErrorKind::NotFound);
}

#[tokio::test]
async fn a_credential_that_may_not_list_projects_is_good_for_a_known_one() {
    let rig = rig().await;
    let (cx, known) = (Cx::quiet(), config(&[("devopsProjectId", &rig.project)]));
    let refused = |body: &str| {
        let headers = vec![("content-type".to_string(), "application/json".to_string())];
        Fault::always("GET /contoso/_apis/projects", 1.0, Effect::Answer { status: 403, headers, body: body.into() })
    };
    // The identity lacks the right, then the token lacks the scope.
    let no_right = r#"{"$id":"1","message":"TF50309: The following account does not have sufficient permissions","typeKey":"AccessDeniedException"}"#;
    let blind = Scopes { read_groups: true, manage_groups: true, read_projects: false };
    rig.state.identity("blind", Identity { scopes: blind, ..Identity::administrator("operator") });
    for (token, fault) in [(TOKEN, Some(refused(no_right))), ("blind", None)] {
        rig.host.faults.clear();
        fault.into_iter().for_each(|f| rig.host.faults.add(f));
        let session = rig.session_as(token);
        rig.requests();
        let report = session.test(&cx, Some(&known)).await.expect("good for this project");
        assert_eq!(methods(&rig.requests()), "GET GET");
        assert!(report.notes[0].contains("variable groups can be listed"), "{report:?}");
        assert!(report.notes.iter().any(|n| n.contains("typed by hand")), "{report:?}");
        let error = session.test(&cx, None).await.expect_err("nothing else is proved");
        assert!(matches!(error.kind, ErrorKind::Permission | ErrorKind::Auth), "{error}");
        // A name would have to be looked up, and another project's groups are not there.
        let named = config(&[("devopsProjectId", "Fabrikam")]);
        assert!(session.test(&cx, Some(&named)).await.is_err());
        let missing = config(&[("devopsProjectId", "00000000-1111-2222-3333-444444444444")]);
        assert_eq!(session.test(&cx, Some(&missing)).await.expect_err("missing").kind, ErrorKind::NotFound);
    }
    rig.host.faults.clear();
    assert_eq!(rig.session_as("nobody").test(&cx, Some(&known)).await.expect_err("a wrong token stays wrong").kind, ErrorKind::Auth);
}

#[tokio::test]
async fn an_organisation_is_found_in_any_case_and_a_typo_is_explained() {
    let rig = rig().await;
    for (organisation, good) in [("CONTOSO", true), ("contosso", false), ("con toso", false)] {
        let session = kms_sync::destination::azure_devops::AzureDevOps
            .connect(
                connection("access-token", &format!("{}/", rig.host.url), &[("orgName", organisation), ("accessToken", TOKEN)], &[]),
                std::sync::Arc::new(Forgetful),
            )
            .expect("a session");
        let result = session.test(&Cx::quiet(), None).await;
        match result {
            Ok(_) => assert!(good, "{organisation}"),
            Err(error) => {
                assert!(!good, "{error}");
                assert!(error.text().contains("orgName"), "{error}");
            }
        }
    }
}

/// Ways in which a group may come in part, or not as documented, and what is said of each.
fn not_whole(id: i64) -> Vec<(serde_json::Value, &'static str)> {
    let group = |member: &str, value: Option<serde_json::Value>| {
        let mut group = json!({"id": id, "name": "Production Environment", "type": "Vsts", "modifiedOn": "2026-03-01T10:00:00.08Z",
            "variables": {"A": {"isSecret": true, "value": null}, "THEIRS": {"isSecret": true, "value": null}}});
        match value {
            Some(value) => group[member] = value,
            None => drop(group.as_object_mut().expect("an object").remove(member)),
        }
        group
    };
    vec![
        (group("variables", None), "without its variables"),
        (group("variables", Some(json!(null))), "without its variables"),
        (group("variables", Some(json!([]))), "not the object"),
        (group("variables", Some(json!("A"))), "not the object"),
        (group("variables", Some(json!({"A": {"isSecret": true}, "THEIRS": null}))), "THEIRS"),
        (group("variables", Some(json!({"A": {"isSecret": true}, "THEIRS": "x"}))), "THEIRS"),
        (group("variables", Some(json!({"A": {"isSecret": true}, "THEIRS": {"isSecret": "yes"}}))), "THEIRS"),
        (group("type", Some(json!(7))), "type"),
    ]
}

#[tokio::test]
async fn a_group_that_did_not_come_whole_is_never_written() {
    let rig = rig().await;
    let mut sync = rig.sync("a");
    sync.run(&[("A", "1")]).await;
    let id = rig.group();
    rig.state.set(id, "THEIRS", Variable::secret("x"));
    let whole = rig.state.variables(id);
    let untouched = |rig: &super::rig::Rig, what: &dyn std::fmt::Display| {
        assert_eq!(rig.state.variables(id), whole, "{what}");
        let lines = rig.requests();
        assert!(!lines.iter().any(|l| !l.starts_with("GET")), "{what}: {lines:?}");
    };
    rig.requests();
    for (group, word) in not_whole(id) {
        // As the listing that the plan is made on.
        rig.host.faults.add(Fault::next("GET", 1, json_answer(&json!({"count": 1, "value": [group]}).to_string(), None)));
        let error = sync.try_run(&Cx::quiet(), &[("A", "2"), ("B", "1")]).await.expect_err("not whole");
        assert_eq!(error.kind, ErrorKind::NotTheService, "{group}: {error}");
        assert!(error.text().contains(word) && error.text().contains("none is sent"), "{group}: {error}");
        untouched(&rig, &group);
        // And for a removal, which would leave nothing of the group.
        rig.host.faults.add(Fault::next("GET", 1, json_answer(&group.to_string(), None)));
        let error = sync.remove().await.expect_err("not whole");
        assert!(error.text().contains(word), "{group}: {error}");
        untouched(&rig, &group);
    }
    // Not as long as it says, twice of one name, another one than asked for.
    let two = |a: i64, b: i64| {
        let group = |id: i64| json!({"id": id, "name": "Production Environment", "type": "Vsts", "variables": {"A": {"isSecret": true}}});
        json!({"count": 2, "value": [group(a), group(b)]}).to_string()
    };
    for (body, word) in [
        (json!({"count": 1, "value": []}).to_string(), "0 of 1 came"),
        (json!({"count": 0, "value": null}).to_string(), "list of variable groups"),
        (json!({"count": 0, "value": {}}).to_string(), "list of variable groups"),
        (json!({"count": 1, "value": [null]}).to_string(), "list of variable groups"),
        (json!({"count": 1, "value": [{"id": "1", "name": "Production Environment"}]}).to_string(), "list of variable groups"),
        (two(id, id + 1), "several variable groups"),
    ] {
        rig.host.faults.add(Fault::next("GET", 1, json_answer(&body, None)));
        let error = sync.try_run(&Cx::quiet(), &[("A", "2")]).await.expect_err("no list");
        assert!(error.text().contains(word), "{body}: {error}");
        untouched(&rig, &body);
    }
    rig.host.faults.clear();
    assert_eq!(sync.run(&[("A", "2")]).await.updated, ["A"]);
    assert_eq!(rig.state.variables(id)["THEIRS"], Variable::secret("x"));
}

#[tokio::test]
async fn the_second_look_before_a_write_must_be_whole_too() {
    let rig = rig().await;
    let mut sync = rig.sync("a");
    sync.run(&[("A", "1")]).await;
    let id = rig.group();
    rig.state.set(id, "THEIRS", Variable::plain("x"));
    let cx = Cx::quiet();
    let one = |id: i64| json!({"id": id, "name": "Production Environment", "type": "Vsts"}).to_string();
    for (body, word) in [(one(id), "without its variables"), (one(id + 7), "another one came")] {
        let destination = sync.open(&cx).await;
        let inventory = sync.list(&cx, destination.as_ref()).await.expect("a list");
        tokio::time::sleep(std::time::Duration::from_millis(2100)).await;
        rig.host.faults.add(Fault::next("GET", 1, json_answer(&body, None)));
        rig.requests();
        let error = sync.apply(&cx, destination.as_ref(), &inventory, &[("A", "2")]).await.expect_err("not whole");
        assert!(error.text().contains(word), "{error}");
        assert_eq!(methods(&rig.requests()), "GET");
    }
    // After a lost answer the group is looked at again: that look counts no less.
    rig.host.faults.add(Fault::next("PUT", 1, Effect::Reset));
    rig.host.faults.add(Fault::next("GET", 1, json_answer(&one(id), None)).after(1));
    let error = sync.try_run(&cx, &[("A", "2")]).await.expect_err("not whole");
    assert!(error.text().contains("without its variables"), "{error}");
    assert_eq!(methods(&rig.requests()), "GET PUT GET");
    assert_eq!(rig.state.variables(id)["THEIRS"], Variable::plain("x"));
    // The answer to a write for another group proves nothing.
    rig.host.faults.add(Fault::next(
        "PUT",
        1,
        json_answer(&json!({"id": id + 7, "name": "x", "variables": {"A": {"isSecret": true}}}).to_string(), None),
    ));
    assert_eq!(sync.run(&[("A", "2")]).await.updated, ["A"]);
    assert_eq!(methods(&rig.requests()), "GET PUT GET PUT");
    assert_eq!(rig.value("A").as_deref(), Some("2"));
}
