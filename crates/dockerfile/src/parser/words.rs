//! Cutting a line into words without looking at what they mean. Quotes stay in the words of [`words`]; [`flags`]
//! removes them.

/// Blanks between words in BuildKit's eyes; other Unicode blanks are part of words.
pub(super) const BLANKS: [char; 5] = ['\t', '\x0b', '\x0c', '\r', ' '];

/// `text` at its first run of blanks.
pub(super) fn split_first(text: &str) -> (&str, Option<&str>) {
    match text.find(BLANKS) {
        Some(at) => (&text[..at], Some(text[at..].trim_start_matches(BLANKS))),
        None => (text, None),
    }
}

/// `text` at every run of blanks; none in the empty text.
pub(super) fn split_all(text: &str) -> Vec<String> {
    if text.is_empty() {
        return Vec::new();
    }
    let mut pieces = Vec::new();
    let mut rest = text;
    while let (piece, Some(after)) = split_first(rest) {
        pieces.push(piece.to_owned());
        rest = after;
    }
    pieces.push(rest.to_owned());
    pieces
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Blanks,
    Word,
    Quote(char),
}

/// Words with quotes and escapes left in them; blanks inside quotes do not cut.
pub(super) fn words(text: &str, escape: char) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut phase = Phase::Blanks;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match phase {
            Phase::Blanks | Phase::Word if c.is_whitespace() => {
                if phase == Phase::Word && !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                phase = Phase::Blanks;
            }
            Phase::Quote('\'') if c != '\'' => word.push(c),
            _ if c == escape => {
                if phase == Phase::Blanks {
                    phase = Phase::Word;
                }
                // An escape character at the end of the line vanishes.
                if let Some(escaped) = chars.next() {
                    word.extend([c, escaped]);
                }
            }
            Phase::Quote(quote) => {
                if c == quote {
                    phase = Phase::Word;
                }
                word.push(c);
            }
            Phase::Blanks | Phase::Word => {
                phase = if c == '\'' || c == '"' {
                    Phase::Quote(c)
                } else {
                    Phase::Word
                };
                word.push(c);
            }
        }
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

/// The words at the beginning of `text` that start with `--`, unquoted and unescaped, and the rest of the line. A
/// plain `--` ends them and is dropped. Unicode's blanks end no flag. (BuildKit looks at bytes here and takes each for a
/// character: its flags are only what was written where that is ASCII.)
pub(super) fn flags(text: &str, escape: char) -> (Vec<String>, &str) {
    let mut flags = Vec::new();
    let mut rest = text;
    loop {
        rest = rest.trim_start_matches(BLANKS);
        if !rest.starts_with("--") {
            return (flags, rest);
        }
        let (flag, quoted, after) = flag(rest, escape);
        rest = after;
        if flag == "--" {
            return (flags, rest);
        }
        if quoted || !flag.is_empty() {
            flags.push(flag);
        }
    }
}

fn flag(text: &str, escape: char) -> (String, bool, &str) {
    let mut out = String::new();
    let mut quoted = false;
    let mut quote = None;
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        if quote == Some(c) {
            quote = None;
        } else if quote.is_none() && BLANKS.contains(&c) {
            return (out, quoted, &text[at..]);
        } else if quote.is_none() && (c == '\'' || c == '"') {
            quote = Some(c);
            quoted = true;
        } else if c == escape {
            out.extend(chars.next().map(|(_, escaped)| escaped));
        } else {
            out.push(c);
        }
    }
    (out, quoted, "")
}
