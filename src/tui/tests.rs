//! Rendered screens and walks through them.

use super::fx::{Call, Reply};
use super::testing::{Harness, answer, board, refused, run, stored};
use super::theme::Theme;
use crate::model::board::{Board, Event};

macro_rules! snapshot {
    ($name:expr, $harness:expr) => {{
        let screen = $harness.screen();
        let beside = concat!(env!("CARGO_MANIFEST_DIR"), "/src/tui/snapshots");
        insta::with_settings!({prepend_module_to_snapshot => false, omit_expression => true, snapshot_path => beside}, { insta::assert_snapshot!($name, screen) });
    }};
}

mod kept;
mod targets;
mod tight;
mod warned;

const SIZES: [(u16, u16); 2] = [(80, 24), (120, 40)];

/// One scene at both design sizes.
fn scene(name: &str, play: impl Fn(&mut Harness)) {
    for (width, height) in SIZES {
        let mut h = Harness::new(width, height);
        play(&mut h);
        snapshot!(format!("{name}-{width}x{height}"), h);
    }
}

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
    scene("dashboard-failed", |h| {
        h.keys("Down 2");
    });
    scene("dashboard-waiting", |h| {
        h.keys("Down Down");
    });
    scene("dashboard-zoomed", |h| {
        h.keys("Down Down Down 2 Enter");
    });
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
        h.send(super::app::Msg::Lost(refused("the state database is locked by another process: close it, or wait")));
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
    scene("wizard-choose", |h| {
        h.keys("n");
    });
    scene("wizard-source", |h| {
        h.keys("n Enter");
    });
    scene("wizard-source-picker", |h| {
        h.keys("n Enter Enter Down Enter Down");
    });
    scene("wizard-path", |h| {
        h.keys("n Enter Enter Enter Down Down Enter Ctrl-O");
    });
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

/// Source filled in.
fn to_destination(h: &mut Harness) {
    // The destination, then project, environment, and the path's default.
    h.keys("n Enter Enter Enter Down Down Enter Enter");
}

fn to_options(h: &mut Harness) {
    to_destination(h);
    // The first connection; the region and the mapping keep their defaults.
    h.keys("Enter Enter PageDown");
}

fn to_details(h: &mut Harness) {
    to_options(h);
    h.keys("PageDown");
}

fn to_review(h: &mut Harness) {
    to_details(h);
    h.text("billing-vault2");
    h.keys("PageDown");
}

#[test]
fn other_screens() {
    scene("connections", |h| {
        h.keys("c Down t");
    });
    scene("connection-new", |h| {
        h.keys("c n");
    });
    scene("plan", |h| {
        h.keys("p");
    });
    scene("engine", |h| {
        h.keys("E");
    });
    scene("help", |h| {
        h.keys("?");
    });
    scene("palette", |h| {
        h.keys(":");
        h.text("sync");
    });
    scene("question-remove", |h| {
        h.keys("R");
    });
    scene("question-delete", |h| {
        h.keys("d");
    });
    scene("question-import", |h| {
        h.keys("Down Down Down i");
    });
    scene("question-approval", |h| {
        h.keys("A");
    });
    scene("question-quit", |h| {
        h.keys("q");
    });
}

#[test]
fn pickers_with_an_error_nothing_much_and_too_much() {
    let choice = |n: usize| crate::destination::Choice { value: format!("workspace-{n:03}"), label: format!("workspace-{n:03}"), detail: None };
    let open = |h: &mut Harness| {
        h.keys("n Down Down Down Enter Enter Enter Down Down Enter Enter");
        while !h.screen().contains("▸ Workspace") {
            h.keys("Tab");
        }
        h.keys("Down");
    };
    type Answer = Box<dyn Fn() -> crate::tui::fx::Reply>;
    let cases: [(&str, Answer); 3] = [
        (
            "picker-refused",
            Box::new(|| {
                Reply::Choices(Err(refused(
                    "bitbucket 403 Forbidden (request 9f): the token may not list workspaces. Type the value, or add the scope.",
                )))
            }),
        ),
        ("picker-empty", Box::new(|| Reply::Choices(Ok(Vec::new())))),
        ("picker-many", Box::new(move || Reply::Choices(Ok((0..500).map(choice).collect())))),
    ];
    for (name, reply) in cases {
        for (width, height) in SIZES {
            let mut h = Harness::new(width, height);
            h.answers = {
                let refusal = reply();
                let refusal = std::cell::RefCell::new(Some(refusal));
                Box::new(move |call| match call {
                    Call::Choices(_) => refusal.borrow_mut().take(),
                    other => answer(other),
                })
            };
            open(&mut h);
            snapshot!(format!("{name}-{width}x{height}"), h);
            // Whatever the list says, a typed value is taken.
            h.text("my-own-space");
            h.keys("Enter");
            assert!(h.screen().contains("my-own-space"), "{}", h.screen());
        }
    }
    let mut h = Harness::new(80, 24);
    h.answers = Box::new(|call| match call {
        Call::Choices(_) => None,
        other => answer(other),
    });
    open(&mut h);
    snapshot!("picker-loading-80x24", h);
    assert_eq!(h.asked(), ["choices"]);
    h.keys("Esc Esc");
}

#[test]
fn a_long_list_scrolls_with_the_cursor() {
    let mut h = Harness::new(80, 24);
    h.answers = Box::new(|call| match call {
        Call::Choices(_) => Some(Reply::Choices(Ok((0..500)
            .map(|n| crate::destination::Choice { value: format!("w{n:03}"), label: format!("w{n:03}"), detail: None })
            .collect()))),
        other => answer(other),
    });
    h.keys("n Down Down Down Enter Enter Enter Down Down Enter Enter");
    while !h.screen().contains("▸ Workspace") {
        h.keys("Tab");
    }
    h.keys("Down").keys(&"PageDown ".repeat(20));
    assert!(h.screen().contains("▸ w160"), "{}", h.screen());
    h.text("499");
    assert!(h.screen().contains("▸ w499"), "{}", h.screen());
}

#[test]
fn a_stale_answer_is_ignored() {
    let mut h = Harness::new(80, 24);
    h.hold = true;
    h.keys("n Enter");
    let asked: Vec<_> = h.open.iter().map(|(t, _)| *t).collect();
    h.keys("Ctrl-R");
    // The first question was abandoned: an answer that still arrives changes nothing.
    h.send(super::app::Msg::Reply(asked[0], Reply::Projects(Err(refused("late")))));
    assert!(!h.screen().contains("late"));
    h.release();
    h.keys("Down");
    assert!(h.screen().contains("Acme"), "{}", h.screen());
}

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
    h.text("billing-vault2");
    h.keys("Enter");
    assert_eq!(h.asked(), ["create"]);
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
    h.send(super::app::Msg::Board(Box::new(picture)));
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
    let Some(super::app::Page::Wizard(wizard)) = h.app.pages.last() else {
        panic!("the wizard is open");
    };
    let mut expected = stored();
    // The connection is kept as it was named; flags keep their place.
    expected["destination"] = "aws-secrets-manager".into();
    assert_eq!(wizard.document(), expected);
    snapshot!("wizard-edit-80x24", h);
}

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
    h.send(super::app::Msg::Tick);
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
    let Some(super::app::Page::Edit(edit)) = h.app.pages.last() else {
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
    let Some(super::app::Page::Edit(edit)) = h.app.pages.last() else {
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

#[test]
fn hostile_names_cannot_reach_the_terminal() {
    let mut board = board();
    let mut card = board.cards.remove("web-prod").expect("a card");
    card.name = "evil\u{1b}[2J\u{202e}x".into();
    card.destination_label = "a\u{9b}31mb\u{200b}".into();
    board.cards.insert(card.name.clone(), card);
    let mut h = Harness::cold(120, 40);
    h.begin(board);
    assert!(h.screen().chars().all(|c| c == '\n' || !c.is_control() && !('\u{202a}'..='\u{202e}').contains(&c)));
}

#[test]
fn moving_the_cursor_costs_a_few_bytes() {
    let mut h = Harness::new(80, 24);
    let mut wire = super::wire::Wire::new(ratatui::layout::Size::new(80, 24));
    let mut frame = |h: &mut Harness| {
        let buffer = h.buffer();
        wire.buffer().merge(&buffer);
        wire.finish(None).len()
    };
    h.keys("Down Down Down Down");
    frame(&mut h);
    h.send(super::app::Msg::Input(crossterm::event::Event::Key(crossterm::event::KeyEvent::from(crossterm::event::KeyCode::Down))));
    let moved = frame(&mut h);
    assert!((1..60).contains(&moved), "{moved} bytes");
    assert_eq!(frame(&mut h), 0, "nothing changed");
}

#[test]
fn too_small_says_so_and_recovers() {
    let mut h = Harness::new(39, 9);
    assert!(h.screen().replace('\n', " ").contains("kms-sync needs 40x10"), "{}", h.screen());
    h.send(super::app::Msg::Input(crossterm::event::Event::Resize(80, 24)));
    assert!(h.screen().contains("Syncs 7"));
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig { cases: 48, ..Default::default() })]
    /// Any keys at any size: no panic, and every frame can be drawn.
    #[test]
    fn random_keys_never_panic(
        keys in proptest::collection::vec(proptest::sample::select(KEYS), 1..120),
        width in 0u16..160, height in 0u16..50, hold in proptest::bool::ANY,
    ) {
        let mut h = Harness::new(width, height);
        h.hold = hold;
        for (n, key) in keys.iter().enumerate() {
            h.keys(key);
            if n % 3 == 0 {
                h.screen();
            }
        }
        h.paste("pasted\u{1b}[31m text\nwith lines");
        h.event(Event::Run { sync: "web-prod".into(), run: Box::new(run()) });
        h.release();
        h.event(Event::Gone { name: "web-prod".into() });
        h.event(Event::Gone { name: "ci-variables".into() });
        h.screen();
    }
}

const KEYS: &[&str] = &[
    "n",
    "c",
    "p",
    "e",
    "D",
    "d",
    "R",
    "i",
    "A",
    "s",
    "a",
    "l",
    "E",
    "?",
    ":",
    "/",
    "o",
    "1",
    "2",
    "3",
    "4",
    "x",
    "J",
    "j",
    "k",
    "é",
    "漢",
    "Enter",
    "Enter",
    "Enter",
    "Esc",
    "Tab",
    "Tab",
    "Shift-Tab",
    "Up",
    "Down",
    "Down",
    "Left",
    "Right",
    "Space",
    "PageDown",
    "PageUp",
    "Home",
    "End",
    "Backspace",
    "Delete",
    "Ctrl-R",
    "Ctrl-T",
    "Ctrl-E",
    "Ctrl-O",
    "Ctrl-C",
    "F1",
    "F2",
    "y",
    "q",
    "r",
    "v",
    "P",
];
