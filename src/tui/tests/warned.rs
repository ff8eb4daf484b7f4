//! What an operator is warned of: files that cannot be used, removals that undo themselves.

use super::super::fx::Call;
use super::super::testing::Harness;
use super::board;
use crate::model::run::RunKind;

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
