//! When each value was last proved. The list tells no version, so above a certain size a run
//! takes the values of unchanged entries for granted; for how long, and what that leaves open,
//! is kept here, over restarts through [`Memory`] (key names and seconds, never values).

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::wire::same_version;
use crate::model::ledger::{LedgerRow, Stamp};
use crate::model::{Memory, Time};

/// A value that was neither written nor read for this long is read by the next run, whoever
/// starts it: the default pause between two drift checks, which read everything anyway.
const BELIEVED: i64 = 6 * 3600;
/// The most that one run reads for that reason, the oldest first: some minutes at the modest
/// starting pace. A drift check and `--verify` know no such bound.
const MOST: usize = 2_000;

/// What is known of one sync's values at one vault.
pub(super) struct Proved {
    memory: Arc<dyn Memory>,
    name: String,
    run: Mutex<Run>,
}

/// This run's part.
#[derive(Default)]
struct Run {
    /// Second of the last proof by key; negative: the second of a reading that did not agree,
    /// which counts until a later write.
    known: BTreeMap<String, i64>,
    /// The stamp of the ledger, of every own entry that is listed.
    ledger: HashMap<String, Option<Stamp>>,
    /// Taken for granted, with the second of the last proof.
    granted: BTreeMap<String, i64>,
    /// This run keeps count at all.
    counts: bool,
}

impl Proved {
    pub fn new(memory: Arc<dyn Memory>, vault: &str, compartment: &str, sync_id: &str) -> Self {
        Self { memory, name: format!("oci/{vault}/{compartment}/{sync_id}/proved"), run: Mutex::default() }
    }

    fn run(&self) -> MutexGuard<'_, Run> {
        self.run.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Which of these own entries, unchanged by the list, this run takes for granted. `others`:
    /// own entries that are read in any case.
    pub fn grant<'r>(&self, unchanged: impl Iterator<Item = &'r LedgerRow>, others: impl Iterator<Item = &'r LedgerRow>, now: Time) -> Vec<String> {
        let kept: BTreeMap<String, i64> = self.memory.get(&self.name).and_then(|v| serde_json::from_value(v).ok()).unwrap_or_default();
        let mut run = self.run();
        *run = Run { counts: true, ..Run::default() };
        let mut by_age: Vec<(i64, &LedgerRow)> = unchanged.map(|row| (last_proof(row, kept.get(&row.key).copied()), row)).collect();
        by_age.sort_by(|(a, x), (b, y)| (a, &x.key).cmp(&(b, &y.key)));
        let due = by_age.partition_point(|(at, _)| *at < now.as_second() - BELIEVED).min(MOST);
        run.ledger = by_age.iter().map(|(_, row)| *row).chain(others).map(|row| (row.key.clone(), row.stamp.clone())).collect();
        run.granted = by_age[due..].iter().map(|(at, row)| (row.key.clone(), *at)).collect();
        run.known = kept.into_iter().filter(|(key, _)| run.ledger.contains_key(key)).collect();
        run.granted.keys().cloned().collect()
    }

    /// Values were read: `(key, stamp of what is there)`, without one where it could not be had.
    pub fn read<'k>(&self, results: impl Iterator<Item = (&'k str, Option<&'k Stamp>)>, now: Time) {
        let mut run = self.run();
        let mut changed = false;
        for (key, stamp) in results {
            let proved = match (stamp, run.ledger.get(key)) {
                (Some(now), Some(Some(then))) => same_version(now, then),
                // No row yet: it gets one only when what was read is what is wanted.
                (Some(_), None) if run.counts => true,
                (_, None) => continue,
                (_, Some(_)) => false,
            };
            let at = if proved { now.as_second() } else { -now.as_second() };
            changed |= run.known.insert(key.to_string(), at) != Some(at);
            run.granted.remove(key);
        }
        if changed && let Ok(value) = serde_json::to_value(&run.known) {
            self.memory.put(&self.name, value);
        }
    }

    /// What this run takes for granted, as a sentence.
    pub fn told(&self) -> Option<String> {
        let run = self.run();
        let oldest = *run.granted.values().min()?;
        let since = match Time::from_second(oldest) {
            Ok(at) if oldest > 0 => format!("The oldest was last read or written at {}", at.strftime("%Y-%m-%dT%H:%M:%SZ")),
            _ => "Some of them have yet to be read for the first time".to_string(),
        };
        let (granted, all) = (run.granted.len(), run.ledger.len());
        Some(format!("{granted} of {all} values were not read again: OCI's list does not show a changed value. {since}; --verify reads all of them."))
    }
}

/// The second up to which a value is known to be what the ledger says; nothing after a reading
/// that did not agree and no write since.
fn last_proof(row: &LedgerRow, known: Option<i64>) -> i64 {
    let written = row.written_at.as_second();
    match known {
        Some(doubt) if doubt < 0 && written < -doubt => i64::MIN,
        Some(proof) => written.max(proof),
        None => written,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::destination::oci::wire::stamp;
    use crate::model::Map;

    #[derive(Default)]
    struct Kept(Mutex<Map>);

    impl Memory for Kept {
        fn get(&self, key: &str) -> Option<serde_json::Value> {
            self.0.lock().expect("lock").get(key).cloned()
        }

        fn put(&self, key: &str, value: serde_json::Value) {
            self.0.lock().expect("lock").insert(key.into(), value);
        }
    }

    const T0: i64 = 1_760_000_000;

    fn at(second: i64) -> Time {
        Time::from_second(T0 + second).expect("a time")
    }

    fn row(key: &str, written: i64) -> LedgerRow {
        LedgerRow {
            fold: key.into(),
            key: key.into(),
            source_key: key.into(),
            remote_id: Some(format!("id-{key}")),
            stamp: Some(stamp(&format!("id-{key}"), 1, "m")),
            previous_stamp: None,
            value_hash: Some("h".into()),
            written_at: at(written),
            intent: None,
            detail: serde_json::Value::Null,
        }
    }

    fn proved(memory: &Arc<Kept>) -> Proved {
        Proved::new(memory.clone(), "v", "c", "s")
    }

    /// One run: what it takes for granted, and then reads the rest of; `edited` do not agree.
    fn run(memory: &Arc<Kept>, rows: &[LedgerRow], now: i64, edited: &[&str]) -> (Vec<String>, Option<String>) {
        let proved = proved(memory);
        let granted = proved.grant(rows.iter(), std::iter::empty(), at(now));
        let read: Vec<(&LedgerRow, Stamp)> = rows
            .iter()
            .filter(|r| !granted.contains(&r.key))
            .map(|r| (r, stamp(&format!("id-{}", r.key), if edited.contains(&r.key.as_str()) { 2 } else { 1 }, "other mark")))
            .collect();
        proved.read(read.iter().map(|(r, s)| (r.key.as_str(), Some(s))), at(now));
        (granted, proved.told())
    }

    #[test]
    fn a_value_is_believed_for_six_hours_and_then_read_again() {
        let memory = Arc::new(Kept::default());
        let rows = [row("A", 0), row("B", 100), row("C", 20_000)];
        let (granted, told) = run(&memory, &rows, 21_000, &[]);
        assert_eq!(granted, ["A", "B", "C"], "everything was written in the last six hours");
        let told = told.expect("told");
        assert!(told.contains("3 of 3 values") && told.contains(&at(0).strftime("%Y-%m-%dT%H:%M:%SZ").to_string()), "{told}");
        // Two are older now: they are read, and believed again, also by the next process.
        assert_eq!(run(&memory, &rows, 21_800, &[]).0, ["C"]);
        let (granted, told) = run(&memory, &rows, 21_900, &[]);
        assert_eq!(granted, ["A", "B", "C"]);
        assert!(told.is_some_and(|t| t.contains(&at(20_000).strftime("%H:%M:%SZ").to_string())), "C is the oldest now");
        // A run that reads all of them takes nothing for granted, and says nothing.
        let all = proved(&memory);
        assert!(all.grant(std::iter::empty(), rows.iter(), at(22_000)).is_empty() && all.told().is_none());
    }

    #[test]
    fn what_did_not_agree_is_read_until_it_was_written() {
        let memory = Arc::new(Kept::default());
        let mut rows = [row("A", 0), row("B", 0)];
        // A plan sees the edit, and writes nothing.
        assert!(run(&memory, &rows, 22_000, &["A"]).0.is_empty());
        for now in [22_001, 22_100] {
            assert_eq!(run(&memory, &rows, now, &["A"]).0, ["B"], "believed no more");
        }
        rows[0].written_at = at(22_200);
        assert_eq!(run(&memory, &rows, 22_201, &[]).0, ["A", "B"]);
        // One that could not be read is no proof either.
        let proved = proved(&memory);
        proved.grant(std::iter::empty(), rows.iter(), at(22_300));
        proved.read([("B", None)].into_iter(), at(22_300));
        assert_eq!(run(&memory, &rows, 22_301, &[]).0, ["A"]);
    }

    #[test]
    fn what_is_taken_over_by_reading_is_proved_by_that() {
        let memory = Arc::new(Kept::default());
        let taken = proved(&memory);
        taken.grant(std::iter::empty(), std::iter::empty(), at(0));
        let read = stamp("id-A", 1, "m");
        taken.read([("A", Some(&read))].into_iter(), at(0));
        // As the planner adopts what it finds equal.
        let rows = [LedgerRow { written_at: Time::UNIX_EPOCH, ..row("A", 0) }];
        let (granted, told) = run(&memory, &rows, 60, &[]);
        assert_eq!(granted, ["A"]);
        assert!(told.is_some_and(|t| t.contains(&at(0).strftime("%H:%M:%SZ").to_string())));
        // In a small sync nothing is kept: all is read every time.
        let small = proved(&Arc::new(Kept::default()));
        small.read([("A", Some(&read))].into_iter(), at(0));
        assert!(small.run().known.is_empty());
    }

    #[test]
    fn one_run_reads_no_more_than_some_minutes_take() {
        let memory = Arc::new(Kept::default());
        let rows: Vec<LedgerRow> = (0..MOST as i64 + 500).map(|n| row(&format!("K{n:04}"), n)).collect();
        let (granted, told) = run(&memory, &rows, 100_000, &[]);
        assert_eq!((granted.len(), granted[0].as_str()), (500, "K2000"), "the oldest first");
        assert!(told.is_some_and(|t| t.contains("500 of 2500")));
        assert_eq!(run(&memory, &rows, 100_060, &[]).0.len(), MOST);
        assert!(!memory.0.lock().expect("lock").is_empty());
    }
}
