//! The terminal as a person types into it, and how large it is.

use std::os::fd::AsFd;

use rbuild_builder::container::TerminalSize;
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};

/// The size of the terminal behind `fd`; zeros where there is none, or one that does not know.
pub(crate) fn size(fd: impl AsFd) -> TerminalSize {
    tcgetwinsize(fd).map_or_else(
        |_no_terminal| TerminalSize::default(),
        |size| TerminalSize {
            rows: size.ws_row,
            columns: size.ws_col,
        },
    )
}

/// While it lives, what is typed is not shown.
pub(crate) struct Hidden {
    before: Option<Termios>,
}

impl Hidden {
    /// Hides what is typed, where standard input is a terminal.
    pub(crate) fn start() -> Self {
        let stdin = rustix::stdio::stdin();
        let before = tcgetattr(stdin).ok();
        if let Some(before) = &before {
            let mut hidden = before.clone();
            hidden.local_modes.remove(LocalModes::ECHO);
            // A terminal that cannot hide still takes the password.
            let _shown = tcsetattr(stdin, OptionalActions::Flush, &hidden);
        }
        Self { before }
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            let _gone = tcsetattr(rustix::stdio::stdin(), OptionalActions::Flush, before);
        }
    }
}
