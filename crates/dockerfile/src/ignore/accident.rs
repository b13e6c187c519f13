//! Patterns in which characters mean something only because moby/patternmatcher makes a Go regular expression of a pattern
//! that has wildcards, and escapes a part of what is special there: `|`, `^`, `{2}`, a backslash before a letter, and what
//! stands inside `[]`. Here the same expression is made and written in this program's syntax. All other patterns are left to
//! [`crate::wildcard`], which means the same by them.

use std::iter::Peekable;
use std::str::Chars;

use regex::{Regex, RegexBuilder};

use crate::wildcard::BadPattern;

/// Memory that the program of one expression may take, bytes.
const PROGRAM_BYTES_MAX: usize = 256 << 10;
/// Most repetitions that `{n}` may ask for (Go `regexp/syntax`).
const REPEAT_MAX: u32 = 1000;

/// The expression that `pattern`, cleaned and without `!`, is by accident; `None` if it means what it should.
pub(super) fn expression(pattern: &str) -> Result<Option<Regex>, BadPattern> {
    if !has_accident(pattern) {
        return Ok(None);
    }
    let text = Translation::of(&go_expression(pattern))?;
    let built = RegexBuilder::new(&text).size_limit(PROGRAM_BYTES_MAX).build();
    built.map(Some).map_err(|_| BadPattern)
}

/// Whether `pattern` ends with a backslash that quotes nothing and is taken all the same. Go tries each pattern on `.` to see
/// whether it is well-formed, and stops at the first part between stars that does not match: what is behind it is not
/// looked at. The backslash then quotes the end of the expression, which so matches the beginning of a path and a `$`.
///
/// # Errors
/// [`BadPattern`] if the backslash is looked at, or what is before it is malformed.
pub(super) fn is_open_end(pattern: &str) -> Result<bool, BadPattern> {
    let backslashes = pattern.len() - pattern.trim_end_matches('\\').len();
    if backslashes.is_multiple_of(2) {
        return Ok(false);
    }
    let before = before_last_star(pattern).ok_or(BadPattern)?;
    if before.is_empty() || crate::glob::is_match(before, ".")? {
        return Err(BadPattern);
    }
    Ok(true)
}

/// What stands before the last stars that are neither quoted nor in a class.
fn before_last_star(pattern: &str) -> Option<&str> {
    // First and last of them.
    let mut stars: Option<(usize, usize)> = None;
    let mut in_class = false;
    let mut chars = pattern.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => {
                chars.next();
            }
            '[' => in_class = true,
            ']' => in_class = false,
            '*' if !in_class => {
                let first = stars
                    .filter(|(_, last)| last + 1 == at)
                    .map_or(at, |(first, _)| first);
                stars = Some((first, at));
            }
            _ => {}
        }
    }
    Some(&pattern[..stars?.0])
}

/// Whether `pattern` becomes an expression at all, and has characters that are special there and nowhere else.
fn has_accident(pattern: &str) -> bool {
    let only_globstar = pattern.strip_prefix("**").or_else(|| pattern.strip_suffix("**"));
    let wild = |text: &str| text.contains(['*', '?', '[', ']', '\\']);
    if !wild(only_globstar.unwrap_or(pattern)) {
        return false;
    }
    let mut chars = pattern.chars().peekable();
    let mut in_class = false;
    while let Some(c) = chars.next() {
        match c {
            '\\' => {
                let next = chars.next();
                if next.is_none_or(|next| !stands_for_itself(next)) {
                    return true;
                }
            }
            '[' if in_class => return true,
            '[' => {
                in_class = true;
                chars.next_if_eq(&'^');
            }
            ']' => in_class = false,
            '*' | '?' if in_class => return true,
            '|' | '^' | '{' | '}' if !in_class => return true,
            _ => {}
        }
    }
    false
}

/// Whether `\` before `c` is `c` itself, in patterns and in Go's expressions.
const fn stands_for_itself(c: char) -> bool {
    c.is_ascii() && !c.is_ascii_alphanumeric()
}

/// The expression that moby/patternmatcher makes, in Go's syntax.
fn go_expression(pattern: &str) -> String {
    let mut out = "^".to_owned();
    let mut chars = pattern.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '*' if chars.next_if_eq(&'*').is_some() => {
                chars.next_if_eq(&'/');
                out += if chars.peek().is_none() { ".*" } else { "(.*/)?" };
            }
            '*' => out += "[^/]*",
            '?' => out += "[^/]",
            '.' | '+' | '(' | ')' | '$' => out.extend(['\\', c]),
            '\\' => {
                out.push('\\');
                out.extend(chars.next());
            }
            other => out.push(other),
        }
    }
    out + "$"
}

/// Go's syntax in that of the `regex` crate.
struct Translation<'a> {
    from: Peekable<Chars<'a>>,
    to: String,
    /// What came last is a repetition, which Go does not repeat.
    repeated: bool,
}

impl<'a> Translation<'a> {
    fn of(go: &'a str) -> Result<String, BadPattern> {
        let mut this = Self {
            from: go.chars().peekable(),
            to: String::new(),
            repeated: false,
        };
        while let Some(c) = this.from.next() {
            let after_repeat = std::mem::take(&mut this.repeated);
            match c {
                '\\' => this.escape(false)?,
                '[' => this.class()?,
                '{' => match this.repetition() {
                    Some(_) if after_repeat => return Err(BadPattern),
                    Some(count) => {
                        this.to += &count;
                        this.repeated = true;
                    }
                    None => this.literal('{'),
                },
                '*' | '?' => {
                    this.repeated = true;
                    this.to.push(c);
                }
                '^' | '$' | '|' | '(' | ')' | '.' => this.to.push(c),
                other => this.literal(other),
            }
        }
        Ok(this.to)
    }

    fn literal(&mut self, c: char) {
        self.to += &format!("\\x{{{:x}}}", u32::from(c));
    }

    /// What stands behind a backslash. Classes of letters and digits are those of ASCII in Go.
    fn escape(&mut self, in_class: bool) -> Result<(), BadPattern> {
        let c = self.from.next().ok_or(BadPattern)?;
        let ascii = match c {
            'd' => "0-9",
            'w' => "0-9A-Za-z_",
            's' => "\\t\\n\\f\\r ",
            _ => "",
        };
        let negated = match c {
            'D' => "[^0-9]",
            'W' => "[^0-9A-Za-z_]",
            'S' => "[^\\t\\n\\f\\r ]",
            _ => "",
        };
        match c {
            _ if !ascii.is_empty() && in_class => self.to += ascii,
            _ if !ascii.is_empty() => self.to += &format!("[{ascii}]"),
            _ if !negated.is_empty() => self.to += negated,
            'a' | 'f' | 't' | 'n' | 'r' | 'v' => self.to.extend(['\\', c]),
            'p' | 'P' => self.property(c)?,
            'x' => self.hexadecimal()?,
            'A' | 'z' if !in_class => self.to.extend(['\\', c]),
            'b' if !in_class => self.to += "(?-u:\\b)",
            'B' if !in_class => self.to += "\\B",
            'C' if !in_class => self.to += "(?s:.)",
            'Q' if !in_class => self.quotation(),
            c if stands_for_itself(c) => self.literal(c),
            _ => return Err(BadPattern),
        }
        Ok(())
    }

    /// `\pL` and `\p{Greek}`.
    fn property(&mut self, kind: char) -> Result<(), BadPattern> {
        let name = match self.from.next().ok_or(BadPattern)? {
            '{' => self.from.by_ref().take_while(|c| *c != '}').collect(),
            letter => letter.to_string(),
        };
        if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphabetic() || c == '_') {
            return Err(BadPattern);
        }
        self.to += &format!("\\{kind}{{{name}}}");
        Ok(())
    }

    /// `\x41` and `\x{1F600}`.
    fn hexadecimal(&mut self) -> Result<(), BadPattern> {
        let digits: String = if self.from.next_if_eq(&'{').is_some() {
            self.from.by_ref().take_while(|c| *c != '}').collect()
        } else {
            self.from.by_ref().take(2).collect()
        };
        let value = u32::from_str_radix(&digits, 16).map_err(|_| BadPattern)?;
        self.literal(char::from_u32(value).ok_or(BadPattern)?);
        Ok(())
    }

    /// `\Q…\E`: what is between them stands for itself.
    fn quotation(&mut self) {
        while let Some(c) = self.from.next() {
            if c == '\\' && self.from.next_if_eq(&'E').is_some() {
                return;
            }
            self.literal(c);
        }
    }

    /// What stands behind `[`, up to its `]`.
    fn class(&mut self) -> Result<(), BadPattern> {
        self.to.push('[');
        if self.from.next_if_eq(&'^').is_some() {
            self.to.push('^');
        }
        let mut first = true;
        loop {
            let c = self.from.next().ok_or(BadPattern)?;
            match c {
                ']' if !first => break,
                '\\' => self.escape(true)?,
                '[' if self.from.peek() == Some(&':') => self.named_class()?,
                // Between two characters it makes a range; elsewhere it stands for itself.
                '-' if !first && self.from.peek() != Some(&']') => self.to.push('-'),
                other => self.literal(other),
            }
            first = false;
        }
        self.to.push(']');
        Ok(())
    }

    /// `[:alpha:]` and its like; without an end, a bracket and a colon.
    fn named_class(&mut self) -> Result<(), BadPattern> {
        let rest: String = self.from.clone().collect();
        let Some(end) = rest.find(":]") else {
            self.literal('[');
            return Ok(());
        };
        let name = &rest[1..end.max(1)];
        let is_name = |c: char| c.is_ascii_lowercase() || c == '^';
        if name.is_empty() || !name.chars().all(is_name) {
            return Err(BadPattern);
        }
        self.to += &format!("[:{name}:]");
        for _ in 0..rest[..end + 2].chars().count() {
            self.from.next();
        }
        Ok(())
    }

    /// `n}`, `n,}` or `n,m}` behind a brace, as a repetition; nothing is taken if it is none.
    fn repetition(&mut self) -> Option<String> {
        let rest: String = self.from.clone().take_while(|c| *c != '}').collect();
        let (least, most) = match rest.split_once(',') {
            Some((least, most)) => (least, Some(most)),
            None => (rest.as_str(), None),
        };
        let number = |text: &str| {
            let plain = text.len() <= 4 && text.bytes().all(|b| b.is_ascii_digit());
            text.parse::<u32>().ok().filter(|n| plain && *n <= REPEAT_MAX)
        };
        let least_count = number(least)?;
        if let Some(most) = most.filter(|most| !most.is_empty()) {
            number(most).filter(|most| *most >= least_count)?;
        }
        // A brace without an end is none.
        self.from.clone().nth(rest.chars().count())?;
        for _ in 0..=rest.chars().count() {
            self.from.next();
        }
        Some(format!("{{{rest}}}"))
    }
}

#[cfg(test)]
mod tests {
    use crate::ignore::PatternMatcher;

    /// What moby/patternmatcher 0.6 answers.
    #[test]
    fn what_is_special_by_accident_is_special_here() {
        for (pattern, matched, not) in [
            ("*|", &["a", "b", "a/b"][..], &[][..]),
            ("*^", &[], &["a^"]),
            ("^a*", &["a", "ab", "a/b"], &["^a"]),
            ("\\d", &["1", "1/x"], &["d", "a"]),
            ("*\\w", &["a", "ab", "x_1"], &["a-", "é"]),
            ("a\\b", &["a", "a/b"], &["ab", "a.b"]),
            ("\\a", &[], &["a"]),
            ("\\Q*\\E*", &["[^/]*", "[^/]*x"], &["*", "Qa", "a"]),
            ("[*]", &["]", "^]", "[^]"], &["*", "*]"]),
            ("x[\\d.]?", &["x1a", "x.a"], &["xda"]),
            ("[[:alpha:]]*", &["a", "ab"], &["1"]),
            ("[a[]*", &["a", "[x"], &["b"]),
            ("*\\x41", &["A", "xA"], &["x41"]),
            ("?{3}", &["abc"], &["a{3}", "ab"]),
            ("?{x}", &["a{x}"], &["ax"]),
            ("\\(a\\)", &["(a)"], &["a"]),
            ("my\\ file*", &["my file", "my files"], &["my\\ file"]),
            ("*\\pL", &["a", "é"], &["1", "p1"]),
            // The backslash takes the end from the expression.
            ("a*\\", &["a$", "ab$", "a$x/y"], &["a", "a\\", "b$"]),
            ("a/**\\", &["a/$", "a/b/$d"], &["a/b", "a$"]),
            ("?*b*\\", &["xb$"], &["xb\\"]),
            ("a\\***\\", &["a*$", "a*b/$"], &["a*", "a$"]),
            // No wildcard, so no expression is made of these.
            ("a|b", &["a|b"], &["a", "b"]),
            ("**|x", &["a|x"], &["a", "x"]),
            ("^x**", &["^xy"], &["x"]),
            ("{1}", &["{1}"], &["1"]),
        ] {
            let matcher = PatternMatcher::new(&[pattern]).unwrap();
            for path in matched {
                assert!(matcher.matches_or_parent_matches(path), "{pattern} {path}");
            }
            for path in not {
                assert!(!matcher.matches_or_parent_matches(path), "{pattern} {path}");
            }
        }
    }

    #[test]
    fn only_so_many_of_a_list_may_be_expressions() {
        let list = |count: usize| -> Vec<String> { (0..count).map(|n| format!("{n}\\w")).collect() };
        assert!(PatternMatcher::new(&list(200)).is_ok());
        assert!(PatternMatcher::new(&list(201)).is_err());
        // Those that mean what they should are not counted.
        let plain: Vec<String> = (0..1000).map(|n| format!("{n}*")).collect();
        assert!(PatternMatcher::new(&plain).is_ok());
    }

    #[test]
    fn what_gos_expressions_do_not_have_is_an_error() {
        for pattern in [
            "\\é", "a\\1", "*{2}", "*\\Z", "x*\\xZZ", "a\\", "*\\", "?*\\", "[^a]*\\", "a\\*\\", "a[*\\",
        ] {
            assert!(PatternMatcher::new(&[pattern]).is_err(), "{pattern}");
        }
        for pattern in ["é*", "a\\.1", "?{2}", "*\\z", "x*\\x5A"] {
            assert!(PatternMatcher::new(&[pattern]).is_ok(), "{pattern}");
        }
    }
}
