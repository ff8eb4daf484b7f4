//! The planner against a model: whatever was there, whatever crashed half-way, a finished run
//! leaves exactly what the source and the options ask for, and the next one writes nothing.

use std::collections::{BTreeMap, HashMap};

use proptest::prelude::*;

use super::testing::{Keys, Memory, config, hasher, settled, source};
use super::*;
use crate::destination::KeySpace;
use crate::model::SecretValue;
use crate::model::ledger::{Intent, LedgerRow, Other};

/// Plans once; values that the planner wants read are read.
fn planned(world: &Memory, ledger: &Ledger, config: &SyncConfig, source: &SourceMap, policy: Policy) -> (Plan, Inventory) {
    let hasher = hasher();
    let mut inventory = world.inventory();
    let wanted = want(config, source, &Keys);
    let inputs = Inputs { config, source, destination: world, inventory: &inventory, ledger, hasher: &hasher, policy };
    let indexes = reads(&inputs, &wanted);
    for i in indexes {
        let value = world.held[&inventory.entries[i].key].value.clone();
        inventory.entries[i].value = Some(SecretValue::new(value));
    }
    let inputs = Inputs { config, source, destination: world, inventory: &inventory, ledger, hasher: &hasher, policy };
    (compute(&inputs, wanted, &HashMap::new()), inventory)
}

/// One run, which may die after `crash` operations: the last one done, its confirmation lost.
fn run(world: &mut Memory, ledger: &mut Ledger, config: &SyncConfig, source: &SourceMap, allow: bool, crash: Option<usize>) -> Plan {
    let hasher = hasher();
    let (plan, _) = planned(world, ledger, config, source, Policy { allow_all: allow, ..Policy::default() });
    for row in &plan.adopt {
        ledger.rows.insert(row.fold.clone(), row.clone());
    }
    if plan.stops().is_some() {
        return plan;
    }
    let changes: Vec<&Change> = plan.allowed().collect();
    for change in &changes {
        let wish = change.desired.map(|i| &plan.desired[i]);
        let mut row = ledger.rows.get(&change.fold).cloned().unwrap_or(LedgerRow {
            fold: change.fold.clone(),
            key: change.key.clone(),
            source_key: change.source_key.clone().unwrap_or_default(),
            remote_id: None,
            stamp: None,
            previous_stamp: None,
            value_hash: None,
            written_at: jiff::Timestamp::UNIX_EPOCH,
            intent: None,
            detail: serde_json::Value::Null,
        });
        let value_hash = wish.map(|w| hasher.hash(&w.value));
        row.intent = Some(Intent { action: change.action.to_string(), token: "t".into(), value_hash, at: jiff::Timestamp::UNIX_EPOCH });
        ledger.rows.insert(change.fold.clone(), row);
    }
    for (n, change) in changes.iter().enumerate() {
        if crash.is_some_and(|c| n >= c) {
            return plan;
        }
        let wish = change.desired.map(|i| &plan.desired[i]);
        let mut row = ledger.rows[&change.fold].clone();
        match wish {
            Some(wish) => {
                let (id, stamp) = world.put(&change.key, wish.value.expose());
                row.remote_id = Some(id);
                row.stamp = Some(stamp);
                row.value_hash = Some(hasher.hash(&wish.value));
                row.revive();
            }
            None => {
                world.writes += 1;
                if let Some(held) = world.held.get_mut(&change.key) {
                    held.deleted = true;
                }
                row.value_hash = None;
            }
        }
        row.intent = None;
        if crash == Some(n + 1) {
            return plan;
        }
        ledger.rows.insert(change.fold.clone(), row);
    }
    if crash.is_none() {
        ledger.settled = true;
    }
    plan
}

fn living(world: &Memory) -> BTreeMap<String, String> {
    world.held.iter().filter(|(_, h)| !h.deleted).map(|(k, h)| (Keys.fold(k), h.value.clone())).collect()
}

fn pairs() -> impl Strategy<Value = Vec<(String, String)>> {
    let key = prop::sample::select(vec!["A", "B", "C_D", "C-D", "e", "E", "bad key", "APP_X", "Z"]).prop_map(str::to_string);
    let value = prop::sample::select(vec!["", "1", "2", "three"]).prop_map(str::to_string);
    prop::collection::btree_map(key, value, 0..7).prop_map(|m| m.into_iter().collect())
}

fn borrowed(pairs: &[(String, String)]) -> Vec<(&str, &str)> {
    pairs.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn runs_converge_whatever_happened_before(
        before in pairs(),
        rounds in prop::collection::vec((pairs(), prop::option::of(0usize..5), prop::option::of((0usize..9, "[x-z]{1,2}"))), 1..4),
        schema in prop::option::of(Just("APP_{{secretKey}}")),
        deletes in any::<bool>(),
        readable in any::<bool>(),
        include in prop::option::of(prop::sample::select(vec!["C*", "?", "NOTHING"])),
    ) {
        let config = config(schema, deletes);
        let mut world = Memory { readable, ..Memory::default() };
        for (key, value) in before.iter().filter(|(k, _)| !k.contains(' ')) {
            world.put(&Keys.convert_part(key), value);
        }
        let mut ledger = Ledger::default();
        let mut last = Vec::new();
        for (pairs, crash, edit) in &rounds {
            run(&mut world, &mut ledger, &config, &source(&borrowed(pairs)), true, *crash);
            // Somebody edits a key by hand.
            if let Some((n, value)) = edit {
                let keys: Vec<String> = world.held.iter().filter(|(_, h)| !h.deleted).map(|(k, _)| k.clone()).collect();
                if let Some(key) = keys.get(n % keys.len().max(1)).filter(|_| readable) {
                    world.put(key, value);
                }
            }
            last = pairs.clone();
        }
        // The last edit of the sync narrows it.
        let mut config = config;
        config.sync_options.include_keys = include.map(str::to_string).into_iter().collect();
        let map = source(&borrowed(&last)).selected(&config.sync_options.filter());
        let wanted = want(&config, &map, &Keys);
        let held_before = living(&world);
        let owned: Vec<String> = ledger.rows.values().filter(|r| r.value_hash.is_some() || r.intent.is_some()).map(|r| r.fold.clone()).collect();
        run(&mut world, &mut ledger, &config, &map, true, None);
        let held = living(&world);
        for wish in &wanted.desired {
            prop_assert_eq!(held.get(&wish.fold).map(String::as_str), Some(wish.value.expose()), "{} must be there", wish.key);
        }
        let matcher = Matcher::new(&config, &Keys);
        for (fold, value) in &held_before {
            let ours = wanted.desired.iter().any(|d| d.fold == *fold);
            let left_out = !matcher.selects(fold) && !owned.contains(fold);
            let protected = wanted.frozen.contains(fold) || !matcher.matches(fold) || !deletes || left_out;
            if !ours && protected {
                prop_assert_eq!(held.get(fold), Some(value), "{} must stay as it was", fold);
            }
            if !ours && !protected {
                prop_assert!(!held.contains_key(fold), "{} must be gone", fold);
            }
        }
        let writes = world.writes;
        let again = run(&mut world, &mut ledger, &config, &map, true, None);
        prop_assert!(again.changes.is_empty(), "a second run has nothing to do: {:?}", again.changes);
        prop_assert_eq!(world.writes, writes);
    }

    #[test]
    fn without_consent_nothing_foreign_is_touched(before in pairs(), wanted in pairs(), settle in any::<bool>(), readable in any::<bool>()) {
        let config = config(None, true);
        let mut world = Memory { readable, ..Memory::default() };
        for (key, value) in before.iter().filter(|(k, _)| !k.contains(' ')) {
            world.put(&Keys.convert_part(key), value);
        }
        let held = living(&world);
        let mut ledger = Ledger { settled: settle, ..Ledger::default() };
        run(&mut world, &mut ledger, &config, &source(&borrowed(&wanted)), false, None);
        let after = living(&world);
        for (fold, value) in &held {
            prop_assert_eq!(after.get(fold), Some(value), "{} is foreign", fold);
        }
    }
}

#[test]
fn a_first_run_stops_before_its_first_write_when_it_must_ask() {
    let mut world = Memory { readable: true, ..Memory::default() };
    world.put("OLD", "x");
    let mut ledger = Ledger::default();
    let plan = run(&mut world, &mut ledger, &config(None, true), &source(&[("A", "1")]), false, None);
    assert!(plan.stops().is_some_and(|t| t.contains("OLD") && t.contains("--allow-delete")));
    assert_eq!(living(&world).len(), 1, "nothing was written");
}

#[test]
fn a_later_run_leaves_the_foreign_key_and_does_the_rest() {
    let mut world = Memory { readable: true, ..Memory::default() };
    world.put("OLD", "x");
    let mut ledger = settled();
    let plan = run(&mut world, &mut ledger, &config(None, true), &source(&[("A", "1")]), false, None);
    assert_eq!(plan.asks().count(), 1);
    assert!(plan.stops().is_none());
    assert_eq!(living(&world), BTreeMap::from([("a".into(), "1".into()), ("old".into(), "x".into())]));
}

#[test]
fn an_incomplete_or_emptied_source_deletes_nothing_by_itself() {
    let mut world = Memory { readable: true, ..Memory::default() };
    let mut ledger = Ledger::default();
    let full = source(&[("A", "1"), ("B", "2")]);
    run(&mut world, &mut ledger, &config(None, true), &full, false, None);
    let mut partial = source(&[("A", "1")]);
    partial.incomplete.push("an import could not be read".into());
    let plan = run(&mut world, &mut ledger, &config(None, true), &partial, true, None);
    assert!(plan.changes.is_empty() && plan.warnings.iter().any(|w| w.contains("an import could not be read")), "{plan:?}");
    let plan = run(&mut world, &mut ledger, &config(None, true), &source(&[]), false, None);
    assert!(plan.stops().is_some_and(|t| t.contains("empty")));
    assert_eq!(living(&world).len(), 2);
}

#[test]
fn a_mass_deletion_asks() {
    let mut world = Memory { readable: true, ..Memory::default() };
    let mut ledger = Ledger::default();
    let names: Vec<String> = (0..30).map(|i| format!("K{i}")).collect();
    let all: Vec<(&str, &str)> = names.iter().map(|n| (n.as_str(), "v")).collect();
    run(&mut world, &mut ledger, &config(None, true), &source(&all), false, None);
    let plan = run(&mut world, &mut ledger, &config(None, true), &source(&all[..10]), false, None);
    assert!(plan.stops().is_some_and(|t| t.contains("20 of the 30")), "{:?}", plan.stops());
    let plan = run(&mut world, &mut ledger, &config(None, true), &source(&all[..20]), false, None);
    assert!(plan.stops().is_none(), "a third is no mass deletion");
    assert_eq!(living(&world).len(), 20);
}

#[test]
fn two_source_keys_that_collapse_are_a_conflict_and_nothing_is_deleted_for_it() {
    let mut world = Memory { readable: true, ..Memory::default() };
    world.put("A-B", "old");
    let mut ledger = Ledger::default();
    let plan = run(&mut world, &mut ledger, &config(None, true), &source(&[("A_B", "1"), ("a-b", "2"), ("C", "3")]), true, None);
    assert_eq!(plan.conflicts.len(), 1);
    assert_eq!(plan.conflicts[0].keys, ["A_B", "a-b"]);
    assert_eq!(living(&world), BTreeMap::from([("a-b".into(), "old".into()), ("c".into(), "3".into())]));
}

#[test]
fn a_key_of_another_sync_is_left_alone() {
    let mut world = Memory { readable: true, ..Memory::default() };
    world.put("THEIRS", "x");
    let mut theirs = Ledger::default();
    announced(&mut theirs, "theirs", "create", "x");
    let mut ledger = Ledger { others: stands("other-sync", &theirs), ..settled() };
    let plan = run(&mut world, &mut ledger, &config(None, true), &source(&[("A", "1")]), true, None);
    assert_eq!(living(&world).len(), 2);
    assert!(plan.warnings.iter().any(|w| w.contains("other-sync")));
}

/// What another sync's ledger looks like from here.
fn stands(sync: &str, ledger: &Ledger) -> HashMap<String, Other> {
    let rows = ledger.rows.values().filter(|r| r.stands());
    rows.map(|r| (r.fold.clone(), Other { sync: sync.to_string(), row: r.clone() })).collect()
}

/// Two syncs at one destination; each sees the other's rows. A run of one of them.
fn turn(world: &mut Memory, mine: &mut Ledger, other: &Ledger, source: &SourceMap, allow: bool) -> Plan {
    mine.others = stands("other", other);
    let plan = run(world, mine, &config(None, true), source, allow, None);
    plan.forget.iter().for_each(|fold| _ = mine.rows.remove(fold));
    plan
}

#[test]
fn two_syncs_carry_one_key_and_neither_deletes_it_for_the_other() {
    for readable in [true, false] {
        let mut world = Memory { readable, ..Memory::default() };
        let (mut a, mut b) = (Ledger::default(), Ledger::default());
        let (both, left) = (source(&[("ONE", "1"), ("SHARED", "v")]), source(&[("ONE", "1")]));
        let other = source(&[("SHARED", "v")]);
        turn(&mut world, &mut a, &b, &both, false);
        let writes = world.writes;
        let plan = turn(&mut world, &mut b, &a, &other, false);
        assert_eq!((plan.changes.len(), plan.unchanged.len(), world.writes), (0, 1, writes), "readable: {readable}: taken over as it is");
        // The one that wrote it drops it.
        let plan = turn(&mut world, &mut a, &b, &left, true);
        assert_eq!((plan.changes.len(), world.writes), (0, writes));
        assert!(plan.skipped.iter().any(|s| s.key.as_deref() == Some("SHARED") && s.reason.contains("other")), "{:?}", plan.skipped);
        // The other one has it alone now: it may change it, and it may delete it.
        turn(&mut world, &mut b, &a, &other, false);
        let plan = turn(&mut world, &mut b, &a, &source(&[("SHARED", "w"), ("X", "x")]), false);
        assert_eq!((plan.asks().count(), living(&world)["shared"].as_str()), (0, "w"));
        let plan = turn(&mut world, &mut b, &a, &source(&[("X", "x")]), false);
        assert_eq!(plan.asks().count(), 0);
        assert_eq!(living(&world).into_keys().collect::<Vec<_>>(), ["one", "x"]);
        assert_eq!(turn(&mut world, &mut a, &b, &left, false).changes.len(), 0);
    }
}

#[test]
fn a_key_that_two_syncs_carry_comes_back_to_both_without_a_question() {
    let mut world = Memory { readable: true, ..Memory::default() };
    let (mut a, mut b) = (Ledger::default(), Ledger::default());
    let shared = source(&[("SHARED", "v")]);
    turn(&mut world, &mut a, &b, &shared, false);
    turn(&mut world, &mut b, &a, &shared, false);
    world.held.get_mut("SHARED").expect("a key").deleted = true;
    let plan = turn(&mut world, &mut b, &a, &shared, false);
    assert_eq!(plan.changes.iter().map(|c| (c.action, c.ask.is_some())).collect::<Vec<_>>(), [(crate::model::plan::Action::Restore, false)]);
    let plan = turn(&mut world, &mut a, &b, &shared, false);
    assert_eq!((plan.changes.len(), plan.unchanged.len()), (0, 1));
}

#[test]
fn two_syncs_with_other_values_do_not_fight() {
    let mut world = Memory { readable: true, ..Memory::default() };
    let (mut a, mut b) = (Ledger::default(), Ledger::default());
    let (ours, theirs) = (source(&[("SHARED", "a")]), source(&[("SHARED", "b")]));
    turn(&mut world, &mut a, &b, &ours, false);
    turn(&mut world, &mut b, &a, &ours, false);
    // The one that stands beside does not overwrite what the other wrote, unless told to.
    assert_eq!(turn(&mut world, &mut b, &a, &theirs, false).asks().count(), 1);
    assert_eq!(living(&world)["shared"], "a");
    turn(&mut world, &mut b, &a, &theirs, true);
    assert_eq!(living(&world)["shared"], "b");
    // Nor does the first one then.
    let plan = turn(&mut world, &mut a, &b, &ours, false);
    assert!(plan.asks().all(|c| c.ask.as_ref().is_some_and(|q| q.reason.contains("other"))) && plan.asks().count() == 1, "{:?}", plan.changes);
    assert_eq!(living(&world)["shared"], "b");
    assert_eq!(turn(&mut world, &mut b, &a, &theirs, false).changes.len(), 0);
    // A stranger's edit is mended as ever, by the one that wrote last.
    world.put("SHARED", "edited");
    assert_eq!(turn(&mut world, &mut b, &a, &theirs, false).asks().count(), 0);
    assert_eq!(living(&world)["shared"], "b");
    // And the writer goes on to write what its source says.
    assert_eq!(turn(&mut world, &mut b, &a, &source(&[("SHARED", "c")]), false).asks().count(), 0);
    assert_eq!(living(&world)["shared"], "c");
}

#[test]
fn what_an_import_left_in_doubt_is_asked_about() {
    let mut world = Memory { readable: true, ..Memory::default() };
    let mut ledger = Ledger::default();
    run(&mut world, &mut ledger, &config(None, true), &source(&[("A", "1"), ("B", "2")]), false, None);
    world.put("A", " edited ");
    ledger.unproven.extend(["a".to_string(), "b".to_string()]);
    let agreed = Policy { overwrite_agreed: true, ..Policy::default() };
    let (plan, _) = planned(&world, &ledger, &config(None, true), &source(&[("A", "1"), ("C", "3")]), agreed);
    assert_eq!(plan.asks().map(|c| c.key.as_str()).collect::<Vec<_>>(), ["A", "B"], "neither overwritten nor deleted");
    let (plan, _) = planned(&world, &ledger, &config(None, true), &source(&[("A", " edited "), ("B", "2")]), agreed);
    assert_eq!((plan.changes.len(), plan.unchanged.len()), (0, 2), "equal values need no question");
}

#[test]
fn what_an_import_behaviour_overwrites_is_counted_in_a_warning() {
    let mut world = Memory { readable: true, ..Memory::default() };
    world.put("A", "theirs");
    world.put("B", "theirs");
    world.put("SAME", "1");
    let mut first = config(None, true);
    first.sync_options.initial_sync_behavior = crate::model::sync::InitialSyncBehavior::ImportPrioritizeSource;
    let wanted = source(&[("A", "1"), ("B", "2"), ("NEW", "3"), ("SAME", "1")]);
    let agreed = Policy { overwrite_agreed: true, ..Policy::default() };
    let warnings = |plan: &Plan| plan.document("s", &wanted, Vec::new()).warnings;
    let (mut plan, _) = planned(&world, &Ledger::default(), &first, &wanted, agreed);
    assert_eq!(plan.asks().count(), 0);
    let text = "2 keys that this sync did not write hold other values at the destination and will be overwritten (import-prioritize-source): A, B.";
    assert_eq!(warnings(&plan)[0], text);
    // A key that the import took out of the run is not overwritten.
    plan.frozen.push("b".into());
    assert!(warnings(&plan)[0].starts_with("1 key that this sync did not write holds another value at"), "{:?}", warnings(&plan));
    // Neither own keys nor those that are asked about are told of.
    let mut ledger = Ledger::default();
    run(&mut world, &mut ledger, &first, &wanted, true, None);
    let (plan, _) = planned(&world, &ledger, &first, &source(&[("A", "9"), ("B", "9")]), agreed);
    assert!(plan.overwrites.is_empty());
    let (plan, _) = planned(&world, &Ledger::default(), &first, &source(&[("A", "9")]), Policy::default());
    assert_eq!((plan.asks().filter(|c| c.key == "A").count(), plan.overwrites.len()), (1, 0));
}

#[test]
fn a_sentence_about_one_key_is_in_the_singular() {
    let mut world = Memory { readable: true, ..Memory::default() };
    world.put("OTHERS", "1");
    let inventory = world.inventory();
    let mut ledger = settled();
    ledger.other_objects.insert(inventory.entries[0].id.clone().expect("an id"), "web".into());
    let (plan, _) = planned(&world, &ledger, &config(None, true), &source(&[("A", "1")]), Policy::default());
    assert!(plan.warnings.contains(&"1 key there belongs to the sync web and is left alone.".to_string()), "{:?}", plan.warnings);
    let (plan, _) = planned(&world, &settled(), &config(None, false), &source(&[("A", "1")]), Policy::default());
    assert!(plan.warnings.iter().any(|w| w.starts_with("1 key there is not in the source; it stays,")), "{:?}", plan.warnings);
    let (plan, _) = planned(&world, &settled(), &config(None, true), &source(&[("A", "1")]), Policy::default());
    assert!(plan.warnings.iter().any(|w| w.starts_with("1 key there was not written by this sync and stays until")), "{:?}", plan.warnings);
}

#[test]
fn a_key_that_was_edited_is_not_counted_among_those_of_others() {
    let mut world = Memory { readable: true, ..Memory::default() };
    let mut ledger = Ledger::default();
    run(&mut world, &mut ledger, &config(None, true), &source(&[("A", "1"), ("MINE", "1")]), true, None);
    ledger.settled = true;
    world.put("MINE", "edited");
    world.put("THEIRS", "1");
    let (plan, _) = planned(&world, &ledger, &config(None, true), &source(&[("A", "1")]), Policy::default());
    let told = |begin: &str| plan.warnings.iter().any(|w| w.starts_with(begin));
    assert!(told("1 key there was not written by this sync and stays"), "{:?}", plan.warnings);
    assert!(told("1 key that this sync wrote may hold another value there now and stays"), "{:?}", plan.warnings);
}

#[test]
fn a_conflict_names_its_key_once() {
    let plan = |key: &str| want(&config(None, true), &source(&[(key, "1")]), &Keys).conflicts;
    assert_eq!(plan("a.b")[0].reason, "'.' is not allowed");
    let under = want(&config(Some("X_{{secretKey}}"), true), &source(&[("a.b", "1")]), &Keys).conflicts;
    assert_eq!(under[0].reason, "X_a.b: '.' is not allowed");
}

#[test]
fn what_this_sync_deleted_comes_back_without_a_question() {
    let mut world = Memory { readable: true, ..Memory::default() };
    let mut ledger = Ledger::default();
    let both = source(&[("A", "1"), ("B", "2")]);
    run(&mut world, &mut ledger, &config(None, true), &both, false, None);
    run(&mut world, &mut ledger, &config(None, true), &source(&[("A", "1")]), false, None);
    assert_eq!(living(&world).len(), 1);
    let plan = run(&mut world, &mut ledger, &config(None, true), &both, false, None);
    assert_eq!(plan.changes.iter().map(|c| (c.action, c.ask.is_some())).collect::<Vec<_>>(), [(crate::model::plan::Action::Restore, false)]);
    assert_eq!(living(&world).len(), 2);
}

/// A ledger row that says: about to do this, never confirmed.
fn announced(ledger: &mut Ledger, fold: &str, action: &str, value: &str) {
    let row = ledger.rows.entry(fold.to_string()).or_insert_with(|| LedgerRow {
        fold: fold.to_string(),
        key: fold.to_uppercase(),
        source_key: fold.to_uppercase(),
        remote_id: None,
        stamp: None,
        previous_stamp: None,
        value_hash: None,
        written_at: jiff::Timestamp::UNIX_EPOCH,
        intent: None,
        detail: serde_json::Value::Null,
    });
    let value_hash = Some(hasher().hash(&SecretValue::new(value)));
    row.intent = Some(Intent { action: action.into(), token: "t".into(), value_hash, at: jiff::Timestamp::UNIX_EPOCH });
}

#[test]
fn an_announced_creation_proves_no_right_to_a_deleted_secret() {
    let mut world = Memory { readable: true, ..Memory::default() };
    world.put("A", "theirs");
    world.held.get_mut("A").expect("a key").deleted = true;
    for (action, asks) in [("create", 1), ("update", 0), ("restore", 0)] {
        let mut ledger = settled();
        announced(&mut ledger, "a", action, "ours");
        let plan = run(&mut world.clone(), &mut ledger, &config(None, true), &source(&[("A", "ours")]), false, None);
        assert_eq!(plan.asks().count(), asks, "{action}: {:?}", plan.changes.iter().map(|c| &c.reason).collect::<Vec<_>>());
    }
}

#[test]
fn killed_between_bringing_back_and_writing_it_is_still_ours() {
    let mut world = Memory { readable: true, ..Memory::default() };
    let mut ledger = Ledger::default();
    let first = source(&[("A", "1"), ("B", "2")]);
    run(&mut world, &mut ledger, &config(None, true), &first, false, None);
    run(&mut world, &mut ledger, &config(None, true), &source(&[("A", "1")]), false, None);
    // What the engine keeps of a key that it deleted, and what a dying restoration leaves.
    let row = ledger.rows.get_mut("b").expect("a row");
    row.value_hash = Some(hasher().hash(&SecretValue::new("2")));
    row.bury();
    announced(&mut ledger, "b", "restore", "new");
    world.held.get_mut("B").expect("a key").deleted = false;
    for (wanted, left) in [(source(&[("A", "1"), ("B", "new")]), 2), (source(&[("A", "1")]), 1)] {
        let (mut world, mut ledger) = (world.clone(), ledger.clone());
        let plan = run(&mut world, &mut ledger, &config(None, true), &wanted, false, None);
        assert_eq!(plan.asks().count(), 0, "{:?}", plan.changes.iter().map(|c| &c.reason).collect::<Vec<_>>());
        assert_eq!(living(&world).len(), left);
    }
    // A foreign value is another matter: the key may have been made anew by somebody else.
    world.put("B", "theirs");
    let (plan, _) = planned(&world, &ledger, &config(None, true), &first, Policy::default());
    assert_eq!(plan.asks().count(), 1);
}

#[test]
fn what_a_dead_run_made_and_the_source_lost_goes_without_a_question() {
    let mut world = Memory { readable: true, ..Memory::default() };
    let mut ledger = settled();
    let wanted = source(&[("A", "1")]);
    run(&mut world, &mut ledger, &config(None, true), &wanted, false, None);
    for (key, value) in [("MADE", "ours"), ("THEIRS", "theirs")] {
        world.put(key, value);
        announced(&mut ledger, &key.to_lowercase(), "create", "ours");
    }
    let plan = run(&mut world, &mut ledger, &config(None, true), &wanted, false, None);
    assert_eq!(plan.asks().map(|c| c.key.as_str()).collect::<Vec<_>>(), ["THEIRS"]);
    assert_eq!(living(&world).into_keys().collect::<Vec<_>>(), ["a", "theirs"]);
}

#[test]
fn what_a_dead_run_changed_is_its_own_when_the_source_drops_it_or_changes_it_again() {
    let mut before = Memory { readable: true, ..Memory::default() };
    let mut ledger = Ledger::default();
    let all = [("KEEP", "k"), ("OURS", "old"), ("THEIRS", "old")];
    run(&mut before, &mut ledger, &config(None, true), &source(&all), false, None);
    for (key, value) in [("OURS", "new"), ("THEIRS", "edited")] {
        announced(&mut ledger, &key.to_lowercase(), "update", "new");
        before.put(key, value);
    }
    let (mut world, mut rows) = (before.clone(), ledger.clone());
    let plan = run(&mut world, &mut rows, &config(None, true), &source(&all[..1]), false, None);
    assert_eq!(plan.asks().map(|c| c.key.as_str()).collect::<Vec<_>>(), ["THEIRS"], "only what another hand edited asks");
    assert_eq!(living(&world).into_keys().collect::<Vec<_>>(), ["keep", "theirs"]);
    let again = source(&[("KEEP", "k"), ("OURS", "newer"), ("THEIRS", "newer")]);
    let (plan, _) = planned(&before, &ledger, &config(None, true), &again, Policy::default());
    let told: Vec<bool> = plan.changes.iter().map(|c| c.reason.as_deref().is_some_and(|r| r.contains("outside"))).collect();
    assert_eq!(told, [false, true], "{:?}", plan.changes.iter().map(|c| (&c.key, &c.reason)).collect::<Vec<_>>());
}
