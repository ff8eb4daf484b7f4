//! The program on a terminal of its own: keys in, a screen out. Waits are for conditions,
//! with a generous limit; what is on screen is told when one does not come true.

#![allow(dead_code, reason = "not every selection of tests uses every helper")]

use std::io::{Read, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use portable_pty::{Child, CommandBuilder, MasterPty, PtySize, native_pty_system};

/// How long a condition may take. Builds without optimisation on busy machines are slow.
const LIMIT: Duration = Duration::from_secs(30);

struct Seen {
    parser: vt100::Parser,
    /// Everything that was written, as it came.
    raw: Vec<u8>,
    closed: bool,
    /// The line is to drop: nobody reads any more.
    hung_up: bool,
}

/// A program on a terminal.
pub struct Pty {
    child: Box<dyn Child + Send + Sync>,
    /// This side of the line, until it drops.
    line: Option<(Box<dyn MasterPty + Send>, Box<dyn Write + Send>)>,
    seen: Arc<(Mutex<Seen>, Condvar)>,
}

impl Pty {
    /// Starts `kms-sync` with arguments and environment on a terminal of `columns` x `rows`.
    pub fn start(args: &[&str], env: &[(&str, &str)], columns: u16, rows: u16) -> Self {
        let size = PtySize { rows, cols: columns, pixel_width: 0, pixel_height: 0 };
        let pair = native_pty_system().openpty(size).expect("a pty");
        let mut command = CommandBuilder::new(super::KMS_SYNC);
        command.args(args);
        for name in ["NO_COLOR", "KMS_SYNC_CONFIG_DIR", "KMS_SYNC_STATE_DIR"] {
            command.env_remove(name);
        }
        command.env("TERM", "xterm-256color");
        command.env("LC_ALL", "C.UTF-8");
        for (name, value) in env {
            command.env(name, value);
        }
        let child = pair.slave.spawn_command(command).expect("the program starts");
        drop(pair.slave);
        let mut reader = pair.master.try_clone_reader().expect("a reader");
        let writer = pair.master.take_writer().expect("a writer");
        let seen = Arc::new((
            Mutex::new(Seen { parser: vt100::Parser::new(rows, columns, 0), raw: Vec::new(), closed: false, hung_up: false }),
            Condvar::new(),
        ));
        let shared = seen.clone();
        std::thread::spawn(move || {
            let mut buffer = [0; 8192];
            loop {
                let read = reader.read(&mut buffer).unwrap_or(0);
                let mut seen = shared.0.lock().unwrap_or_else(PoisonError::into_inner);
                seen.raw.extend_from_slice(&buffer[..read]);
                seen.parser.process(&buffer[..read]);
                shared.1.notify_all();
                if read == 0 || seen.hung_up {
                    break;
                }
            }
            // Before anybody goes on who waits for it.
            drop(reader);
            let mut seen = shared.0.lock().unwrap_or_else(PoisonError::into_inner);
            seen.closed = true;
            shared.1.notify_all();
        });
        Self { child, line: Some((pair.master, writer)), seen }
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Types text as it is.
    pub fn send(&mut self, text: &str) {
        let (_, writer) = self.line.as_mut().expect("the line stands");
        writer.write_all(text.as_bytes()).expect("the terminal takes input");
        writer.flush().expect("the terminal takes input");
    }

    /// Presses a key by name.
    pub fn key(&mut self, name: &str) {
        let bytes = match name {
            "Enter" => "\r",
            "Esc" => "\x1b",
            "Tab" => "\t",
            "Shift-Tab" => "\x1b[Z",
            "Up" => "\x1b[A",
            "Down" => "\x1b[B",
            "Right" => "\x1b[C",
            "Left" => "\x1b[D",
            "PageDown" => "\x1b[6~",
            "PageUp" => "\x1b[5~",
            "Ctrl-C" => "\x03",
            "Ctrl-U" => "\x15",
            "Ctrl-T" => "\x14",
            other => other,
        };
        self.send(bytes);
    }

    /// Pastes text, bracketed.
    pub fn paste(&mut self, text: &str) {
        self.send(&format!("\x1b[200~{text}\x1b[201~"));
    }

    /// The screen as text.
    pub fn screen(&self) -> String {
        self.seen().parser.screen().contents()
    }

    /// Bytes written by the program so far.
    pub fn bytes(&self) -> usize {
        self.seen().raw.len()
    }

    /// True when the program has written this, escape sequences included.
    pub fn wrote(&self, what: &[u8]) -> bool {
        self.seen().raw.windows(what.len()).any(|w| w == what)
    }

    /// True while the program holds the alternate screen.
    pub fn alternate(&self) -> bool {
        self.seen().parser.screen().alternate_screen()
    }

    /// Waits until the screen fulfils a condition.
    #[track_caller]
    pub fn wait(&self, what: &str, condition: impl Fn(&str) -> bool) {
        let end = Instant::now() + LIMIT;
        let mut seen = self.seen();
        loop {
            let screen = seen.parser.screen().contents();
            if condition(&screen) {
                return;
            }
            let left = end.saturating_duration_since(Instant::now());
            assert!(!left.is_zero() && !seen.closed, "{what} did not come true{}:\n{screen}", if seen.closed { " (the program ended)" } else { "" });
            seen = self.seen.1.wait_timeout(seen, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Waits until a text is on screen.
    #[track_caller]
    pub fn see(&self, text: &str) {
        self.wait(&format!("{text:?} on screen"), |screen| screen.contains(text));
    }

    /// Presses Tab until the field of this label holds the focus.
    #[track_caller]
    pub fn focus(&mut self, label: &str) {
        for _ in 0..30 {
            let before = self.screen();
            if before.contains(&format!("▸ {label} ")) {
                return;
            }
            self.key("Tab");
            self.wait("the focus moves", |screen| screen != before);
        }
        panic!("no field {label:?}:\n{}", self.screen());
    }

    /// The process id.
    pub fn pid(&self) -> i32 {
        self.child.process_id().expect("a process id") as i32
    }

    /// Another size.
    pub fn resize(&self, columns: u16, rows: u16) {
        self.seen().parser.screen_mut().set_size(rows, columns);
        let (master, _) = self.line.as_ref().expect("the line stands");
        master.resize(PtySize { rows, cols: columns, pixel_width: 0, pixel_height: 0 }).expect("a new size");
    }

    /// The line drops: the terminal is gone, and the program hears SIGHUP.
    pub fn hang_up(&mut self) {
        self.seen().hung_up = true;
        // Whatever the program writes next is the last that is read.
        let (rows, columns) = self.seen().parser.screen().size();
        self.resize(columns, rows - 1);
        let mut seen = self.seen();
        let end = Instant::now() + LIMIT;
        while !seen.closed {
            assert!(Instant::now() < end, "nothing was written after a resize:\n{}", seen.parser.screen().contents());
            seen = self.seen.1.wait_timeout(seen, Duration::from_millis(200)).unwrap_or_else(PoisonError::into_inner).0;
        }
        drop(seen);
        self.line = None;
    }

    /// Leaves with Ctrl-C, pressed again as a person would: a key that arrives in the same
    /// instant as a resize is seen by crossterm's edge-triggered reader with the next one only.
    #[track_caller]
    pub fn quit(&mut self) -> u32 {
        for _ in 0..20 {
            self.key("Ctrl-C");
            let end = Instant::now() + Duration::from_secs(1);
            while Instant::now() < end {
                if let Ok(Some(_)) = self.child.try_wait() {
                    return self.end();
                }
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        self.end()
    }

    /// Waits for the end and returns the exit code.
    #[track_caller]
    pub fn end(&mut self) -> u32 {
        let end = Instant::now() + LIMIT;
        loop {
            if let Some(status) = self.child.try_wait().expect("a status") {
                // What was still in the pipe.
                let mut seen = self.seen();
                while !seen.closed && Instant::now() < end {
                    seen = self.seen.1.wait_timeout(seen, Duration::from_millis(200)).unwrap_or_else(PoisonError::into_inner).0;
                }
                return status.exit_code();
            }
            assert!(Instant::now() < end, "the program does not end:\n{}", self.screen());
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Pty {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
