//! Hostile names, any keys at any size, and what a moved cursor costs.

use crate::model::board::Event;
use crate::tui::testing::{Harness, board, run};

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
    let mut wire = crate::tui::wire::Wire::new(ratatui::layout::Size::new(80, 24));
    let mut frame = |h: &mut Harness| {
        let buffer = h.buffer();
        wire.buffer().merge(&buffer);
        wire.finish(None).len()
    };
    h.keys("Down Down Down Down Down");
    frame(&mut h);
    h.send(crate::tui::app::Msg::Input(crossterm::event::Event::Key(crossterm::event::KeyEvent::from(crossterm::event::KeyCode::Down))));
    let moved = frame(&mut h);
    assert!((1..60).contains(&moved), "{moved} bytes");
    assert_eq!(frame(&mut h), 0, "nothing changed");
}

#[test]
fn too_small_says_so_and_recovers() {
    let mut h = Harness::new(39, 9);
    assert!(h.screen().replace('\n', " ").contains("kms-sync needs 40x10"), "{}", h.screen());
    h.send(crate::tui::app::Msg::Input(crossterm::event::Event::Resize(80, 24)));
    assert!(h.screen().contains("Syncs 8"));
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
