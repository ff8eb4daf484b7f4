//! What is remembered of repositories: over restarts, and while a list lags.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use super::client::Api;
use super::place::Place;

/// Uuids of variables deleted a moment ago, which a lagging list may still show.
pub type Graves = Arc<Mutex<HashMap<String, Instant>>>;

/// Where the uuid of a repository is remembered; also the stem of what belongs to it.
pub fn repository_memory(api: &Api, place: &Place) -> String {
    format!("bitbucket/{}/{}", api.endpoint.identity(), known_as(place))
}

/// A repository's name, whatever its case.
pub fn known_as(place: &Place) -> String {
    place.full_name().to_lowercase()
}
