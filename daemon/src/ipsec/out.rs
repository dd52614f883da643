//! Lines as pluto's programs print them: those of 5.x plain, those of 4.x behind a number.

use crate::cli::print_line;

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
}

impl Out {
    /// The style that the environment asks for: `OBOL_COMPAT=4`.
    pub(super) fn new() -> Self {
        let four = std::env::var("OBOL_COMPAT").is_ok_and(|compat| compat.starts_with('4'));
        Self {
            style: if four { Style::Four } else { Style::Five },
        }
    }

    /// A line; `code` is what 4.x has before it.
    pub(super) fn line(&self, code: &str, text: &str) {
        let line = match self.style {
            Style::Five => text.to_owned(),
            Style::Four => format!("{code} {text}"),
        };
        // Where nothing can be printed, nobody reads; the exit code still tells.
        let _ = print_line(&line);
    }

    /// What separates groups.
    pub(super) fn blank(&self) {
        self.line("000", if self.style == Style::Four { " " } else { "" });
    }
}
