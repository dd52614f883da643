//! Lines as pluto's programs print them: those of 5.x plain, those of 4.x behind a number.

use std::cell::{Cell, RefCell};
use std::fmt::{Arguments, Write as _};

use crate::cli::print_text;

/// Whose lines.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Style {
    /// Of 5.x.
    Five,
    /// Of 4.x, and before.
    Four,
}

/// Where lines go.
pub(super) struct Out {
    pub(super) style: Style,
    /// Lines wait until there are many, or all is said.
    gathers: Cell<bool>,
    waiting: RefCell<String>,
}

/// Octets that wait at most.
const MOST_WAITING: usize = 64 << 10;

impl Out {
    /// The style that the environment asks for: `OBOL_COMPAT=4`.
    pub(super) fn new() -> Self {
        let four = std::env::var("OBOL_COMPAT").is_ok_and(|compat| compat.starts_with('4'));
        Self {
            style: if four { Style::Four } else { Style::Five },
            gathers: Cell::new(false),
            waiting: RefCell::default(),
        }
    }

    /// From here on nobody waits for single lines.
    pub(super) fn gather(&self) {
        self.gathers.set(true);
    }

    /// A line; `code` is what 4.x has before it.
    pub(super) fn line(&self, code: &str, text: &str) {
        self.write(code, format_args!("{text}"));
    }

    /// The same of what is to be put together.
    pub(super) fn write(&self, code: &str, text: Arguments<'_>) {
        if self.style == Style::Four {
            let mut waiting = self.waiting.borrow_mut();
            waiting.push_str(code);
            waiting.push(' ');
        }
        self.plain(text);
    }

    /// A line that has no number before it in 4.x either.
    pub(super) fn plain(&self, text: Arguments<'_>) {
        let mut waiting = self.waiting.borrow_mut();
        // A text always takes more.
        let _ = writeln!(waiting, "{text}");
        if !self.gathers.get() || waiting.len() > MOST_WAITING {
            // Where nothing can be printed, nobody reads; the exit code still tells.
            let _ = print_text(&waiting);
            waiting.clear();
        }
    }

    /// What separates groups.
    pub(super) fn blank(&self) {
        self.line("000", " ");
    }
}

impl Drop for Out {
    fn drop(&mut self) {
        let _ = print_text(&self.waiting.borrow());
    }
}
