//! Pickers: an error, nothing, much, and answers that come late.

use super::SIZES;
use crate::tui::fx::{Call, Reply};
use crate::tui::testing::{Harness, answer, refused};

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
    h.keys("Down");
    let page = h.screen().lines().filter(|l| l.contains("│") && l.contains(" w0")).count() - 1;
    h.keys(&"PageDown ".repeat(20));
    assert!(h.screen().contains(&format!("▸ w{:03}", 20 * page)), "{page} a page: {}", h.screen());
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
    h.send(crate::tui::app::Msg::Reply(asked[0], Reply::Projects(Err(refused("late")))));
    assert!(!h.screen().contains("late"));
    h.release();
    h.keys("Down");
    assert!(h.screen().contains("Acme"), "{}", h.screen());
}
