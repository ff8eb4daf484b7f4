//! The engine as processes live: started, attached to, reloaded, killed, starved of disk; many
//! syncs at once; and what a watcher is told meanwhile.

mod attached;
mod broken;
mod cancel;
mod cron;
mod disk;
pub(crate) mod documented;
mod fair;
mod hooks;
mod killed;
mod many;
mod polls;
mod process;
mod retries;
mod silent;
mod socket;
mod targets;
mod terminal;
mod trouble;
pub(crate) mod yard;
