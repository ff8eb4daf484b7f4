//! Tokio's paused clock for tests that run the whole engine. By itself that clock jumps ahead
//! only while no blocking task is about, and a run keeps one for its records until it ends.

use std::time::Duration;

/// What goes by on the paused clock with each look at what is ready.
const STEP: Duration = Duration::from_millis(100);

/// Drives a future while the clock goes ahead in small steps, each after everything that was ready
/// had its turn. For tests with `start_paused`, around all of their body.
pub async fn hurried<F: Future>(work: F) -> F::Output {
    let clock = async {
        loop {
            // Real time for the threads that keep the records: the runtime's own stands still.
            let _ = tokio::task::spawn_blocking(|| std::thread::sleep(Duration::from_millis(1))).await;
            tokio::time::advance(STEP).await;
        }
    };
    tokio::select! {
        out = work => out,
        () = clock => unreachable!("the clock never ends"),
    }
}
