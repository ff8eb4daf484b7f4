//! One key at a time: what is written, what is refused, and what is true after odd answers.

use kms_sync::destination::Itemised;
use kms_sync::http::ErrorKind;
use kms_sync::model::ledger::Intent;
use kms_sync::model::plan::Action;
use kms_sync::sandbox::host::{Effect, Fault};
use serde_json::json;

use super::rig::{REPO, Rig, many, refs};

const POST: &str = "POST /2.0/repositories/acme/api/pipelines_config/variables";
const DUPLICATE: &str = r#"{"error":{"message":"Conflict","detail":"A variable with the key provided already exists for account acme, environment none.","data":{"key":"variable-service.variable.duplicate","arguments":{}}}}"#;

#[tokio::test]
async fn what_is_not_secured_is_secured_whatever_its_value() {
    let mut rig = Rig::new().await;
    let same = rig.state.put(REPO, "SAME", "equal", false);
    rig.state.put(REPO, "OTHER", "theirs", false);
    let done = rig.sync(&[("SAME", "equal"), ("OTHER", "ours")]).await;
    assert_eq!(done.updated, ["OTHER", "SAME"]);
    let reason = done.plan.changes.iter().find(|c| c.key == "SAME").and_then(|c| c.reason.clone()).unwrap_or_default();
    assert!(reason.contains("secured"), "{reason}");
    assert!(rig.variables(REPO).iter().all(|v| v.secured));
    assert_eq!(rig.state.value(REPO, "OTHER").as_deref(), Some("ours"));
    assert_eq!(rig.variables(REPO).iter().find(|v| v.key == "SAME").map(|v| v.uuid.clone()), Some(same));
    assert_eq!(rig.sync(&[("SAME", "equal"), ("OTHER", "ours")]).await.writes(), 0);
}

#[tokio::test]
async fn a_key_listed_twice_is_a_conflict_and_untouched() {
    let mut rig = Rig::new().await;
    rig.state.put(REPO, "TWICE", "1", true);
    rig.state.put(REPO, "TWICE", "2", true);
    let done = rig.sync(&[("TWICE", "3"), ("ONCE", "1")]).await;
    assert_eq!(done.created, ["ONCE"]);
    assert_eq!(done.plan.conflicts.len(), 1);
    assert!(done.plan.conflicts[0].reason.contains("2 variables"), "{}", done.plan.conflicts[0].reason);
    let gone = rig.sync(&[("ONCE", "1")]).await;
    assert_eq!(gone.writes(), 0, "not deleted either");
    assert_eq!(rig.variables(REPO).iter().filter(|v| v.key == "TWICE").count(), 2);
}

#[tokio::test]
async fn a_duplicate_that_was_made_meanwhile() {
    // Ours by the ledger: put. Somebody else's: asked about, unless the operator agreed.
    for (ours, approve) in [(true, false), (false, true), (false, false)] {
        let mut rig = Rig::new().await;
        if ours {
            rig.sync(&[("A", "1")]).await;
        }
        let cx = rig.cx();
        let uuid = rig.variables(REPO).first().map(|v| v.uuid.clone());
        // The first list does not show it.
        let empty = json!({"size": 0, "values": []}).to_string();
        rig.host.faults.add(Fault::next("GET /2.0/repositories/acme/api/pipelines_config/variables", 1, Effect::status(200, empty)));
        if !ours {
            rig.state.put(REPO, "A", "theirs", true);
        }
        let done = rig.run(&cx, &[("A", "2")], approve).await.expect("runs");
        if ours || approve {
            assert_eq!(done.updated, ["A"], "{:?}", done.failed);
            assert_eq!(rig.state.value(REPO, "A").as_deref(), Some("2"));
            assert_eq!(done.by_call["bitbucket"]["GET /repositories/{workspace}/{repository}/pipelines_config/variables"], 2);
        } else {
            assert_eq!(done.error("A").kind, ErrorKind::Conflict);
            assert_eq!(rig.state.value(REPO, "A").as_deref(), Some("theirs"));
        }
        if let Some(uuid) = uuid {
            assert_eq!(rig.variables(REPO)[0].uuid, uuid);
        }
    }
}

#[tokio::test]
async fn a_duplicate_that_is_never_listed_is_an_error_after_the_waits() {
    let mut rig = Rig::new().await;
    rig.host.faults.add(Fault::always(POST, 1.0, Effect::status(409, DUPLICATE)));
    let done = rig.sync(&[("A", "1")]).await;
    let error = done.error("A");
    assert_eq!((error.kind, error.status), (ErrorKind::Conflict, Some(409)));
    assert_eq!(error.code.as_deref(), Some("variable-service.variable.duplicate"));
    assert_eq!(rig.sent("POST"), 1);
    assert_eq!(rig.sent("GET"), 1 + 4, "the plan's list, then one at once and after each of three waits");
    assert!(rig.waited_for("not listed yet"));
}

#[tokio::test]
async fn another_conflict_is_tried_again() {
    let mut rig = Rig::new().await;
    rig.host.faults.add(Fault::next(POST, 1, Effect::status(409, r#"{"error":{"message":"Concurrent modification"}}"#)));
    let done = rig.sync(&[("A", "1")]).await;
    assert_eq!(done.created, ["A"], "{:?}", done.failed);
    assert_eq!(rig.variables(REPO).len(), 1);
}

#[tokio::test]
async fn a_lost_answer_to_a_creation_leaves_one_variable_of_ours() {
    for effect in [Effect::LostAnswer, Effect::HalfBody, Effect::Reset, Effect::status(502, "<html>Bad gateway</html>")] {
        let mut rig = Rig::new().await;
        rig.host.faults.add(Fault::next(POST, 1, effect.clone()));
        let done = rig.sync(&[("A", "1")]).await;
        assert!(done.failed.is_empty(), "{effect:?}: {:?}", done.failed);
        assert_eq!(done.created, ["A"], "{effect:?}");
        assert_eq!(rig.variables(REPO).len(), 1, "{effect:?}");
        assert_eq!(rig.ledger.rows["A"].remote_id.as_deref(), Some(rig.variables(REPO)[0].uuid.as_str()));
        assert_eq!(rig.sync(&[("A", "1")]).await.writes(), 0, "{effect:?}");
    }
}

#[tokio::test]
async fn a_crash_between_answer_and_ledger_costs_one_put() {
    let mut rig = Rig::new().await;
    rig.sync(&[("A", "1")]).await;
    // What the store holds when the process died before the confirmation.
    let row = rig.ledger.rows.get_mut("A").expect("row");
    (row.remote_id, row.stamp, row.value_hash) = (None, None, None);
    row.intent = Some(Intent { action: "create".into(), token: "t".into(), value_hash: None, at: jiff::Timestamp::now() });
    rig.host.log.clear();
    let cx = rig.cx();
    let done = rig.run(&cx, &[("A", "1")], false).await.expect("runs");
    assert_eq!((done.updated.clone(), rig.sent("PUT"), rig.sent("POST")), (vec!["A".to_string()], 1, 0), "{:?}", done.failed);
    assert_eq!(rig.variables(REPO).len(), 1);
}

#[tokio::test]
async fn what_went_away_meanwhile() {
    let mut rig = Rig::new().await;
    rig.sync(&[("A", "1"), ("B", "1")]).await;
    let cx = rig.cx();
    let (destination, inventory, plan) = rig.plan(&cx, &[("A", "2")], true).await.expect("plan");
    rig.state.remove(REPO, "A");
    rig.state.remove(REPO, "B");
    let kms_sync::destination::Shape::Itemised(target) = destination.shape() else { panic!() };
    for change in plan.allowed() {
        let written = apply(&rig, target, &inventory, &plan, change, &cx).await.expect("done");
        match change.action {
            Action::Update => assert_eq!(written.instead, Some(Action::Create)),
            _ => assert_eq!(written.note.as_deref(), Some("was gone already")),
        }
    }
    assert_eq!(rig.state.value(REPO, "A").as_deref(), Some("2"));
    assert_eq!(rig.variables(REPO).len(), 1);
}

async fn apply(
    rig: &Rig,
    target: &dyn Itemised,
    inventory: &kms_sync::destination::Inventory,
    plan: &kms_sync::plan::Plan,
    change: &kms_sync::plan::Change,
    cx: &kms_sync::http::Cx,
) -> Result<kms_sync::destination::Written, kms_sync::http::ApiError> {
    let op = kms_sync::destination::Op {
        action: change.action,
        key: &change.key,
        entry: change.entry.map(|i| &inventory.entries[i]),
        row: rig.ledger.rows.get(&change.fold),
        desired: change.desired.map(|i| &plan.desired[i]),
        value_differs: change.value_differs,
        token: "t",
        approved: false,
    };
    target.apply(cx, &op).await
}

#[tokio::test]
async fn bad_names_fail_alone_and_case_tells_names_apart() {
    let mut rig = Rig::new().await;
    let done =
        rig.sync(&[("1A", "x"), ("A-B", "x"), ("A.B", "x"), ("A B", "x"), ("Ä", "x"), ("abc", "lower"), ("ABC", "upper"), ("GOOD", "x")]).await;
    assert_eq!(done.created, ["ABC", "GOOD", "abc"]);
    assert_eq!(done.plan.conflicts.len(), 5);
    assert_eq!(rig.sent("POST"), 3, "a bad name is never sent");
    assert_eq!(rig.state.value(REPO, "abc").as_deref(), Some("lower"));
    assert_eq!(rig.state.value(REPO, "ABC").as_deref(), Some("upper"));
}

#[tokio::test]
async fn a_schema_that_no_variable_can_have_fails_every_key_and_touches_nothing() {
    let mut rig = Rig::new().await;
    rig.state.put(REPO, "A", "theirs", true);
    rig.config.sync_options.key_schema = Some("my-app-{{secretKey}}".into());
    let done = rig.sync(&[("A", "1"), ("B", "1")]).await;
    assert_eq!((done.writes(), done.plan.conflicts.len(), rig.sent("POST")), (0, 2, 0));
    rig.config.sync_options.key_schema = Some("APP_{{secretKey}}".into());
    let done = rig.sync(&[("A", "1")]).await;
    assert_eq!((done.created.as_slice(), done.deleted.len()), (&["APP_A".to_string()][..], 0), "what the schema does not match is foreign");
    assert_eq!(rig.state.value(REPO, "A").as_deref(), Some("theirs"));
}

#[tokio::test]
async fn an_empty_uuid_never_reaches_a_path() {
    let mut rig = Rig::new().await;
    let odd = json!({"size": 1, "values": [{"uuid": "", "key": "A", "secured": true}]});
    rig.host.faults.add(Fault::next("GET /", 1, Effect::status(200, odd.to_string())));
    let error = rig.refused(&[]).await;
    assert_eq!(error.kind, ErrorKind::NotTheService, "{error}");
    let cx = rig.cx();
    let destination = rig.open(&cx).await.expect("opens");
    let kms_sync::destination::Shape::Itemised(target) = destination.shape() else { panic!() };
    let row = super::rig::row("A", Some(String::new()), None, "h".into());
    for row in [None, Some(&row)] {
        let op = kms_sync::destination::Op {
            action: Action::Delete,
            key: "A",
            entry: None,
            row,
            desired: None,
            value_differs: false,
            token: "t",
            approved: true,
        };
        assert_eq!(target.apply(&cx, &op).await.expect_err("no id").kind, ErrorKind::Invalid);
    }
    assert_eq!(rig.sent("DELETE"), 0);
}

#[tokio::test]
async fn reserved_names_are_warned_about_and_the_answer_is_reported() {
    let mut rig = Rig::new().await;
    let source = [("BITBUCKET_X", "1"), ("CI", "1"), ("PATH", "1"), ("OK", "1")];
    let done = rig.sync(&source).await;
    assert_eq!(done.created.len(), 4);
    for name in ["BITBUCKET_X", "CI", "PATH"] {
        assert!(done.warnings.iter().any(|w| w.starts_with(name)), "{name}: {:?}", done.warnings);
    }
    let mut rig = Rig::new().await;
    rig.state.quirks(|q| q.refuses_reserved = true);
    let done = rig.sync(&source).await;
    assert_eq!(done.created, ["OK", "PATH"]);
    assert!(done.error("CI").text().contains("reserved"), "{}", done.error("CI"));
}

#[tokio::test]
async fn values_of_every_kind() {
    let mut rig = Rig::new().await;
    let big = "x".repeat(40 * 1024);
    let good =
        [("BIG", big.as_str()), ("EMPTY", ""), ("QUOTES", "\"'\\"), ("DOLLAR", "$HOME ${X}"), ("EMOJI", "🦀"), ("BLANKS", "  lead and trail  ")];
    let bad = [("LF", "a\nb"), ("CRLF", "a\r\nb"), ("TRAILING", "a\n")];
    let all: Vec<_> = good.iter().chain(bad.iter()).copied().collect();
    rig.state.put(REPO, "LF", "as it was", true);
    let done = rig.sync(&all).await;
    assert_eq!(done.created.len(), good.len(), "{:?}", done.failed);
    for (key, value) in good {
        assert_eq!(rig.state.value(REPO, key).as_deref(), Some(value), "{key}");
    }
    assert_eq!(done.plan.conflicts.len(), bad.len());
    assert!(done.plan.conflicts.iter().all(|c| c.reason.contains("base64")));
    assert_eq!(rig.state.value(REPO, "LF").as_deref(), Some("as it was"), "neither written nor deleted");
    assert!(!done.warnings.iter().any(|w| w.contains("120,000")));
    let done = rig.sync(&[("BIG", big.as_str()), ("BIG_2", big.as_str()), ("BIG_3", big.as_str())]).await;
    assert!(done.warnings.iter().any(|w| w.contains("120,000")), "{:?}", done.warnings);
}

#[tokio::test]
async fn a_refused_empty_value_is_skipped_from_then_on() {
    let mut rig = Rig::new().await;
    rig.sync(&[("A", "1"), ("B", "1")]).await;
    rig.state.quirks(|q| q.refuses_empty = true);
    let done = rig.sync(&[("A", ""), ("B", "2")]).await;
    assert_eq!(done.updated, ["B"]);
    assert!(done.error("A").text().contains("empty value"), "{}", done.error("A"));
    rig.reconnect();
    let again = rig.sync(&[("A", ""), ("B", "2")]).await;
    assert_eq!((again.writes(), again.failed.len(), again.plan.skipped.len()), (0, 0, 1));
    assert_eq!(rig.state.value(REPO, "A").as_deref(), Some("1"), "left alone");
}

#[tokio::test]
async fn passing_trouble_is_repeated_and_nonsense_is_not_believed() {
    let mut rig = Rig::new().await;
    rig.host.faults.add(Fault::next("GET /", 1, Effect::status(502, "<html>Bad gateway</html>")));
    let done = rig.sync(&[("A", "1")]).await;
    assert_eq!((done.created.len(), done.retries), (1, 1));
    rig.host.faults.add(Fault::next("PUT /", 1, Effect::LostAnswer));
    let done = rig.sync(&[("A", "2")]).await;
    assert_eq!((done.updated.len(), done.retries), (1, 1));
    // A login page instead of the API.
    rig.host.faults.add(Fault::next("DELETE /", 1, Effect::Answer { status: 204, headers: vec![], body: String::new() }));
    let done = rig.sync(&[]).await;
    assert_eq!(done.deleted, ["A"]);
    for method in ["GET", "POST"] {
        let mut rig = Rig::new().await;
        let page = Effect::Answer {
            status: 200,
            headers: vec![("content-type".into(), "text/html".into())],
            body: "<html>Log in to continue</html>".into(),
        };
        rig.host.faults.add(Fault::always(method, 1.0, page));
        let cx = rig.cx();
        let error = match rig.run(&cx, &[("A", "1")], true).await {
            Err(error) => error,
            Ok(done) => done.error("A").clone(),
        };
        assert_eq!(error.kind, ErrorKind::NotTheService, "{error}");
    }
}

#[tokio::test]
async fn outside_changes_that_show() {
    let mut rig = Rig::new().await;
    let source = [("ANEW", "1"), ("OPEN", "1"), ("KEPT", "1"), ("OLD", "1")];
    rig.sync(&source).await;
    rig.state.remove(REPO, "ANEW");
    rig.state.put(REPO, "ANEW", "theirs", true);
    rig.state.edit(REPO, "OPEN", |v| v.secured = false);
    rig.state.edit(REPO, "OLD", |v| v.key = "NEW_NAME".into());
    let cx = rig.cx();
    let (_, _, plan) = rig.plan(&cx, &source, false).await.expect("plan");
    let reason = |key: &str| {
        let change = plan.changes.iter().find(|c| c.key == key).unwrap_or_else(|| panic!("{key}: {:?}", plan.changes));
        (change.action, change.ask.is_some(), change.reason.clone().unwrap_or_default())
    };
    assert!(reason("ANEW").1, "another's variable is asked about");
    let open = reason("OPEN");
    assert!(open.0 == Action::Update && !open.1 && open.2.contains("secured"), "{open:?}");
    assert_eq!(reason("OLD").0, Action::Create);
    assert!(reason("NEW_NAME").1, "our uuid under another name is not deleted silently");
    assert!(plan.warnings.iter().any(|w| w.contains("OLD was renamed to NEW_NAME")), "{:?}", plan.warnings);
    assert!(!plan.changes.iter().any(|c| c.key == "KEPT"));
    let done = rig.run(&cx, &source, false).await.expect("runs");
    assert_eq!((done.updated.as_slice(), done.created.as_slice(), done.deleted.len()), (&["OPEN".to_string()][..], &["OLD".to_string()][..], 0));
    assert!(rig.variables(REPO).iter().find(|v| v.key == "OPEN").is_some_and(|v| v.secured));
    // A value changed on the same uuid cannot be seen.
    rig.state.edit(REPO, "KEPT", |v| v.value = "edited outside".into());
    let (_, _, plan) = rig.plan(&cx, &source, false).await.expect("plan");
    assert!(!plan.changes.iter().any(|c| c.key == "KEPT"));
}

#[tokio::test]
async fn the_first_write_goes_alone_and_stops_the_rest_when_a_scope_is_missing() {
    let mut rig = Rig::new().await;
    let token = rig.state.add_api_token(super::rig::EMAIL, &["read:pipeline:bitbucket"]);
    rig.credentials(json!({"method": "api-token", "email": super::rig::EMAIL, "apiToken": token}));
    let done = rig.sync(&refs(&many(30))).await;
    assert_eq!(rig.sent("POST"), 1);
    assert_eq!(done.failed.len(), 30);
    assert!(done.failed.iter().all(|(_, e)| e.kind == ErrorKind::Permission && e.text().contains("Missing: admin:pipeline:bitbucket")));
    let unsent: Vec<_> = done.failed.iter().filter(|(_, e)| e.unsent).collect();
    assert_eq!(unsent.len(), 29, "one was refused, the others were not sent");
    assert!(unsent.iter().all(|(_, e)| e.text().contains("not sent, because another write")), "{unsent:?}");
}

#[tokio::test]
async fn no_value_in_any_text() {
    let canary = "canary-7f3a-value";
    let mut rig = Rig::new().await;
    let echo = format!(r#"{{"error":{{"message":"Bad request","detail":"cannot store {canary}","data":{{"key":"{canary}"}}}}}}"#);
    rig.host.faults.add(Fault::next(POST, 1, Effect::status(400, echo)));
    let done = rig.sync(&[("A", canary)]).await;
    rig.host.faults.add(Fault::next(POST, 1, Effect::status(400, format!("<html>{canary}</html>"))));
    let again = rig.sync(&[("A", canary)]).await;
    assert_eq!((done.failed.len(), again.failed.len()), (1, 1));
    for text in [
        format!("{:?} {}", done.failed, done.error("A")),
        format!("{:?} {}", again.failed, again.error("A")),
        format!("{:?}", done.plan.changes),
        format!("{:?}", rig.ledger),
        rig.memory.text(),
        format!("{:?}", rig.waits.lock().expect("waits")),
    ] {
        assert!(!text.contains(canary), "{text}");
    }
    assert!(done.error("A").text().contains("***"));
    // Not even before the run's redactor has learned it.
    let cx = kms_sync::http::Cx::quiet();
    let destination = rig.open(&cx).await.expect("opens");
    let kms_sync::destination::Shape::Itemised(target) = destination.shape() else { panic!() };
    rig.host.faults.add(Fault::next(POST, 1, Effect::status(400, format!(r#"{{"error":{{"message":"no {canary}"}}}}"#))));
    let desired = kms_sync::destination::Desired {
        source_key: "A".into(),
        key: "A".into(),
        fold: "A".into(),
        value: kms_sync::model::SecretValue::new(canary),
        metadata: Vec::new(),
    };
    let op = kms_sync::destination::Op {
        action: Action::Create,
        key: "A",
        entry: None,
        row: None,
        desired: Some(&desired),
        value_differs: true,
        token: "t",
        approved: false,
    };
    let error = target.apply(&cx, &op).await.expect_err("refused");
    assert!(!error.text().contains(canary), "{error}");
}

/// A server that says exactly these bytes, one answer a request, and what it was asked.
async fn word_for_word(answers: Vec<Vec<u8>>) -> (String, std::sync::Arc<std::sync::Mutex<Vec<String>>>) {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let asked = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let (seen, answers) = (asked.clone(), std::sync::Arc::new(std::sync::Mutex::new(answers.into_iter())));
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let (seen, answers) = (seen.clone(), answers.clone());
            tokio::spawn(async move {
                let mut buffer = vec![0; 64 * 1024];
                while let Ok(n) = stream.read(&mut buffer).await {
                    if n == 0 {
                        return;
                    }
                    seen.lock().expect("lock").push(String::from_utf8_lossy(&buffer[..n]).into_owned());
                    let answer = answers.lock().expect("lock").next();
                    let Some(answer) = answer else { return };
                    if stream.write_all(&answer).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    (url, asked)
}

#[tokio::test]
async fn a_204_with_a_body_is_a_204_and_compression_is_not_asked_for() {
    let list = |rows: &str| {
        let body = format!(r#"{{"size": {}, "values": [{rows}]}}"#, usize::from(!rows.is_empty()));
        format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}", body.len()).into_bytes()
    };
    let row = r#"{"uuid": "{00000000-0000-4000-8000-000000000001}", "key": "A", "secured": true}"#;
    let gone = b"HTTP/1.1 204 No Content\r\ncontent-type: text/plain\r\ncontent-length: 7\r\n\r\ndeleted".to_vec();
    let compressed =
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-encoding: gzip\r\ncontent-length: 4\r\n\r\n\x1f\x8b\x08\x00".to_vec();
    let (url, asked) = word_for_word(vec![list(row), gone, list(""), compressed]).await;
    let mut rig = Rig::new().await;
    rig.connection.settings.insert("endpoint".into(), url.into());
    rig.reconnect();
    rig.ledger.rows.insert("A".into(), super::rig::row("A", Some("{00000000-0000-4000-8000-000000000001}".into()), None, "h".into()));
    let done = rig.sync(&[]).await;
    assert_eq!(done.deleted, ["A"], "{:?}", done.failed);
    assert_eq!(rig.sync(&[]).await.writes(), 0, "the connection's next answer is not mixed up with that body");
    // What comes compressed all the same is no list, and certainly not an empty one.
    let error = rig.refused(&[("A", "1")]).await;
    assert_eq!(error.kind, ErrorKind::NotTheService, "{error}");
    let asked = asked.lock().expect("lock").clone();
    assert_eq!(asked.len(), 4, "{asked:#?}");
    assert!(asked.iter().all(|request| !request.to_lowercase().contains("accept-encoding")), "{asked:#?}");
}
