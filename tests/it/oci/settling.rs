//! Secrets between two states, for 1 s, for 30 s, for ever. Time is tokio's paused clock: it
//! jumps to the next timer whenever nobody has anything to do, for the client and the sandbox.

use std::time::Duration;

use futures::future::join_all;
use kms_sync::http::ErrorKind;
use kms_sync::model::plan::Action;
use kms_sync::sandbox::oci::Delays;
use tokio::time::Instant;

use super::{Bench, apply, bench};

const FOR_EVER: Duration = Duration::from_secs(1 << 24);

/// Every kind of change at once; answers how long it took.
async fn everything(bench: &Bench, round: &str) -> Duration {
    let name = |what: &str| format!("{what}-{round}");
    for what in ["CHANGED", "GOING"] {
        bench.state.put(&name(what), b"old");
    }
    bench.state.put(&name("BACK"), b"old");
    bench.state.edit(&name("BACK"), |s| (s.state, s.time_of_deletion) = ("PENDING_DELETION".into(), Some(jiff::Timestamp::MAX)));
    let target = bench.open().await;
    let (changed, going, back) = (bench.entry(&name("CHANGED")).await, bench.entry(&name("GOING")).await, bench.entry(&name("BACK")).await);
    bench.host.log.clear();
    let begun = Instant::now();
    let (new_name, changed_name, going_name, back_name) = (name("NEW"), name("CHANGED"), name("GOING"), name("BACK"));
    let (new, changed, going, back) = tokio::join!(
        apply(&bench.cx, &*target, Action::Create, &new_name, Some("new"), None),
        apply(&bench.cx, &*target, Action::Update, &changed_name, Some("new"), Some(&changed)),
        apply(&bench.cx, &*target, Action::Delete, &going_name, None, Some(&going)),
        apply(&bench.cx, &*target, Action::Restore, &back_name, Some("new"), Some(&back)),
    );
    for result in [new, changed, going, back] {
        result.expect("settled");
    }
    begun.elapsed()
}

fn of_round(bench: &Bench, round: &str) -> Vec<(String, String)> {
    let mut all: Vec<_> =
        bench.state.secrets().into_iter().filter_map(|s| Some((s.name.strip_suffix(&format!("-{round}"))?.to_string(), s.state))).collect();
    all.sort();
    all
}

#[tokio::test(start_paused = true)]
async fn after_one_second_and_after_thirty() {
    let bench = bench().await;
    // Somebody else's secret hangs between two states all the while: it is no business of ours.
    bench.state.put("FOREIGN", b"x");
    bench.state.edit("FOREIGN", |s| s.state = "UPDATING".into());
    for (round, delay, least, most) in [("1", 1, 1, 12), ("30", 30, 60, 80)] {
        bench.state.set_delay(Duration::from_secs(delay));
        let took = everything(&bench, round).await;
        let settled = [("BACK", "ACTIVE"), ("CHANGED", "ACTIVE"), ("GOING", "PENDING_DELETION"), ("NEW", "ACTIVE")];
        assert_eq!(of_round(&bench, round), settled.map(|(n, s)| (n.to_string(), s.to_string())), "{delay} s");
        for key in ["BACK", "CHANGED", "NEW"] {
            assert_eq!(bench.state.value(&format!("{key}-{round}")).as_deref(), Some("new"));
        }
        // The one that comes back settles twice: after the cancellation, and after the write.
        assert!((Duration::from_secs(least)..Duration::from_secs(most)).contains(&took), "{delay} s: {took:?}");
        // Nobody is asked in a tight loop: at most a look per second and secret.
        let looks = bench.host.log.by_method()["GET"];
        assert!(looks <= 12 + 4 * delay as usize, "{delay} s: {looks} looks");
    }
    assert_eq!(bench.state.secret("FOREIGN").expect("there").state, "UPDATING");
}

#[tokio::test(start_paused = true)]
async fn never() {
    let bench = bench().await;
    for key in ["STUCK", "FINE"] {
        bench.state.put(key, b"old");
    }
    let (stuck, fine) = (bench.entry("STUCK").await, bench.entry("FINE").await);
    bench.state.edit("STUCK", |s| s.state = "CANCELLING_DELETION".into());
    let target = bench.open().await;
    let begun = Instant::now();
    let fine = async {
        let result = apply(&bench.cx, &*target, Action::Update, "FINE", Some("new"), Some(&fine)).await;
        (result, begun.elapsed())
    };
    let (stuck, (fine, fine_took)) = tokio::join!(apply(&bench.cx, &*target, Action::Update, "STUCK", Some("new"), Some(&stuck)), fine);
    fine.expect("the others go on");
    assert!(fine_took < Duration::from_secs(10), "{fine_took:?}");
    let error = stuck.expect_err("never settles");
    assert_eq!(error.kind, ErrorKind::Unsettled);
    assert!(error.kind.passing(), "the engine tries again");
    assert!(error.text().contains("STUCK is still CANCELLING_DELETION after 120 s"), "{error}");
    assert!((Duration::from_secs(119)..Duration::from_secs(125)).contains(&begun.elapsed()), "{:?}", begun.elapsed());
    assert_eq!(bench.state.value("STUCK").as_deref(), Some("old"));
}

#[tokio::test(start_paused = true)]
async fn what_we_changed_and_never_settles_is_told_with_its_state() {
    let bench = bench().await;
    bench.state.put("GOING", b"old");
    let entry = bench.entry("GOING").await;
    bench.state.set_delays(Delays { schedule: FOR_EVER, create: FOR_EVER, ..Delays::all(Duration::from_secs(1)) });
    for (action, key, entry, word) in [(Action::Delete, "GOING", Some(&entry), "SCHEDULING_DELETION"), (Action::Create, "NEW", None, "CREATING")] {
        let value = (action == Action::Create).then_some("new");
        let error = bench.apply(action, key, value, entry).await.expect_err("never settles");
        assert_eq!(error.kind, ErrorKind::Unsettled);
        assert!(error.ambiguous, "it was accepted: the next run must look");
        assert!(error.text().contains(&format!("{key} is still {word} after 120 s")), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_update_right_after_a_creation_is_waited_for() {
    let bench = bench().await;
    bench.state.set_delay(Duration::from_secs(30));
    let target = bench.open().await;
    let creating = apply(&bench.cx, &*target, Action::Create, "A", Some("one"), None);
    let updating = async {
        while bench.state.secret("A").is_none() {
            tokio::task::yield_now().await;
        }
        // What a listing of a moment later would have shown, were it not stale already.
        let entry = kms_sync::destination::Entry {
            facts: serde_json::json!({"state": "ACTIVE"}),
            value: Some(kms_sync::model::SecretValue::new("x")),
            ..bench.entry("A").await
        };
        apply(&bench.cx, &*target, Action::Update, "A", Some("two"), Some(&entry)).await
    };
    let (created, updated) = tokio::join!(creating, updating);
    created.expect("created");
    assert!(!updated.expect("IncorrectState is waited out").untouched);
    assert_eq!(bench.state.value("A").as_deref(), Some("two"));
    assert_eq!(bench.host.log.count("PUT "), 2, "refused once, accepted once");
}

#[tokio::test(start_paused = true)]
async fn a_whole_run_leaves_a_quiet_vault() {
    let bench = bench().await;
    bench.state.set_delay(Duration::from_secs(7));
    let target = bench.open().await;
    let keys: Vec<String> = (0..40).map(|n| format!("K{n}")).collect();
    let created = join_all(keys.iter().map(|k| apply(&bench.cx, &*target, Action::Create, k, Some("one"), None))).await;
    assert!(created.iter().all(Result::is_ok));
    assert!(bench.state.secrets().iter().all(|s| s.state == "ACTIVE"), "when the last operation ends, none is between two states");
    let entries = bench.list().await.expect("listed").entries;
    let gone = join_all(entries.iter().map(|e| apply(&bench.cx, &*target, Action::Delete, &e.key, None, Some(e)))).await;
    assert!(gone.iter().all(Result::is_ok));
    assert!(bench.state.secrets().iter().all(|s| s.state == "PENDING_DELETION"));
    // And nobody keeps looking.
    bench.host.log.clear();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(bench.host.log.lines(), Vec::<String>::new());
}
