//! Sparse files in extended headers: the three forms that GNU tar writes (`tar.info`, "Storing Sparse Files"), read as Go's
//! archive/tar reads them (`reader.go`, `readGNUSparsePAXHeaders`). Both see the same file, so a layer may have one.

use crate::field::decimal;
use crate::pax::PaxError;

use super::BLOCK;

/// What the records of one extended header say.
#[derive(Debug, Default)]
pub(crate) struct Records {
    major: Option<Vec<u8>>,
    minor: Option<Vec<u8>>,
    pub(super) name: Option<Vec<u8>>,
    size: Option<u64>,
    real_size: Option<u64>,
    parts: Option<u64>,
    /// Offsets and lengths in turn.
    map: Option<Vec<u64>>,
}

/// Where a file's bytes are.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Map {
    /// Offsets and lengths, in turn.
    Known(Vec<u64>),
    /// In front of them.
    InContent,
}

/// Zeros, and bytes that follow them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) zeros: u64,
    pub(super) data: u64,
}

impl Records {
    /// Takes the record whose key is `GNU.sparse.` and this.
    pub(crate) fn set(&mut self, key: &[u8], value: &[u8]) -> Result<(), PaxError> {
        let number = || decimal(value).ok_or(PaxError::Value);
        match key {
            b"major" => self.major = Some(value.to_vec()),
            b"minor" => self.minor = Some(value.to_vec()),
            b"name" if value.is_empty() => return Err(PaxError::Empty),
            b"name" if value.contains(&0) => return Err(PaxError::Key),
            b"name" => self.name = Some(value.to_vec()),
            b"size" => self.size = Some(number()?),
            b"realsize" => self.real_size = Some(number()?),
            b"numblocks" => self.parts = Some(number()?),
            b"map" if value.is_empty() => self.map = Some(Vec::new()),
            b"map" => {
                let numbers = value.split(|byte| *byte == b',').map(decimal);
                self.map = Some(numbers.collect::<Option<_>>().ok_or(PaxError::Value)?);
            }
            // The first form has a record for each, in turn.
            b"offset" | b"numbytes" => {
                let map = self.map.get_or_insert_default();
                if map.len().is_multiple_of(2) != (key == b"offset") {
                    return Err(PaxError::Value);
                }
                map.push(number()?);
            }
            _ => {}
        }
        Ok(())
    }

    /// The file's size and the form of its map. Nothing of a version that is not known, and where one of them is missing.
    pub(super) fn of_file(self) -> Option<(u64, Map)> {
        let size = self.size.or(self.real_size)?;
        let map = match (self.major.as_deref(), self.minor.as_deref()) {
            (Some(b"1"), Some(b"0")) => Map::InContent,
            (None, None) | (Some(b"0"), Some(b"0" | b"1")) => {
                let map = self.map.unwrap_or_default();
                if self.parts?.checked_mul(2)? != map.len() as u64 {
                    return None;
                }
                Map::Known(map)
            }
            _ => return None,
        };
        Some((size, map))
    }
}

/// The map that stands in front of a file's bytes: lines of numbers, how many parts first, filled up to a block.
#[derive(Debug, Default)]
pub(super) struct Lines {
    numbers: Vec<u64>,
    line: Vec<u8>,
}

/// Digits of the longest number.
const DIGITS_MAX: usize = 20;

impl Lines {
    /// Takes the next block: `true` when the map is complete. Nothing if it is no map.
    pub(super) fn take(&mut self, block: &[u8; BLOCK]) -> Option<bool> {
        for byte in block {
            if *byte != b'\n' {
                self.line.push(*byte);
                if self.line.len() > DIGITS_MAX {
                    return None;
                }
                continue;
            }
            self.numbers.push(decimal(&self.line)?);
            self.line.clear();
            if self.is_complete()? {
                return Some(true);
            }
        }
        Some(false)
    }

    fn is_complete(&self) -> Option<bool> {
        let (parts, rest) = self.numbers.split_first()?;
        Some(rest.len() as u64 == parts.checked_mul(2)?)
    }

    /// Offsets and lengths, in turn.
    pub(super) fn numbers(mut self) -> Vec<u64> {
        self.numbers.drain(..1);
        self.numbers
    }
}

/// The runs of a file of `size` bytes, of which `stored` are there. Nothing if the map has parts that overlap, are out of order or
/// behind the end, or others than are stored.
pub(super) fn runs(map: &[u64], size: u64, stored: u64) -> Option<Vec<Run>> {
    let (parts, []) = map.as_chunks::<2>() else {
        return None;
    };
    let mut runs = Vec::with_capacity(parts.len() + 1);
    let (mut end, mut data) = (0_u64, 0_u64);
    for [offset, length] in parts {
        runs.push(Run {
            zeros: offset.checked_sub(end)?,
            data: *length,
        });
        end = offset.checked_add(*length)?;
        data = data.checked_add(*length)?;
    }
    runs.push(Run {
        zeros: size.checked_sub(end)?,
        data: 0,
    });
    (data == stored).then_some(runs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_in_order_within_the_file_and_all_that_is_stored() {
        let run = |zeros, data| Run { zeros, data };
        assert_eq!(runs(&[], 0, 0), Some(vec![run(0, 0)]));
        assert_eq!(runs(&[], 7, 0), Some(vec![run(7, 0)]));
        assert_eq!(
            runs(&[2, 3, 5, 1, 9, 0], 9, 4),
            Some(vec![run(2, 3), run(0, 1), run(3, 0), run(0, 0)])
        );
        for (map, size, stored, why) in [
            (&[0, 5, 4, 1][..], 9, 6, "overlap"),
            (&[5, 1, 0, 1], 9, 2, "out of order"),
            (&[5, 5], 9, 5, "behind the end"),
            (&[u64::MAX, 2], u64::MAX, 2, "overflow"),
            (&[0, u64::MAX, u64::MAX, u64::MAX], u64::MAX, 2, "sum overflows"),
            (&[0, 5], 9, 6, "more is stored"),
            (&[0, 5], 9, 4, "less is stored"),
            (&[0], 9, 0, "half a part"),
        ] {
            assert_eq!(runs(map, size, stored), None, "{why}");
        }
    }

    #[test]
    fn row11_maps_in_the_content_are_read_block_by_block_and_no_line_is_long() {
        let block = |text: &[u8]| {
            let mut block = [0; BLOCK];
            block[..text.len()].copy_from_slice(text);
            block
        };
        let mut lines = Lines::default();
        assert_eq!(lines.take(&block(b"2\n0\n512\n1024\n1\n")), Some(true));
        assert_eq!(lines.numbers(), [0, 512, 1024, 1]);
        let mut lines = Lines::default();
        assert_eq!(lines.take(&[b'0'; BLOCK]), None, "no line ends");
        for text in [&b"x\n"[..], b"-1\n", b"\n", b"9223372036854775808\n", b"1\n0\n"] {
            let mut lines = Lines::default();
            assert_eq!(lines.take(&block(text)), None, "{}", text.escape_ascii());
        }
        // Two blocks: 256 lines, and the rest.
        let all = [b"200\n".to_vec(), b"0\n".repeat(400)].concat();
        let mut lines = Lines::default();
        assert_eq!(lines.take(&block(&all[..BLOCK])), Some(false));
        assert_eq!(lines.take(&block(&all[BLOCK..])), Some(true));
        assert_eq!(lines.numbers(), [0; 400]);
    }
}
