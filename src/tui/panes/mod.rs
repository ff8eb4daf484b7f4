//! Single-purpose screens over the dashboard: the plan of a sync, the log, the engine.

pub mod engine;
pub mod log;
pub mod plan;
