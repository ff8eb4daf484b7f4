//! The operator's terminal: taken over on entry, given back on every way out.

use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use crossterm::terminal;
use ratatui::layout::Size;

/// True while the terminal is ours.
static TAKEN: AtomicBool = AtomicBool::new(false);

/// Alternate screen, no cursor, bracketed paste.
const ENTER: &str = "\x1b[?1049h\x1b[?25l\x1b[?2004h";
/// Clicks and wheel, in the form that works beyond column 223; movements are not reported.
const MOUSE: &str = "\x1b[?1000h\x1b[?1006h";
/// Everything back, whatever was on.
const LEAVE: &str = "\x1b[?2026l\x1b[?1006l\x1b[?1000l\x1b[?2004l\x1b[m\x1b[?25h\x1b[?1049l";

/// The terminal while it is ours; dropping gives it back.
pub struct Terminal {
    mouse: bool,
}

impl Terminal {
    /// Takes the terminal. Fails where there is none.
    pub fn enter(mouse: bool) -> anyhow::Result<Self> {
        if !io::stdout().is_terminal() || !io::stdin().is_terminal() {
            anyhow::bail!("the terminal app needs a terminal; see kms-sync --help for the commands");
        }
        hook();
        let taken = Self { mouse };
        taken.take()?;
        Ok(taken)
    }

    fn take(&self) -> io::Result<()> {
        terminal::enable_raw_mode()?;
        TAKEN.store(true, Ordering::SeqCst);
        write(ENTER)?;
        if self.mouse { write(MOUSE) } else { Ok(()) }
    }

    /// The size now; a terminal that does not know counts as 80x24.
    pub fn size(&self) -> Size {
        match terminal::size() {
            Ok((width, height)) if width > 0 && height > 0 => Size { width, height },
            _ => Size { width: 80, height: 24 },
        }
    }

    /// Stops the process as Ctrl-Z does and takes the terminal again when it is continued.
    pub fn suspend(&self) -> io::Result<()> {
        give_back();
        // The whole foreground job waits for `fg`; SIGSTOP cannot be missed or handled.
        let stopped = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::STOP);
        stopped.map_err(io::Error::from)?;
        self.take()
    }

    /// Takes the terminal again after somebody else stopped and continued the process.
    pub fn resume(&self) -> io::Result<()> {
        self.take()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        give_back();
    }
}

/// Writes bytes to the terminal at once.
pub fn write(bytes: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(bytes.as_bytes())?;
    out.flush()
}

/// Gives the terminal back; harmless when it is not ours. Errors are ignored: it may be gone.
pub fn give_back() {
    if TAKEN.swap(false, Ordering::SeqCst) {
        let _ = write(LEAVE);
        let _ = terminal::disable_raw_mode();
    }
}

/// A panic message belongs on the operator's own screen.
fn hook() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            give_back();
            before(info);
        }));
    });
}
