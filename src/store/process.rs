//! Whether a process of this machine still lives: for locks and unfinished runs.

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
