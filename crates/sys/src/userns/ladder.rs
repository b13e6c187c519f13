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
    /// Root without any namespace of its own: steps get a directory as their root, and lose rights. Taken by itself only where
    /// the kernel keeps their signals and sockets in.
    Chroot,
    /// Anybody without any of that: no step can be run, and what needs none is built. Owners and modes are recorded.
    Files,
}

impl Rung {
    /// All of them, the one tried first first.
    pub const ALL: [Self; 5] = [
        Self::RootNamespaces,
        Self::SubordinateIds,
        Self::OneId,
        Self::Chroot,
        Self::Files,
    ];

    /// Whether it is taken by itself on this machine. The one without namespaces is where the kernel has Landlock's scopes: a
    /// step then reaches no process and no abstract socket of the container. Elsewhere it could end the build and what runs
    /// beside it, which is for people to decide.
    #[must_use]
    pub fn is_automatic(self) -> bool {
        self != Self::Chroot || crate::landlock::has_scopes()
    }

    /// Whether steps can be run.
    #[must_use]
    pub const fn has_steps(self) -> bool {
        !matches!(self, Self::Files)
    }

    /// Whether anything can be mounted.
    #[must_use]
    pub const fn has_mounts(self) -> bool {
        !matches!(self, Self::Chroot | Self::Files)
    }

    /// How layers are kept on this rung.
    #[must_use]
    pub const fn form(self) -> Form {
        match self {
            Self::RootNamespaces => Form::Trusted,
            Self::SubordinateIds | Self::OneId | Self::Chroot | Self::Files => Form::User,
        }
    }

    /// Its place on the ladder, from 1.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::RootNamespaces => 1,
            Self::SubordinateIds => 2,
            Self::OneId => 3,
            Self::Chroot => 4,
            Self::Files => 5,
        }
    }

    /// Its name in options and output.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::RootNamespaces => "root",
            Self::SubordinateIds => "subids",
            Self::OneId => "one-id",
            Self::Chroot => "chroot",
            Self::Files => "files",
        }
    }

    /// What it is, in a few words.
    #[must_use]
    pub const fn summary(self) -> &'static str {
        match self {
            Self::RootNamespaces => "namespaces of root",
            Self::SubordinateIds => "user namespace with subordinate ids",
            Self::OneId => "user namespace with one id, other owners recorded",
            Self::Chroot => "no namespaces, a root directory for each step (--rung=namespaces refuses this)",
            Self::Files => "no steps: what RUN does not make, with owners and modes recorded",
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

/// Which rungs may be taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// The first that works of those that are taken by themselves.
    #[default]
    First,
    /// The same without the one that has no namespaces.
    Namespaces,
    /// Just this one.
    Only(Rung),
}

impl Choice {
    /// Its words: those of rungs, and `namespaces`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "namespaces" => Some(Self::Namespaces),
            _ => Rung::parse(text).map(Self::Only),
        }
    }

    /// Whether `rung` is tried.
    pub(super) fn tries(self, rung: Rung) -> bool {
        match self {
            // Root's rung is nothing that another user missed.
            Self::First | Self::Namespaces if rung == Rung::RootNamespaces => {
                rustix::process::geteuid().is_root()
            }
            // Nor is the one without namespaces, which is root's too.
            Self::First if rung == Rung::Chroot => {
                rung.is_automatic() && rustix::process::geteuid().is_root()
            }
            Self::First => true,
            Self::Namespaces => rung.has_mounts(),
            Self::Only(wanted) => wanted == rung,
        }
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

impl Entered {
    /// Why no step can be run: what was said of the rungs that have them. Nothing where they can.
    #[must_use]
    pub fn without_steps(&self) -> Option<String> {
        let why = || match self.declined.as_slice() {
            [] => "; rung files was asked for".to_owned(),
            declined => reasons(declined) + LEAST_CHANGE,
        };
        (!self.rung.has_steps()).then(why)
    }
}

/// What would have an ordinary user's steps run (docs/rootless.md).
const LEAST_CHANGE: &str = "; least change: user namespaces, by the lines that `rbuild doctor` prints, or root of the container with \
                            its usual capabilities (--rung=chroot)";

/// No rung could be reached.
#[derive(Debug, thiserror::Error)]
#[error("no way to run steps here{}{}", without_rungs(.declined), last(*.can_chroot))]
pub struct LadderError {
    /// Those tried, in order. None, if the process could not try any.
    pub declined: Vec<Declined>,
    /// The rung that has to be asked for is there.
    pub can_chroot: bool,
}

const fn last(can_chroot: bool) -> &'static str {
    if can_chroot {
        "; --rung=chroot would work, which keeps steps apart from this container less well: see docs/rootless.md"
    } else {
        ""
    }
}

/// Why there is none. What is in the way of all of them is told once.
fn without_rungs(declined: &[Declined]) -> String {
    match declined {
        [first, ..]
            if declined
                .iter()
                .all(|one| matches!(one.error, UsernsError::NoProc)) =>
        {
            format!(": {}", first.error)
        }
        _ => reasons(declined),
    }
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
        for text in ["", "0", "6", "Root", "3 "] {
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
            can_chroot: true,
        };
        let text = error.to_string();
        assert!(text.contains("subids") && text.contains("2 threads"), "{text}");
        assert!(text.contains("one-id") && text.contains("3 threads"), "{text}");
        assert!(text.contains("--rung=chroot"), "{text}");
    }

    #[test]
    fn what_is_in_the_way_of_every_rung_is_told_once() {
        let declined = |error| Declined {
            rung: Rung::OneId,
            error,
        };
        let told = |others| {
            let mut all = vec![declined(UsernsError::NoProc), declined(UsernsError::NoProc)];
            all.extend(others);
            let error = LadderError {
                declined: all,
                can_chroot: false,
            };
            error.to_string().matches("mount -t proc").count()
        };
        assert_eq!(told(None), 1);
        assert_eq!(told(Some(declined(UsernsError::Threads(2)))), 2);
    }

    #[test]
    fn the_rung_without_namespaces_is_taken_by_itself_where_the_kernel_keeps_signals_in() {
        let automatic = Rung::ALL.map(Rung::is_automatic);
        assert_eq!(automatic, [true, true, true, crate::landlock::has_scopes(), true]);
        assert!(!Choice::Namespaces.tries(Rung::Chroot) && !Choice::Namespaces.tries(Rung::Files));
        assert!(Choice::First.tries(Rung::Files));
        assert!(Choice::Only(Rung::Chroot).tries(Rung::Chroot));
        assert!(!Choice::Only(Rung::Chroot).tries(Rung::OneId));
    }

    #[test]
    fn a_rung_without_steps_says_why_there_are_none() {
        let declined = vec![Declined {
            rung: Rung::OneId,
            error: UsernsError::Threads(3),
        }];
        let on = |rung, declined| Entered { rung, declined }.without_steps();
        assert_eq!(on(Rung::OneId, Vec::new()), None);
        assert_eq!(
            on(Rung::Files, Vec::new()).as_deref(),
            Some("; rung files was asked for")
        );
        let told = on(Rung::Files, declined).unwrap();
        assert!(told.contains("one-id") && told.contains("3 threads"), "{told}");
    }

    #[test]
    fn a_choice_is_a_rung_or_all_with_namespaces() {
        assert_eq!(Choice::parse("namespaces"), Some(Choice::Namespaces));
        assert_eq!(Choice::parse("one-id"), Some(Choice::Only(Rung::OneId)));
        for text in ["", "auto", "namespace", "first"] {
            assert_eq!(Choice::parse(text), None, "{text:?}");
        }
    }
}
