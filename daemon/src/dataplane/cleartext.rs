//! Packets that pass in clear while there is no SA, where the configuration says so.

/// When packets of a child may pass in clear. Whoever can keep the hosts from negotiating can then
/// read them, so nobody has that without asking for it.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub(crate) enum Cleartext {
    /// Never.
    #[default]
    Never,
    /// While there is no SA, until a try to make one has failed.
    WhileNegotiating,
    /// While there is no SA, once a try to make one has failed.
    AfterFailure,
    /// While there is no SA.
    WithoutSa,
    /// While there is no SA; and what comes in in clear is taken while there is one, too.
    Opportunistic,
}

impl Cleartext {
    /// All that one can ask for.
    pub(crate) const ALL: [Self; 5] = [
        Self::Never,
        Self::WhileNegotiating,
        Self::AfterFailure,
        Self::WithoutSa,
        Self::Opportunistic,
    ];

    /// As it is written.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Never => "never",
            Self::WhileNegotiating => "while-negotiating",
            Self::AfterFailure => "after-failure",
            Self::WithoutSa => "without-sa",
            Self::Opportunistic => "opportunistic",
        }
    }

    /// As people are told; `None`: there is nothing to tell.
    pub(crate) fn said(self) -> Option<&'static str> {
        match self {
            Self::Never => None,
            Self::WhileNegotiating => Some("cleartext allowed while negotiating"),
            Self::AfterFailure => Some("cleartext allowed after failure"),
            Self::WithoutSa => Some("cleartext allowed without SA"),
            Self::Opportunistic => Some("opportunistic, cleartext allowed"),
        }
    }

    /// Whether it depends on what becomes of negotiations.
    pub(crate) fn changes(self) -> bool {
        !matches!(self, Self::Never | Self::Opportunistic)
    }

    /// Whether packets without SA pass, given that there `is_up` an SA of the child, and that the last
    /// try to make one `failed`.
    pub(crate) fn allows(self, is_up: bool, failed: bool) -> bool {
        match self {
            Self::Never => false,
            Self::WhileNegotiating => !is_up && !failed,
            Self::AfterFailure => !is_up && failed,
            Self::WithoutSa => !is_up,
            Self::Opportunistic => true,
        }
    }
}

/// What is so of a policy.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Clear {
    /// When packets may pass.
    pub(crate) when: Cleartext,
    /// Packets without SA pass now, in either direction.
    pub(crate) now: bool,
}

impl Clear {
    /// Before anything was negotiated.
    pub(crate) fn at_first(when: Cleartext) -> Self {
        Self {
            when,
            now: when.allows(false, false),
        }
    }

    /// Whether packets come in in clear beside an SA.
    pub(crate) fn beside_sa(self) -> bool {
        self.when == Cleartext::Opportunistic
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_pass_when_it_was_asked_for_and_else_never() {
        // Without SA before a failure, after one; with an SA before one, after one.
        for (when, expected) in [
            (Cleartext::Never, [false, false, false, false]),
            (Cleartext::WhileNegotiating, [true, false, false, false]),
            (Cleartext::AfterFailure, [false, true, false, false]),
            (Cleartext::WithoutSa, [true, true, false, false]),
            (Cleartext::Opportunistic, [true; 4]),
        ] {
            let cases = [(false, false), (false, true), (true, false), (true, true)];
            let found = cases.map(|(is_up, failed)| when.allows(is_up, failed));
            assert_eq!(found, expected, "{when:?}");
        }
    }
}
