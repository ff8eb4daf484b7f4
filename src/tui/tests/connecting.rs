//! Connections: credentials typed, pasted and referred to, and the first start.

use crate::model::board::Board;
use crate::tui::fx::{Call, Reply};
use crate::tui::testing::{Harness, answer};

#[test]
fn secrets_are_masked_and_revealed_for_ten_seconds() {
    let mut h = Harness::new(80, 24);
    h.keys("c n Tab");
    h.text("acme-two");
    h.keys("Tab Tab");
    h.text("id");
    h.keys("Tab");
    h.paste("hunter2-canary");
    assert!(!h.screen().contains("hunter2"), "{}", h.screen());
    assert!(h.screen().contains("••••••••"));
    h.keys("F2");
    assert!(h.screen().contains("hunter2-canary"));
    h.now += jiff::SignedDuration::from_secs(11);
    h.send(crate::tui::app::Msg::Tick);
    assert!(!h.screen().contains("hunter2"));
    snapshot!("connection-filled-80x24", h);
}

#[test]
fn a_pasted_pem_key_keeps_its_lines() {
    let mut h = Harness::new(120, 40);
    h.keys("c n");
    // The last app: OCI.
    h.keys("Space Space Space Space Space");
    while !h.screen().contains("▸ Private Key") {
        h.keys("Tab");
    }
    h.paste("-----BEGIN PRIVATE KEY-----\r\nMIIB\r\n-----END PRIVATE KEY-----\r\n");
    assert!(h.screen().contains("3 lines"), "{}", h.screen());
    let Some(crate::tui::app::Page::Edit(edit)) = h.app.pages.last() else {
        panic!("the form is open");
    };
    let key = edit.document()["credentials"]["privateKey"].as_str().expect("a text").to_string();
    assert_eq!(key, "-----BEGIN PRIVATE KEY-----\nMIIB\n-----END PRIVATE KEY-----\n");
}

#[test]
fn references_replace_a_typed_secret() {
    let mut h = Harness::new(80, 24);
    h.keys("c n Tab Tab Tab Tab Ctrl-E");
    h.text("KMS_SECRET");
    let Some(crate::tui::app::Page::Edit(edit)) = h.app.pages.last() else {
        panic!("the form is open");
    };
    assert_eq!(edit.document()["credentials"]["clientSecret"], serde_json::json!({"env": "KMS_SECRET"}));
}

#[test]
fn the_first_start_guides_to_a_first_sync() {
    let mut h = Harness::cold(80, 24);
    h.answers = Box::new(|call| match call {
        Call::Connections => Some(Reply::Connections(Ok(Vec::new()))),
        other => answer(other),
    });
    h.begin(Board::default());
    snapshot!("setup-80x24", h);
    h.keys("Enter");
    assert!(h.screen().contains("New Hanzo KMS connection"));
    h.text("acme");
    h.keys("Tab Tab");
    h.text("id");
    h.keys("Tab");
    h.text("secret");
    h.keys("Tab Tab Tab Tab Tab Enter");
    assert!(h.screen().contains("connection acme saved"), "{}", h.screen());
}

#[test]
fn the_set_up_opens_whichever_answer_comes_first() {
    let none = || Reply::Connections(Ok(Vec::new()));
    let mut h = Harness::cold(80, 24);
    h.hold = true;
    h.begin(Board::default());
    assert!(!h.screen().contains("Welcome"));
    h.answers = Box::new(move |call| match call {
        Call::Connections => Some(none()),
        other => answer(other),
    });
    h.release();
    assert!(h.screen().contains("Welcome to kms-sync"), "{}", h.screen());
}
