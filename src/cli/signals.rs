//! The signals that end a command.

use tokio::signal::unix::{Signal, SignalKind, signal};

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// SIGTERM or SIGINT.
    Stop,
    /// SIGHUP: the line dropped, or a service is to read its configuration again.
    HangUp,
}

/// Hears signals from the moment on when it is made; nothing where the system lets nobody listen.
pub struct Signals(Option<[Signal; 3]>);

impl Signals {
    pub fn listen() -> Self {
        let all = [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()].map(signal);
        let [Ok(term), Ok(int), Ok(hup)] = all else { return Self(None) };
        Self(Some([term, int, hup]))
    }

    /// The next signal.
    pub async fn next(&mut self) -> Heard {
        let Some([term, int, hup]) = &mut self.0 else { return std::future::pending().await };
        tokio::select! {
            _ = term.recv() => Heard::Stop,
            _ = int.recv() => Heard::Stop,
            _ = hup.recv() => Heard::HangUp,
        }
    }

    /// Returns at SIGTERM or SIGINT; a SIGHUP before it is passed over.
    pub async fn stop(mut self) {
        while self.next().await == Heard::HangUp {}
    }
}

/// Returns at SIGTERM, SIGINT or SIGHUP (the line dropped).
pub async fn until_stopped() {
    Signals::listen().next().await;
}
