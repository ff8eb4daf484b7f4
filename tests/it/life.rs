//! The engine as processes live: started, attached to, reloaded, killed, starved of disk; many
//! syncs at once; and what a watcher is told meanwhile.

mod answers;
mod attached;
mod broken;
mod cancel;
mod cron;
mod disk;
pub(crate) mod documented;
mod drift;
mod fair;
mod hooks;
mod killed;
mod limits;
mod many;
mod peers;
mod polls;
mod process;
mod reports;
mod retries;
mod samples;
mod service_manager;
mod silent;
mod socket;
mod targets;
mod terminal;
mod together;
mod trouble;
mod unsettled;
mod watched;
pub(crate) mod yard;
