//! How much of a definition a client may send, and the counting that is done before anything is decoded.

/// What a definition may be at most. A definition is decoded in one piece, so this bounds the memory it takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Operations.
    pub ops: usize,
    /// Bytes of all encoded operations.
    pub bytes: usize,
    /// Operations that stand on each other.
    pub depth: usize,
    /// Parts of all operations: inputs, mounts, file actions and the like. Two bytes can be a part that takes 300 in
    /// memory.
    pub parts: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            ops: 50_000,
            bytes: 64 << 20,
            depth: 10_000,
            parts: 500_000,
        }
    }
}

/// A limit that was exceeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("definition exceeds {limit} {what}")]
pub struct LimitExceeded {
    /// What there is too much of.
    pub what: &'static str,
    /// The limit.
    pub limit: usize,
}

impl Limits {
    /// Counts the operations, their bytes and their parts.
    ///
    /// # Errors
    /// [`LimitExceeded`].
    pub(crate) fn check(&self, ops: &[Vec<u8>]) -> Result<(), LimitExceeded> {
        let within = |what, count: usize, limit: usize| {
            if count > limit {
                return Err(LimitExceeded { what, limit });
            }
            Ok(())
        };
        within("operations", ops.len(), self.ops)?;
        let bytes = ops.iter().fold(0_usize, |sum, op| sum.saturating_add(op.len()));
        within("bytes", bytes, self.bytes)?;
        let mut count = 0;
        for op in ops {
            count += parts(op);
            within("parts of operations", count, self.parts)?;
        }
        Ok(())
    }
}

/// Fields of an operation and of what it does. Stops at what is no protobuf: decoding will say so.
fn parts(op: &[u8]) -> usize {
    let mut count = 0;
    for (number, payload) in Fields(op) {
        count += 1;
        if (2..=8).contains(&number) {
            count += Fields(payload).count();
        }
    }
    count
}

/// The fields of an encoded message: numbers, and the content of those that have a length.
struct Fields<'a>(&'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = (u64, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let key = varint(&mut self.0)?;
        let payload = match key & 7 {
            0 => {
                varint(&mut self.0)?;
                &[]
            }
            1 => take(&mut self.0, 8)?,
            2 => {
                let length = usize::try_from(varint(&mut self.0)?).ok()?;
                take(&mut self.0, length)?
            }
            5 => take(&mut self.0, 4)?,
            _ => return None,
        };
        Some((key >> 3, payload))
    }
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in 0..10 {
        let (first, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(first & 0x7f) << (7 * shift);
        if first & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

fn take<'a>(bytes: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_counted_without_decoding() {
        // Field 4 (a file operation) with three empty actions, and one input.
        let op = [0x22, 6, 0x12, 0, 0x12, 0, 0x12, 0, 0x0a, 0];
        assert_eq!(parts(&op), 5);
        assert_eq!(
            parts(&[0x22, 6, 0x12]),
            0,
            "a length beyond the end ends the count"
        );
        assert_eq!(parts(&[0xff; 20]), 0, "a number without an end too");
        assert_eq!(
            parts(&[0x09, 1, 2, 3, 4, 5, 6, 7, 8, 0x15, 1, 2, 3, 4, 0x08, 1]),
            3
        );
    }

    #[test]
    fn each_limit_is_its_own() {
        let limits = Limits {
            ops: 2,
            bytes: 4,
            depth: 1,
            parts: 3,
        };
        let what = |ops: &[Vec<u8>]| limits.check(ops).map_err(|error| error.what);
        assert_eq!(what(&[vec![0x0a, 0], vec![0x0a, 0]]), Ok(()));
        assert_eq!(what(&[vec![], vec![], vec![]]), Err("operations"));
        assert_eq!(what(&[vec![0x0a, 0], vec![0x0a, 1, 0]]), Err("bytes"));
        let parts = Limits { bytes: 100, ..limits }.check(&[vec![0x22, 6, 0x12, 0, 0x12, 0, 0x12, 0]]);
        assert_eq!(parts.map_err(|error| error.what), Err("parts of operations"));
    }
}
