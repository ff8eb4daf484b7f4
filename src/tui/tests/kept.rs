//! What an operator need not type twice: an unfinished sync, and credentials that are stored.

use serde_json::json;

use super::super::app::Page;
use super::super::connections::edit::Edit;
use super::super::fx::{Call, Reply};
use super::super::testing::{Harness, answer, before, board};
use super::to_details;
use crate::service::Draft;

/// A harness whose service kept this draft.
fn with_draft(draft: Option<Draft>) -> Harness {
    let mut h = Harness::cold(80, 24);
    h.answers = Box::new(move |call| match call {
        Call::Draft => Some(Reply::Draft(Ok(draft.clone()))),
        other => answer(other),
    });
    h.begin(board());
    h
}

#[test]
fn every_step_keeps_the_draft_and_creating_forgets_it() {
    let mut h = with_draft(None);
    to_details(&mut h);
    h.text("nightly");
    let last = h.kept.pop().flatten().expect("a draft was kept on the way");
    assert_eq!((last.step, last.document["destination"].as_str()), (3, Some("aws-secrets-manager")));
    // What is typed in the last field is in what a dropped line leaves behind.
    assert_eq!(h.app.unfinished().unwrap().document["name"], "nightly");
    h.keys("PageDown Enter Right Enter");
    assert!(h.app.pages.is_empty(), "{}", h.screen());
    assert_eq!(h.kept.pop(), Some(None), "a created sync is no draft");
    assert_eq!(h.app.unfinished(), None);
}

#[test]
fn an_unfinished_sync_is_taken_up_where_it_was_left() {
    let mut h = with_draft(None);
    to_details(&mut h);
    h.text("nightly");
    let draft = h.app.unfinished().unwrap();

    let mut again = with_draft(Some(Draft { at: before(3600), ..draft.clone() }));
    again.keys("n");
    let screen = again.screen();
    assert!(screen.contains("Go on with the unfinished sync?") && screen.contains("AWS Secrets Manager"), "{screen}");
    assert!(screen.contains("2026-11-25 11:04"), "when it was left: {screen}");
    again.keys("Enter");
    assert!(again.screen().contains("▸ Name"), "{}", again.screen());
    assert_eq!(again.app.unfinished().unwrap().document, draft.document);

    let mut anew = with_draft(Some(draft));
    anew.keys("n Right Enter");
    assert_eq!(anew.kept, [None], "the old one is forgotten");
    let Some(Page::Wizard(wizard)) = anew.app.pages.last() else { panic!("the wizard is open") };
    assert!(wizard.provider.is_none(), "a new sync begins at the choice of the destination");
}

#[test]
fn a_new_sync_waits_for_the_word_on_an_unfinished_one() {
    let draft = Draft { document: json!({"destination": "oci-vault", "environment": "prod", "secretPath": "/x"}), step: 0, at: before(60) };
    let mut h = Harness::cold(80, 24);
    h.answers = Box::new(|call| if matches!(call, Call::Draft) { None } else { answer(call) });
    h.begin(board());
    h.keys("n");
    assert!(h.app.pages.is_empty() && h.app.modals.is_empty());
    let ticket = h.open[0].0;
    h.send(super::super::app::Msg::Reply(ticket, Reply::Draft(Ok(Some(draft)))));
    assert!(h.screen().contains("Go on with the unfinished sync?"), "{}", h.screen());
}

#[test]
fn a_draft_that_no_longer_holds_stops_at_the_field_in_question() {
    let document = json!({"destination": "aws-secrets-manager", "projectId": "p1", "environment": "dev", "secretPath": "not/absolute"});
    let mut h = with_draft(Some(Draft { document, step: 4, at: before(60) }));
    h.keys("n Enter");
    let Some(Page::Wizard(wizard)) = h.app.pages.last() else { panic!("the wizard is open") };
    assert_eq!(wizard.step, 0);
}

#[test]
fn leaving_can_keep_what_was_filled_in() {
    let mut h = with_draft(None);
    to_details(&mut h);
    h.keys("Esc Esc Esc Esc Esc");
    assert!(h.screen().contains("Leave, keep it"), "{}", h.screen());
    h.keys("Right Enter");
    assert!(h.app.pages.is_empty());
    assert!(h.kept.pop().flatten().is_some());
    h.keys("n");
    assert!(h.screen().contains("Go on with the unfinished sync?"), "{}", h.screen());
}

fn edited(h: &Harness) -> &Edit {
    match h.app.pages.last() {
        Some(Page::Edit(edit)) => edit,
        _ => panic!("the connection is being edited"),
    }
}

#[test]
fn editing_a_connection_keeps_its_stored_secret_until_another_is_typed() {
    let mut h = Harness::new(80, 24);
    h.keys("c Down e");
    let screen = h.screen();
    assert!(screen.contains("Edit connection prod-aws") && screen.contains("stored; typing replaces it"), "{screen}");
    let secret = |h: &Harness| edited(h).document()["credentials"]["secretAccessKey"].clone();
    assert_eq!(secret(&h), json!({"stored": true}));
    assert_eq!(edited(&h).form.item("credentials.secretAccessKey").unwrap().problem, None, "a stored secret is no missing one");
    while !h.screen().contains("▸ Secret") {
        h.keys("Tab");
    }
    h.text("new-key");
    assert_eq!(secret(&h), json!("new-key"));
    // Round through the references, back to what is stored.
    h.keys("Ctrl-E Ctrl-E Ctrl-E Ctrl-E");
    assert_eq!(secret(&h), json!({"stored": true}));
    h.keys("Delete");
    assert_eq!(secret(&h), json!(null), "a required one that was taken away is missing");
    assert!(edited(&h).form.item("credentials.secretAccessKey").unwrap().problem.is_some());
}

#[test]
fn going_back_to_the_choice_of_the_destination_loses_nothing() {
    let mut h = Harness::new(80, 24);
    h.keys("n Enter Enter Enter Down Down Enter Down");
    let filled = |h: &mut Harness| h.screen().lines().filter(|l| l.contains('▾')).map(|l| l.replace('▸', " ")).collect::<Vec<_>>();
    let before = filled(&mut h);
    assert_eq!(before.len(), 3, "{}", h.screen());
    h.keys("Esc");
    assert!(h.screen().contains("Where should the secrets go?"), "{}", h.screen());
    h.keys("Enter");
    assert_eq!(filled(&mut h), before, "{}", h.screen());
    // What belongs to the source also stays with another destination.
    h.keys("Esc Down Enter");
    assert!(h.screen().contains("New sync to Azure Key Vault"), "{}", h.screen());
    assert_eq!(filled(&mut h), before, "{}", h.screen());
}

#[test]
fn going_through_the_methods_of_a_connection_loses_nothing() {
    let mut h = Harness::new(80, 24);
    // AWS: an access key, a role, the default chain.
    h.keys("c n Space Tab Tab Tab");
    h.text("AKIAEXAMPLE");
    h.keys("Tab");
    h.text("typed-secret");
    h.keys("Tab");
    h.text("eu-central-1");
    let typed = edited(&h).document();
    assert_eq!(typed["credentials"]["secretAccessKey"], "typed-secret", "{typed}");
    let methods = 3;
    while !h.screen().contains("▸ Method") {
        h.keys("Shift-Tab");
    }
    for _ in 0..methods {
        h.keys("Space");
    }
    assert_eq!(edited(&h).document(), typed, "{}", h.screen());
    // Another app's fields mean other things: nothing comes back from there.
    h.keys("Shift-Tab Shift-Tab Space Left");
    let emptied = edited(&h).document();
    assert_eq!((&emptied["app"], &emptied["credentials"]), (&json!("aws"), &json!({})), "{}", h.screen());
}
