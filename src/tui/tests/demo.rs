//! The demo's own changes, and the key that pauses them.

use crate::tui::testing::Harness;

fn told(h: &Harness) -> Vec<bool> {
    h.demo.as_ref().expect("a demo").told.lock().expect("one thread").clone()
}

#[test]
fn a_key_pauses_the_play_and_lets_it_go_on() {
    let mut h = Harness::demo(120, 40, false);
    assert!(h.screen().contains("  demo  ") && h.screen().contains("everything here is made up"), "{}", h.screen());
    h.keys("w");
    assert_eq!(told(&h), [true]);
    assert!(h.screen().contains("demo (paused)") && h.screen().contains("(w resumes)"), "{}", h.screen());
    h.keys("w");
    assert_eq!(told(&h), [true, false]);
    assert!(!h.screen().contains("(paused)"), "{}", h.screen());
    // In a question the key is text, or nothing.
    h.keys("d w");
    assert_eq!(told(&h), [true, false]);
}

#[test]
fn where_nothing_plays_there_is_nothing_to_pause() {
    let mut h = Harness::demo(80, 24, true);
    assert!(h.screen().contains("demo (quiet)"), "{}", h.screen());
    h.keys("w");
    assert_eq!(told(&h), [] as [bool; 0]);
    assert!(!h.screen().contains("paused"), "{}", h.screen());
    // Nor in the app itself.
    let mut h = Harness::new(80, 24);
    let before = h.screen();
    h.keys("w");
    assert_eq!(h.screen(), before);
}
