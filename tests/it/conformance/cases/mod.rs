//! What every destination must do.

pub mod basics;
pub mod deleting;
pub mod drift;
pub mod edits;
pub mod filtered;
pub mod foreign;
pub mod importing;
pub mod left_behind;
pub mod names;
pub mod sharing;
pub mod source;
pub mod trouble;
pub mod values;
