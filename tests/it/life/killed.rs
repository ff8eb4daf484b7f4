//! `kill -9` at random instants: what is at the destinations afterwards, and what history says.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::yard::Yard;

/// How often a run over all destinations is killed.
const KILLS: usize = 20;
const SCHEMA: &str = "S_{{secretKey}}";

/// A generator of its own, so that a failure can be repeated (xorshift64*).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize % sides
    }
}

/// Changes some of the source's keys.
fn edit(yard: &Yard, model: &mut BTreeMap<String, String>, dice: &mut Dice, round: usize) {
    for _ in 0..4 {
        let key = format!("KEY_{}", dice.roll(10));
        if dice.roll(3) == 0 && model.len() > 4 {
            if model.remove(&key).is_some() {
                yard.rig.unset(&key);
            }
        } else {
            let value = format!("value {round} {}", dice.roll(1000));
            yard.rig.set(&key, &value);
            model.insert(key, value);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_doubled_or_wrongly_deleted() {
    let yard = Yard::new().await;
    let seed = std::env::var("LIFE_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or_else(|| u64::from(std::process::id()) | 1 << 40);
    let mut dice = Dice(seed);
    let mut model = BTreeMap::new();
    for place in &yard.places {
        // Somebody else's, beside ours.
        place.put(&place.key("OTHERS_OWN"), "theirs");
        let document = yard.document(&format!("to-{}", place.kind()), &**place, "/app", true, Some(SCHEMA));
        yard.create(&document).await;
    }
    for i in 0..8 {
        let (key, value) = (format!("KEY_{i}"), "first".to_string());
        yard.rig.set(&key, &value);
        model.insert(key, value);
    }
    let begun = Instant::now();
    converges(&yard, &model, seed).await;
    let usual = begun.elapsed();
    let mut killed = 0;
    for round in 0..KILLS {
        let before = model.clone();
        edit(&yard, &mut model, &mut dice, round);
        let mut run = yard.spawn(&["sync", "--all"]);
        tokio::time::sleep(usual.mul_f64(dice.roll(1000) as f64 / 1000.0)).await;
        killed += usize::from(run.runs());
        run.kill();
        for place in &yard.places {
            let there = place.values();
            let what = format!("seed {seed}, round {round}, {}", place.kind());
            assert_eq!(there.get(&place.key("OTHERS_OWN")).map(String::as_str), Some("theirs"), "{what}");
            let name = |key: &str| place.key(&format!("S_{key}"));
            // What was there and still belongs there is there, with the value of before or of now.
            for key in before.keys().filter(|k| model.contains_key(*k)) {
                let value = there.get(&name(key)).unwrap_or_else(|| panic!("{what}: {key} is lost: {there:?}"));
                assert!(*value == before[key] || *value == model[key], "{what}: {key} is {value:?}");
            }
            let known = |n: &String| before.keys().chain(model.keys()).any(|k| name(k) == *n) || *n == place.key("OTHERS_OWN");
            assert!(there.keys().all(known), "{what}: {there:?}");
        }
        converges(&yard, &model, seed).await;
    }
    assert!(killed >= KILLS / 3, "only {killed} runs were still going when they were killed");
    let quiet = yard.rig.run(&["sync", "--all", "--json"]).await.expect(0);
    for run in quiet["runs"].as_array().expect("runs") {
        assert_eq!(writes(run), 0, "{run:#}");
    }
    history(&yard).await;
}

fn writes(run: &Value) -> u64 {
    ["created", "updated", "restored", "deleted", "imported", "failed"].iter().filter_map(|c| run["counts"][c].as_u64()).sum()
}

/// One sync of everything, after which every destination holds what the source holds.
async fn converges(yard: &Yard, model: &BTreeMap<String, String>, seed: u64) {
    let answer = yard.rig.run(&["sync", "--all", "--json"]).await;
    assert_eq!(answer.code, 0, "seed {seed}: {}\n{}", answer.stdout, answer.stderr);
    for place in &yard.places {
        let mut wanted: BTreeMap<String, String> = model.iter().map(|(k, v)| (place.key(&format!("S_{k}")), v.clone())).collect();
        wanted.insert(place.key("OTHERS_OWN"), "theirs".into());
        assert_eq!(place.values(), wanted, "seed {seed}, {}", place.kind());
    }
}

/// Every run that history shows ended one way or the other; killed ones say so.
async fn history(yard: &Yard) {
    let mut interrupted = 0;
    for place in &yard.places {
        let name = format!("to-{}", place.kind());
        let history = yard.rig.run(&["history", &name, "--json"]).await.expect(0);
        for run in history["runs"].as_array().expect("runs") {
            assert!(run["finishedAt"].is_string(), "{run:#}");
            match run["status"].as_str() {
                Some("succeeded") => {}
                Some("interrupted") => {
                    interrupted += 1;
                    assert!(run["message"].as_str().is_some_and(|m| m.contains("ended before the run did")), "{run:#}");
                }
                _ => panic!("{run:#}"),
            }
        }
        let show = yard.rig.run(&["show", &name, "--json"]).await.expect(0);
        assert_eq!(show["secretSync"]["syncStatus"], "succeeded", "{show:#}");
    }
    assert!(interrupted > 0, "no killed run is in the history");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_made_anew_by_a_dead_run_is_its_own() {
    let yard = Yard::new().await;
    for place in &yard.places {
        yard.create(&yard.document(&format!("to-{}", place.kind()), &**place, "/app", true, Some(SCHEMA))).await;
    }
    for place in &yard.places {
        place.put(&place.key("OTHERS_OWN"), "theirs");
    }
    let mut model = BTreeMap::from([("KEY_0".to_string(), "stays".to_string())]);
    yard.rig.set("KEY_0", "stays");
    yard.rig.set("KEY_1", "first");
    yard.rig.run(&["sync", "--all"]).await.expect(0);
    yard.rig.unset("KEY_1");
    converges(&yard, &model, 0).await;
    yard.rig.set("KEY_1", "again");
    model.insert("KEY_1".into(), "again".into());
    // At OCI nothing is made anew: the deletion, still pending, is cancelled.
    for place in yard.places.iter().filter(|p| p.kind() != "oci-vault") {
        let late = kms_sync::sandbox::host::Effect::LateAnswer(Duration::from_secs(60));
        place.host().faults.add(kms_sync::sandbox::host::Fault::always(place.nature().creation, 1.0, late));
    }
    let mut run = yard.spawn(&["sync", "--all"]);
    for place in &yard.places {
        super::yard::sure(place.kind(), || place.values().get(&place.key("S_KEY_1")).is_some_and(|v| v == "again")).await;
    }
    run.kill();
    yard.places.iter().for_each(|p| p.host().faults.clear());
    converges(&yard, &model, 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_run_is_told_as_interrupted_at_once() {
    let yard = Yard::aws().await;
    for i in 0..20 {
        yard.rig.set(&format!("KEY_{i:02}"), "one");
    }
    yard.create(&yard.document("web", yard.place(), "/app", false, None)).await;
    let slow = kms_sync::sandbox::host::Effect::Delay(Duration::from_millis(200));
    yard.place().host().faults.add(kms_sync::sandbox::host::Fault::always("CreateSecret", 1.0, slow));
    let mut run = yard.spawn(&["sync", "web"]);
    super::yard::sure("writes", || yard.place().values().len() >= 2).await;
    run.kill();
    let history = yard.rig.run(&["history", "web", "--json"]).await.expect(0);
    assert_eq!(history["runs"][0]["status"], "interrupted", "{history:#}");
    // Reading alone, with nobody being the engine, changes nothing: the same again.
    let again = yard.rig.run(&["history", "web", "--json"]).await.expect(0);
    assert_eq!(history, again);
    let cut = &history["runs"][0];
    let told = |o: &str| cut["secrets"].as_array().into_iter().flatten().filter(|s| s["outcome"] == o).count();
    assert_eq!((told("created") as u64, told("created") + told("not-reached")), (cut["counts"]["created"].as_u64().unwrap_or(99), 20), "{cut:#}");
    yard.place().host().faults.clear();
    let next = yard.rig.run(&["sync", "web", "--json"]).await.expect(0);
    let counts = &next["runs"][0]["counts"];
    assert!(counts["created"].as_u64().is_some_and(|n| n < 20), "{next:#}");
    assert_eq!(yard.place().values().len(), 20);
}
