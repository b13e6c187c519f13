//! Cuts a stream into pieces where its content says (a gear hash: Xia et al., `FastCDC`, USENIX ATC 2016). A change inside
//! one piece moves no cut but those next to it, so all other pieces of a changed layer are what they were.

/// Bytes of a piece below which no cut is looked for, and at which one is made whatever is there. Part of the output's identity, as
/// is [`CUT_BITS`]: changing them changes every blob digest.
const PIECE_BYTES_MIN: usize = 512 << 10;
const PIECE_BYTES_MAX: usize = 2 << 20;
/// A cut is made, past the minimum, after 2^19 bytes on average.
const CUT_BITS: u32 = 19;
/// Bytes that the hash depends on.
const WINDOW: usize = 64;

/// One number for each byte, without a pattern that data would have (splitmix64, Steele et al. 2014).
const GEAR: [u64; 256] = {
    let mut table = [0; 256];
    let mut state = 0_u64;
    let mut at = 0;
    while at < table.len() {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = state;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        table[at] = word ^ (word >> 31);
        at += 1;
    }
    table
};

/// Where in the piece under way the next bytes belong.
#[derive(Debug, Default)]
pub(super) struct Cutter {
    hash: u64,
    /// Bytes of the piece so far.
    len: usize,
}

impl Cutter {
    /// How many of `bytes` still belong to the piece, and whether it ends with them.
    pub(super) fn take(&mut self, bytes: &[u8]) -> (usize, bool) {
        let unhashed = (PIECE_BYTES_MIN - WINDOW)
            .saturating_sub(self.len)
            .min(bytes.len());
        let most = (PIECE_BYTES_MAX - self.len).min(bytes.len());
        let mut hash = self.hash;
        for (at, byte) in bytes[unhashed..most].iter().enumerate() {
            hash = (hash << 1).wrapping_add(GEAR[usize::from(*byte)]);
            let len = self.len + unhashed + at + 1;
            if hash >> (u64::BITS - CUT_BITS) == 0 && len >= PIECE_BYTES_MIN {
                *self = Self::default();
                return (unhashed + at + 1, true);
            }
        }
        self.len += most;
        self.hash = hash;
        let full = self.len == PIECE_BYTES_MAX;
        if full {
            *self = Self::default();
        }
        (most, full)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(bytes: usize) -> Vec<u8> {
        rbuild_testkit::noise::noise(bytes, 1)
    }

    /// Lengths of the pieces, written `write` bytes at a time.
    fn pieces(input: &[u8], write: usize) -> Vec<usize> {
        let (mut cutter, mut lens, mut len) = (Cutter::default(), Vec::new(), 0);
        for mut bytes in input.chunks(write) {
            while !bytes.is_empty() {
                let (taken, ends) = cutter.take(bytes);
                len += taken;
                bytes = &bytes[taken..];
                if ends {
                    lens.push(std::mem::take(&mut len));
                }
            }
        }
        lens.push(len);
        lens
    }

    #[test]
    fn cuts_do_not_depend_on_the_writes_and_stay_within_the_bounds() {
        let input = noise(24 << 20);
        let expected = pieces(&input, input.len());
        for write in [1000, 65_536, PIECE_BYTES_MIN, PIECE_BYTES_MAX + 1] {
            assert_eq!(pieces(&input, write), expected, "{write}");
        }
        let (_, whole) = expected.split_last().unwrap();
        assert!(
            whole
                .iter()
                .all(|len| (PIECE_BYTES_MIN..=PIECE_BYTES_MAX).contains(len)),
            "{whole:?}"
        );
        assert!((16..=36).contains(&whole.len()), "{whole:?}");
        assert!(whole.iter().any(|len| *len < PIECE_BYTES_MAX), "{whole:?}");
    }

    #[test]
    fn content_without_a_cut_is_cut_at_the_most() {
        assert_eq!(
            pieces(&vec![0; 2 * PIECE_BYTES_MAX + 5], 4096),
            [PIECE_BYTES_MAX, PIECE_BYTES_MAX, 5]
        );
    }

    #[test]
    fn bytes_put_in_move_only_the_cuts_beside_them() {
        let before = noise(24 << 20);
        let mut after = before.clone();
        after.splice(9_000_000..9_000_000, *b"something new");
        let ends = |input: &[u8]| -> Vec<usize> {
            let mut end = 0;
            let add = |len| {
                end += len;
                end
            };
            pieces(input, 1 << 20).into_iter().map(add).collect()
        };
        let (before, after) = (ends(&before), ends(&after));
        let kept = before
            .iter()
            .filter(|end| after.contains(end) || after.contains(&(*end + 13)))
            .count();
        assert!(kept + 4 >= before.len(), "{kept} of {}", before.len());
    }
}
