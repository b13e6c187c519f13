//! Letters and digits of names: Unicode's categories, as Go's `unicode.IsLetter` and `unicode.IsDigit` have them. What Rust
//! calls alphabetic and numeric is more: vowel signs, `²`, `Ⅷ`.

use std::sync::LazyLock;

use regex::Regex;

pub(super) fn is_letter(c: char) -> bool {
    static LETTER: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"\p{L}").ok());
    c.is_ascii_alphabetic() || is_in(&LETTER, c)
}

pub(super) fn is_digit(c: char) -> bool {
    static DIGIT: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"\p{Nd}").ok());
    c.is_ascii_digit() || is_in(&DIGIT, c)
}

fn is_in(class: &LazyLock<Option<Regex>>, c: char) -> bool {
    !c.is_ascii()
        && class
            .as_ref()
            .is_some_and(|class| class.is_match(c.encode_utf8(&mut [0; 4])))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn categories_and_nothing_else() {
        for c in ['a', 'Z', 'é', 'ß', 'न', '日', 'ª'] {
            assert!(is_letter(c) && !is_digit(c), "{c}");
        }
        for c in ['0', '9', '٣', '߉'] {
            assert!(is_digit(c) && !is_letter(c), "{c}");
        }
        for c in ['_', ' ', '²', '½', 'Ⅷ', '①', '\u{93e}', '\u{301}', '😀'] {
            assert!(!is_letter(c) && !is_digit(c), "{c}");
        }
    }
}
