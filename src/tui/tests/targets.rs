//! The Destination step tests the target, not the connection alone.

use serde_json::json;

use super::super::fx::{Call, Reply};
use super::super::testing::{Harness, answer, board, connections, refused, with_one};
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
    h.begin(board());
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
    // Once it answers, the last line no longer says that it does not.
    assert!(screen.contains("✗ Destination: "), "{screen}");
    h.hold = true;
    h.keys("Ctrl-T");
    h.answers = Box::new(|_| Some(Reply::Report(Ok(TestReport::default()))));
    h.release();
    let screen = h.screen();
    assert!(screen.contains("✓ works") && !screen.contains("✗ Destination: "), "{screen}");
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
    h.begin(board());
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

#[test]
fn a_new_connection_that_is_not_made_leaves_the_chosen_one() {
    let mut h = Harness::new(80, 24);
    super::to_destination(&mut h);
    h.keys("Enter Enter");
    let chosen = |h: &Harness| match h.app.pages.last() {
        Some(super::super::app::Page::Wizard(w)) => w.document()["connectionId"].as_str().map(str::to_string),
        _ => None,
    };
    let before = chosen(&h);
    assert_eq!(before.as_deref(), Some("prod-aws"), "{}", h.screen());
    while !h.screen().contains("▸ AWS Connection") {
        h.keys("Shift-Tab");
    }
    h.keys("Ctrl-O Down Down Enter");
    assert!(h.screen().contains("New AWS connection"), "{}", h.screen());
    h.keys("Esc");
    assert_eq!(chosen(&h), before, "{}", h.screen());
    assert!(h.screen().contains("✓ works"), "{}", h.screen());
}

/// Walks to the Destination step of the n-th destination, whose app has one connection.
fn at(n: usize, h: &mut Harness) {
    h.keys("n").keys(&"Down ".repeat(n)).keys("Enter Enter Enter Down Down Enter Enter");
}

#[test]
fn a_group_that_follows_the_environment_is_named() {
    let mut h = Harness::new(80, 24);
    h.answers = Box::new(|call| with_one("azure-devops", call));
    h.begin(board());
    at(2, &mut h);
    let named = "Production (from the environment)";
    assert!(h.screen().contains(named), "{}", h.screen());
    while !h.screen().contains("▸ Project") {
        h.keys("Tab");
    }
    h.keys("Down Enter PageDown PageDown");
    h.text("pipelines");
    h.keys("PageDown");
    assert!(h.words().contains(&format!("Variable Group {named}")), "{}", h.screen());
    // A name of its own goes before.
    h.keys("Esc Esc Esc");
    while !h.screen().contains("▸ Variable Group") {
        h.keys("Tab");
    }
    h.text("shared");
    h.keys("PageDown PageDown PageDown");
    assert!(h.words().contains("Variable Group shared") && !h.screen().contains("from the environment"), "{}", h.screen());
}

#[test]
fn a_compartment_without_vaults_says_so_and_what_to_do() {
    for (width, height) in [(80, 24), (120, 40)] {
        let mut h = Harness::new(width, height);
        h.answers = Box::new(|call| match call {
            Call::Choices(ask) if ask.field != "compartmentOcid" => Some(Reply::Choices(Ok(Vec::new()))),
            Call::Choices(_) => {
                let value = "ocid1.compartment.oc1..aaaaaaaaexample".to_string();
                Some(Reply::Choices(Ok(vec![crate::destination::Choice { value, label: "shop".into(), detail: None }])))
            }
            other => with_one("oci", other),
        });
        h.begin(board());
        at(4, &mut h);
        while !h.screen().contains("▸ Compartment") {
            h.keys("Tab");
        }
        h.keys("Down Enter Down");
        // What the list leaves seen of the next field stands between its lines.
        let words = |h: &mut Harness| h.words().replace("Encryption Key ", "");
        let says = "This compartment has no vaults: choose another compartment above, or type the vault's OCID.";
        assert!(words(&mut h).contains(says), "{}", h.screen());
        h.text("ocid1.vault.oc1.eu-frankfurt-1.aaa.bbb");
        h.keys("Enter Down");
        assert!(words(&mut h).contains("No AES key of this vault is listed here: create one, or type the OCID"), "{}", h.screen());
    }
}
