//! Whether a process of this machine still lives: for locks and unfinished runs; and the
//! processes that this one started, with all that they start.

use serde::{Deserialize, Serialize};

/// One process, told apart from later ones of the same number where the system allows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    pub pid: u32,
    /// Boot and start time; empty where they cannot be had.
    #[serde(default)]
    pub mark: String,
}

impl Process {
    /// This process.
    pub fn me() -> Self {
        let pid = std::process::id();
        Self { pid, mark: mark_of(pid).unwrap_or_default() }
    }

    /// True while it is stopped by a signal, as far as can be told.
    pub fn stopped(&self) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid)).unwrap_or_default();
        // The state stands after the command's name, which may hold anything.
        stat.rfind(')').and_then(|end| stat.get(end + 1..)).is_some_and(|rest| rest.trim_start().starts_with(['T', 't']))
    }

    /// True while that very process lives, as far as can be told.
    pub fn alive(&self) -> bool {
        if self.pid == std::process::id() {
            return *self == Self::me();
        }
        if !self.mark.is_empty()
            && let Some(now) = mark_of(self.pid)
        {
            return now == self.mark;
        }
        let Some(pid) = i32::try_from(self.pid).ok().and_then(rustix::process::Pid::from_raw) else {
            return false;
        };
        // Not being allowed to signal it proves that it lives.
        !matches!(rustix::process::test_kill_process(pid), Err(rustix::io::Errno::SRCH))
    }
}

/// The process group of a command: killed whole unless it was released. A command that hangs,
/// or whose caller was cancelled, must not stay behind, nor what it had started.
pub struct Group(Option<rustix::process::Pid>);

impl Group {
    /// The group of a child that was started as the leader of one (`process_group(0)`) and was
    /// not waited for yet.
    pub fn of(child: &tokio::process::Child) -> Self {
        Self(child.id().and_then(|id| i32::try_from(id).ok()).and_then(rustix::process::Pid::from_raw))
    }

    /// The command has ended in good order: what it left in the background is its own affair.
    pub fn release(&mut self) {
        self.0 = None;
    }

    /// Asks the whole group to end. Dropping it then is the end.
    pub fn ask_to_end(&self) {
        self.signal(rustix::process::Signal::TERM);
    }

    fn signal(&self, signal: rustix::process::Signal) {
        if let Some(pid) = self.0 {
            // Already gone is as good.
            let _ = rustix::process::kill_process_group(pid, signal);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.signal(rustix::process::Signal::KILL);
    }
}

/// Boot id and start time in clock ticks, from proc(5) where there is one. A zombie has
/// neither: it waits for its parent and does nothing any more.
fn mark_of(pid: u32) -> Option<String> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command's name may hold spaces and parentheses; fields are counted after the last one.
    let fields: Vec<&str> = stat.get(stat.rfind(')')? + 1..)?.split_ascii_whitespace().collect();
    let started = fields.get(19)?.to_string();
    if matches!(*fields.first()?, "Z" | "X") {
        return Some(String::new());
    }
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    Some(format!("{}/{started}", boot.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_lives_until_it_ended() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let pid = child.id();
        let process = Process { pid, mark: mark_of(pid).unwrap_or_default() };
        assert!(process.alive());
        child.kill().unwrap();
        // Not waited for yet: a zombie, soon.
        let begun = std::time::Instant::now();
        while process.alive() && begun.elapsed() < std::time::Duration::from_secs(10) {
            std::thread::yield_now();
        }
        assert!(!process.alive());
        child.wait().unwrap();
        assert!(!process.alive());
        assert!(Process::me().alive());
    }

    #[test]
    fn a_number_used_again_is_another_process() {
        let me = Process::me();
        assert!(!Process { mark: "another boot/1".into(), ..me }.alive());
    }
}
