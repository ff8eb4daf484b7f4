//! The live picture that all screens draw.

use super::super::testing::{board, history};
use crate::model::board::Event;
use crate::model::run::RunRecord;

#[test]
fn the_end_of_a_run_takes_no_other_run_out_of_the_picture() {
    let mut board = board();
    let (name, run) = board.cards.iter().find_map(|(n, c)| Some((n.clone(), c.run.clone()?))).expect("a run");
    let mut record = history().remove(0);
    record.sync = name.clone();
    let ended = |record: &RunRecord| Event::Finished { sync: name.clone(), record: Box::new(record.clone()) };
    record.id = "the-one-before".into();
    board.apply(&ended(&record));
    assert_eq!(board.cards[&name].run.as_ref().map(|r| &r.id), Some(&run.id));
    record.id = run.id;
    board.apply(&ended(&record));
    assert!(board.cards[&name].run.is_none());
}
