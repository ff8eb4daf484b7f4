//! Rendered screens and walks through them, by subject; here is what they share.

use super::testing::Harness;

macro_rules! snapshot {
    ($name:expr, $harness:expr) => {{
        let screen = $harness.screen();
        let beside = concat!(env!("CARGO_MANIFEST_DIR"), "/src/tui/snapshots");
        insta::with_settings!({prepend_module_to_snapshot => false, omit_expression => true, snapshot_path => beside}, { insta::assert_snapshot!($name, screen) });
    }};
}

mod asked;
mod connecting;
mod demo;
mod kept;
mod lists;
mod options;
mod picking;
mod picture;
mod screens;
mod sturdy;
mod targets;
mod tight;
mod warned;

const SIZES: [(u16, u16); 2] = [(80, 24), (120, 40)];

/// One scene at both design sizes.
fn scene(name: &str, play: impl Fn(&mut Harness)) {
    for (width, height) in SIZES {
        let mut h = Harness::new(width, height);
        play(&mut h);
        snapshot!(format!("{name}-{width}x{height}"), h);
    }
}

/// Scenes that keys alone lead to: name and keys.
fn scenes(all: &[(&str, &str)]) {
    for (name, keys) in all {
        scene(name, |h| {
            h.keys(keys);
        });
    }
}

/// Source filled in.
fn to_destination(h: &mut Harness) {
    // The destination, then project, environment, and the path's default.
    h.keys("n Enter Enter Enter Down Down Enter Enter");
}

fn to_options(h: &mut Harness) {
    to_destination(h);
    // The first connection; the region and the mapping keep their defaults.
    h.keys("Enter Enter PageDown");
}

fn to_details(h: &mut Harness) {
    to_options(h);
    h.keys("PageDown");
}

fn to_review(h: &mut Harness) {
    to_details(h);
    h.text("billing-vault2");
    h.keys("PageDown");
}
