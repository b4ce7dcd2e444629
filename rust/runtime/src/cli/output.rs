//! Standard output that a closed pipe does not turn into an error: `cadenza-rt inspect x | head` is fine.

use std::fmt::Display;
use std::io::{ErrorKind, Stdout, Write};

/// Where answers go.
pub(super) struct Out {
    stdout: Stdout,
    failed: Option<std::io::Error>,
}

impl Out {
    pub(super) fn new() -> Self {
        Self { stdout: std::io::stdout(), failed: None }
    }

    /// One line, seen at once: a run may go on for hours after it.
    pub(super) fn say(&mut self, line: impl Display) {
        if self.failed.is_none()
            && let Err(error) = writeln!(self.stdout, "{line}").and_then(|()| self.stdout.flush())
        {
            self.failed = Some(error);
        }
    }

    /// Whether everything was written, or nobody listens any more.
    pub(super) fn finish(self) -> Result<(), std::io::Error> {
        match self.failed {
            Some(error) if error.kind() != ErrorKind::BrokenPipe => Err(error),
            _ => Ok(()),
        }
    }
}

/// `program: text` on standard error. When even that cannot be written, the exit code still tells.
pub(super) fn error(program: &str, text: &str) {
    let _ = writeln!(std::io::stderr(), "{program}: {text}");
}
