//! A deflate encoder (RFC 1951) for what hardly compresses: packed files, with the headers of a tar between them. What
//! repeats is told in blocks with the fixed codes, what does not is stored as it is, and little time is spent on looking for
//! more: this runs at the speed of copying where a search for matches would take a second for each 100 MB.

/// Bytes of input that one place of the table stands for, as a power of two: fewer places, more of it in the cache.
const HASH_BITS: u32 = 13;
/// How far back a match may be (RFC 1951, section 2).
const DISTANCE_MAX: usize = 32 << 10;
/// The longest match that has a code, and the shortest.
const LENGTH_MAX: usize = 258;
const LENGTH_MIN: usize = 3;
/// The shortest match that is worth an end of what is stored.
const WORTH_BYTES: usize = 16;
/// Of bytes between matches, so many are stored and fewer get the fixed codes: a stored block costs about six bytes more, a
/// code for a byte above 143 one bit.
const STORED_BYTES: usize = 96;
/// The longest stored block.
const BLOCK_BYTES_MAX: usize = u16::MAX as usize;
/// Nothing found in so many bytes, as a power of two, and the steps get one byte longer, up to the most.
const PATIENCE_BITS: u32 = 5;
const STEP_MAX: usize = 64;

const END_OF_BLOCK: u16 = 256;
const STORED: u32 = 0b00;
const FIXED: u32 = 0b01;

/// Appends `input` to `out` as one deflate stream.
pub(super) fn deflate(input: &[u8], out: &mut Vec<u8>) {
    let mut blocks = Blocks {
        bits: Bits {
            out,
            held: 0,
            count: 0,
        },
        is_fixed: false,
    };
    // Positions plus one: nought is none.
    let mut seen = vec![0_usize; 1 << HASH_BITS];
    let (mut told, mut at) = (0, 0);
    while let Some(word) = input.get(at..).and_then(|rest| rest.first_chunk::<4>()) {
        let before = std::mem::replace(&mut seen[place(*word)], at + 1);
        let found = before
            .checked_sub(1)
            .filter(|from| at - from <= DISTANCE_MAX)
            .map(|from| Match::around(input, told, at, from))
            // One place stands for many words: what is equal may all lie behind, and then the next step would find itself.
            .filter(|found| found.end > at && found.len() >= WORTH_BYTES);
        match found {
            Some(found) => {
                blocks.literals(&input[told..found.start]);
                blocks.repeat(found.len(), found.distance);
                told = found.end;
                at = found.end;
            }
            None => at += 1 + ((at - told) >> PATIENCE_BITS).min(STEP_MAX - 1),
        }
    }
    blocks.literals(&input[told..]);
    blocks.finish();
}

fn place(word: [u8; 4]) -> usize {
    // Knuth's multiplicative hash: 2^32 by the golden ratio.
    (u32::from_le_bytes(word).wrapping_mul(0x9e37_79b1) >> (u32::BITS - HASH_BITS)) as usize
}

/// Bytes of the input that stand `distance` before themselves too.
struct Match {
    start: usize,
    end: usize,
    distance: usize,
}

impl Match {
    /// All that is equal around `at` and the earlier `from`, not before `told`.
    fn around(input: &[u8], told: usize, at: usize, from: usize) -> Self {
        let distance = at - from;
        let equal = |(a, b): &(&u8, &u8)| a == b;
        let ahead = input[at..].iter().zip(&input[from..]);
        let behind = input[told..at].iter().rev().zip(input[..from].iter().rev());
        Self {
            start: at - behind.take_while(equal).count(),
            end: at + ahead.take_while(equal).count(),
            distance,
        }
    }

    const fn len(&self) -> usize {
        self.end - self.start
    }
}

/// The blocks of a stream.
struct Blocks<'a> {
    bits: Bits<'a>,
    /// A block with the fixed codes is open.
    is_fixed: bool,
}

impl Blocks<'_> {
    fn literals(&mut self, bytes: &[u8]) {
        if bytes.len() < STORED_BYTES {
            for byte in bytes {
                self.symbol(u16::from(*byte));
            }
            return;
        }
        self.end_fixed();
        for block in bytes.chunks(BLOCK_BYTES_MAX) {
            self.bits.put(STORED << 1, 3);
            self.bits.align();
            let len = u16::try_from(block.len()).unwrap_or(u16::MAX);
            self.bits.out.extend(len.to_le_bytes());
            self.bits.out.extend((!len).to_le_bytes());
            self.bits.out.extend(block);
        }
    }

    /// The bytes `distance` back, `len` of them, which may be more than there are yet.
    fn repeat(&mut self, mut len: usize, distance: usize) {
        while len > 0 {
            let part = match len {
                0..=LENGTH_MAX => len,
                // What is left has to be long enough for a code.
                _ if len - LENGTH_MAX < LENGTH_MIN => LENGTH_MAX - LENGTH_MIN,
                _ => LENGTH_MAX,
            };
            len -= part;
            let (symbol, extra, bits) = length_code(part);
            self.symbol(symbol);
            self.bits.put(extra, bits);
            let (code, extra, bits) = distance_code(distance);
            self.bits.put(reversed(code, 5), 5);
            self.bits.put(extra, bits);
        }
    }

    /// A literal, a length or the end, by its fixed code (RFC 1951, section 3.2.6).
    fn symbol(&mut self, symbol: u16) {
        if !self.is_fixed {
            self.bits.put(FIXED << 1, 3);
            self.is_fixed = true;
        }
        let symbol = u32::from(symbol);
        let (code, bits) = match symbol {
            0..=143 => (0x30 + symbol, 8),
            144..=255 => (0x190 + symbol - 144, 9),
            256..=279 => (symbol - 256, 7),
            _ => (0xc0 + symbol - 280, 8),
        };
        self.bits.put(reversed(code, bits), bits);
    }

    fn end_fixed(&mut self) {
        if self.is_fixed {
            self.symbol(END_OF_BLOCK);
            self.is_fixed = false;
        }
    }

    /// Ends with an empty block, as nothing before was known to be the last.
    fn finish(mut self) {
        self.end_fixed();
        self.bits.put(FIXED << 1 | 1, 3);
        self.is_fixed = true;
        self.end_fixed();
        self.bits.align();
    }
}

/// Symbol of a length, extra bits and their number (RFC 1951, section 3.2.5). Each power of two has four symbols.
fn length_code(len: usize) -> (u16, u32, u32) {
    if len == LENGTH_MAX {
        return (285, 0, 0);
    }
    let offset = u16::try_from(len - LENGTH_MIN).unwrap_or(u16::MAX);
    let bits = offset.max(4).ilog2() - 2;
    let symbol = 257 + 4 * bits as u16 + (offset >> bits);
    (symbol, u32::from(offset) & ((1 << bits) - 1), bits)
}

/// The same of a distance. Each power of two has two.
fn distance_code(distance: usize) -> (u32, u32, u32) {
    let offset = u32::try_from(distance - 1).unwrap_or(u32::MAX);
    let bits = offset.max(2).ilog2() - 1;
    (2 * bits + (offset >> bits), offset & ((1 << bits) - 1), bits)
}

/// A code of `bits` bits as it is written: its first bit lowest.
const fn reversed(code: u32, bits: u32) -> u32 {
    code.reverse_bits() >> (u32::BITS - bits)
}

/// Bits, the lowest of a byte first.
struct Bits<'a> {
    out: &'a mut Vec<u8>,
    held: u64,
    count: u32,
}

impl Bits<'_> {
    fn put(&mut self, value: u32, bits: u32) {
        self.held |= u64::from(value) << self.count;
        self.count += bits;
        while self.count >= u8::BITS {
            self.out.push(self.held as u8);
            self.held >>= u8::BITS;
            self.count -= u8::BITS;
        }
    }

    fn align(&mut self) {
        if self.count > 0 {
            self.put(0, u8::BITS - self.count);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use proptest::prelude::*;
    use rbuild_testkit::noise::noise;

    use super::*;

    /// By two programs that nobody here wrote.
    fn inflated(stream: &[u8], expected: usize) -> Vec<u8> {
        let mut by_flate2 = Vec::new();
        let mut reader = flate2::read::DeflateDecoder::new(stream);
        reader.read_to_end(&mut by_flate2).unwrap();
        assert_eq!(reader.total_in(), stream.len() as u64, "no byte behind the end");
        let mut by_libdeflate = vec![0; expected + 1];
        let len = libdeflater::Decompressor::new()
            .deflate_decompress(stream, &mut by_libdeflate)
            .unwrap();
        assert!(by_flate2 == by_libdeflate[..len]);
        by_flate2
    }

    fn size_of(input: &[u8]) -> usize {
        let mut out = Vec::new();
        deflate(input, &mut out);
        assert!(inflated(&out, input.len()) == input);
        out.len()
    }

    #[test]
    fn every_length_and_distance_that_has_a_code_comes_back() {
        for distance in (1..600)
            .chain((600..=DISTANCE_MAX).step_by(977))
            .chain([DISTANCE_MAX])
        {
            let before = noise(distance, 7 + distance as u64);
            for len in [16, 17, 257, 258, 259, 260, 261, 515, 516, 517, 700] {
                let mut input = before.clone();
                for at in 0..len {
                    input.push(input[at]);
                }
                size_of(&input);
            }
        }
        for len in LENGTH_MIN..=LENGTH_MAX {
            let (symbol, extra, bits) = length_code(len);
            assert!((257..=285).contains(&symbol) && extra < 1 << bits.max(1), "{len}");
        }
    }

    /// Two words of one place of the table, each behind the same bytes, which are not looked at themselves.
    #[test]
    fn what_is_equal_behind_two_words_of_one_place_comes_back() {
        // With nothing found for so long, each step is the longest.
        let first = (0..).scan(0, |at, _| {
            let now = *at;
            *at += 1 + (now >> PATIENCE_BITS).min(STEP_MAX - 1);
            Some(now)
        });
        let first = first.into_iter().find(|at| *at >= 4_000).unwrap();
        let second = first + 8 * STEP_MAX;
        let mut input = noise(second + 4_000, 11);
        input.copy_within(first - 40..first, second - 40);
        let word = *input[first..].first_chunk::<4>().unwrap();
        let twin = (0_u32..).map(u32::to_le_bytes);
        let twin = twin
            .into_iter()
            .find(|twin| place(*twin) == place(word) && twin[0] != word[0])
            .unwrap();
        input[second..second + 4].copy_from_slice(&twin);
        size_of(&input);
    }

    #[test]
    fn what_does_not_repeat_grows_by_no_more_than_stored_blocks() {
        for bytes in [0, 1, 95, 96, 65_535, 65_536, 1 << 20] {
            let size = size_of(&noise(bytes, 3));
            let most = bytes + bytes / 8_000 + 16;
            assert!(size <= most, "{bytes}: {size}");
        }
    }

    #[test]
    fn headers_between_packed_files_are_found() {
        let mut input = Vec::new();
        for file in 0..300_u64 {
            let mut header = vec![0; 512];
            let name = format!("src/d{}/f{file}", file % 7);
            header[..name.len()].copy_from_slice(name.as_bytes());
            header[100..124].copy_from_slice(b"0000644\x000000000\x000000000\0");
            header[257..263].copy_from_slice(b"ustar\0");
            input.extend(header);
            input.extend(noise(3_270, file));
            input.extend([0; 314]);
        }
        let (size, files) = (size_of(&input), 300 * 3_270);
        assert!(size < files + 300 * 100, "{} beside {files}", size - files);
    }

    proptest! {
        #[test]
        fn what_went_in_comes_out(parts in prop::collection::vec((0_u8..4, 1_usize..9_000, any::<u64>()), 0..12)) {
            let mut input = Vec::new();
            for (kind, bytes, seed) in parts {
                match kind {
                    0 => input.extend(noise(bytes, seed)),
                    1 => input.extend(std::iter::repeat_n(seed as u8, bytes)),
                    2 => input.extend(noise(1 + bytes % 40, seed).iter().cycle().take(bytes)),
                    _ => {
                        let from = (seed as usize) % (input.len() + 1);
                        let again = input[from..].iter().copied().take(bytes).collect::<Vec<u8>>();
                        input.extend(again);
                    }
                }
            }
            size_of(&input);
        }
    }
}
