//! kms-sync carries secrets from Hanzo KMS to the places that consume them.
//!
//! The map of the house, top to bottom; imports only point downward:
//!
//! | module | what lives there |
//! | --- | --- |
//! | [`cli`], [`tui`] | two faces of one application service: no cloud code, no SQL |
//! | [`service`] | the application service: syncs, connections, runs, live events; local or attached to another process |
//! | [`engine`] | scheduler, runner, executor, the two auto-sync clocks |
//! | [`plan`] | pure functions: source + inventory + options + ledger → plan |
//! | [`store`] | config files, sealed credentials, the state database, locks |
//! | [`destination`] | one module per provider behind one trait, and the registry that names them |
//! | [`source`] | the Hanzo KMS client |
//! | [`http`] | the one HTTP client: timeouts, retries, pacing, counting, redaction |
//! | [`model`] | domain types; their JSON equals the documented API |
//! | [`sandbox`] | an embedded Hanzo KMS and the destinations over real HTTP, for `demo` and for tests |
//!
//! A new destination is one module in `destination/`, one line in its registry (with the
//! form description beside it) and one module in `sandbox/`; the conformance suite then covers it.

pub mod cli;
pub mod destination;
pub mod engine;
pub mod http;
pub mod model;
pub mod plan;
pub mod sandbox;
pub mod service;
pub mod source;
pub mod store;
pub mod tui;
