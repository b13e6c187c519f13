//! The last step: the program, its arguments and its environment, and `execve`.

use std::ffi::{CString, OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::PathBuf;

use rustix::io::Errno;

use crate::foreign;
use crate::plan::Process;
use crate::wire::{FailureKind, SetupError};

/// The program in the forms `execve` wants, made while allocation failures can still be told.
pub(crate) struct Program {
    candidates: Vec<CString>,
    shown: PathBuf,
    args: Vec<CString>,
    env: Vec<CString>,
}

impl Program {
    pub(crate) fn of(process: &Process) -> Result<Self, SetupError> {
        let shown = PathBuf::from(process.args.first().cloned().unwrap_or_default());
        let wrong = |text: &str| SetupError {
            kind: FailureKind::Exec,
            what: "run",
            path: shown.clone(),
            text: text.to_owned(),
            machine: None,
            source: None,
        };
        let name = process
            .args
            .first()
            .filter(|name| !name.is_empty())
            // Named or not, it is not there (`execve` of nothing says so).
            .ok_or_else(|| SetupError {
                source: Some(Errno::NOENT.into()),
                ..wrong(": no program is named")
            })?;
        let c = |text: &OsString| {
            CString::new(text.as_bytes()).map_err(|_| wrong(": a NUL byte in argument or environment"))
        };
        let candidates = if name.as_bytes().contains(&b'/') {
            vec![name.clone()]
        } else {
            in_path(name, &process.env)
        };
        Ok(Self {
            candidates: candidates.iter().map(c).collect::<Result<_, _>>()?,
            args: process.args.iter().map(c).collect::<Result<_, _>>()?,
            env: process.env.iter().map(c).collect::<Result<_, _>>()?,
            shown: shown.clone(),
        })
    }

    /// Tries each place in turn, as `execvp`; the most telling error wins.
    pub(crate) fn exec(self) -> SetupError {
        let mut telling = Errno::NOENT;
        let mut reason = None;
        for candidate in &self.candidates {
            let Err(error) = nix::unistd::execve(candidate, &self.args, &self.env);
            let error = Errno::from_raw_os_error(error as i32);
            match error {
                Errno::NOENT | Errno::NOTDIR => {}
                Errno::ACCESS => telling = error,
                _ => {
                    telling = error;
                    if error == Errno::NOEXEC {
                        reason = foreign::reason(candidate);
                    }
                    break;
                }
            }
        }
        SetupError {
            kind: FailureKind::Exec,
            what: "run",
            path: self.shown,
            machine: reason.as_ref().and_then(|reason| reason.machine),
            text: reason.map(|reason| reason.text).unwrap_or_default(),
            source: Some(telling.into()),
        }
    }
}

/// Where a bare name may be: absolute parts of the step's own `PATH` (runc looks nowhere else either).
fn in_path(name: &OsStr, env: &[OsString]) -> Vec<OsString> {
    let path = env
        .iter()
        .rev()
        .find_map(|entry| entry.as_bytes().strip_prefix(b"PATH="))
        .unwrap_or_default();
    path.split(|byte| *byte == b':')
        .filter(|part| part.starts_with(b"/"))
        .map(|part| OsString::from_vec([part, b"/", name.as_bytes()].concat()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bare_names_are_looked_up_in_absolute_parts_of_path() {
        let env = [
            OsString::from("XPATH=/no"),
            OsString::from("PATH=/usr/bin::rel:.:/bin"),
        ];
        assert_eq!(in_path(OsStr::new("sh"), &env), ["/usr/bin/sh", "/bin/sh"]);
        assert!(in_path(OsStr::new("sh"), &env[..1]).is_empty());
    }
}
