//! Text that came from a server, a file or a helper, made safe to print.
//!
//! Registry errors end up on terminals and in logs: control bytes, direction overrides and endless bodies must not
//! get there (security row 44). The only way to make an [`Excerpt`] is to escape.

use std::fmt;

/// Longest text kept, in characters; the rest is cut and marked.
const CHARS_MAX: usize = 512;

/// Untrusted text with everything invisible written as visible escapes, cut to a few hundred characters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Excerpt(String);

impl Excerpt {
    /// Escapes `bytes`; what is not UTF-8 becomes U+FFFD.
    #[must_use]
    pub fn new(bytes: &[u8]) -> Self {
        // Four bytes a character at most: no need to look at more of a large body.
        let head = &bytes[..bytes.len().min(CHARS_MAX * 4 + 4)];
        let text = String::from_utf8_lossy(head);
        let mut out = String::new();
        for (at, c) in text.trim().chars().enumerate() {
            if at == CHARS_MAX {
                out.push('…');
                break;
            }
            match c {
                '\n' => out.push(' '),
                c if is_hidden(c) => out.extend(c.escape_unicode()),
                c => out.push(c),
            }
        }
        Self(out)
    }

    /// The escaped text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether nothing is left to show.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Control characters (C0, DEL, C1), line and paragraph separators, direction marks, zero-width characters, annotations and
/// tags.
fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

impl From<&str> for Excerpt {
    fn from(text: &str) -> Self {
        Self::new(text.as_bytes())
    }
}

impl fmt::Display for Excerpt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn row44_nothing_that_steers_a_terminal_is_left() {
        let hostile = b"\x1b]0;pwn\x07\x1b[2J\r#9 DONE\n::set-output\xc2\x9b31m\xe2\x80\xae\xff\x00 end";
        let shown = Excerpt::new(hostile);
        assert_eq!(
            shown.as_str(),
            "\\u{1b}]0;pwn\\u{7}\\u{1b}[2J\\u{d}#9 DONE ::set-output\\u{9b}31m\\u{202e}\u{fffd}\\u{0} end"
        );
        let marks = "\u{7f}\u{61c}\u{200b}\u{2028}\u{2066}\u{feff}\u{fff9}\u{e0041}";
        assert_eq!(
            Excerpt::from(format!("a{marks}b").as_str()).as_str(),
            "a\\u{7f}\\u{61c}\\u{200b}\\u{2028}\\u{2066}\\u{feff}\\u{fff9}\\u{e0041}b"
        );
    }

    #[test]
    fn row44_long_bodies_are_cut() {
        let shown = Excerpt::new(&[b'a'; 100_000]);
        assert_eq!(shown.as_str().chars().count(), CHARS_MAX + 1);
        assert!(shown.as_str().ends_with('…'));
    }

    #[test]
    fn row44_legal_twin_readable_text_stays() {
        assert_eq!(
            Excerpt::new("manifest unknown: größer 你好".as_bytes()).as_str(),
            "manifest unknown: größer 你好"
        );
        assert!(Excerpt::new(b" \n ").is_empty());
    }
}
