//! The engine as processes live: started, attached to, reloaded, killed, starved of disk; many
//! syncs at once; and what a watcher is told meanwhile.

mod attached;
mod cron;
mod disk;
mod documented;
mod fair;
mod hooks;
mod killed;
mod many;
mod polls;
mod process;
mod retries;
mod terminal;
mod trouble;
pub(crate) mod yard;
