//! Readings: both generations, imports, completeness, conditions, limits.

use std::time::{Duration, Instant};

use kms_sync::http::{Cx, ErrorKind};
use kms_sync::sandbox::host::{Effect, Fault};
use kms_sync::sandbox::kms::{Generation, Limits, NewSecret, Right};
use kms_sync::source::{Polled, SourceRef};

use super::{Bed, pairs};

#[tokio::test]
async fn current_and_old_servers_give_the_same_map() {
    for generation in [Generation::Now, Generation::EarlyV4, Generation::Y2024] {
        let bed = Bed::start().await;
        bed.state.switch(|s| s.generation = generation);
        bed.set("dev", "/app", "A", "own");
        bed.set("dev", "/app", "URL", "http://${HOST}/${shared.smtp.USER}");
        bed.set("dev", "/app", "HOST", "h");
        bed.set("shared", "/smtp", "USER", "mailer");
        bed.set("shared", "/smtp", "A", "imported");
        bed.set("shared", "/smtp", "GREETING", "hello ${USER}");
        bed.state.add_import(&bed.project, "dev", "/app", "shared", "/smtp");
        let map = bed.read("dev", "/app/").await;
        assert_eq!(pairs(&map), ["A=own", "GREETING=hello mailer", "HOST=h", "URL=http://h/mailer", "USER=mailer"], "{generation:?}");
        assert!(map.complete(), "{generation:?}: {:?}", map.incomplete);
        assert_eq!(map.environment_name.as_deref(), Some("Development"));
        assert!(map.folder_id.is_some() && map.environment_id.is_some(), "{generation:?}");
        assert_eq!(map.imports, ["shared:/smtp"]);
        assert_eq!(map.own_keys, ["A", "HOST", "URL"]);
        assert_eq!(map.secrets[1].origin.as_deref(), Some("shared:/smtp"));
        assert!(map.warnings.is_empty(), "{:?}", map.warnings);
    }
}

#[tokio::test]
async fn a_run_costs_two_requests_once_the_names_are_known() {
    for (generation, list) in [(Generation::Now, "GET /api/v4/secrets"), (Generation::Y2024, "GET /api/v3/secrets/raw")] {
        let bed = Bed::start().await;
        bed.state.switch(|s| s.generation = generation);
        bed.set("dev", "/app", "A", "1");
        let (source, cx) = (bed.source(), Cx::quiet());
        source.read(&cx, &bed.at("dev", "/app")).await.expect("first");
        bed.host.log.clear();
        source.read(&cx, &bed.at("dev", "/app")).await.expect("second");
        assert_eq!(bed.requests(), [list, "GET /api/v1/secret-imports"]);
        let cx = Cx::quiet();
        source.read(&cx, &bed.at("dev", "/app")).await.expect("third");
        assert_eq!(cx.meter().snapshot().by_call["kms"][list], 1);
    }
}

#[tokio::test]
async fn an_unchanged_poll_is_one_conditional_request() {
    for generation in [Generation::Now, Generation::Y2024] {
        let bed = Bed::start().await;
        bed.state.switch(|s| s.generation = generation);
        bed.set("dev", "/app", "A", "1");
        bed.set("shared", "/smtp", "B", "2");
        bed.state.add_import(&bed.project, "dev", "/app", "shared", "/smtp");
        let (source, cx, at) = (bed.source(), Cx::quiet(), bed.at("dev", "/app"));
        let Polled::Changed { etag, .. } = source.poll(&cx, &at, None).await.expect("first") else { panic!("no tag was given") };
        let etag = etag.expect("a tag");
        bed.host.log.clear();
        for _ in 0..3 {
            assert!(matches!(source.poll(&cx, &at, Some(&etag)).await.expect("poll"), Polled::Unchanged));
        }
        assert_eq!(bed.requests().len(), 3, "{:?}", bed.requests());
        // A change in an imported folder counts.
        bed.set("shared", "/smtp", "B", "3");
        let Polled::Changed { map, etag: next } = source.poll(&cx, &at, Some(&etag)).await.expect("poll") else { panic!("it changed") };
        assert_eq!(pairs(&map), ["A=1", "B=3"]);
        assert_ne!(next, Some(etag));
    }
}

#[tokio::test]
async fn a_server_without_tags_is_compared_here() {
    let bed = Bed::start().await;
    bed.state.switch(|s| s.etags = false);
    bed.set("dev", "/app", "A", "1");
    let (source, cx, at) = (bed.source(), Cx::quiet(), bed.at("dev", "/app"));
    let Polled::Changed { etag, .. } = source.poll(&cx, &at, None).await.expect("first") else { panic!("no tag was given") };
    assert!(matches!(source.poll(&cx, &at, etag.as_deref()).await.expect("poll"), Polled::Unchanged));
    bed.set("dev", "/app", "A", "2");
    assert!(matches!(source.poll(&cx, &at, etag.as_deref()).await.expect("poll"), Polled::Changed { .. }));
    assert!(bed.host.log.lines().iter().all(|l| !l.contains("kms-sync-local")));
}

#[tokio::test]
async fn missing_places_are_named_and_never_empty() {
    for generation in [Generation::Now, Generation::Y2024] {
        let bed = Bed::start().await;
        bed.state.switch(|s| s.generation = generation);
        bed.set("dev", "/app", "A", "1");
        let cx = Cx::quiet();
        for (environment, path, words) in [
            ("dev", "/nope", ["folder /nope", "environment dev"]),
            ("dev", "/app/nope", ["folder /app/nope", "environment dev"]),
            ("qa", "/app", ["environment qa", "dev, prod, shared"]),
        ] {
            let error = bed.source().read(&cx, &bed.at(environment, path)).await.expect_err("missing");
            assert_eq!(error.kind, ErrorKind::NotFound, "{generation:?} {environment}{path}: {error}");
            assert!(words.iter().all(|w| error.text().contains(w)), "{error}");
        }
        let elsewhere = SourceRef { project_id: "00000000-0000-4000-8000-000000000000".into(), ..bed.at("dev", "/app") };
        let error = bed.source().read(&cx, &elsewhere).await.expect_err("no project");
        assert_eq!(error.kind, ErrorKind::NotFound);
        assert!(error.text().contains("project"), "{error}");
    }
}

#[tokio::test]
async fn a_folder_that_exists_and_is_empty_is_a_normal_source() {
    for generation in [Generation::Now, Generation::Y2024] {
        let bed = Bed::start().await;
        bed.state.switch(|s| s.generation = generation);
        bed.state.add_folder(&bed.project, "dev", "/a/b");
        for path in ["/", "/a", "/a/b"] {
            let map = bed.read("dev", path).await;
            assert!(map.secrets.is_empty() && map.complete(), "{generation:?} {path}: {:?}", map.incomplete);
        }
    }
}

#[tokio::test]
async fn a_vanished_folder_or_environment_is_noticed_by_a_warm_session() {
    let bed = Bed::start().await;
    bed.set("dev", "/app", "A", "1");
    bed.set("prod", "/app", "A", "1");
    let (source, cx) = (bed.source(), Cx::quiet());
    source.read(&cx, &bed.at("dev", "/app")).await.expect("there");
    source.read(&cx, &bed.at("prod", "/app")).await.expect("there");
    bed.state.remove_folder(&bed.project, "dev", "/app");
    let error = source.read(&cx, &bed.at("dev", "/app")).await.expect_err("gone");
    assert!(error.kind == ErrorKind::NotFound && error.text().contains("/app"), "{error}");
    bed.state.remove_environment(&bed.project, "prod");
    let error = source.read(&cx, &bed.at("prod", "/app")).await.expect_err("gone");
    assert_eq!(error.kind, ErrorKind::NotFound);
}

#[tokio::test]
async fn later_imports_beat_earlier_ones_and_own_secrets_beat_both() {
    let bed = Bed::start().await;
    bed.set("dev", "/app", "OWN", "own");
    for (folder, value) in [("/first", "first"), ("/second", "second")] {
        for key in ["OWN", "BOTH"] {
            bed.set("shared", folder, key, value);
        }
        bed.set("shared", folder, &format!("ONLY_{}", value.to_uppercase()), value);
        bed.state.add_import(&bed.project, "dev", "/app", "shared", folder);
    }
    // The second folder imports a third one: its own rows come first inside its block.
    bed.set("shared", "/third", "BOTH", "third");
    bed.set("shared", "/third", "DEEP", "third");
    bed.state.add_import(&bed.project, "shared", "/second", "shared", "/third");
    // Replicated imports are ordinary rows, without a block of their own.
    bed.state.add_folder(&bed.project, "shared", "/copied");
    bed.state.add_import_link(&bed.project, "dev", "/app", "shared", "/copied", true);
    let map = bed.read("dev", "/app").await;
    assert_eq!(pairs(&map), ["BOTH=second", "DEEP=third", "ONLY_FIRST=first", "ONLY_SECOND=second", "OWN=own"]);
    assert!(map.complete(), "{:?}", map.incomplete);
    assert_eq!(map.own_keys, ["OWN"]);
}

#[tokio::test]
async fn an_import_that_may_not_be_read_makes_the_source_incomplete() {
    let bed = Bed::start().await;
    bed.set("dev", "/app", "A", "1");
    bed.set("shared", "/smtp", "B", "2");
    bed.state.add_import(&bed.project, "dev", "/app", "shared", "/smtp");
    // A folder that is gone still has its (empty) block.
    bed.state.add_import(&bed.project, "dev", "/app", "shared", "/gone");
    assert!(bed.read("dev", "/app").await.complete());
    bed.state.switch(|s| {
        s.unreadable_imports.insert(("shared".into(), "/smtp".into()));
    });
    let map = bed.read("dev", "/app").await;
    assert_eq!(pairs(&map), ["A=1"]);
    assert!(map.incomplete.len() == 1 && map.incomplete[0].contains("shared:/smtp"), "{:?}", map.incomplete);
}

#[tokio::test]
async fn without_the_right_to_see_imports_the_folder_is_proved_by_its_parents() {
    let bed = Bed::start().await;
    bed.set("dev", "/a/b/c", "A", "1");
    bed.state.switch(|s| {
        s.denied.insert(Right::ReadImports);
    });
    let map = bed.read("dev", "/a/b/c").await;
    assert_eq!(pairs(&map), ["A=1"]);
    assert!(!map.complete() && map.incomplete[0].contains("import links"), "{:?}", map.incomplete);
    let error = bed.source().read(&Cx::quiet(), &bed.at("dev", "/a/x/c")).await.expect_err("missing");
    assert_eq!(error.kind, ErrorKind::NotFound);
    bed.state.switch(|s| {
        s.denied.insert(Right::ReadFolders);
        s.denied.insert(Right::ReadProject);
    });
    let map = bed.read("dev", "/a/x/c").await;
    assert!(map.secrets.is_empty() && map.incomplete.iter().any(|d| d.contains("cannot be proved")), "{:?}", map.incomplete);
    // With the imports in sight nothing else is needed.
    bed.state.switch(|s| {
        s.denied.remove(&Right::ReadImports);
    });
    assert!(bed.read("dev", "/a/b/c").await.complete());
}

#[tokio::test]
async fn hidden_values_are_errors_and_personal_rows_are_dropped() {
    let bed = Bed::start().await;
    for key in ["A", "B"] {
        bed.set("dev", "/app", key, "shared");
    }
    bed.state.set_personal(&bed.project, "dev", "/app", "A", "mine");
    for generation in [Generation::Now, Generation::Y2024] {
        bed.state.switch(|s| s.generation = generation);
        assert_eq!(pairs(&bed.read("dev", "/app").await), ["A=shared", "B=shared"], "{generation:?}");
    }
    bed.state.switch(|s| {
        s.generation = Generation::Now;
        s.hidden_keys.insert("B".into());
    });
    let map = bed.read("dev", "/app").await;
    assert_eq!(pairs(&map), ["A=shared"]);
    assert!(!map.complete() && map.unreadable.len() == 1 && map.unreadable[0].0 == "B", "{:?}", map.unreadable);
}

#[tokio::test]
async fn values_arrive_byte_for_byte() {
    let bed = Bed::start().await;
    let values = ["", " x ", "a\nb\n", "\"quoted\"", "\"a\\nb\"", "ünïcødé 🔑", "tab\tand\r\n", "$ {x} $NOT ${", &"x".repeat(25_000)];
    for (i, value) in values.iter().enumerate() {
        bed.set("dev", "/app", &format!("K{i}"), value);
    }
    let pem = "-----BEGIN KEY-----\nabc\ndef\n-----END KEY-----";
    let flagged = NewSecret { value: pem.into(), skip_multiline_encoding: true, ..NewSecret::default() };
    bed.state.put(&bed.project, "dev", "/app", "PEM", flagged);
    for generation in [Generation::Now, Generation::Y2024] {
        bed.state.switch(|s| s.generation = generation);
        let map = bed.read("dev", "/app").await;
        for (i, value) in values.iter().enumerate() {
            let found = map.secrets.iter().find(|s| s.key == format!("K{i}")).expect("key");
            assert_eq!(found.value.expose(), *value, "{generation:?}");
        }
        let found = map.secrets.iter().find(|s| s.key == "PEM").expect("key");
        assert_eq!(found.value.expose(), pem, "{generation:?}");
    }
}

#[tokio::test]
async fn references_that_stay_are_warned_of() {
    let bed = Bed::start().await;
    bed.set("dev", "/app", "GOOD", "${OTHER}");
    bed.set("dev", "/app", "OTHER", "x");
    bed.set("dev", "/app", "BROKEN", "a ${prod.none.KEY} b");
    bed.set("dev", "/app", "LOOP", "${LOOP}");
    bed.set("dev", "/app", "SHELL", "${VAR:-default}");
    let map = bed.read("dev", "/app").await;
    assert_eq!(map.warnings.len(), 2, "{:?}", map.warnings);
    assert!(map.warnings.iter().any(|w| w.starts_with("BROKEN") && w.contains("${prod.none.KEY}")), "{:?}", map.warnings);
    assert!(map.complete());
}

/// The server's own engine refuses more than 500 secrets of a folder tree.
#[tokio::test]
async fn a_tree_of_more_than_five_hundred_secrets_is_read_whole() {
    let bed = Bed::start().await;
    for i in 0..600 {
        bed.set("dev", &format!("/app/team{}", i % 12), &format!("KEY_{i:03}"), "v");
    }
    let at = SourceRef { recursive: true, ..bed.at("dev", "/app") };
    let map = bed.source().read(&Cx::quiet(), &at).await.expect("read");
    assert!(map.complete(), "{:?} {:?}", map.incomplete, map.clashes);
    assert_eq!(map.secrets.len(), 600);
}

#[tokio::test]
async fn sub_folders_become_one_list_and_clashes_are_named() {
    let bed = Bed::start().await;
    bed.set("dev", "/app", "ROOT", "1");
    bed.set("dev", "/app/a", "A", "2");
    bed.set("dev", "/app/a/deep", "DEEP", "3");
    bed.set("dev", "/application", "OTHER", "no");
    bed.set("shared", "/smtp", "SMTP", "4");
    bed.state.add_import(&bed.project, "dev", "/app/a", "shared", "/smtp");
    // An import from inside the tree is no second place.
    bed.state.add_import(&bed.project, "dev", "/app", "dev", "/app/a");
    let at = SourceRef { recursive: true, ..bed.at("dev", "/app") };
    let (source, cx) = (bed.source(), Cx::quiet());
    let map = source.read(&cx, &at).await.expect("read");
    assert_eq!(pairs(&map), ["A=2", "DEEP=3", "ROOT=1", "SMTP=4"]);
    assert!(map.complete(), "{:?} {:?}", map.incomplete, map.clashes);
    let origins: Vec<_> = map.secrets.iter().map(|s| s.origin.as_deref()).collect();
    assert_eq!(origins, [Some("/app/a"), Some("/app/a/deep"), None, Some("shared:/smtp")]);
    assert_eq!(map.own_keys, ["ROOT"]);

    bed.set("dev", "/app/b", "A", "5");
    bed.set("dev", "/app", "SMTP", "own of another folder than the importing one");
    let map = source.read(&cx, &at).await.expect("read");
    assert_eq!(map.clashes.iter().map(|(k, _)| k.as_str()).collect::<Vec<_>>(), ["A", "SMTP"]);
    assert_eq!(map.clashes[0].1, ["/app/a", "/app/b"]);
    assert!(!map.complete());
}

#[tokio::test]
async fn metadata_comes_along() {
    let bed = Bed::start().await;
    let metadata = vec![("owner".to_string(), "payments".to_string()), ("tier".to_string(), "1".to_string())];
    bed.state.put(&bed.project, "dev", "/app", "A", NewSecret { value: "v".into(), metadata: metadata.clone(), ..NewSecret::default() });
    assert_eq!(bed.read("dev", "/app").await.secrets[0].metadata, metadata);
}

#[tokio::test]
async fn throttling_is_waited_out_with_and_without_retry_after() {
    for headers in [vec![("retry-after".to_string(), "1".to_string())], Vec::new()] {
        let bed = Bed::start().await;
        bed.set("dev", "/app", "A", "1");
        let body = r#"{"statusCode":429,"message":"Rate limit exceeded. Please try again in 1 seconds","error":"RateLimitExceeded"}"#;
        let told = !headers.is_empty();
        bed.host.faults.add(Fault::next("/api/v4/secrets", 2, Effect::Answer { status: 429, headers, body: body.into() }));
        let (cx, begun) = (Cx::quiet(), Instant::now());
        let map = bed.source().read(&cx, &bed.at("dev", "/app")).await.expect("after the wait");
        assert_eq!(map.secrets.len(), 1);
        assert_eq!(cx.meter().snapshot().retries, 2);
        if told {
            assert!(begun.elapsed() >= Duration::from_secs(2), "{:?}", begun.elapsed());
        }
    }
}

#[tokio::test]
async fn the_servers_window_is_respected_without_a_single_refusal() {
    let bed = Bed::start().await;
    bed.set("dev", "/app", "A", "1");
    bed.state.switch(|s| s.limits = Limits { read: 600, write: 60, secrets: 4, auth: 60 });
    let (source, cx, at) = (bed.source(), Cx::quiet(), bed.at("dev", "/app"));
    for _ in 0..3 {
        source.read(&cx, &at).await.expect("inside the window");
    }
    // The window is spent but for the reserve: the next reading waits, cancellably.
    let waiting = tokio::time::timeout(Duration::from_millis(300), source.read(&cx, &at)).await;
    assert!(waiting.is_err(), "it waits for the next window");
    cx.cancel_token().cancel();
    let error = source.read(&cx, &at).await.expect_err("cancelled");
    assert_eq!(error.kind, ErrorKind::Cancelled);
    assert_eq!(bed.host.log.count("/api/v4/secrets"), 3);
}

#[tokio::test]
async fn trouble_on_the_way_is_repeated_and_nonsense_is_not() {
    let bed = Bed::start().await;
    bed.set("dev", "/app", "A", "1");
    for effect in [Effect::Reset, Effect::HalfBody, Effect::status(503, "<html>busy</html>"), Effect::LostAnswer] {
        bed.host.faults.add(Fault::next("/api/v4/secrets", 1, effect.clone()));
        let map = bed.read("dev", "/app").await;
        assert_eq!(map.secrets.len(), 1, "{effect:?}");
    }
    for body in ["[]", r#"{"secrets":"no"}"#, r#"{"secrets":[{"secretValue":"v"}]}"#, "{", "{\"ok\":true}"] {
        bed.host.faults.clear();
        let json = vec![("content-type".to_string(), "application/json".to_string())];
        bed.host.faults.add(Fault::always("/api/v4/secrets", 1.0, Effect::Answer { status: 200, headers: json, body: body.into() }));
        let error = bed.source().read(&Cx::quiet(), &bed.at("dev", "/app")).await.expect_err(body);
        assert_eq!(error.kind, ErrorKind::NotTheService, "{body}: {error}");
    }
}

#[tokio::test]
async fn validation_arrays_are_shown_as_text() {
    let bed = Bed::start().await;
    bed.set("dev", "/app", "A", "1");
    let body = r#"{"reqId":"req-77","statusCode":422,"message":[{"code":"invalid_type","path":["environment"],"message":"Required"}],"error":"ValidationFailure"}"#;
    bed.host.faults.add(Fault::always("/api/v4/secrets", 1.0, Effect::status(422, body)));
    let error = bed.source().read(&Cx::quiet(), &bed.at("dev", "/app")).await.expect_err("invalid");
    assert_eq!(error.kind, ErrorKind::Invalid);
    assert!(error.text().contains("environment: Required") && error.text().contains("req-77"), "{error}");
}

#[tokio::test]
async fn five_thousand_secrets_come_in_one_list() {
    let bed = Bed::start().await;
    for i in 0..5_000 {
        bed.set("dev", "/app", &format!("KEY_{i:05}"), &format!("value-{i}-{}", "x".repeat(200)));
    }
    let cx = Cx::quiet();
    let map = bed.source().read(&cx, &bed.at("dev", "/app")).await.expect("read");
    assert_eq!(map.secrets.len(), 5_000);
    assert_eq!(cx.meter().snapshot().by_call["kms"]["GET /api/v4/secrets"], 1);
}

#[tokio::test]
async fn folders_are_offered_by_name() {
    for generation in [Generation::Now, Generation::Y2024] {
        let bed = Bed::start().await;
        bed.state.switch(|s| s.generation = generation);
        for path in ["/b/x", "/a", "/b/y"] {
            bed.state.add_folder(&bed.project, "dev", path);
        }
        let (source, cx) = (bed.source(), Cx::quiet());
        let names = |choices: Vec<kms_sync::destination::Choice>| choices.into_iter().map(|c| c.value).collect::<Vec<_>>();
        assert_eq!(names(source.folders(&cx, &bed.at("dev", "/")).await.expect("folders")), ["a", "b"]);
        assert_eq!(names(source.folders(&cx, &bed.at("dev", "/b")).await.expect("folders")), ["x", "y"]);
        let error = source.folders(&cx, &bed.at("qa", "/")).await.expect_err("no environment");
        assert_eq!(error.kind, ErrorKind::NotFound);
        bed.state.switch(|s| {
            s.denied.insert(Right::ReadFolders);
        });
        assert_eq!(source.folders(&cx, &bed.at("dev", "/")).await.expect_err("denied").kind, ErrorKind::Permission);
    }
}

#[tokio::test]
async fn rows_prove_their_place_where_the_management_routes_are_odd() {
    let bed = Bed::start().await;
    bed.set("dev", "/app", "A", "1");
    let missing = |what: &str| Effect::status(404, format!(r#"{{"statusCode":404,"message":"{what} not found","error":"NotFound"}}"#));
    bed.host.faults.add(Fault::always("/api/v1/projects/", 1.0, missing("Project")));
    bed.host.faults.add(Fault::always("/folders", 1.0, Effect::status(400, "{}")));
    let map = bed.read("dev", "/app").await;
    assert_eq!(pairs(&map), ["A=1"]);
    assert!(map.complete() && map.environment_name.is_none(), "{:?}", map.incomplete);
    // Deleted between two questions: what was read is used, nothing is taken for deleted.
    bed.host.faults.add(Fault::always("/secret-imports", 1.0, missing("Folder")));
    let map = bed.read("dev", "/app").await;
    assert!(map.secrets.len() == 1 && !map.complete(), "{:?}", map.incomplete);
}

#[tokio::test]
async fn a_server_without_import_routes_is_believed_about_its_imports() {
    let bed = Bed::start().await;
    bed.set("dev", "/a/b", "A", "1");
    let no_route = r#"{"message":"Route GET:/x not found","error":"Not Found","statusCode":404}"#;
    bed.host.faults.add(Fault::always("/secret-imports", 1.0, Effect::status(404, no_route)));
    assert!(bed.read("dev", "/a/b").await.complete());
    let error = bed.source().read(&Cx::quiet(), &bed.at("dev", "/a/nope")).await.expect_err("missing");
    assert_eq!(error.kind, ErrorKind::NotFound);
}
