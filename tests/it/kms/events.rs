//! The event stream as a hint.

use std::time::Duration;

use kms_sync::http::Cx;
use kms_sync::sandbox::kms::{Generation, Right};
use kms_sync::source::Change;

use super::Bed;

/// Waits until the server counts an open stream.
async fn opened(bed: &Bed) {
    while bed.host.log.count("project-events") == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
}

#[tokio::test]
async fn a_change_wakes_and_keep_alives_do_not() {
    let bed = Bed::start().await;
    bed.state.switch(|s| s.keep_alive = Duration::from_millis(20));
    bed.set("dev", "/app", "A", "1");
    bed.set("shared", "/smtp", "B", "1");
    bed.state.add_import(&bed.project, "dev", "/app", "shared", "/smtp");
    let (source, cx, places) = (bed.source(), Cx::quiet(), [bed.at("dev", "/app")]);
    let waiting = tokio::spawn({
        let (source, cx, places) = (source.clone(), cx.clone(), places.clone());
        async move { source.hint(&cx, &places).await }
    });
    opened(&bed).await;
    bed.set("prod", "/app", "A", "another environment");
    tokio::time::sleep(Duration::from_millis(150)).await;
    assert!(!waiting.is_finished(), "keep-alives and other places are no hint");
    bed.set("dev", "/app", "A", "2");
    let change = |path: &str| Some(vec![Change { project_id: bed.project.clone(), environment: Some("dev".into()), path: Some(path.into()) }]);
    assert_eq!(waiting.await.expect("task").expect("hint"), change("/app"));
    // The stream stays open between two questions: what happens meanwhile is not lost.
    bed.set("shared", "/smtp", "B", "2");
    assert_eq!(tokio::time::timeout(Duration::from_secs(2), source.hint(&cx, &places)).await.expect("soon").expect("hint"), change("/app"));
    assert_eq!(bed.host.log.count("project-events"), 1);
}

#[tokio::test]
async fn a_lost_stream_is_opened_again_and_asks_for_one_poll() {
    let bed = Bed::start().await;
    bed.set("dev", "/app", "A", "1");
    let (source, cx, places) = (bed.source(), Cx::quiet(), [bed.at("dev", "/app")]);
    let waiting = tokio::spawn({
        let (source, cx, places) = (source.clone(), cx.clone(), places.clone());
        async move { source.hint(&cx, &places).await }
    });
    opened(&bed).await;
    bed.state.drop_streams();
    let heard = tokio::time::timeout(Duration::from_secs(5), waiting).await.expect("within the back-off").expect("task").expect("hint");
    // What happened meanwhile was told to nobody: it may be anywhere.
    assert_eq!(heard, Some(vec![Change { project_id: bed.project.clone(), environment: None, path: None }]));
    assert_eq!(bed.host.log.count("project-events"), 2);
}

#[tokio::test]
async fn plans_rights_and_old_servers_mean_polling_for_good() {
    for case in ["plan", "right", "old"] {
        let bed = Bed::start().await;
        bed.state.switch(|s| match case {
            "plan" => s.events = false,
            "right" => {
                s.denied.insert(Right::Subscribe);
            }
            _ => s.generation = Generation::Y2024,
        });
        let (source, cx, places) = (bed.source(), Cx::quiet(), [bed.at("dev", "/app")]);
        for _ in 0..3 {
            assert_eq!(source.hint(&cx, &places).await.expect("an answer"), None, "{case}");
        }
        assert_eq!(bed.host.log.count("project-events"), 1, "{case}");
    }
}

#[tokio::test]
async fn cancelling_ends_the_wait() {
    let bed = Bed::start().await;
    let (source, cx, places) = (bed.source(), Cx::quiet(), [bed.at("dev", "/app")]);
    let waiting = tokio::spawn({
        let (source, cx) = (source.clone(), cx.clone());
        async move { source.hint(&cx, &places).await }
    });
    opened(&bed).await;
    cx.cancel_token().cancel();
    assert!(waiting.await.expect("task").is_err());
}
