//! The findings, as text and as JSON.

use std::io::{self, Write};

use rbuild_sys::userns::Rung;
use serde::{Deserialize, Serialize};

use super::machine::Machine;

/// Everything that was found.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) machine: Machine,
    /// In the order in which a build tries them.
    pub(crate) rungs: Vec<RungReport>,
    /// The name of the one a build would take.
    pub(crate) chosen: Option<&'static str>,
    /// Whether steps can be run there.
    pub(crate) has_steps: bool,
}

/// One rung.
#[derive(Debug, Serialize)]
pub(crate) struct RungReport {
    pub(crate) number: u8,
    pub(crate) name: &'static str,
    pub(crate) works: bool,
    /// A build takes it by itself.
    pub(crate) automatic: bool,
    /// It can run steps.
    pub(crate) has_steps: bool,
    /// What was tried, up to the first that failed.
    pub(crate) checks: Vec<Check>,
}

/// One thing that a build needs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Check {
    /// What was tried.
    pub(crate) name: String,
    pub(crate) passed: bool,
    /// What was found.
    pub(crate) found: String,
    /// Lines that say what to change, the least change first. Empty if nothing is to be changed or nothing helps.
    pub(crate) advice: Vec<String>,
}

impl Check {
    pub(crate) fn passed(name: &str, found: impl Into<String>) -> Self {
        Self {
            name: name.to_owned(),
            passed: true,
            found: found.into(),
            advice: Vec::new(),
        }
    }

    pub(crate) fn failed(name: &str, found: impl Into<String>, advice: Vec<String>) -> Self {
        Self {
            name: name.to_owned(),
            passed: false,
            found: found.into(),
            advice,
        }
    }
}

impl Report {
    pub(crate) fn new(machine: Machine, rungs: Vec<RungReport>) -> Self {
        let chosen = rungs.iter().find(|rung| rung.works && rung.automatic);
        let (chosen, has_steps) = (
            chosen.map(|rung| rung.name),
            chosen.is_some_and(|rung| rung.has_steps),
        );
        Self {
            machine,
            rungs,
            chosen,
            has_steps,
        }
    }

    /// Writes it for people.
    pub(crate) fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        for (name, value) in self.machine.lines() {
            writeln!(out, "{name:<12} {value}")?;
        }
        for rung in &self.rungs {
            let chosen = self.chosen == Some(rung.name);
            let verdict = match (rung.works, chosen) {
                (true, true) if !rung.has_steps => "works: what needs no RUN is built here",
                (true, true) => "works: builds run here",
                (true, false) if !rung.automatic => "works when it is asked for",
                (true, false) => "works",
                (false, _) => "does not work",
            };
            writeln!(out, "\n{} {} {verdict}", rung.number, rung.name)?;
            for check in &rung.checks {
                let mark = if check.passed { "ok  " } else { "FAIL" };
                writeln!(out, "  {mark} {}: {}", check.name, check.found)?;
                for line in &check.advice {
                    writeln!(out, "       {line}")?;
                }
            }
        }
        if self.chosen.is_none() {
            writeln!(
                out,
                "\nNo rung works here: nothing can be built until one of the changes above is made."
            )?;
        } else if !self.has_steps {
            writeln!(
                out,
                "\nNo rung that runs steps works here: a RUN fails until one of the changes above is made."
            )?;
        }
        Ok(())
    }
}

impl RungReport {
    pub(crate) fn new(rung: Rung, checks: Vec<Check>) -> Self {
        Self {
            number: rung.number(),
            name: rung.name(),
            automatic: rung.is_automatic(),
            has_steps: rung.has_steps(),
            works: !checks.is_empty() && checks.iter().all(|check| check.passed),
            checks,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(works: [bool; 5]) -> Report {
        let rungs = Rung::ALL.into_iter().zip(works).map(|(rung, works)| {
            let check = if works {
                Check::passed("step", "ran")
            } else {
                Check::failed("namespaces", "refused", vec!["sysctl -w a.b=1".to_owned()])
            };
            RungReport::new(rung, vec![check])
        });
        Report::new(Machine::default(), rungs.collect())
    }

    #[test]
    fn the_first_that_works_is_the_one_that_builds_take() {
        assert_eq!(report([false, true, true, true, true]).chosen, Some("subids"));
        assert_eq!(report([true, false, false, false, true]).chosen, Some("root"));
        let last = rbuild_sys::landlock::has_scopes().then_some("chroot");
        assert_eq!(report([false, false, false, true, false]).chosen, last);
        let files = report([false, false, false, false, true]);
        assert_eq!((files.chosen, files.has_steps), (Some("files"), false));
    }

    #[test]
    fn the_text_has_each_rung_each_failure_and_what_to_change() {
        let mut out = Vec::new();
        report([false, false, true, true, true]).write(&mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(text.contains("3 one-id works: builds run here"), "{text}");
        assert!(text.contains("2 subids does not work"), "{text}");
        assert!(
            text.contains("FAIL namespaces: refused\n       sysctl -w a.b=1"),
            "{text}"
        );
        let mut out = Vec::new();
        report([false; 5]).write(&mut out).unwrap();
        assert!(String::from_utf8(out).unwrap().contains("No rung works here"));
        let mut out = Vec::new();
        report([false, false, false, false, true])
            .write(&mut out)
            .unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(
            text.contains("5 files works: what needs no RUN is built here"),
            "{text}"
        );
        assert!(text.contains("No rung that runs steps works here"), "{text}");
    }

    #[test]
    fn a_rung_of_which_nothing_is_known_does_not_work() {
        assert!(!RungReport::new(Rung::OneId, Vec::new()).works);
    }
}
