//! Rendered screens at the design sizes.

use super::{SIZES, scene, scenes, to_destination, to_details, to_options, to_review};
use crate::model::board::Board;
use crate::tui::fx::{Call, Reply};
use crate::tui::testing::{Harness, answer, board, drift_check, refused};
use crate::tui::theme::Theme;

#[test]
fn dashboard_at_every_size() {
    for (width, height) in [(60, 20), (80, 24), (120, 40), (200, 60)] {
        let mut h = Harness::new(width, height);
        snapshot!(format!("dashboard-{width}x{height}"), h);
    }
}

#[test]
fn dashboard_tabs() {
    for (n, tab) in ["overview", "live", "secrets", "history"].iter().enumerate() {
        scene(&format!("dashboard-{tab}"), |h| {
            h.keys("Down Down Down").keys(&(n + 1).to_string());
        });
    }
    scenes(&[("dashboard-failed", "Down 2"), ("dashboard-waiting", "Down Down"), ("dashboard-zoomed", "Down Down Down 2 Enter")]);
}

/// A drift check found what another hand had changed, and mended it.
#[test]
fn dashboard_after_a_drift_check() {
    for (width, height) in SIZES {
        for (tab, name) in [("3", "secrets"), ("4", "history")] {
            let mut h = Harness::cold(width, height);
            h.answers = Box::new(|call| match call {
                Call::History { .. } => Some(Reply::History(Ok(vec![drift_check()]))),
                other => answer(other),
            });
            h.begin(board());
            h.keys("Down Down Down Down Down").keys(tab);
            snapshot!(format!("dashboard-drift-{name}-{width}x{height}"), h);
        }
    }
}

#[test]
fn dashboard_filter_and_selection() {
    scene("dashboard-filter", |h| {
        h.keys("/");
        h.text("us-east");
    });
    scene("dashboard-selected", |h| {
        h.keys("Space Down Space");
    });
}

#[test]
fn dashboard_without_syncs_or_answers() {
    for (width, height) in SIZES {
        let mut h = Harness::cold(width, height);
        snapshot!(format!("dashboard-loading-{width}x{height}"), h);
        let mut h = Harness::cold(width, height);
        h.begin(Board::default());
        snapshot!(format!("dashboard-empty-{width}x{height}"), h);
        let mut h = Harness::cold(width, height);
        h.send(crate::tui::app::Msg::Lost(refused("the state database is locked by another process: close it, or wait")));
        snapshot!(format!("dashboard-lost-{width}x{height}"), h);
    }
}

#[test]
fn dashboard_in_ascii_and_without_colour() {
    let mut h = Harness::new(80, 24);
    h.theme(Theme { colour: false, ascii: true }).keys("Down Down Down 2");
    let screen = h.screen();
    assert!(screen.is_ascii(), "{screen}");
    snapshot!("dashboard-ascii-80x24", h);
    let buffer = h.buffer();
    assert!(buffer.content().iter().all(|c| c.fg == ratatui::style::Color::Reset && c.bg == ratatui::style::Color::Reset));
}

#[test]
fn wizard_steps() {
    scenes(&[
        ("wizard-choose", "n"),
        ("wizard-source", "n Enter"),
        ("wizard-source-picker", "n Enter Enter Down Enter Down"),
        ("wizard-path", "n Enter Enter Enter Down Down Enter Ctrl-O"),
    ]);
    scene("wizard-destination", |h| {
        to_destination(h);
    });
    scene("wizard-options", |h| {
        to_options(h);
        h.keys("Tab");
        h.text("BILL_{{secretKey}}");
    });
    scene("wizard-details", |h| {
        to_details(h);
        h.text("Billing Vault");
        h.keys("Tab");
        h.text("keys of the billing");
        h.keys("Enter");
        h.text("service");
    });
    scene("wizard-review", |h| {
        to_review(h);
    });
    scene("wizard-json", |h| {
        to_review(h);
        h.keys("J");
    });
    scene("wizard-approval", |h| {
        to_review(h);
        h.keys("Enter");
        h.text("billing-va");
    });
}

#[test]
fn other_screens() {
    scenes(&[("connections", "c Down t"), ("connection-new", "c n"), ("plan", "p"), ("engine", "E"), ("help", "?")]);
    scene("palette", |h| {
        h.keys(":");
        h.text("sync");
    });
    scenes(&[
        ("question-remove", "R"),
        ("question-delete", "d"),
        ("question-import", "Down Down Down i"),
        ("question-approval", "A"),
        ("question-quit", "q"),
    ]);
}
