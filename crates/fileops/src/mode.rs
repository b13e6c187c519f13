//! Mode changes as `--chmod` writes them: octal, or symbolic like `u=rwX,go=rX` (chmod(1), with a umask of 0).
//! Owns the syntax and its meaning for one file; touches no file.

use rbuild_graph::CopyAction;

/// A change of permission bits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModeChange {
    /// These bits (07777), whatever they were.
    Exact(u32),
    /// Clauses applied in order.
    Symbolic(Vec<Clause>),
}

/// Why a text is no mode.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ModeError {
    /// It looks like a number but is none that chmod takes. The text is BuildKit's: people search for it.
    #[error("invalid chmod parameter: '{0}'. it should be octal string and between 0 and 07777")]
    NotOctal(String),
    /// It is no symbolic mode.
    #[error("invalid mode {0:?}")]
    Syntax(String),
}

/// One `who op perms` of a symbolic mode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Clause {
    who: u32,
    op: Op,
    perms: Perms,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Op {
    Add,
    Remove,
    Set,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Perms {
    /// Plain bits for all classes; `who` picks.
    bits: u32,
    /// `X`: execute if it is a directory or someone may execute it.
    execute_if: bool,
    /// `u`, `g`, `o` on the right: the shift of the class that is copied.
    copy_from: [bool; 3],
}

const SETUID: u32 = 0o4000;
const SETGID: u32 = 0o2000;
const STICKY: u32 = 0o1000;

impl ModeChange {
    /// Reads a mode.
    ///
    /// # Errors
    /// [`ModeError`] if it is neither octal up to 07777 nor symbolic.
    pub fn parse(text: &str) -> Result<Self, ModeError> {
        if text.starts_with(|c: char| c.is_ascii_digit()) {
            let octal = text.bytes().all(|b| matches!(b, b'0'..=b'7'));
            return match u32::from_str_radix(text, 8) {
                Ok(bits) if octal && bits <= 0o7777 => Ok(Self::Exact(bits)),
                _ => Err(ModeError::NotOctal(text.to_owned())),
            };
        }
        let mut clauses = Vec::new();
        for part in text.split(',') {
            parse_part(part, &mut clauses).ok_or_else(|| ModeError::Syntax(text.to_owned()))?;
        }
        Ok(Self::Symbolic(clauses))
    }

    /// The change a copy asks for, if any. The symbolic one wins, as in BuildKit (`solver/llbsolver/file/backend.go`).
    ///
    /// # Errors
    /// [`ModeError`] if its text is malformed.
    pub fn of(action: &CopyAction) -> Result<Option<Self>, ModeError> {
        match (&action.mode_str, action.mode) {
            (Some(text), _) if !text.is_empty() => Self::parse(text).map(Some),
            (_, Some(bits)) if bits <= 0o7777 => Ok(Some(Self::Exact(bits))),
            (_, Some(bits)) => Err(ModeError::NotOctal(format!("{bits:o}"))),
            (_, None) => Ok(None),
        }
    }

    /// The bits (07777) that come of `mode`.
    #[must_use]
    pub fn apply(&self, mode: u32, is_dir: bool) -> u32 {
        match self {
            Self::Exact(bits) => *bits,
            Self::Symbolic(clauses) => {
                let old = mode & 0o7777;
                clauses
                    .iter()
                    .fold(old, |now, clause| clause.apply(old, now, is_dir))
            }
        }
    }

    /// Mode of directories made on the way to the destination: 0755, or the low nine bits of an octal mode
    /// (`fsutil/copy`: the mode is used as a Go file mode there, whose high bits mean other things).
    #[must_use]
    pub(crate) fn of_parents(change: Option<&Self>) -> u32 {
        match change {
            Some(Self::Exact(bits)) => bits & 0o777,
            _ => 0o755,
        }
    }
}

impl Clause {
    fn apply(&self, old: u32, now: u32, is_dir: bool) -> u32 {
        let all = self.who == 0;
        if all && self.perms.bits & STICKY != 0 {
            // BSD's setmode, which BuildKit's parser is made after: `t` without a class is about the sticky bit only.
            return if self.op == Op::Remove {
                now & !STICKY
            } else {
                now | STICKY
            };
        }
        let classes = if all { 0o777 } else { self.who & 0o777 };
        let mut bits = self.perms.bits & 0o777;
        // chmod(1) of BSD: X looks at the file as it was, a copied class at what the clauses before made of it.
        if self.perms.execute_if && (is_dir || old & 0o111 != 0) {
            bits |= 0o111;
        }
        for (i, copied) in self.perms.copy_from.iter().enumerate() {
            if *copied {
                bits |= ((now >> (6 - 3 * i)) & 0o7) * 0o111;
            }
        }
        let mut value = bits & classes;
        let mut cleared = classes;
        for (special, class) in [(SETUID, 0o700), (SETGID, 0o070)] {
            let copies_only = self.perms.copy_from != [false; 3] && self.perms.bits == 0;
            if (all || self.who & class != 0) && !copies_only {
                cleared |= special;
                value |= self.perms.bits & special;
            }
        }
        if self.perms.bits & STICKY != 0 && self.who & 0o770 != 0 {
            value |= STICKY;
            cleared |= STICKY;
        }
        match self.op {
            Op::Add => now | value,
            Op::Remove => now & !value,
            Op::Set => (now & !cleared) | value,
        }
    }
}

fn parse_part(part: &str, clauses: &mut Vec<Clause>) -> Option<()> {
    let ops_at = part.find(['+', '-', '='])?;
    let (who_text, mut rest) = part.split_at(ops_at);
    let mut who = 0;
    for c in who_text.chars() {
        who |= match c {
            'u' => 0o700,
            'g' => 0o070,
            'o' => 0o007,
            'a' => 0o777,
            _ => return None,
        };
    }
    while let Some(op) = rest.chars().next() {
        let op = match op {
            '+' => Op::Add,
            '-' => Op::Remove,
            '=' => Op::Set,
            _ => return None,
        };
        rest = &rest[1..];
        let end = rest.find(['+', '-', '=']).unwrap_or(rest.len());
        clauses.push(Clause {
            who,
            op,
            perms: parse_perms(&rest[..end], op)?,
        });
        rest = &rest[end..];
    }
    Some(())
}

fn parse_perms(text: &str, op: Op) -> Option<Perms> {
    let mut perms = Perms::default();
    for c in text.chars() {
        match c {
            'r' => perms.bits |= 0o444,
            'w' => perms.bits |= 0o222,
            'x' => perms.bits |= 0o111,
            // Taking X away takes execution away from everything.
            'X' if op == Op::Remove => perms.bits |= 0o111,
            'X' => perms.execute_if = true,
            's' => perms.bits |= SETUID | SETGID,
            't' => perms.bits |= STICKY,
            'u' => perms.copy_from[0] = true,
            'g' => perms.copy_from[1] = true,
            'o' => perms.copy_from[2] = true,
            _ => return None,
        }
    }
    Some(perms)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str, mode: u32) -> u32 {
        ModeChange::parse(text).unwrap().apply(mode, false)
    }

    #[test]
    fn item33_octal_is_0_to_07777_with_the_known_error_text() {
        assert_eq!(file("0644", 0o777), 0o644);
        assert_eq!(file("07777", 0), 0o7777);
        assert_eq!(file("0", 0o777), 0);
        for text in ["10000", "8", "0o644", "64x", "99999999999"] {
            let error = ModeChange::parse(text).unwrap_err().to_string();
            let expected = format!(
                "invalid chmod parameter: '{text}'. it should be octal string and between 0 and 07777"
            );
            assert_eq!(error, expected);
        }
    }

    #[test]
    fn item33_symbolic_modes() {
        assert_eq!(file("u=rwX,go=rX", 0o600), 0o644);
        assert_eq!(file("u=rwX,go=rX", 0o700), 0o755);
        let change = ModeChange::parse("u=rwX,go=rX").unwrap();
        assert_eq!(change.apply(0o600, true), 0o755, "X is set on directories");
        assert_eq!(file("a+x", 0o644), 0o755);
        assert_eq!(file("+x", 0o644), 0o755);
        assert_eq!(file("go-w", 0o666), 0o644);
        assert_eq!(file("go=", 0o777), 0o700);
        assert_eq!(file("g=u", 0o640), 0o660);
        assert_eq!(file("go=u-w", 0o600), 0o644);
        assert_eq!(file("u+s", 0o755), 0o4755);
        assert_eq!(file("g+s", 0o755), 0o2755);
        assert_eq!(file("ug+s", 0o755), 0o6755);
        assert_eq!(file("+t", 0o755), 0o1755);
        assert_eq!(file("o+t", 0o755), 0o755, "sticky is not for others alone");
        assert_eq!(file("o+s", 0o755), 0o755);
        assert_eq!(
            file("u=rw", 0o4755),
            0o655,
            "setting a class clears its set-id bit"
        );
        assert_eq!(file("a=r", 0o1777), 0o1444, "the sticky bit stays");
        assert_eq!(
            file("u-x,u+X", 0o700),
            0o700,
            "X looks at the bits before any change"
        );
        assert_eq!(file("-X", 0o755), 0o644);
        assert_eq!(file("u=", 0o755), 0o055);
        assert_eq!(
            file("=t", 0o755),
            0o1755,
            "t without a class leaves the rest alone"
        );
        assert_eq!(
            file("g=u", 0o2750),
            0o2770,
            "copying a class leaves its set-id bit alone"
        );
    }

    #[test]
    fn item33_malformed_symbolic_modes_are_errors() {
        for text in ["", "u", "u=q", "x+u+", "=,", ",", "u+r,", "ü=r", "u*x"] {
            assert!(ModeChange::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn parents_take_the_low_bits_of_an_octal_mode() {
        assert_eq!(ModeChange::of_parents(Some(&ModeChange::Exact(0o1700))), 0o700);
        let symbolic = ModeChange::parse("u=rwx").unwrap();
        assert_eq!(ModeChange::of_parents(Some(&symbolic)), 0o755);
        assert_eq!(ModeChange::of_parents(None), 0o755);
    }
}
