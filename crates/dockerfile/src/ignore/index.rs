//! Which patterns of a list can match a path at all, found without looking at each: a list of 100,000 file names must
//! not cost 100,000 comparisons for every file. Only narrows; the pattern itself decides.

use std::collections::HashMap;

use crate::ignore::Shape;

#[derive(Debug, Clone, Default)]
pub(super) struct Index {
    whole: HashMap<Box<str>, Vec<u32>>,
    prefixes: ByLength,
    suffixes: ByLength,
    /// Patterns that begin and end with a wildcard.
    others: Vec<u32>,
}

/// Patterns by the first (or last) bytes of what they match, at most [`KEY_BYTES`] of them.
#[derive(Debug, Clone, Default)]
struct ByLength {
    keys: HashMap<Box<[u8]>, Vec<u32>>,
    /// Bit n: there are keys of n bytes.
    lengths: u64,
}

impl ByLength {
    fn add(&mut self, key: &[u8], pattern: u32) {
        self.lengths |= 1 << key.len();
        self.keys.entry(key.into()).or_default().push(pattern);
    }
}

impl Index {
    pub(super) fn add(&mut self, position: usize, shape: &Shape) {
        // A list of more than 2^32 patterns does not fit into memory.
        let Ok(position) = u32::try_from(position) else {
            return;
        };
        let (prefix, suffix) = match shape {
            Shape::Suffix(suffix) => ("", &**suffix),
            Shape::Expression(_) => ("", ""),
            Shape::Wildcard(wildcard) => {
                if let Some(literal) = wildcard.literal() {
                    self.whole.entry(literal.into()).or_default().push(position);
                    return;
                }
                (wildcard.literal_prefix(), wildcard.literal_suffix())
            }
        };
        // `**/x` also matches `x`, which does not end with `/x`.
        let suffix = if matches!(shape, Shape::Suffix(_)) {
            suffix.trim_start_matches('/')
        } else {
            suffix
        };
        let prefix = &prefix.as_bytes()[..prefix.len().min(KEY_BYTES)];
        let suffix = &suffix.as_bytes()[suffix.len().saturating_sub(KEY_BYTES)..];
        if prefix.is_empty() && suffix.is_empty() {
            self.others.push(position);
        } else if suffix.len() > prefix.len() {
            self.suffixes.add(suffix, position);
        } else {
            self.prefixes.add(prefix, position);
        }
    }

    /// Appends the patterns that may match `path`, in no order.
    pub(super) fn candidates(&self, path: &str, out: &mut Vec<u32>) {
        out.extend_from_slice(&self.others);
        out.extend(self.whole.get(path).into_iter().flatten());
        let bytes = path.as_bytes();
        for length in 1..=bytes.len().min(KEY_BYTES) {
            if self.prefixes.lengths & (1 << length) != 0 {
                out.extend(self.prefixes.keys.get(&bytes[..length]).into_iter().flatten());
            }
            if self.suffixes.lengths & (1 << length) != 0 {
                out.extend(
                    self.suffixes
                        .keys
                        .get(&bytes[bytes.len() - length..])
                        .into_iter()
                        .flatten(),
                );
            }
        }
    }
}

/// Long enough to tell names apart, short enough for one word of lengths.
const KEY_BYTES: usize = 48;
