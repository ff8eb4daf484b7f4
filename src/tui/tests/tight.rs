//! Little room: what is cut, what never is, and questions on the smallest screen.

use super::super::app::Msg;
use super::super::fx::{Call, Reply};
use super::super::testing::{Harness, answer, board, history, plan, run, start};
use crate::model::board::{LiveRun, Waiting};
use crate::model::plan::{Action, ApprovalDoc, ChangeDoc, PlanDoc};
use crate::model::run::{Outcome, RunKind, RunStatus, SecretOutcome, Trigger};

/// Two names that differ in the middle only, as long as a folder's keys under a schema get.
const TWINS: [&str; 2] = ["payments-production-STRIPE-live-account-secret-key", "payments-production-ADYEN-live-account-secret-key"];

fn key(name: &str, reason: Option<&str>) -> SecretOutcome {
    SecretOutcome { key: name.into(), source_key: None, outcome: Outcome::Created, reason: reason.map(str::to_string) }
}

#[test]
fn names_are_whole_where_there_is_room_for_them() {
    let mut h = Harness::new(80, 24);
    let live = LiveRun { recent: TWINS.iter().map(|n| key(n, None)).collect(), active: Vec::new(), ..run() };
    let mut picture = board();
    picture.cards.get_mut("billing-vault").expect("a card").run = Some(live);
    h.send(Msg::Board(Box::new(picture)));
    h.keys("Down Down Down 2");
    for name in TWINS {
        assert!(h.screen().contains(name), "{}", h.screen());
    }
    // The records of the history, one of them with a reason beside it.
    let mut h = Harness::new(80, 24);
    h.answers = Box::new(|call| match call {
        Call::History { .. } => {
            let mut runs = history();
            runs[0].secrets = vec![key(TWINS[0], None), key(TWINS[1], Some("403 AccessDenied: the role lacks PutSecretValue on it"))];
            Some(Reply::History(Ok(runs)))
        }
        other => answer(other),
    });
    h.keys("Down 3");
    let screen = h.screen();
    assert!(screen.contains(TWINS[0]), "{screen}");
    assert!(screen.contains("payments-production") && screen.contains("account-secret-key  403 AccessDenied"), "{screen}");
}

fn with_plan(plan: impl Fn() -> PlanDoc + 'static) -> Harness {
    let mut h = Harness::new(80, 24);
    h.answers = Box::new(move |call| match call {
        Call::Plan { .. } => Some(Reply::Plan(Ok(plan()))),
        other => answer(other),
    });
    h
}

fn creation(name: &str) -> ChangeDoc {
    ChangeDoc { action: Action::Create, key: name.into(), source_key: None, owned: true, reason: None }
}

#[test]
fn a_plan_tells_long_names_apart() {
    let mut h =
        with_plan(|| PlanDoc { changes: TWINS.iter().map(|n| creation(n)).collect(), needs_approval: Vec::new(), conflicts: Vec::new(), ..plan() });
    h.keys("p");
    for name in TWINS {
        assert!(h.screen().contains(name), "{}", h.screen());
    }
}

#[test]
fn the_end_of_a_wait_is_never_cut() {
    for (width, height) in [(80, 24), (120, 40)] {
        let mut h = Harness::new(width, height);
        let mut picture = board();
        let reason = "another run writes to the same destination object at this moment, and both would overwrite each other";
        let waiting = Waiting { reason: reason.into(), until: Some(start() + jiff::SignedDuration::from_secs(75)) };
        picture.cards.get_mut("oci-staging").expect("a card").run = Some(LiveRun { waiting: Some(waiting), ..run() });
        h.send(Msg::Board(Box::new(picture)));
        assert!(h.screen().lines().any(|l| l.contains("oci-staging") && l.contains("another run wri") && l.contains("…, 75 s")), "{}", h.screen());
        h.keys("E");
        assert!(h.screen().lines().any(|l| l.contains("waiting: another run writes to") && l.contains("…, 75 s")), "{}", h.screen());
    }
}

/// Every line of a question, and each of its buttons, is seen on the smallest screen.
#[test]
fn questions_fit_the_smallest_screen() {
    let mut h = Harness::new(40, 10);
    h.keys("A");
    let mut seen = h.screen();
    assert!(seen.contains("Keep them, always") && seen.contains("1/3 →"), "{seen}");
    let answers = h.app.modals.len();
    for _ in 0..6 {
        h.keys("Down");
        seen += &h.screen();
    }
    for text in ["BILL_OLD_CERT", "BILL_LEGACY", "type the sync's"] {
        assert!(seen.contains(text), "{text}: {seen}");
    }
    h.keys("Right");
    assert!(h.screen().contains("Keep them this time") && !h.screen().contains("Keep them, always"), "{}", h.screen());
    h.keys("Right");
    assert!(h.screen().contains("Delete 2 (type the name)"), "{}", h.screen());
    h.text("legacy");
    assert!(h.screen().contains("> legacy"), "{}", h.screen());
    assert_eq!(h.app.modals.len(), answers, "nothing was answered");
    snapshot!("question-approval-40x10", h);
    for (keys, text) in [("d", "Keep it"), ("R", "Keep them"), ("q", "Stay")] {
        let mut h = Harness::new(40, 10);
        h.keys(keys);
        let screen = h.screen();
        assert!(screen.contains(&format!("[ {text} ]")), "{screen}");
    }
}

#[test]
fn five_hundred_keys_that_ask_are_scrolled_to_the_last() {
    let name = |n: usize| format!("payments-production-{n:03}");
    let many = move || {
        let asks = (0..500).map(|n| ApprovalDoc { key: name(n), reason: "not written by this sync".into() }).collect();
        let deletion = |n| ChangeDoc { action: Action::Delete, owned: false, ..creation(&name(n)) };
        PlanDoc { changes: (0..500).map(deletion).collect(), needs_approval: asks, ..plan() }
    };
    for (width, height) in [(80, 24), (40, 10)] {
        let mut h = with_plan(many);
        h.send(Msg::Input(crossterm::event::Event::Resize(width, height)));
        h.keys("A");
        assert!(h.screen().contains("ction-000"), "{}", h.screen());
        // The sentence after the list is below it where all of it scrolls.
        h.keys("End Up Up Up");
        assert!(h.screen().contains("ction-499") || h.screen().contains("ction-496"), "{}", h.screen());
        h.keys("Home PageDown");
        assert!(!h.screen().contains("ction-000"), "{}", h.screen());
    }
    let mut h = with_plan(many);
    super::to_review(&mut h);
    h.keys("End");
    assert!(h.screen().contains("payments-production-499"), "{}", h.screen());
}

#[test]
fn the_history_says_what_each_run_was_for_and_what_it_did() {
    let mut h = Harness::new(80, 24);
    h.answers = Box::new(|call| match call {
        Call::History { .. } => {
            let mut runs = history();
            runs.retain(|r| r.status == RunStatus::Succeeded);
            (runs[0].trigger, runs[1].kind) = (Trigger::Drift, RunKind::Remove);
            Some(Reply::History(Ok(runs)))
        }
        other => answer(other),
    });
    h.keys("Down 4");
    let rows: Vec<String> = h.screen().lines().filter(|l| l.contains("✓ succeeded")).map(str::to_string).collect();
    assert!(rows[0].contains("drift check") && rows[0].contains("2 created "), "{}", h.screen());
    assert!(rows[1].contains("removal (source changed)"), "{}", h.screen());
}
