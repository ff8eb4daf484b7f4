//! The engine as processes live: started, attached to, reloaded, killed, starved of disk; many
//! syncs at once; and what a watcher is told meanwhile.

mod attached;
mod documented;
mod hooks;
mod killed;
mod many;
mod process;
mod retries;
mod trouble;
pub(crate) mod yard;
