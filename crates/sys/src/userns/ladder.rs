//! The ladder: its rungs by number and name, and what came of trying them.

use crate::overlay::Form;

use super::UsernsError;

/// On which rung of the ladder the process stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rung {
    /// Real root in a mount namespace of its own.
    RootNamespaces,
    /// Root of a user namespace with subordinate ids mapped by `newuidmap` and `newgidmap`.
    SubordinateIds,
    /// Root of a user namespace in which the caller's own id is the only one; other owners are recorded.
    OneId,
}

impl Rung {
    /// All of them, the one tried first first.
    pub const ALL: [Self; 3] = [Self::RootNamespaces, Self::SubordinateIds, Self::OneId];

    /// How layers are kept on this rung.
    #[must_use]
    pub const fn form(self) -> Form {
        match self {
            Self::RootNamespaces => Form::Trusted,
            Self::SubordinateIds | Self::OneId => Form::User,
        }
    }

    /// Its place on the ladder, from 1.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::RootNamespaces => 1,
            Self::SubordinateIds => 2,
            Self::OneId => 3,
        }
    }

    /// Its name in options and output.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::RootNamespaces => "root",
            Self::SubordinateIds => "subids",
            Self::OneId => "one-id",
        }
    }

    /// What it is, in a few words.
    #[must_use]
    pub const fn summary(self) -> &'static str {
        match self {
            Self::RootNamespaces => "namespaces of root",
            Self::SubordinateIds => "user namespace with subordinate ids",
            Self::OneId => "user namespace with one id, other owners recorded",
        }
    }

    /// The rung of that number or name.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|rung| rung.name() == text || rung.number().to_string() == text)
    }
}

/// A rung that was tried and could not be stood on.
#[derive(Debug)]
pub struct Declined {
    /// Which.
    pub rung: Rung,
    /// Why.
    pub error: UsernsError,
}

/// Where a process got to.
#[derive(Debug)]
pub struct Entered {
    /// The rung it stands on.
    pub rung: Rung,
    /// Those tried before, in order.
    pub declined: Vec<Declined>,
}

/// No rung could be reached.
#[derive(Debug, thiserror::Error)]
#[error("no way to run steps here{}", reasons(.declined))]
pub struct LadderError {
    /// Those tried, in order. None, if the process could not try any.
    pub declined: Vec<Declined>,
}

fn reasons(declined: &[Declined]) -> String {
    let line = |one: &Declined| {
        let mut text = format!("; {} ({}): {}", one.rung.name(), one.rung.summary(), one.error);
        if let Some(source) = std::error::Error::source(&one.error) {
            text = text + ": " + &source.to_string();
        }
        text
    };
    declined.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rung_is_named_by_number_or_name_and_by_nothing_else() {
        for rung in Rung::ALL {
            assert_eq!(Rung::parse(rung.name()), Some(rung));
            assert_eq!(Rung::parse(&rung.number().to_string()), Some(rung));
        }
        for text in ["", "0", "4", "Root", "3 "] {
            assert_eq!(Rung::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn the_error_names_every_rung_with_its_reason() {
        let declined = |rung, threads| Declined {
            rung,
            error: UsernsError::Threads(threads),
        };
        let error = LadderError {
            declined: vec![declined(Rung::SubordinateIds, 2), declined(Rung::OneId, 3)],
        };
        let text = error.to_string();
        assert!(text.contains("subids") && text.contains("2 threads"), "{text}");
        assert!(text.contains("one-id") && text.contains("3 threads"), "{text}");
    }
}
