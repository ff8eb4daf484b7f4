//! The Destination step tests the target, not the connection alone.

use serde_json::json;

use super::super::fx::{Call, Reply};
use super::super::testing::{Harness, answer, connections, refused};
use crate::destination::TestReport;

/// What is answered where an Azure connection is stored.
fn with_azure(call: &Call) -> Option<Reply> {
    if !matches!(call, Call::Connections) {
        return answer(call);
    }
    let mut all = connections();
    let mut azure = all[3].clone();
    (azure.id, azure.name, azure.app) = ("id-azure".into(), "azure".into(), "azure-key-vault".into());
    all.push(azure);
    Some(Reply::Connections(Ok(all)))
}

/// A harness that knows an Azure connection, on the Destination step of a new Key Vault sync.
fn at_the_vault(report: impl Fn(&Call) -> Option<Reply> + 'static) -> Harness {
    let mut h = Harness::cold(80, 24);
    h.answers = Box::new(move |call| match call {
        Call::TestAt { .. } => report(call),
        other => with_azure(other),
    });
    h.begin(super::board());
    // The destination, then project, environment, and the path's default; then the address.
    h.keys("n Down Enter Enter Enter Down Down Enter Enter");
    h.text("kv-billing");
    h
}

#[test]
fn a_vault_is_asked_when_its_address_is_filled_in() {
    let mut h = at_the_vault(|_| None);
    h.keys("Ctrl-T");
    let asked: Vec<_> =
        h.open.iter().filter_map(|(_, call)| if let Call::TestAt { name, config } = call { Some((name, config)) } else { None }).collect();
    assert_eq!(asked.len(), 1, "{}", h.screen());
    assert_eq!((asked[0].0.as_str(), &asked[0].1["vaultBaseUrl"]), ("azure", &json!("https://kv-billing.vault.azure.net")));

    let good = TestReport { identity: "app 1".into(), notes: vec!["The vault kv-billing answers, and its secrets can be listed.".into()] };
    let mut h = at_the_vault(move |_| Some(Reply::Report(Ok(good.clone()))));
    h.keys("Ctrl-T");
    assert!(h.screen().contains("✓ The vault kv-billing answers"), "{}", h.screen());
}

#[test]
fn a_vault_that_does_not_answer_is_told_also_one_step_later() {
    let mut h = at_the_vault(|_| Some(Reply::Report(Err(refused("the vault's name does not resolve")))));
    h.keys("PageDown");
    let screen = h.screen();
    assert!(screen.contains("◉ Sync Options") && screen.contains("name does not resolve"), "{screen}");
    h.keys("PageUp");
    let screen = h.screen();
    assert!(screen.contains("✗ does not work") && screen.contains("name does not resolve"), "{screen}");
    h.keys("Tab");
    h.text("2");
    let screen = h.screen();
    assert!(screen.contains("kv-billing2") && !screen.contains("✗ does not work"), "of the new address nothing is known yet: {screen}");
}

#[test]
fn a_long_failure_is_read_without_moving() {
    let long = format!("azure-key-vault 403 ForbiddenByRbac: list secrets: {} Assign the role.", "Caller is not authorized. ".repeat(16));
    let mut h = at_the_vault(move |_| Some(Reply::Report(Err(refused(&long)))));
    h.keys("Ctrl-T");
    let screen = h.screen();
    assert!(screen.contains("▸ Vault Base URL") && screen.contains("Assign the role."), "{screen}");
}

#[test]
fn a_field_for_unusual_documents_is_not_offered() {
    let mut h = at_the_vault(|_| None);
    h.keys("PageDown");
    let screen = h.screen();
    assert!(screen.contains("Disable Secret Deletion") && !screen.contains("Leave Certificates Alone"), "{screen}");
}

#[test]
fn a_chord_is_no_text_for_a_list() {
    let mut h = Harness::new(80, 24);
    h.keys("n Enter Enter Enter Down Down Enter Ctrl-U");
    let screen = h.screen();
    assert!(screen.contains("▸ Secret Path") && !screen.contains("as typed"), "cleared, and nothing typed: {screen}");
}

#[test]
fn the_row_that_adds_a_connection_is_no_connections_name() {
    let mut h = Harness::cold(80, 24);
    h.begin(super::board());
    // Key Vault, for which no connection is stored: the field's list offers to add one.
    h.keys("n Down Enter Enter Enter Down Down Enter Enter");
    assert!(h.screen().contains("◉ Destination"), "{}", h.screen());
    h.keys("Down Enter");
    assert!(h.screen().contains("New Azure connection"), "{}", h.screen());
    // Once it is there, it is taken, under its own name.
    h.answers = Box::new(with_azure);
    h.keys("Esc Down Ctrl-R Esc");
    let screen = h.screen();
    assert!(screen.contains("◉ Destination") && screen.contains("azure ▾") && !screen.contains("+ new"), "{screen}");
}
