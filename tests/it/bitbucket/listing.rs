//! Whole lists from servers that page in every way seen in the wild.

use kms_sync::http::ErrorKind;
use kms_sync::sandbox::bitbucket::{Hidden, Next, Slash};
use kms_sync::sandbox::host::{Effect, Fault, Host};
use serde_json::json;

use super::rig::{REPO, Rig, many, refs};

/// Runs twice with `n` keys; the second run must cost `lists` calls and change nothing.
async fn converges(rig: &mut Rig, n: usize, lists: u64) {
    let pairs = many(n);
    let first = rig.sync(&refs(&pairs)).await;
    assert!(first.failed.is_empty(), "{:?}", first.failed);
    assert_eq!(first.created.len(), n);
    assert_eq!(rig.sent("POST"), n);
    rig.host.log.clear();
    let second = rig.sync(&refs(&pairs)).await;
    assert_eq!((second.writes(), second.plan.unchanged.len()), (0, n));
    assert_eq!(second.requests, lists, "{}", second.by_call);
    assert_eq!(rig.host.log.lines().len() as u64, lists);
}

#[tokio::test]
async fn every_size_in_a_repository_costs_its_pages_and_no_more() {
    for (n, lists) in [(0, 1), (10, 1), (11, 1), (100, 1), (101, 2), (201, 3)] {
        let mut rig = Rig::new().await;
        let pairs = many(n);
        let first = rig.sync(&refs(&pairs)).await;
        assert_eq!(first.requests as usize, 1 + n, "the first run's floor");
        rig.host.log.clear();
        let second = rig.sync(&refs(&pairs)).await;
        assert_eq!((second.writes(), second.plan.unchanged.len(), second.requests), (0, n, lists), "{n}");
        assert_eq!(rig.host.log.lines().len() as u64, lists);
        assert_eq!(rig.variables(REPO).len(), n);
        assert!(rig.variables(REPO).iter().all(|v| v.secured));
    }
}

#[tokio::test]
async fn every_size_in_an_environment_too() {
    for (n, lists) in [(0, 1), (11, 1), (101, 2), (201, 3)] {
        let mut rig = Rig::new().await;
        let uuid = rig.environment("Production");
        converges(&mut rig, n, lists).await;
        assert_eq!(rig.variables(REPO.environment(&uuid)).len(), n);
        assert!(rig.variables(REPO).is_empty());
    }
}

#[tokio::test]
async fn changes_cost_one_call_each() {
    let mut rig = Rig::new().await;
    let mut pairs = many(150);
    rig.sync(&refs(&pairs)).await;
    pairs[3].1 = "another".into();
    pairs[140].1 = "another too".into();
    pairs.push(("NEW".into(), "n".into()));
    let gone = pairs.remove(7).0;
    let done = rig.sync(&refs(&pairs)).await;
    assert_eq!((done.updated.len(), done.created.len(), done.deleted.clone()), (2, 1, vec![gone.clone()]));
    assert_eq!(done.requests, 2 + 4);
    assert_eq!(rig.state.value(REPO, "KEY_0003").as_deref(), Some("another"));
    assert_eq!(rig.state.value(REPO, &gone), None);
}

#[tokio::test]
async fn a_server_that_always_gives_ten() {
    let mut rig = Rig::new().await;
    rig.state.quirks(|q| q.ignores_pagelen = true);
    converges(&mut rig, 45, 5).await;
    assert!(rig.host.log.lines().iter().all(|l| l.contains("pagelen=100")), "the reported page length is never asked for");
}

#[tokio::test]
async fn next_absent_stuck_or_opaque() {
    for next in [Next::Absent, Next::Stuck, Next::Opaque] {
        let mut rig = Rig::new().await;
        rig.state.quirks(|q| q.next = next.clone());
        converges(&mut rig, 201, 3).await;
    }
}

#[tokio::test]
async fn size_absent_and_both_absent() {
    let mut rig = Rig::new().await;
    rig.state.quirks(|q| q.no_size = true);
    // The last page is known only by the empty one after it.
    converges(&mut rig, 101, 3).await;
    let mut rig = Rig::new().await;
    rig.state.quirks(|q| (q.no_size, q.next) = (true, Next::Absent));
    converges(&mut rig, 201, 4).await;
    let mut rig = Rig::new().await;
    rig.state.quirks(|q| (q.no_size, q.next) = (true, Next::Stuck));
    converges(&mut rig, 150, 3).await;
}

#[tokio::test]
async fn next_on_another_host_never_sees_the_token() {
    let elsewhere = Host::start(axum::Router::new().fallback(|| async { "{}" }), None).await.expect("a server");
    let mut rig = Rig::new().await;
    rig.state.quirks(|q| q.next = Next::Foreign(elsewhere.url.clone()));
    converges(&mut rig, 101, 2).await;
    assert!(elsewhere.log.lines().is_empty());
}

#[tokio::test]
async fn what_is_said_to_be_elsewhere_is_missing() {
    // Whatever page is asked for, here is the first one only; and no size tells how much there is.
    let mut rig = Rig::new().await;
    let part = json!({"pagelen": 100, "next": "https://elsewhere.example/2.0/x?page=2", "values": [{"uuid": "{x}", "key": "A", "secured": true}]});
    rig.host.faults.add(Fault::always("/variables", 1.0, Effect::status(200, part.to_string())));
    let error = rig.refused(&[("B", "2")]).await;
    assert!(error.message.contains("1 entries came and the rest is said to be at another address"), "{error}");
    assert_eq!(rig.sent("POST") + rig.sent("PUT") + rig.sent("DELETE"), 0);
}

/// Pages of a hundred that are told by number alone, without a size, each with this link, and
/// an empty one after them.
fn pages_by_number(rig: &Rig, rows: usize, link: &str) {
    for page in 1..=rows.div_ceil(100) + 1 {
        let values: Vec<_> = (0..rows)
            .skip((page - 1) * 100)
            .take(100)
            .map(|i| json!({"uuid": format!("{{00000000-0000-4000-8000-{i:012}}}"), "key": format!("KEY_{i:04}"), "secured": true}))
            .collect();
        let mut body = json!({"page": page, "pagelen": values.len(), "values": values});
        if page * 100 < rows {
            body["next"] = link.replace("{n}", &(page + 1).to_string()).into();
        }
        let on = if page == 1 { "GET /2.0/repositories/acme/api/pipelines_config/variables?pagelen=100".to_string() } else { format!("page={page}") };
        rig.host.faults.add(Fault::next(&on, 1, Effect::status(200, body.to_string())));
    }
}

#[tokio::test]
async fn what_a_misleading_link_cannot_find_is_asked_by_number() {
    let elsewhere = Host::start(axum::Router::new().fallback(|| async { "{}" }), None).await.expect("a server");
    for (tail, tried) in [("/2.0/x?page={n}", 0), ("/2.0/x?ctx=abc", 1), ("/2.0/x", 0)] {
        let rig = Rig::new().await;
        // Asked with the stranger's token, this address shows its first page again.
        let first = json!({"values": [{"uuid": "{00000000-0000-4000-8000-000000000000}", "key": "KEY_0000", "secured": true}]});
        rig.host.faults.add(Fault::always("ctx=abc", 1.0, Effect::status(200, first.to_string())));
        pages_by_number(&rig, 150, &format!("{}{tail}", elsewhere.url));
        let cx = rig.cx();
        let (_, inventory, _) = rig.plan(&cx, &[], true).await.unwrap_or_else(|e| panic!("{tail}: {e}"));
        assert_eq!(inventory.entries.len(), 150, "{tail}");
        assert!(elsewhere.log.lines().is_empty(), "{tail}");
        // Two pages, what the link was tried for, and the page after the last, for want of a size.
        assert_eq!(rig.sent("GET"), 3 + tried, "{tail}: {:?}", rig.host.log.lines());
    }
}

#[tokio::test]
async fn a_list_without_end_is_given_up_soon() {
    // By single entries, and by the ten of a server that does not care what was asked for.
    for (each, most) in [(1, 25), (10, 150)] {
        let mut rig = Rig::new().await;
        for page in 1..=400 {
            let next = format!("{}/2.0/repositories/w/r/pipelines_config/variables?page={}", rig.host.url, page + 1);
            let row = |i: usize| json!({"uuid": format!("{{{page}-{i}}}"), "key": format!("K{page}_{i}"), "secured": true});
            let part = json!({"page": page, "pagelen": each, "next": next, "values": (0..each).map(row).collect::<Vec<_>>()});
            let on = if page == 1 { "/variables".to_string() } else { format!("page={page}") };
            rig.host.faults.add(Fault::next(&on, 1, Effect::status(200, part.to_string())));
        }
        let error = rig.refused(&[("B", "2")]).await;
        assert!(error.message.contains("there is no end"), "{error}");
        assert!(rig.sent("GET") <= most, "{} requests", rig.sent("GET"));
        assert_eq!(rig.sent("POST"), 0);
    }
}

#[tokio::test]
async fn ten_thousand_entries_are_the_most() {
    let mut rig = Rig::new().await;
    for page in 1..=102 {
        let row = |i: usize| json!({"uuid": format!("{{{page}-{i}}}"), "key": format!("K{page}_{i}"), "secured": true});
        let part = json!({"page": page, "size": 10_200, "pagelen": 100, "values": (0..100).map(row).collect::<Vec<_>>()});
        let on = if page == 1 { "/variables".to_string() } else { format!("page={page}") };
        rig.host.faults.add(Fault::next(&on, 1, Effect::status(200, part.to_string())));
    }
    let error = rig.refused(&[("B", "2")]).await;
    assert!(error.message.contains("more than 10000 entries"), "{error}");
    assert_eq!((rig.sent("GET"), rig.sent("POST")), (101, 0));
}

#[tokio::test]
async fn a_list_that_moves_is_read_again() {
    for insert in [true, false] {
        let mut rig = Rig::new().await;
        let pairs = many(150);
        rig.sync(&refs(&pairs)).await;
        let foreign = rig.state.put(REPO, "FOREIGN", "x", true);
        rig.state.after_first_page(REPO, move |list| {
            if insert {
                // Everything moves down by one: the last row of the first page comes again.
                let last = list.iter().position(|v| v.uuid == foreign).expect("there");
                let mut moved = list.remove(last);
                moved.key = "FOREIGN_2".into();
                moved.uuid = "{00000000-0000-4000-8000-000000000001}".into();
                list.insert(0, moved);
            } else {
                // Everything moves up by one: a row of the second page is never shown.
                list.remove(0);
            }
        });
        rig.host.log.clear();
        let wanted = refs(&pairs);
        let done = rig.sync(&wanted).await;
        assert!(done.failed.is_empty(), "{:?}", done.failed);
        assert_eq!(rig.sent("GET"), 4 + usize::from(insert), "two walks; the incomplete one asked for a third page");
        assert_eq!(rig.variables(REPO).len(), 150, "insert: {insert}");
        assert_eq!(done.created.len(), usize::from(!insert));
        assert_eq!(done.deleted.len(), 1);
    }
}

#[tokio::test]
async fn an_incomplete_list_leads_to_nothing() {
    let mut rig = Rig::new().await;
    rig.state.put(REPO, "A", "1", true);
    let part = json!({"size": 5, "page": 1, "pagelen": 1, "values": [{"uuid": "{x}", "key": "A", "secured": true}]});
    rig.host.faults.add(Fault::always("/variables", 1.0, Effect::status(200, part.to_string())));
    let error = rig.refused(&[("B", "2")]).await;
    assert!(error.message.contains("incomplete, 1 of 5"), "{error}");
    assert_eq!(rig.sent("POST") + rig.sent("PUT") + rig.sent("DELETE"), 0);
    assert_eq!(rig.variables(REPO).len(), 1);
}

#[tokio::test]
async fn what_is_no_list_leads_to_nothing() {
    let mut rig = Rig::new().await;
    rig.sync(&[("A", "1"), ("B", "1")]).await;
    let before = rig.variables(REPO);
    let typed = |status: u16, kind: &str, body: &str| Effect::Answer {
        status,
        headers: vec![("content-type".into(), kind.into()), ("location".into(), "https://id.example/login".into())],
        body: body.into(),
    };
    let json = |body: &str| typed(200, "application/json", body);
    let row = r#"{"type":"pipeline_variable","uuid":"{u}","key":"A","secured":true}"#;
    for effect in [
        json("{}"),
        json("null"),
        json("[]"),
        json(r#"{"size":0,"values":null}"#),
        json(r#"{"size":0,"values":{}}"#),
        json(r#"{"size":2,"values":[]}"#),
        json(r#"{"size":1,"values":[null]}"#),
        json(r#"{"size":1,"values":["A"]}"#),
        json(r#"{"size":1,"values":[{"key":"A","secured":true}]}"#),
        json(r#"{"size":1,"values":[{"uuid":"{u}","key":7,"secured":true}]}"#),
        json(r#"{"size":1,"values":[{"uuid":"","key":"A","secured":true}]}"#),
        json(r#"{"size":1,"values":[{"uuid":"{u}","key":"A""#),
        json(""),
        json("<html>Sign in</html>"),
        typed(200, "text/html", "<html>Sign in</html>"),
        typed(203, "application/json", &format!(r#"{{"size":1,"values":[{row}]}}"#)),
        typed(302, "text/html", ""),
        // Two that contradict themselves: full, and more follows; more than there are.
        json(&format!(r#"{{"size":1,"values":[{row}],"next":"https://api.bitbucket.org/2.0/x?page=2"}}"#)),
        json(&format!(r#"{{"size":0,"values":[{row}]}}"#)),
    ] {
        let further = json(r#"{"size":1,"values":[{"type":"pipeline_variable","uuid":"{v}","key":"B","secured":true}]}"#);
        rig.host.faults.add(Fault::always("page=2", 1.0, further));
        rig.host.faults.add(Fault::always("GET ", 1.0, effect.clone()));
        rig.host.log.clear();
        let error = rig.refused(&[("A", "2"), ("C", "1")]).await;
        assert!(error.advice.is_some(), "{effect:?}: {error}");
        rig.host.faults.clear();
        assert_eq!(rig.sent("POST") + rig.sent("PUT") + rig.sent("DELETE"), 0, "{effect:?}");
    }
    let uuids = |list: &[kms_sync::sandbox::bitbucket::Variable]| list.iter().map(|v| v.uuid.clone()).collect::<Vec<_>>();
    assert_eq!(uuids(&rig.variables(REPO)), uuids(&before));
    // A page that is named and not there is no contradiction.
    let uuid = &before[0].uuid;
    let whole = json!({"size": 2, "next": "https://api.bitbucket.org/2.0/x?page=2", "values": [
        {"uuid": uuid, "key": before[0].key, "secured": true}, {"uuid": before[1].uuid, "key": before[1].key, "secured": true}]});
    rig.host.faults.add(Fault::next("GET ", 1, json(&whole.to_string())));
    assert_eq!(rig.sync(&[("A", "1"), ("B", "1")]).await.writes(), 0);
}

#[tokio::test]
async fn secured_values_left_out_in_three_ways_and_unknown_fields() {
    for hidden in [Hidden::Absent, Hidden::Null, Hidden::Empty] {
        let mut rig = Rig::new().await;
        rig.state.quirks(|q| q.hidden = hidden);
        converges(&mut rig, 12, 1).await;
    }
    let rig = Rig::new().await;
    let odd = json!({"size": 1, "values": [{"uuid": "{x}", "key": "A", "secured": true, "scope": {"deep": [1]}, "system": null}], "extra": 1});
    rig.host.faults.add(Fault::next("GET /2.0/repositories/acme/api/pipelines_config/variables", 1, Effect::status(200, odd.to_string())));
    let cx = rig.cx();
    let (_, inventory, _) = rig.plan(&cx, &[], true).await.expect("a plan");
    assert_eq!(inventory.entries.len(), 1);
}

#[tokio::test]
async fn braces_are_encoded_on_every_path() {
    let mut rig = Rig::new().await;
    let uuid = rig.environment("Staging");
    rig.sync(&[("A", "1"), ("B", "2")]).await;
    rig.sync(&[("A", "changed")]).await;
    let lines = rig.host.log.lines();
    assert!(lines.iter().any(|l| l.starts_with("PUT")) && lines.iter().any(|l| l.starts_with("DELETE")));
    assert!(lines.iter().all(|l| !l.contains(['{', '}'])), "{lines:?}");
    assert!(lines.iter().any(|l| l.contains(&uuid.replace('{', "%7B").replace('}', "%7D"))));
}

#[tokio::test]
async fn trailing_slashes_of_either_kind() {
    for (slash, then) in [(Slash::Required, 1), (Slash::Forbidden, 1), (Slash::Either, 1)] {
        let mut rig = Rig::new().await;
        rig.state.quirks(|q| q.slash = slash);
        rig.sync(&[("A", "1")]).await;
        assert_eq!(rig.host.log.count("POST"), 1, "a POST is never repeated for its path");
        rig.reconnect();
        rig.host.log.clear();
        let again = rig.sync(&[("A", "1")]).await;
        assert_eq!((again.writes(), again.requests), (0, then), "{slash:?}: remembered, over restarts");
    }
}

#[tokio::test]
async fn a_list_that_refuses_any_query() {
    let mut rig = Rig::new().await;
    rig.environment("Test");
    rig.state.quirks(|q| q.refuses_query = true);
    let done = rig.sync(&[("A", "1")]).await;
    assert_eq!(done.created, ["A"]);
}

#[tokio::test]
async fn a_redirect_is_not_followed_with_the_credential() {
    let elsewhere = Host::start(axum::Router::new().fallback(|| async { "{}" }), None).await.expect("a server");
    for method in ["GET", "POST"] {
        let mut rig = Rig::new().await;
        rig.host.faults.add(Fault::always(
            &format!("{method} /2.0/repositories/acme/api"),
            1.0,
            Effect::Answer { status: 301, headers: vec![("location".into(), format!("{}/2.0/x", elsewhere.url))], body: String::new() },
        ));
        let cx = rig.cx();
        let error = match rig.run(&cx, &[("A", "1")], true).await {
            Err(error) => error,
            Ok(done) => done.error("A").clone(),
        };
        assert_eq!(error.kind, ErrorKind::NotTheService, "{error}");
        assert!(error.text().contains("redirect"), "{error}");
        assert!(elsewhere.log.lines().is_empty());
        assert!(rig.variables(REPO).is_empty());
    }
}

#[tokio::test]
async fn an_empty_page_that_names_the_next_is_not_the_end() {
    let mut rig = Rig::new().await;
    let uuid = "{11111111-1111-4111-8111-111111111111}";
    let page = |values: serde_json::Value, next: Option<u32>| {
        let next = next.map(|n| format!("https://api.bitbucket.org/2.0/repositories/acme/api/pipelines_config/variables?page={n}"));
        Effect::status(200, json!({"values": values, "next": next}).to_string())
    };
    rig.host.faults.add(Fault::next("GET ", 1, page(json!([]), Some(2))));
    rig.host.faults.add(Fault::next("GET ", 1, page(json!([{"uuid": uuid, "key": "THEIRS", "secured": true}]), None)).after(1));
    // Without a size the page behind the last one is asked for, too.
    rig.host.faults.add(Fault::next("GET ", 1, page(json!([]), None)).after(2));
    let (_, inventory, _) = rig.plan(&rig.cx(), &[("A", "1")], false).await.expect("plan");
    assert!(inventory.entries.iter().any(|e| e.key == "THEIRS"), "{:?}", inventory.entries);
    // Such pages without an end are an error as well.
    for n in 0..200 {
        rig.host.faults.add(Fault::next("GET ", 1, page(json!([]), Some(n + 2))).after(n));
    }
    let error = rig.refused(&[("A", "1")]).await;
    assert!(error.text().contains("there is no end"), "{error}");
}

#[tokio::test]
async fn a_redirected_list_is_told_as_one_and_not_as_a_missing_right() {
    let headers = vec![("location".to_string(), "https://moved.example/x?ticket=1".to_string())];
    for status in [301, 302, 303, 307, 308] {
        let mut rig = Rig::new().await;
        let moved = Effect::Answer { status, headers: headers.clone(), body: "<html>Moved</html>".into() };
        rig.host.faults.add(Fault::always("/pipelines_config/variables", 1.0, moved));
        let error = rig.refused(&[("A", "1")]).await;
        let text = error.text();
        assert_eq!((error.kind, error.status), (ErrorKind::NotTheService, Some(status)), "{error}");
        assert!(text.contains("a redirect to moved.example, which is not followed") && !text.contains("administrator"), "{text}");
        assert!(!text.contains("ticket"), "{text}");
    }
}

#[tokio::test]
async fn a_thorough_run_says_how_much_it_believes() {
    let mut rig = Rig::new().await;
    rig.full = true;
    let source = [("A", "1"), ("B", "2"), ("C", "3")];
    let said = |warnings: &[String]| warnings.iter().find(|w| w.contains("unchanged by our record")).cloned();
    let first = rig.sync(&source).await;
    assert_eq!(said(&first.warnings), None, "nothing is believed yet");
    let second = rig.sync(&source).await;
    assert_eq!(second.plan.unchanged.len(), 3);
    assert!(said(&second.warnings).is_some_and(|w| w.starts_with("3 secured values cannot be read back")), "{:?}", second.warnings);
    // Only what stands there as this sync left it is believed.
    rig.state.put(REPO, "FOREIGN", "x", true);
    rig.ledger.rows.remove("C");
    let third = rig.plan(&rig.cx(), &source, false).await.expect("a plan").2;
    assert!(said(&third.warnings).is_some_and(|w| w.starts_with("2 secured values")), "{:?}", third.warnings);
    rig.full = false;
    let quick = rig.plan(&rig.cx(), &source, false).await.expect("a plan").2;
    assert_eq!(said(&quick.warnings), None);
}
