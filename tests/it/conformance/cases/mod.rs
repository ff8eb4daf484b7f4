//! What every destination must do.

pub mod basics;
