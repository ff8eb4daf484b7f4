//! What is typed in a picker, and what is taken: never another entry than the one meant.

use super::super::app::Page;
use super::super::fx::{Call, Reply};
use super::super::testing::{Harness, answer, refused, with_one};
use crate::destination::Choice;
use crate::service::{ServiceError, ServiceErrorKind};

/// 500 projects, whose names hold no digit of their ids.
fn projects() -> Vec<Choice> {
    (0..500)
        .map(|n| Choice { value: format!("12345678-90ab-cdef-1234-5678{n:08}"), label: format!("Project {n}"), detail: Some("private".into()) })
        .collect()
}

/// On the project of a new Azure DevOps sync, whose list is answered so.
fn at_the_project(list: impl Fn() -> Option<Reply> + 'static) -> Harness {
    let mut h = Harness::new(80, 24);
    h.answers = Box::new(move |call| match call {
        Call::Choices(_) => list(),
        other => with_one("azure-devops", other),
    });
    h.begin(super::super::testing::board());
    h.keys("n Down Down Enter Enter Enter Down Down Enter Enter");
    while !h.screen().contains("▸ Project") {
        h.keys("Tab");
    }
    h
}

fn many() -> Option<Reply> {
    Some(Reply::Choices(Ok(projects())))
}

/// What the draft says of its target.
fn taken(h: &Harness) -> serde_json::Value {
    match h.app.pages.last() {
        Some(Page::Wizard(w)) => w.document()["destinationConfig"].clone(),
        _ => panic!("the wizard is open"),
    }
}

#[test]
fn tab_takes_what_was_typed_or_the_entry_of_that_name() {
    // Nothing is called so, many are called alike.
    let mut h = at_the_project(many);
    h.text("Project 5x").keys("Tab");
    assert_eq!(taken(&h)["devopsProjectId"], "Project 5x", "{}", h.screen());
    let mut h = at_the_project(many);
    h.text("Projec").keys("Tab");
    assert_eq!(taken(&h)["devopsProjectId"], "Projec", "{}", h.screen());
    // The one called so is taken by its id, by both keys.
    for key in ["Tab", "Enter"] {
        let mut h = at_the_project(many);
        h.text("Project 12");
        assert!(h.screen().contains("▸ Project 12 "), "{}", h.screen());
        h.keys(key);
        assert_eq!(taken(&h)["devopsProjectId"], "12345678-90ab-cdef-1234-567800000012", "{}", h.screen());
    }
    // What the arrows marked is meant.
    let mut h = at_the_project(many);
    h.text("Project 1").keys("Down Tab");
    assert_ne!(taken(&h)["devopsProjectId"], "12345678-90ab-cdef-1234-567800000001", "{}", h.screen());
}

#[test]
fn two_of_one_name_are_told_apart_by_the_arrows() {
    let same = |id: &str| Choice { value: id.into(), label: "Shop".into(), detail: None };
    let mut h = at_the_project(move || Some(Reply::Choices(Ok(vec![same("id-one"), same("id-two")]))));
    h.text("Shop").keys("Tab");
    assert!(taken(&h).get("devopsProjectId").is_none() && h.screen().contains("id-two"), "{}", h.screen());
    h.keys("Down Tab");
    assert_eq!(taken(&h)["devopsProjectId"], "id-two", "{}", h.screen());
}

#[test]
fn the_typed_text_is_one_key_away_however_many_match() {
    let mut h = at_the_project(many);
    h.text("Proj");
    let screen = h.screen();
    assert!(screen.contains("▸ Project 0") && screen.contains("use Proj as typed"), "{screen}");
    h.keys("Down Enter");
    assert_eq!(taken(&h)["devopsProjectId"], "Proj", "{}", h.screen());
}

#[test]
fn a_list_that_arrives_changes_nothing_that_is_marked() {
    let mut h = at_the_project(|| None);
    h.text("Proj");
    assert!(h.screen().contains("▸ use Proj as typed"), "{}", h.screen());
    h.answers = Box::new(|call| match call {
        Call::Choices(_) => many(),
        other => answer(other),
    });
    h.release();
    let screen = h.screen();
    assert!(screen.contains("▸ use Proj as typed") && screen.contains("Project 0"), "{screen}");
    h.keys("Enter");
    assert_eq!(taken(&h)["devopsProjectId"], "Proj", "{}", h.screen());
}

#[test]
fn names_are_searched_and_ids_only_when_they_are_nearly_whole() {
    let mut h = at_the_project(many);
    h.text("34");
    // 34, 134, 234, 334, 340 to 349, 434, and those with a digit in between (304 and the like).
    let expected = (0..500).filter(|n| {
        let digits = n.to_string();
        digits.find('3').is_some_and(|at| digits[at..].contains('4'))
    });
    let expected = format!("{} of 500", expected.count());
    assert!(h.screen().contains(&expected), "{expected}: {}", h.screen());
    h.keys("Ctrl-U").text("12345678-90ab-cdef-1234-567800000444");
    assert!(h.screen().contains("▸ Project 444") && h.screen().contains("1 of 500"), "{}", h.screen());
    h.keys("Ctrl-U").text("12345678-9");
    assert!(h.screen().contains("500 of 500"), "{}", h.screen());
}

#[test]
fn a_chosen_field_opens_with_the_whole_list() {
    for fresh in [false, true] {
        let mut h = at_the_project(many);
        h.text("Project 77").keys("Enter Shift-Tab");
        if fresh {
            // The list is not at hand: asked for again, and answered later.
            if let Some(Page::Wizard(w)) = h.app.pages.last_mut() {
                let item = w.forms[1].item_mut("destinationConfig.devopsProjectId").expect("the field");
                (item.choices.value, item.asked) = (None, None);
            }
            h.hold = true;
        }
        h.keys("Ctrl-O");
        h.release();
        let screen = h.screen();
        assert!(screen.contains("▸ Project 77 ") && screen.contains("500 of 500"), "{screen}");
        h.keys("Enter");
        assert_eq!(taken(&h)["devopsProjectId"], "12345678-90ab-cdef-1234-567800000077");
    }
    // A value that no list holds stays, too.
    let mut h = at_the_project(many);
    h.text("elsewhere").keys("Tab Shift-Tab Ctrl-O Enter");
    assert_eq!(taken(&h)["devopsProjectId"], "elsewhere", "{}", h.screen());
}

#[test]
fn pages_and_ends_of_a_list_are_those_that_are_seen() {
    let mut h = at_the_project(many);
    h.keys("Down");
    let seen = |h: &mut Harness| h.screen().lines().filter(|l| l.contains("private")).count();
    let rows = seen(&mut h);
    h.keys("PageDown");
    let screen = h.screen();
    assert!(screen.contains(&format!("▸ Project {} ", rows - 1)), "{rows} rows: {screen}");
    h.keys("End");
    assert!(h.screen().contains("▸ Project 499"), "{}", h.screen());
    h.keys("Home");
    assert!(h.screen().contains("▸ Project 0 "), "{}", h.screen());
}

#[test]
fn a_question_tells_its_time_and_can_be_given_up() {
    let mut h = at_the_project(|| None);
    h.keys("Down");
    h.app.world.now += jiff::SignedDuration::from_secs(75);
    let words = h.words();
    assert!(words.contains("asking for 75 s") && words.contains("Typing works meanwhile. Esc gives up."), "{}", h.screen());
    assert_eq!(h.asked(), ["choices"]);
    h.keys("Esc");
    assert!(h.asked().is_empty(), "{:?}", h.asked());
    h.keys("Down");
    assert_eq!(h.asked(), ["choices"], "opened again, asked again");
    assert!(h.screen().contains("asking for 0 s"), "{}", h.screen());
}

#[test]
fn an_opened_list_shows_no_old_failure() {
    let mut h = at_the_project(many);
    h.keys("Down");
    h.answers = Box::new(|_| Some(Reply::Choices(Err(refused("out of order")))));
    h.keys("Ctrl-R");
    assert!(h.screen().contains("out of order"), "{}", h.screen());
    h.keys("Esc");
    h.hold = true;
    h.keys("Down");
    assert!(!h.screen().contains("out of order"), "{}", h.screen());
    assert_eq!(h.asked(), ["choices"]);
}

#[test]
fn where_a_list_is_refused_the_field_says_what_form_is_needed() {
    let forbidden = || Some(Reply::Choices(Err(ServiceError::new(ServiceErrorKind::Forbidden, "azure-devops 403: TF50309"))));
    let mut h = at_the_project(forbidden);
    h.keys("Down");
    assert!(h.words().contains("a name cannot be looked up: type the project's id (a GUID)"), "{}", h.screen());
    h.text("Project 12").keys("Enter PageDown");
    let screen = h.screen();
    assert!(screen.contains("◉ Destination") && h.words().contains("✗ The projects may not be listed"), "{screen}");
    h.keys("Ctrl-U").text("12345678-90ab-cdef-1234-567800000012").keys("Enter PageDown");
    assert!(h.screen().contains("◉ Sync Options"), "{}", h.screen());
    // A list that failed is no list that is refused: the name may do.
    let mut h = at_the_project(|| Some(Reply::Choices(Err(refused("azure-devops 500")))));
    h.text("Project 12").keys("Enter PageDown");
    assert!(h.screen().contains("◉ Sync Options"), "{}", h.screen());
}
