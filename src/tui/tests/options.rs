//! The Sync Options step of each kind of destination: what its page lists, what is ours, and
//! nothing else.

use serde_json::json;

use super::super::fx::{Call, Reply};
use super::super::testing::{Harness, answer, board, connections};
use crate::destination::Choice;

/// A new sync to the `at`th destination of the list, on its Sync Options step: a connection of
/// each app is stored, and the first choice of each list is taken.
fn at_options(at: usize, app: &'static str, lists: usize, address: &str) -> Harness {
    let mut h = Harness::cold(80, 24);
    h.answers = Box::new(move |call| match call {
        Call::Connections => {
            let mut all = connections();
            all.retain(|c| c.app != app);
            let mut own = all[0].clone();
            (own.id, own.name, own.app, own.public) = (format!("id-{app}"), app.into(), app.into(), json!({}));
            all.push(own);
            Some(Reply::Connections(Ok(all)))
        }
        Call::Choices(ask) if ask.field.ends_with("Ocid") => {
            let kind = ask.field.trim_end_matches("Ocid");
            Some(Reply::Choices(Ok(vec![Choice { value: format!("ocid1.{kind}.oc1.eu-frankfurt-1.aaaa.bbbb"), label: "One".into(), detail: None }])))
        }
        other => answer(other),
    });
    h.begin(board());
    h.keys(&format!("n {} Enter Enter Enter Down Down Enter Enter", "Down ".repeat(at)));
    h.text(address);
    h.keys(&"Enter Enter ".repeat(lists)).keys("PageDown");
    h
}

#[test]
fn options_of_every_other_kind() {
    for (at, app, lists, address, kind) in [
        (1, "azure-key-vault", 0, "kv-billing", "azure-key-vault"),
        (2, "azure-devops", 1, "", "azure-devops"),
        (3, "bitbucket", 2, "", "bitbucket"),
        (4, "oci", 3, "", "oci-vault"),
    ] {
        let mut h = at_options(at, app, lists, address);
        let screen = h.screen();
        assert!(screen.contains("◉ Sync Options"), "{kind}: {screen}");
        snapshot!(format!("wizard-options-{kind}-80x24"), h);
    }
}
