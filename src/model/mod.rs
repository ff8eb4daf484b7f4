//! Domain types and their validation. No IO lives here, and no provider's name: what a
//! destination kind allows is asked through [`sync::KindRules`], which `destination/` implements.

pub mod board;
pub mod connection;
pub mod ledger;
pub mod plan;
pub mod problems;
pub mod run;
pub mod schema;
pub mod secret;
pub mod sync;
pub mod text;

pub use problems::{FieldProblem, Problems};
pub use secret::SecretValue;

/// The JSON object type used for the open parts of documents (`destinationConfig`, credentials).
pub type Map = serde_json::Map<String, serde_json::Value>;

/// A moment, printed as RFC 3339 in UTC.
pub type Time = jiff::Timestamp;
