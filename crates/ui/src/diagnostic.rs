//! A failure as the user sees it: the lines of the Dockerfile it comes from, what went wrong, and what may help; and
//! the exit code that goes with it. Knows no error type of the engine: the command line maps those to a
//! [`Diagnostic`].

use std::io::{self, Write};

use crate::text;

/// Exit codes: 0, 1 and 130 are those of buildx (`cmd/buildx/main.go`). What a registry has to do with has codes of its own,
/// below those that buildx's daemon (100, 102), docker and shells (125 upwards) have a meaning for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ExitCode {
    /// Everything was done.
    Success,
    /// Anything that has no code of its own.
    #[default]
    Failure,
    /// The user stopped it.
    Cancelled,
    /// No connection, or one that broke or stalled; or the network may not be used.
    Network,
    /// Credentials are missing, wrong or not enough.
    Authorization,
    /// A registry, or another server, failed or refused.
    Server,
    /// What came is not what was asked for.
    Content,
    /// A registry has no such image.
    NotFound,
    /// That of a program that was run.
    Program(u8),
}

impl ExitCode {
    /// The number.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Success => 0,
            Self::Failure => 1,
            Self::Cancelled => 130,
            Self::Network => 3,
            Self::Authorization => 4,
            Self::Server => 5,
            Self::Content => 6,
            Self::NotFound => 7,
            Self::Program(code) => code,
        }
    }
}

/// Lines of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// File name as the user gave it.
    pub filename: String,
    /// The whole file; bytes that are not UTF-8 are shown replaced.
    pub text: Vec<u8>,
    /// 1-based, inclusive; the first line of the first one is where the failure is said to be.
    pub spans: Vec<(u32, u32)>,
}

/// One failure.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Diagnostic {
    /// What went wrong, without `ERROR:`.
    pub message: String,
    /// Where it comes from; all places, if there are several.
    pub sources: Vec<Source>,
    /// They are shown below the message, as BuildKit shows that of a check.
    pub source_is_below: bool,
    /// What may help, one line each.
    pub hints: Vec<String>,
    /// Exit code of the program.
    pub exit_code: ExitCode,
}

impl Diagnostic {
    /// A failure without place or hint.
    #[must_use]
    pub fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            ..Self::default()
        }
    }

    /// Writes it: excerpt, `ERROR: …`, `hint: …`; or the excerpt after the error.
    ///
    /// # Errors
    /// What `out` says.
    pub fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        if !self.source_is_below {
            self.write_sources(out)?;
        }
        // Further lines have a mark: a name with a line feed in it, of an image or a server, cannot begin a line of its own,
        // which a CI system might take for a command. Blanks would not do, they skip those.
        for (number, line) in self.message.split('\n').enumerate() {
            let mark = if number == 0 { "ERROR:" } else { "     |" };
            // A blank at the end of the message is the message's.
            match text::one_line(line).as_ref() {
                "" => writeln!(out, "{mark}")?,
                text => writeln!(out, "{mark} {text}")?,
            }
        }
        if self.source_is_below {
            self.write_sources(out)?;
        }
        for hint in &self.hints {
            writeln!(out, "hint: {}", text::one_line(hint))?;
        }
        Ok(())
    }
}

impl Diagnostic {
    fn write_sources(&self, out: &mut dyn Write) -> io::Result<()> {
        self.sources.iter().try_for_each(|source| source.write(out))
    }
}

const RULER: &str = "--------------------";

impl Source {
    /// Writes the excerpt as BuildKit does (`solver/errdefs/source.go`): about two lines around the marked ones,
    /// nothing if the lines are not in the file.
    ///
    /// # Errors
    /// What `out` says.
    pub fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        let Some((mut start, mut end)) = self.range() else {
            return Ok(());
        };
        let file = String::from_utf8_lossy(&self.text);
        let lines: Vec<&str> = file.split('\n').collect();
        let last = u32::try_from(lines.len()).unwrap_or(u32::MAX);
        if start < 1 || start > last {
            return Ok(());
        }
        end = end.min(last);
        let said = start;
        let wanted = if start == end { 4 } else { 2 };
        let mut added = 0;
        while added < wanted {
            if start > 1 {
                start -= 1;
                added += 1;
            }
            if end != last {
                end += 1;
                added += 1;
            }
            added += 1;
        }
        writeln!(out, "{}:{said}\n{RULER}", text::one_line(&self.filename))?;
        for (number, line) in (1..)
            .zip(&lines)
            .skip(start as usize - 1)
            .take((end - start) as usize + 1)
        {
            let mark = if self.marks(number) { ">>>" } else { "   " };
            writeln!(out, " {number:>3} | {mark} {}", text::source_line(line))?;
        }
        writeln!(out, "{RULER}")
    }

    fn range(&self) -> Option<(u32, u32)> {
        let start = self.spans.iter().map(|span| span.0).min()?;
        let end = self.spans.iter().map(|span| span.0.max(span.1)).max()?;
        Some((start, end))
    }

    fn marks(&self, line: u32) -> bool {
        self.spans
            .iter()
            .any(|&(start, end)| start <= line && line <= end.max(start))
    }
}

/// What is known of one warning, for the summary after a build.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct WarningText {
    /// One line.
    pub short: String,
    /// More lines, shown when asked for.
    pub detail: Vec<String>,
    /// Where to read more.
    pub url: String,
    /// Where it comes from.
    pub source: Option<Source>,
}

/// Writes the summary of warnings as buildx does (`commands/build.go`, `printWarnings`), except that colour obeys
/// `coloured`. Nothing if there are none.
///
/// # Errors
/// What `out` says.
pub fn write_warnings(
    warnings: &[WarningText],
    expand: bool,
    coloured: bool,
    out: &mut dyn Write,
) -> io::Result<()> {
    let count = match warnings.len() {
        0 => return Ok(()),
        1 => "1 warning found".to_owned(),
        many => format!("{many} warnings found"),
    };
    let note = if expand { "" } else { " (use --debug to expand)" };
    let (on, off) = if coloured {
        ("\x1b[33m", "\x1b[0m")
    } else {
        ("", "")
    };
    writeln!(out, "\n {on}{count}{note}:{off}")?;
    for warning in warnings {
        writeln!(out, " - {}", text::one_line(&warning.short))?;
        if !expand {
            continue;
        }
        for line in &warning.detail {
            writeln!(out, "{}", text::one_line(line))?;
        }
        if !warning.url.is_empty() {
            writeln!(out, "More info: {}", text::one_line(&warning.url))?;
        }
        if let Some(source) = &warning.source {
            source.write(out)?;
        }
        writeln!(out)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(diagnostic: &Diagnostic) -> String {
        let mut out = Vec::new();
        diagnostic.write(&mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    fn at(text: &str, spans: &[(u32, u32)]) -> String {
        shown(&Diagnostic {
            message: "boom".to_owned(),
            sources: vec![Source {
                filename: "Dockerfile".to_owned(),
                text: text.as_bytes().to_vec(),
                spans: spans.to_vec(),
            }],
            ..Diagnostic::default()
        })
    }

    const FILE: &str = "FROM a\nRUN 2\nRUN 3\nRUN 4\nRUN 5\nRUN 6\nRUN 7\n";

    #[test]
    fn one_line_has_neighbours() {
        assert_eq!(
            at(FILE, &[(4, 4)]),
            "Dockerfile:4\n--------------------\n   2 |     RUN 2\n   3 |     RUN 3\n   4 | >>> RUN 4\n   \
             5 |     RUN 5\n   6 |     RUN 6\n--------------------\nERROR: boom\n"
        );
    }

    #[test]
    fn the_first_line_has_neighbours_below() {
        assert_eq!(
            at(FILE, &[(1, 1)]),
            "Dockerfile:1\n--------------------\n   1 | >>> FROM a\n   2 |     RUN 2\n   3 |     RUN 3\n\
             --------------------\nERROR: boom\n"
        );
    }

    #[test]
    fn several_lines_and_a_file_without_end() {
        assert_eq!(
            at("FROM a\nRUN x && \\\n  y", &[(2, 3)]),
            "Dockerfile:2\n--------------------\n   1 |     FROM a\n   2 | >>> RUN x && \\\n   3 | >>>   y\n\
             --------------------\nERROR: boom\n"
        );
    }

    #[test]
    fn lines_that_are_not_there_are_left_out() {
        assert_eq!(at(FILE, &[]), "ERROR: boom\n");
        assert_eq!(at(FILE, &[(0, 0)]), "ERROR: boom\n");
        assert_eq!(at(FILE, &[(99, 99)]), "ERROR: boom\n");
        assert!(at("FROM a", &[(1, 99)]).contains(">>> FROM a\n"));
    }

    #[test]
    fn every_place_has_an_excerpt() {
        let place = |line| Source {
            filename: "Dockerfile".to_owned(),
            text: b"FROM a\nRUN 2\n".to_vec(),
            spans: vec![(line, line)],
        };
        let mut diagnostic = Diagnostic {
            sources: vec![place(2), place(1)],
            ..Diagnostic::new("boom")
        };
        let before = shown(&diagnostic);
        assert!(before.starts_with("Dockerfile:2\n---"), "{before}");
        assert!(before.contains("---\nDockerfile:1\n---"), "{before}");
        assert!(before.ends_with("ERROR: boom\n"), "{before}");
        diagnostic.source_is_below = true;
        assert!(shown(&diagnostic).starts_with("ERROR: boom\nDockerfile:2\n"));
    }

    #[test]
    fn hints_follow_the_error() {
        let diagnostic = Diagnostic {
            message: "no such image".to_owned(),
            hints: vec!["log in first".to_owned()],
            ..Diagnostic::default()
        };
        assert_eq!(shown(&diagnostic), "ERROR: no such image\nhint: log in first\n");
    }

    #[test]
    fn row44_diagnostics_pass_no_control_character() {
        let text = shown(&Diagnostic {
            message: "registry says \x1b]0;pwn\x07\nsecond\rline".to_owned(),
            sources: vec![Source {
                filename: "a\x1b[2Jb".to_owned(),
                text: b"RUN \x1b[2J\tx\r\n".to_vec(),
                spans: vec![(1, 1)],
            }],
            hints: vec!["\x07\n".to_owned()],
            exit_code: ExitCode::Failure,
            source_is_below: false,
        });
        assert_eq!(
            text,
            "a\\x1b[2Jb:1\n--------------------\n   1 | >>> RUN \\x1b[2J\tx\n   2 |     \n--------------------\n\
             ERROR: registry says \\x1b]0;pwn\\x07\n     | second\\rline\nhint: \\x07\\n\n"
        );
    }

    #[test]
    fn warnings_are_counted_and_expanded() {
        let warning = WarningText {
            short: "JSONArgsRecommended: use JSON".to_owned(),
            detail: vec!["because".to_owned()],
            url: "https://example.test/w".to_owned(),
            source: Some(Source {
                filename: "Dockerfile".to_owned(),
                text: b"CMD x".to_vec(),
                spans: vec![(1, 1)],
            }),
        };
        let print = |warnings: &[WarningText], expand, coloured| {
            let mut out = Vec::new();
            write_warnings(warnings, expand, coloured, &mut out).unwrap();
            String::from_utf8(out).unwrap()
        };
        assert_eq!(print(&[], false, true), "");
        assert_eq!(
            print(std::slice::from_ref(&warning), false, false),
            "\n 1 warning found (use --debug to expand):\n - JSONArgsRecommended: use JSON\n"
        );
        assert!(
            print(&[warning.clone(), warning.clone()], false, true)
                .starts_with("\n \x1b[33m2 warnings found")
        );
        assert_eq!(
            print(&[warning], true, false),
            "\n 1 warning found:\n - JSONArgsRecommended: use JSON\nbecause\nMore info: https://example.test/w\n\
             Dockerfile:1\n--------------------\n   1 | >>> CMD x\n--------------------\n\n"
        );
    }

    #[test]
    fn exit_codes() {
        assert_eq!(
            [
                ExitCode::Success.code(),
                ExitCode::Failure.code(),
                ExitCode::Cancelled.code()
            ],
            [0, 1, 130]
        );
    }
}
