//! Bitbucket: the provider against the strict stand-in, driven through its own interface and
//! the real planner, and the stand-in against a third-party client.

mod budget;
mod client;
mod connection;
mod listing;
mod place;
mod rewrite;
mod rig;
mod writing;
