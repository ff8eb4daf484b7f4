//! The manual page: all commands on one page, in roff.

use std::io;

use clap::{Command, CommandFactory as _};
use clap_mangen::Man;

use super::Args;

/// What no argument tells; man-pages(7) names the sections.
const REST: &str = r#".SH "EXIT STATUS"
.TP
0
success; of \fBplan\fR: nothing to do
.TP
1
the work failed, or stopped to ask
.TP
2
usage or bad input; nothing was written
.TP
10
\fBplan\fR found changes
.TP
130
interrupted
.SH ENVIRONMENT
.TP
KMS_SYNC_CONFIG_DIR, KMS_SYNC_STATE_DIR
the directories, as by \-\-config\-dir and \-\-state\-dir
.TP
KMS_SYNC_PASSPHRASE_FILE
a file with the passphrase that opens stored credentials, where they are sealed with one
.TP
NO_COLOR
no colours when it is set and not empty
.TP
HTTPS_PROXY, NO_PROXY
as other programs read them
.SH FILES
In the configuration directory (by default kms\-sync in $XDG_CONFIG_HOME, or in ~/.config):
.TP
syncs/NAME.json
a sync: the request that the KMS documents
.TP
connections/NAME.json
a connection; its secret fields are sealed or references
.TP
settings.json
how the engine and the screens behave
.PP
In the state directory (by default kms\-sync in $XDG_STATE_HOME, or in ~/.local/state): history, ledger
and keys. No file holds a secret value.
.SH SIGNALS
\fBkms\-sync run\fR stops in good order at SIGTERM and SIGINT: nothing new starts, runs under way get
10 seconds and are then parked. At SIGHUP it reads the configuration again. The terminal app takes
SIGHUP, a dropped line, as a reason to leave in the same order.
"#;

/// Defines the apostrophe; the page has it from its beginning.
const PREAMBLE: &str = ".ie \\n(.g .ds Aq \\(aq\n.el .ds Aq '\n";

/// The page.
pub fn page() -> io::Result<String> {
    let mut command = Args::command();
    command.build();
    command = command.mut_subcommand("help", |c| c.hide(true));
    let mut out = Vec::new();
    Man::new(command.clone()).render(&mut out)?;
    let mut page = text(out);
    for sub in command.get_subcommands().filter(|c| c.get_name() != "help") {
        // There are no pages of their own to refer to.
        let name = sub.get_name().replace('-', r"\-");
        page = page.replace(&format!(r"kms\-sync\-{name}(1)"), &format!(r"kms\-sync {name}"));
        one(sub, &mut page)?;
    }
    page.push_str(REST);
    Ok(page)
}

/// A command and those below it, each a section with parts.
fn one(command: &Command, page: &mut String) -> io::Result<()> {
    let below: Vec<&Command> = command.get_subcommands().filter(|c| c.get_name() != "help").collect();
    if below.is_empty() {
        let name = command.get_bin_name().unwrap_or(command.get_name()).to_uppercase();
        // What counts for all commands is told once.
        let own = command.clone().mut_args(|a| if a.is_global_set() || a.get_id() == "help" { a.hide(true) } else { a });
        let arguments = own.get_arguments().any(|a| !a.is_hide_set());
        let man = Man::new(own);
        let mut out = Vec::new();
        man.render_description_section(&mut out)?;
        man.render_synopsis_section(&mut out)?;
        if arguments {
            man.render_options_section(&mut out)?;
        }
        page.push_str(&format!(".SH \"{name}\"\n"));
        let parts = text(out).replace(PREAMBLE, "").replace(".SH DESCRIPTION\n", "").replace(".SH ", ".SS ");
        page.push_str(&parts);
    }
    below.into_iter().try_for_each(|c| one(c, page))
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_page_tells_every_command_and_what_scripts_need() {
        let page = super::page().expect("a page");
        for said in ["KMS-SYNC SYNC", "KMS-SYNC CONNECTION ADD", r"allow\-delete", r"log\-format", "EXIT STATUS", "SIGHUP", "settings.json"] {
            assert!(page.contains(said), "{said}:\n{page}");
        }
        assert_eq!(page.matches(r"config\-dir").count(), 3, "told once, of all commands: {page}");
    }
}
