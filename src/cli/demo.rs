//! `demo`: the whole program on an embedded world. And the terminal app, which shares its way in.

use super::{Args, Out, Outcome};

/// Runs the demo in one of its three forms.
pub async fn run(_args: &Args, _out: &Out, _headless: bool, _serve: bool, _quiet: bool) -> Outcome {
    Ok(2)
}

/// Opens the terminal app on the operator's own configuration.
pub async fn terminal(_args: &Args) -> Outcome {
    Ok(2)
}
