//! What is asked before harm, and what is told of a sync that needs somebody.

use super::{to_details, to_review};
use crate::model::board::{Event, Waiting};
use crate::tui::fx::{Call, Reply};
use crate::tui::testing::{Harness, answer, board, stored};

#[test]
fn creating_asks_about_foreign_keys_and_lands_on_the_live_pane() {
    let mut h = Harness::new(80, 24);
    to_review(&mut h);
    h.hold = true;
    h.keys("Enter");
    assert!(h.screen().contains("Keep them, always"));
    h.keys("Right Enter");
    assert_eq!(h.asked(), ["create"]);
    h.release();
    // The order of calls: stored, then started without what needs approval.
    assert!(h.app.pages.is_empty());
    assert_eq!(h.app.dashboard.tab, 1);
}

#[test]
fn deleting_foreign_keys_needs_the_name() {
    let mut h = Harness::new(80, 24);
    to_review(&mut h);
    h.hold = true;
    h.keys("Enter Right Right Enter");
    assert!(h.asked().is_empty(), "the name was not typed");
    assert!(h.screen().contains("✗ type billing-vault2 here first"), "{}", h.screen());
    h.text("billing").keys("Enter");
    assert!(h.asked().is_empty() && h.screen().contains("✗ that is not billing-vault2"), "{}", h.screen());
    h.text("-vault2");
    h.keys("Enter");
    assert_eq!(h.asked(), ["create"]);
}

#[test]
fn a_plan_tells_its_time_what_it_waits_for_and_can_be_given_up() {
    let mut h = Harness::new(80, 24);
    to_details(&mut h);
    h.text("billing-vault2");
    h.hold = true;
    h.keys("PageDown");
    h.app.world.now += jiff::SignedDuration::from_secs(65);
    let screen = h.screen();
    assert!(screen.contains("waited 65 s for its answers") && screen.contains("Esc goes back and gives up."), "{screen}");
    let waiting = Some(Waiting { reason: "902 of 1000 calls".into(), until: None });
    h.event(Event::Waiting { sync: "another".into(), waiting: waiting.clone() });
    assert!(!h.screen().contains("902 of 1000"), "{}", h.screen());
    h.event(Event::Waiting { sync: "billing-vault2".into(), waiting });
    assert!(h.screen().contains("(902 of 1000 calls)"), "{}", h.screen());
    h.keys("Esc");
    assert!(h.asked().is_empty(), "nothing is waited for: {:?}", h.asked());
}

#[test]
fn what_earlier_configurations_left_is_shown_and_can_be_taken_away_alone() {
    let mut h = Harness::new(120, 40);
    h.answers = Box::new(|call| match answer(call) {
        Some(Reply::Sync(Ok(mut doc))) => {
            doc.left_behind = Some(12);
            Some(Reply::Sync(Ok(doc)))
        }
        other => other,
    });
    h.keys("Down Down Down 1 r");
    assert!(h.screen().contains("12 keys of an earlier"), "{}", h.screen());
    h.hold = true;
    h.keys("R");
    assert!(h.screen().contains("Only the 12 left behind"), "{}", h.screen());
    h.keys("Right Right Enter");
    let started = h.open.iter().any(|(_, call)| matches!(call, Call::Start(request) if request.left_behind));
    assert!(started, "{:?}", h.asked());
}

#[test]
fn a_source_that_cannot_be_read_is_no_sync_in_step() {
    let mut h = Harness::new(80, 24);
    let mut picture = board();
    for card in picture.cards.values_mut() {
        if let Some(next) = &mut card.next {
            (next.unread, next.why) = (true, "since 12:01:00Z prod:/billing cannot be read: connection refused".into());
        }
    }
    h.send(crate::tui::app::Msg::Board(Box::new(picture)));
    let screen = h.screen();
    assert!(screen.contains("no source") && !screen.contains("✓ in sync"), "{screen}");
}

#[test]
fn escape_keeps_what_was_typed_until_the_operator_agrees() {
    let mut h = Harness::new(80, 24);
    to_details(&mut h);
    h.text("my-sync");
    h.keys("Esc Esc Esc PageDown PageDown PageDown");
    assert!(h.screen().contains("my-sync"), "{}", h.screen());
    h.keys("Esc Esc Esc Esc Esc");
    assert!(h.screen().contains("Leave without creating the sync?"), "{}", h.screen());
    h.keys("Enter");
    assert_eq!(h.app.pages.len(), 1, "staying is the default");
    h.keys("Esc Right Right Enter");
    assert!(h.app.pages.is_empty());
}

#[test]
fn editing_keeps_what_the_forms_do_not_show() {
    let mut h = Harness::new(80, 24);
    h.keys("End").keys("Up Up e");
    let Some(crate::tui::app::Page::Wizard(wizard)) = h.app.pages.last() else {
        panic!("the wizard is open");
    };
    let mut expected = stored();
    // The connection is kept as it was named; flags keep their place.
    expected["destination"] = "aws-secrets-manager".into();
    assert_eq!(wizard.document(), expected);
    snapshot!("wizard-edit-80x24", h);
}
