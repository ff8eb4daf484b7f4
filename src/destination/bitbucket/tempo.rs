//! Every duration and number that decides how fast this destination goes, in one place, so
//! that tests can run an hour in a second.

use std::time::Duration;

/// The pace of a session. [`Tempo::default`] is Bitbucket's.
#[derive(Debug, Clone)]
pub struct Tempo {
    /// The rolling window of the rate limit. Bitbucket: one hour.
    pub window: Duration,
    /// Calls a credential may make in a window, unless the server names another number.
    /// Bitbucket: 1,000 for calls below `/2.0/repositories`.
    pub budget: u32,
    /// Percent of the budget left to the operator's other tools.
    pub reserve: u32,
    /// Pauses after a refusal while somebody else spends the budget; the last one repeats.
    pub probes: Vec<Duration>,
    /// Waits before looking again for a variable that must exist and is not listed.
    pub settle: Vec<Duration>,
    /// How long a deployment variable may be missing from lists after its creation.
    pub grace: Duration,
    /// After this long a credential that was refused may be tried again by itself.
    pub forgive: Duration,
}

impl Default for Tempo {
    fn default() -> Self {
        let seconds = |list: &[u64]| list.iter().map(|s| Duration::from_secs(*s)).collect();
        Self {
            window: Duration::from_secs(3600),
            budget: 1000,
            reserve: 10,
            probes: seconds(&[60, 120, 300, 600, 900]),
            settle: seconds(&[2, 5, 10]),
            grace: Duration::from_secs(30),
            forgive: Duration::from_secs(600),
        }
    }
}

impl Tempo {
    /// The same pace with every duration divided by `factor`.
    pub fn faster(factor: u32) -> Self {
        let real = Self::default();
        let scale = |list: Vec<Duration>| list.into_iter().map(|d| d / factor.max(1)).collect();
        Self {
            window: real.window / factor.max(1),
            probes: scale(real.probes),
            settle: scale(real.settle),
            grace: real.grace / factor.max(1),
            forgive: real.forgive / factor.max(1),
            ..real
        }
    }
}
