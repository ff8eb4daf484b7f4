//! The conformance suite: what every destination must do, written once and run for each.
//!
//! The engine runs in this process, as in the terminal app, against the embedded KMS and one
//! embedded destination over real HTTP. A [`place::Place`] tells what a destination is like
//! and shows what it really holds; the [`cases`] ask the same of all of them. A new
//! destination is one module in [`places`] and one word in the list below.

pub(crate) mod bench;
pub(crate) mod cases;
mod demo;
pub(crate) mod place;
pub(crate) mod places;

/// One test per case and destination: `conformance::DESTINATION::GROUP::CASE`.
macro_rules! suite {
    ($place:ident) => {
        mod $place {
            suite! { $place;
                basics { life_of_keys, unchanged_costs_the_floor, a_plan_writes_nothing, a_deleted_key_comes_back, five_hundred_secrets }
                deleting {
                    waits_for_every_write, switched_off, removal_takes_ours_only, mass_deletion_asks, mass_deletion_asks_unattended,
                    edited_and_removed_comes_back_as_the_source_has_it
                }
                foreign {
                    untouched_outside_the_schema, overwritten_after_approval, equal_values_are_adopted, deleted_after_approval_at_first,
                    withheld_later, kept_always, kept_this_time, allowed_by_the_flag, long_messages_are_cut
                }
                sharing { two_syncs_with_overlapping_schemas, two_syncs_at_once, one_key_of_two_syncs, one_key_of_two_syncs_removed, one_key_two_values, told_at_creation }
                edits { cleared_schema_asks, another_schema_asks, deletion_switched_on_asks, environment_renamed }
                left_behind { at_an_earlier_target, under_an_earlier_schema, edited_since, removed_with_the_rest, out_of_reach, nothing_by_another_name, edited_file_asks, another_source_asks }
                filtered { left_out, edited, unreadable_and_left_out, imported }
                source {
                    emptied, folder_gone, environment_gone, unreadable_value, unreadable_import, keys_by_import_links, sub_folders_that_clash,
                    kms_breaks_down
                }
                values { of_every_kind, empty, too_large }
                names { at_their_limits, at_their_limits_after_the_schema, that_cannot_be, that_collapse, schema_in_another_alphabet, schema_with_slashes }
                importing { source_first, destination_first, bad_names_stay, linked_keys_are_left_alone, not_offered, on_demand, half_way, values_that_the_kms_would_change,
                    values_that_the_kms_holds_trimmed, values_that_the_kms_changed, edits_that_cannot_be_imported, waits_for_a_change_request }
                drift { edited_outside, deleted_outside, ledger_lost }
                trouble {
                    throttling_storm, bad_secrets, lost_answers, lost_answers_to_changes, half_answers, lost_listing, refused_credentials, cancelled_and_resumed,
                    killed_and_resumed, no_value_is_kept, short_values_are_not_repeated, words_of_ours_are_not_masked, sentences_are_whole
                }
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
suite!(aws_object);
suite!(azure_key_vault);
suite!(azure_devops);
suite!(bitbucket);
suite!(oci);
