//! Writing back: batches, conflicts, approvals, bad names.

use kms_sync::http::{Cx, ErrorKind};
use kms_sync::model::SecretValue;
use kms_sync::sandbox::host::{Effect, Fault};
use kms_sync::sandbox::kms::{Generation, NewSecret, Right};
use kms_sync::source::{SourceWrite, WriteOutcome};

use super::Bed;

fn write(key: &str, value: &str, create: bool) -> SourceWrite {
    SourceWrite { key: key.into(), value: SecretValue::new(value), create, yields: false }
}

/// Outcomes in the order of the keys.
async fn run(bed: &Bed, writes: &[SourceWrite]) -> Vec<(String, WriteOutcome)> {
    let mut outcomes = bed.source().write(&Cx::quiet(), &bed.at("dev", "/app"), writes).await.expect("outcomes");
    outcomes.sort_by(|a, b| a.0.cmp(&b.0));
    outcomes
}

impl Bed {
    fn value(&self, key: &str) -> Option<String> {
        self.state.value(&self.project, "dev", "/app", key)
    }
}

#[tokio::test]
async fn creations_and_updates_are_batched_on_every_generation() {
    for generation in [Generation::Now, Generation::Y2024] {
        let bed = Bed::start().await;
        bed.state.switch(|s| s.generation = generation);
        let old = NewSecret { value: "old".into(), comment: "kept".into(), ..NewSecret::default() };
        bed.state.put(&bed.project, "dev", "/app", "OLD", old);
        let mut writes: Vec<_> = (0..250).map(|i| write(&format!("NEW_{i:03}"), &format!("v{i}"), true)).collect();
        writes.push(write("OLD", "new", false));
        let outcomes = run(&bed, &writes).await;
        assert_eq!(outcomes.len(), 251);
        assert!(outcomes.iter().all(|(_, o)| *o == WriteOutcome::Done), "{generation:?}");
        assert_eq!(bed.value("NEW_249").as_deref(), Some("v249"));
        assert_eq!(bed.value("OLD").as_deref(), Some("new"));
        assert_eq!(bed.state.comment(&bed.project, "dev", "/app", "OLD").as_deref(), Some("kept"));
        let methods = bed.host.log.by_method();
        // 3 batches of creations (and one login), one of updates.
        assert_eq!((methods["POST"], methods["PATCH"]), (4, 1), "{generation:?}");
    }
}

#[tokio::test]
async fn a_conflict_is_resolved_by_looking_again() {
    let bed = Bed::start().await;
    bed.set("dev", "/app", "SAME", "v");
    bed.set("dev", "/app", "OTHER", "theirs");
    let outcomes = run(&bed, &[write("NEW", "n", true), write("OTHER", "ours", true), write("SAME", "v ", true)]).await;
    assert!(outcomes.iter().all(|(_, o)| *o == WriteOutcome::Done), "{outcomes:?}");
    assert_eq!((bed.value("NEW").as_deref(), bed.value("OTHER").as_deref(), bed.value("SAME").as_deref()), (Some("n"), Some("ours"), Some("v")));
}

#[tokio::test]
async fn a_creation_whose_answer_was_lost_is_not_repeated_blindly() {
    let bed = Bed::start().await;
    bed.state.add_folder(&bed.project, "dev", "/app");
    bed.host.faults.add(Fault::next("POST /api/v4/secrets/batch", 1, Effect::LostAnswer));
    let outcomes = run(&bed, &[write("A", "1", true), write("B", "2", true)]).await;
    assert!(outcomes.iter().all(|(_, o)| *o == WriteOutcome::Done), "{outcomes:?}");
    assert_eq!(bed.host.log.count("POST /api/v4/secrets/batch"), 1);
}

#[tokio::test]
async fn one_bad_name_does_not_stop_the_others() {
    let bed = Bed::start().await;
    bed.state.add_folder(&bed.project, "dev", "/app");
    bed.state.switch(|s| {
        s.refused_names.insert("BAD".into());
    });
    let mut writes: Vec<_> = (0..40).map(|i| write(&format!("K{i:02}"), "v", true)).collect();
    writes.insert(17, write("BAD", "v", true));
    writes.insert(30, write("A:B", "v", true));
    let outcomes = run(&bed, &writes).await;
    let failed: Vec<_> = outcomes.iter().filter(|(_, o)| matches!(o, WriteOutcome::Failed(_))).collect();
    assert_eq!(failed.iter().map(|(k, _)| k.as_str()).collect::<Vec<_>>(), ["A:B", "BAD"], "{outcomes:?}");
    let WriteOutcome::Failed(why) = &failed[0].1 else { unreachable!() };
    assert!(why.contains("colon"), "{why}");
    assert_eq!(bed.state.keys(&bed.project, "dev", "/app").len(), 40);
    assert!(bed.source().check_name("A:B").is_err() && bed.source().check_name("A_B").is_ok());
}

#[tokio::test]
async fn without_the_right_to_write_few_requests_are_spent() {
    let bed = Bed::start().await;
    bed.state.add_folder(&bed.project, "dev", "/app");
    bed.state.switch(|s| {
        s.denied.insert(Right::WriteSecrets);
    });
    let writes: Vec<_> = (0..300).map(|i| write(&format!("K{i}"), "v", true)).collect();
    let outcomes = run(&bed, &writes).await;
    assert_eq!(outcomes.len(), 300);
    assert!(outcomes.iter().all(|(_, o)| matches!(o, WriteOutcome::Failed(why) if why.contains("PermissionDenied"))));
    assert!(bed.host.log.count("secrets/batch") < 30, "{}", bed.host.log.count("secrets/batch"));
    assert_eq!(bed.logins(), 1);
}

#[tokio::test]
async fn a_change_policy_is_an_outcome_and_asked_once() {
    let bed = Bed::start().await;
    bed.set("dev", "/app", "OLD", "old");
    bed.state.switch(|s| {
        s.approvals.insert(("dev".into(), "/app".into()));
    });
    let (source, cx, at) = (bed.source(), Cx::quiet(), bed.at("dev", "/app"));
    let writes = [write("NEW", "n", true), write("OLD", "o", false)];
    let outcomes = source.write(&cx, &at, &writes).await.expect("outcomes");
    let slugs = bed.state.open_requests();
    assert_eq!(slugs.len(), 2);
    assert!(outcomes.iter().all(|(_, o)| matches!(o, WriteOutcome::AwaitsApproval(text) if slugs.iter().any(|s| text.contains(s.as_str())))));
    assert_eq!((bed.value("NEW"), bed.value("OLD").as_deref()), (None, Some("old")));
    // Still open: no second request.
    let outcomes = source.write(&cx, &at, &writes).await.expect("outcomes");
    assert!(outcomes.iter().all(|(_, o)| matches!(o, WriteOutcome::AwaitsApproval(_))));
    assert_eq!(bed.state.open_requests().len(), 2);
    for slug in &slugs {
        bed.state.close_request(slug);
    }
    source.write(&cx, &at, &writes).await.expect("outcomes");
    let again = bed.state.open_requests();
    assert_eq!(again.len(), 2);
    assert!(again.iter().all(|s| bed.state.merge_request(s)));
    assert_eq!((bed.value("NEW").as_deref(), bed.value("OLD").as_deref()), (Some("n"), Some("o")));
}

#[tokio::test]
async fn an_unreachable_server_is_an_error_and_not_an_outcome() {
    let bed = Bed::start().await;
    bed.state.add_folder(&bed.project, "dev", "/app");
    let error = bed.source_with("wrong").write(&Cx::quiet(), &bed.at("dev", "/app"), &[write("A", "1", true)]).await.expect_err("refused");
    assert_eq!(error.kind, ErrorKind::Auth);
}
