//! What an operator is warned of: files that cannot be used, removals that undo themselves.

use super::super::app::Msg;
use super::super::fx::Call;
use super::super::fx::Reply;
use super::super::testing::{Harness, answer, board, history, refused};
use super::{scene, to_review};
use crate::model::board::Event;
use crate::model::run::RunKind;
use crate::service::ServerRival;
use crate::source::ServerSync;

#[test]
fn a_broken_file_stands_in_the_table_with_its_reason() {
    let mut h = Harness::cold(80, 24);
    let mut picture = board();
    let card = picture.cards.values_mut().next().unwrap();
    let name = card.name.clone();
    (card.enabled, card.run, card.last) = (false, None, None);
    card.broken = Some("/etc/x.json: syncOptions.keySchema: no placeholder [secret-key-placeholder]".into());
    h.begin(picture);
    h.keys("/");
    h.text(&name);
    h.keys("Enter 1");
    let screen = h.screen();
    assert!(screen.contains("✗ broken") && screen.contains("secret-key-placeholder"), "{screen}");
    h.keys("s");
    assert!(!h.asked().contains(&"start"), "nothing runs from a broken file: {:?}", h.asked());
}

#[test]
fn a_removal_that_auto_sync_undoes_is_warned_of_and_can_be_for_good() {
    let mut h = Harness::new(80, 24);
    h.hold = true;
    h.keys("R");
    let screen = h.screen();
    assert!(screen.contains("Auto-sync of legacy-pipelines is on") && screen.contains("Auto-sync off, then remove"), "{screen}");
    h.keys("Right Right Enter");
    let off = h.open.iter().any(|(_, call)| matches!(call, Call::Enable { on: false, .. }));
    let removal = h.open.iter().any(|(_, call)| matches!(call, Call::Start(request) if request.kind == RunKind::Remove));
    assert!(off && removal, "{:?}", h.asked());
}

#[test]
fn a_deletion_with_its_secrets_takes_away_what_earlier_settings_left_first() {
    for (left, order) in [(Some(12), &[true, false][..]), (None, &[false])] {
        let mut h = Harness::new(80, 24);
        h.answers = Box::new(move |call| match (answer(call), call) {
            (Some(Reply::Sync(Ok(mut doc))), Call::Sync { .. }) => {
                doc.left_behind = left;
                Some(Reply::Sync(Ok(doc)))
            }
            (_, Call::Start(_) | Call::Delete { .. }) => None,
            (other, _) => other,
        });
        h.keys("d Right Right Enter");
        for (nth, left_behind) in order.iter().enumerate() {
            let (ticket, call) = h.open.pop().expect("a removal");
            let Call::Start(request) = call else { panic!("not a removal: {}", super::super::testing::word(&call)) };
            assert_eq!((request.kind, request.left_behind), (RunKind::Remove, *left_behind));
            assert!(h.open.is_empty(), "one after the other, and no deletion yet: {:?}", h.asked());
            h.send(Msg::Reply(ticket, Reply::Run(Ok(format!("r{nth}")))));
            let mut record = history().remove(1);
            (record.sync, record.kind, record.counts.deleted) = (request.sync, RunKind::Remove, 5);
            h.event(Event::Finished { sync: record.sync.clone(), record: Box::new(record) });
        }
        let (ticket, call) = h.open.pop().expect("a deletion");
        assert!(matches!(call, Call::Delete { .. }), "{}", super::super::testing::word(&call));
        h.send(Msg::Reply(ticket, Reply::Act(Ok(()))));
        let told = format!("{} secrets there were removed before", 5 * order.len());
        assert!(h.screen().contains(&told), "{}", h.screen());
    }
}

#[test]
fn a_sync_whose_first_removal_fails_is_kept_whole() {
    let mut h = Harness::new(80, 24);
    h.answers = Box::new(|call| match (answer(call), call) {
        (Some(Reply::Sync(Ok(mut doc))), Call::Sync { .. }) => {
            doc.left_behind = Some(1);
            Some(Reply::Sync(Ok(doc)))
        }
        (_, Call::Start(_) | Call::Delete { .. }) => None,
        (other, _) => other,
    });
    h.keys("d Right Right Enter");
    let (ticket, call) = h.open.pop().expect("a removal");
    let Call::Start(request) = call else { panic!("not a removal") };
    h.send(Msg::Reply(ticket, Reply::Run(Ok("r".into()))));
    let mut record = history().remove(0);
    (record.sync, record.kind) = (request.sync, RunKind::Remove);
    h.event(Event::Finished { sync: record.sync.clone(), record: Box::new(record) });
    assert!(h.open.is_empty(), "neither the next removal nor the deletion: {:?}", h.asked());
}

/// A sync of the server's own that writes where the wizard's draft does.
fn rival(id: &str) -> ServerRival {
    let sync = ServerSync {
        id: id.into(),
        name: "legacy-billing".into(),
        destination: "aws-secrets-manager".into(),
        destination_config: Default::default(),
        auto_sync: true,
        switch: "isAutoSyncEnabled".into(),
        key_schema: None,
        environment: Some("prod".into()),
        secret_path: Some("/billing".into()),
        connection: Some("prod-aws".into()),
        running: true,
    };
    let text = "The KMS server's own sync legacy-billing also writes there, with auto-sync on.".to_string();
    ServerRival { sync, certain: true, text }
}

/// A harness whose server runs a sync of its own to the wizard's place.
fn with_rival(h: &mut Harness) {
    h.answers = Box::new(|call| match call {
        Call::ServerRivals { .. } => Some(Reply::Rivals(Ok(vec![rival("remote-1")]))),
        Call::SwitchOffRival { id, .. } => Some(Reply::Rival(Ok(rival(id)))),
        other => answer(other),
    });
}

#[test]
fn the_server_s_own_sync_is_warned_of_and_switched_off_after_a_question() {
    scene("wizard-rival", |h| {
        with_rival(h);
        to_review(h);
    });
    scene("wizard-take-over", |h| {
        with_rival(h);
        to_review(h);
        h.keys("T");
    });
    let mut h = Harness::new(120, 40);
    with_rival(&mut h);
    to_review(&mut h);
    h.hold = true;
    h.keys("T Enter");
    assert!(!h.asked().contains(&"switch off"), "the first button leaves it on: {:?}", h.asked());
    h.keys("T Right Enter T");
    let ids: Vec<&str> = h.open.iter().filter_map(|(_, c)| if let Call::SwitchOffRival { id, .. } = c { Some(id.as_str()) } else { None }).collect();
    assert_eq!(ids, ["remote-1"], "asked once, and not again while it is being done");
    h.release();
    let screen = h.keys("").screen();
    assert!(screen.contains("auto-sync of legacy-billing is off at the KMS server; its run"), "{screen}");
    assert!(!screen.contains("own sync legacy-billing") && !screen.contains("take over"), "{screen}");
}

#[test]
fn a_refused_take_over_says_what_to_do_and_a_silent_server_is_not_mentioned() {
    let mut h = Harness::new(120, 40);
    h.answers = Box::new(|call| match call {
        Call::ServerRivals { .. } => Some(Reply::Rivals(Ok(vec![rival("remote-1")]))),
        Call::SwitchOffRival { .. } => Some(Reply::Rival(Err(refused("You are not allowed to edit on secret-syncs. Give the right.")))),
        other => answer(other),
    });
    to_review(&mut h);
    let screen = h.keys("T Right Enter").screen();
    assert!(screen.contains("Give the right.") && screen.contains("own sync legacy-billing"), "{screen}");

    let mut quiet = Harness::new(120, 40);
    quiet.answers = Box::new(|call| match call {
        Call::ServerRivals { .. } => Some(Reply::Rivals(Err(refused("no such thing")))),
        other => answer(other),
    });
    to_review(&mut quiet);
    let screen = quiet.screen();
    assert!(!screen.contains("no such thing") && !screen.contains("take over"), "{screen}");
}

#[test]
fn a_connection_in_use_is_not_offered_for_removal() {
    let mut h = Harness::new(80, 24);
    h.hold = true;
    h.keys("c Down d");
    let screen = h.screen();
    assert!(screen.contains("prod-aws cannot be removed") && screen.contains("2 syncs use it: payments-prod, web-prod."), "{screen}");
    h.keys("Right Enter");
    assert!(!h.asked().contains(&"remove connection") && h.app.modals.is_empty(), "{:?}", h.asked());
    h.keys("Down d");
    assert!(h.screen().contains("Remove the connection test-aws?"), "{}", h.screen());
    h.keys("Right Enter");
    assert!(h.asked().contains(&"remove connection"), "{:?}", h.asked());
}

#[test]
fn where_letters_are_typed_the_footer_names_the_key_that_helps() {
    let footer = |h: &mut Harness| h.screen().trim_end().lines().last().unwrap_or_default().to_string();
    let mut h = Harness::new(80, 24);
    assert!(footer(&mut h).contains("? help"), "{}", h.screen());
    for keys in ["c n Tab", "/", "n Enter Enter"] {
        let mut h = Harness::new(80, 24);
        h.keys(keys);
        assert!(footer(&mut h).contains("F1 help") && !footer(&mut h).contains("? help"), "{keys}: {}", h.screen());
        h.text("?");
        assert!(h.screen().contains('?'), "typed");
        h.keys("F1");
        assert!(h.screen().contains("Keys that work here"), "{keys}: {}", h.screen());
    }
}
