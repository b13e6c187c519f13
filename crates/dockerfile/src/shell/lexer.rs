//! The scanner behind [`crate::shell`].

use std::collections::BTreeSet;
use std::iter::Peekable;
use std::str::Chars;

use crate::shell::{
    ExpandError, ExpandErrorKind, Expansion, MAX_GROWTH_BYTES, MAX_NESTING, Variables, class, pattern,
};

/// Expands words. The flags are those of BuildKit's `shell.Lex`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools, reason = "switch for switch BuildKit's Lex")]
pub struct Lexer {
    /// `\` or `` ` ``, as the `escape` directive says.
    pub escape: char,
    /// Keep quotes in the result.
    pub raw_quotes: bool,
    /// Keep escape characters in the result.
    pub raw_escapes: bool,
    /// Quotes mean nothing (text of a here-document).
    pub skip_quotes: bool,
    /// Leave references to unset variables as they are.
    pub skip_unset: bool,
}

impl Lexer {
    /// A lexer with all switches off.
    #[must_use]
    pub const fn new(escape: char) -> Self {
        Self {
            escape,
            raw_quotes: false,
            raw_escapes: false,
            skip_quotes: false,
            skip_unset: false,
        }
    }

    /// Expands `word` with `variables` as one piece: [`Expansion::words`] stays empty.
    ///
    /// # Errors
    /// [`ExpandError`] for open quotes, bad substitutions, a `${x?}` that is unset, and results that grow too long.
    pub fn expand(&self, word: &str, variables: &dyn Variables) -> Result<Expansion, ExpandError> {
        self.run(word, variables, false)
    }

    /// Expands `text` with `variables` and cuts it into words.
    ///
    /// # Errors
    /// As [`Self::expand`].
    pub fn split(&self, text: &str, variables: &dyn Variables) -> Result<Expansion, ExpandError> {
        self.run(text, variables, true)
    }

    fn run(&self, word: &str, variables: &dyn Variables, want_words: bool) -> Result<Expansion, ExpandError> {
        let mut run = Run {
            lexer: *self,
            want_words,
            raw_escapes: self.raw_escapes,
            input: without_mark(word).chars().peekable(),
            variables,
            word_buffer: String::new(),
            depth: 0,
            limit: word.len() + MAX_GROWTH_BYTES,
            matched: BTreeSet::new(),
            unmatched: BTreeSet::new(),
        };
        match run.until(None) {
            Ok((text, words)) => Ok(Expansion {
                text,
                words,
                matched: run.matched,
                unmatched: run.unmatched,
            }),
            Err(kind) => Err(ExpandError {
                word: word.chars().take(200).collect(),
                kind,
                unmatched: run.unmatched,
            }),
        }
    }
}

type Result2<T> = Result<T, ExpandErrorKind>;

struct Run<'a> {
    lexer: Lexer,
    want_words: bool,
    raw_escapes: bool,
    input: Peekable<Chars<'a>>,
    variables: &'a dyn Variables,
    /// The word being built. One for all nesting levels, as in BuildKit, where `${a:-b}` therefore drops what came
    /// before it in the same word from the list of words (`EXPOSE 80${x:-81}` exposes 81).
    word_buffer: String,
    depth: usize,
    limit: usize,
    matched: BTreeSet<String>,
    unmatched: BTreeSet<String>,
}

#[derive(Default)]
struct Words {
    done: Vec<String>,
    inside: bool,
}

impl<'a> Run<'a> {
    /// Expands up to `stop`, or to the end of the input if there is none.
    fn until(&mut self, stop: Option<char>) -> Result2<(String, Vec<String>)> {
        let mut text = String::new();
        let mut words = Words::default();
        self.word_buffer.clear();
        while let Some(&c) = self.input.peek() {
            if Some(c) == stop {
                self.input.next();
                return Ok((text, self.finish(words)));
            }
            match c {
                '$' => {
                    let value = self.dollar()?;
                    if self.want_words {
                        value.chars().for_each(|c| self.add(&mut words, c));
                    }
                    text.push_str(&value);
                }
                '<' => self.raw(&mut words, &mut text, |run| Ok(run.angle()))?,
                '\'' if !self.lexer.skip_quotes => self.raw(&mut words, &mut text, Self::single_quoted)?,
                '"' if !self.lexer.skip_quotes => self.raw(&mut words, &mut text, Self::double_quoted)?,
                c if c == self.lexer.escape => {
                    self.input.next();
                    if self.raw_escapes {
                        self.add_raw(&mut words, c);
                        text.push(c);
                    }
                    let Some(escaped) = self.input.next() else { break };
                    self.add_raw(&mut words, escaped);
                    text.push(escaped);
                }
                c => {
                    self.input.next();
                    self.add(&mut words, c);
                    text.push(c);
                }
            }
            if text.len() > self.limit {
                return Err(ExpandErrorKind::TooLong);
            }
        }
        // What stops is `}` or `/`; the callers say which is missing.
        if stop.is_some() {
            Err(ExpandErrorKind::MissingBrace)
        } else {
            Ok((text, self.finish(words)))
        }
    }

    fn raw(
        &mut self,
        words: &mut Words,
        text: &mut String,
        read: impl FnOnce(&mut Self) -> Result2<String>,
    ) -> Result2<()> {
        let piece = read(self)?;
        if self.want_words {
            self.word_buffer.push_str(&piece);
        }
        words.inside = true;
        text.push_str(&piece);
        Ok(())
    }

    fn add(&mut self, words: &mut Words, c: char) {
        if !c.is_whitespace() {
            self.add_raw(words, c);
        } else if words.inside && !self.word_buffer.is_empty() {
            words.done.push(std::mem::take(&mut self.word_buffer));
            words.inside = false;
        }
    }

    fn add_raw(&mut self, words: &mut Words, c: char) {
        if self.want_words {
            self.word_buffer.push(c);
        }
        words.inside = true;
    }

    fn finish(&mut self, mut words: Words) -> Vec<String> {
        if !self.word_buffer.is_empty() {
            words.done.push(std::mem::take(&mut self.word_buffer));
        }
        words.done
    }

    fn single_quoted(&mut self) -> Result2<String> {
        let mut out = String::new();
        let quote = self.input.next();
        out.extend(quote.filter(|_| self.lexer.raw_quotes));
        loop {
            match self.input.next() {
                None => return Err(ExpandErrorKind::OpenSingleQuote),
                Some('\'') => {
                    out.extend(quote.filter(|_| self.lexer.raw_quotes));
                    return Ok(out);
                }
                Some(c) => out.push(c),
            }
        }
    }

    fn double_quoted(&mut self) -> Result2<String> {
        let mut out = String::new();
        let quote = self.input.next();
        out.extend(quote.filter(|_| self.lexer.raw_quotes));
        loop {
            match self.input.peek().copied() {
                None => return Err(ExpandErrorKind::OpenDoubleQuote),
                Some('"') => {
                    self.input.next();
                    out.extend(quote.filter(|_| self.lexer.raw_quotes));
                    return Ok(out);
                }
                Some('$') => out.push_str(&self.dollar()?),
                Some(c) => {
                    self.input.next();
                    let mut c = c;
                    if c == self.lexer.escape {
                        if self.raw_escapes {
                            out.push(c);
                        }
                        match self.input.peek().copied() {
                            None => continue,
                            Some(next) if next == '"' || next == '$' || next == self.lexer.escape => {
                                self.input.next();
                                c = next;
                            }
                            Some(_) => {}
                        }
                    }
                    out.push(c);
                }
            }
            if out.len() > self.limit {
                return Err(ExpandErrorKind::TooLong);
            }
        }
    }

    /// `<`, or `<<` with the blanks behind it, so that a here-document's mark stays one word with its name.
    fn angle(&mut self) -> String {
        self.input.next();
        if self.input.next_if_eq(&'<').is_none() {
            return "<".to_owned();
        }
        let mut out = "<<".to_owned();
        while let Some(blank) = self.input.next_if(|c| matches!(c, '\t' | '\r' | ' ')) {
            out.push(blank);
        }
        out
    }

    fn dollar(&mut self) -> Result2<String> {
        self.input.next();
        if self.input.next_if_eq(&'{').is_some() {
            return self.braced();
        }
        let name = self.name();
        if name.is_empty() {
            return Ok("$".to_owned());
        }
        match self.lookup(&name) {
            Some(value) => Ok(value.to_owned()),
            None if self.lexer.skip_unset => Ok(format!("${name}")),
            None => Ok(String::new()),
        }
    }

    fn braced(&mut self) -> Result2<String> {
        match self.input.peek() {
            None => return Err(ExpandErrorKind::MissingBrace),
            Some('{' | '}' | ':') => return Err(ExpandErrorKind::BadSubstitution),
            Some(_) => {}
        }
        let name = self.name();
        match self.input.next() {
            Some('}') => match self.lookup(&name) {
                Some(value) => Ok(value.to_owned()),
                None if self.lexer.skip_unset => Ok(format!("${{{name}}}")),
                None => Ok(String::new()),
            },
            Some(':') => match self.input.next() {
                Some(operator @ ('-' | '+' | '?')) => self.conditional(&name, operator, true),
                Some(c @ ('#' | '%')) => Err(ExpandErrorKind::UnsupportedModifier(format!(":{c}"))),
                other => self.unknown(&name, other),
            },
            Some(operator @ ('-' | '+' | '?')) => self.conditional(&name, operator, false),
            Some(operator @ ('#' | '%')) => self.trimmed(&name, operator),
            Some('/') => self.replaced(&name),
            other => {
                let shown = other.map_or_else(|| "\u{fffd}".to_owned(), String::from);
                Err(ExpandErrorKind::UnsupportedModifier(shown))
            }
        }
    }

    /// Reads the operand of a modifier, up to `stop`.
    fn nested(&mut self, stop: char, raw_escapes: bool) -> Result2<String> {
        if self.depth == MAX_NESTING {
            return Err(ExpandErrorKind::TooDeep);
        }
        self.depth += 1;
        let outer = std::mem::replace(&mut self.raw_escapes, raw_escapes);
        let read = self.until(Some(stop));
        self.raw_escapes = outer;
        self.depth -= 1;
        match read {
            Ok((text, _)) => Ok(text),
            Err(limit @ (ExpandErrorKind::TooLong | ExpandErrorKind::TooDeep)) => Err(limit),
            Err(_) if self.input.peek().is_none() && stop == '/' => Err(ExpandErrorKind::MissingSlash),
            Err(_) if self.input.peek().is_none() => Err(ExpandErrorKind::MissingBrace),
            Err(error) => Err(error),
        }
    }

    /// `${name:` with something behind it that is no operator. BuildKit reads the rest first, so an open brace is what it
    /// complains about, and leaves it as it is where variables that are not set are left: `RUN <<E cat && echo ${x:=y}`
    /// announces a here-document.
    fn unknown(&mut self, name: &str, operator: Option<char>) -> Result2<String> {
        let operand = self.nested('}', false)?;
        let operator = operator.unwrap_or(char::REPLACEMENT_CHARACTER);
        if self.lookup(name).is_none() && self.lexer.skip_unset {
            return Ok(format!("${{{name}:{operator}{operand}}}"));
        }
        Err(ExpandErrorKind::UnsupportedModifier(format!(":{operator}")))
    }

    fn conditional(&mut self, name: &str, operator: char, empty_is_unset: bool) -> Result2<String> {
        let operand = self.nested('}', false)?;
        let value = self.lookup(name);
        if value.is_none() && self.lexer.skip_unset {
            let colon = if empty_is_unset { ":" } else { "" };
            return Ok(format!("${{{name}{colon}{operator}{operand}}}"));
        }
        let given = value.filter(|value| !(empty_is_unset && value.is_empty()));
        Ok(match (operator, given) {
            ('+', Some(_)) | ('-', None) => operand,
            ('+', None) => String::new(),
            (_, Some(given)) => given.to_owned(),
            (_, None) => {
                let reason = if value.is_none() { "unset" } else { "empty" };
                let message = if operand.is_empty() {
                    format!("is not allowed to be {reason}")
                } else {
                    operand
                };
                return Err(ExpandErrorKind::Required {
                    name: name.to_owned(),
                    message,
                });
            }
        })
    }

    fn trimmed(&mut self, name: &str, operator: char) -> Result2<String> {
        let operand = self.nested('}', true)?;
        let value = match self.lookup(name) {
            Some(value) => value,
            None if self.lexer.skip_unset => return Ok(format!("${{{name}{operator}{operand}}}")),
            None => "",
        };
        let (pattern, longest) = match operand.strip_prefix(operator) {
            Some(pattern) => (pattern, true),
            None => (operand.as_str(), false),
        };
        if operator == '%' {
            pattern::trim_suffix(pattern, value, longest)
        } else {
            pattern::trim_prefix(pattern, value, longest)
        }
    }

    fn replaced(&mut self, name: &str) -> Result2<String> {
        let all = self.input.next_if_eq(&'/').is_some();
        let operand = self.nested('/', true)?;
        let replacement = self.nested('}', true)?;
        let value = match self.lookup(name) {
            Some(value) => value,
            None if self.lexer.skip_unset => return Ok(format!("${{{name}/{operand}/{replacement}}}")),
            None => "",
        };
        pattern::replace(&operand, value, &replacement, all, self.limit)
    }

    /// Letters, digits and `_`; digits alone if it begins with one; or one special parameter.
    fn name(&mut self) -> String {
        let mut name = String::new();
        let is_digit = |c: &char| class::is_digit(*c);
        match self.input.peek() {
            Some(c) if is_digit(c) => {
                while let Some(digit) = self.input.next_if(is_digit) {
                    name.push(digit);
                }
            }
            Some('@' | '*' | '#' | '?' | '-' | '$' | '!') => name.extend(self.input.next()),
            _ => {
                while let Some(c) = self
                    .input
                    .next_if(|c| class::is_letter(*c) || is_digit(c) || *c == '_')
                {
                    name.push(c);
                }
            }
        }
        name
    }

    fn lookup(&mut self, name: &str) -> Option<&'a str> {
        let value = self.variables.get(name);
        let seen = if value.is_some() {
            &mut self.matched
        } else {
            &mut self.unmatched
        };
        if !seen.contains(name) {
            seen.insert(name.to_owned());
        }
        value
    }
}

/// `text` without a byte order mark in front: Go's `text/scanner`, which reads words there, skips one.
pub(super) fn without_mark(text: &str) -> &str {
    text.strip_prefix('\u{feff}').unwrap_or(text)
}
