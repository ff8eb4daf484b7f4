//! The conformance suite: what every destination must do, written once and run for each.
//!
//! The engine runs in this process, as in the terminal app, against the embedded KMS and one
//! embedded destination over real HTTP. A [`place::Place`] tells what a destination is like
//! and shows what it really holds; the [`cases`] ask the same of all of them. A new
//! destination is one module in [`places`] and one word in the list below.

mod bench;
mod cases;
mod place;
mod places;

/// One test per case and destination: `conformance::DESTINATION::GROUP::CASE`.
macro_rules! suite {
    ($place:ident) => {
        mod $place {
            suite! { $place;
                basics { life_of_keys, unchanged_costs_the_floor, a_plan_writes_nothing }
            }
        }
    };
    ($place:ident; $($group:ident { $($case:ident),* $(,)? })*) => {
        $(mod $group {
            use crate::conformance::{bench::Bench, cases, places};

            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                cases::$group::$case(Bench::new(places::$place::start().await).await).await;
            })*
        })*
    };
}

suite!(aws);
suite!(azure_key_vault);
suite!(azure_devops);
suite!(bitbucket);
suite!(oci);
