//! How SSH writes things (RFC 4251, section 5), and the little of DER that its key files need. Reads what may be broken: every
//! length is checked.

/// What is not read yet.
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    /// The next `count` bytes.
    pub(super) fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    pub(super) fn byte(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        Some(u32::from_be_bytes(self.take(4)?.try_into().ok()?))
    }

    /// Bytes behind their length.
    pub(super) fn string(&mut self) -> Option<&'a [u8]> {
        let length = self.u32()?;
        self.take(usize::try_from(length).ok()?)
    }

    /// A number that is not negative, without the zeros in front.
    pub(super) fn number(&mut self) -> Option<&'a [u8]> {
        let bytes = self.string()?;
        (bytes.first().is_none_or(|first| *first < 0x80)).then(|| bare(bytes))
    }

    /// The content of a DER value whose tag is `tag`.
    pub(super) fn der(&mut self, tag: u8) -> Option<&'a [u8]> {
        if self.byte()? != tag {
            return None;
        }
        let length = match self.byte()? {
            short @ ..=0x7f => usize::from(short),
            long @ 0x81..=0x84 => {
                let bytes = self.take(usize::from(long & 0x7f))?;
                bytes
                    .iter()
                    .fold(0, |length, byte| length << 8 | usize::from(*byte))
            }
            _ => return None,
        };
        self.take(length)
    }
}

/// A number without the zeros in front.
pub(super) fn bare(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    &number[zeros..]
}

/// Appends bytes behind their length.
pub(super) fn string(to: &mut Vec<u8>, bytes: &[u8]) {
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    to.extend(length.to_be_bytes());
    to.extend(bytes);
}

/// Appends a number.
pub(super) fn mpint(to: &mut Vec<u8>, number: &[u8]) {
    string(to, &signed(number));
}

/// A number with a zero in front if it would be negative otherwise.
fn signed(number: &[u8]) -> Vec<u8> {
    let number = bare(number);
    let mut bytes = Vec::with_capacity(number.len() + 1);
    if number.first().is_some_and(|first| *first >= 0x80) {
        bytes.push(0);
    }
    bytes.extend(number);
    bytes
}

/// Appends a number as DER has it.
pub(super) fn der_number(to: &mut Vec<u8>, number: &[u8]) {
    let bytes = match signed(number) {
        bytes if bytes.is_empty() => vec![0],
        bytes => bytes,
    };
    der(to, 2, &bytes);
}

/// Appends a DER value.
pub(super) fn der(to: &mut Vec<u8>, tag: u8, content: &[u8]) {
    to.push(tag);
    match u8::try_from(content.len()) {
        Ok(short @ ..=0x7f) => to.push(short),
        _ => {
            let length = content.len().to_be_bytes();
            let length = bare(&length);
            to.push(0x80 | u8::try_from(length.len()).unwrap_or(0x7f));
            to.extend(length);
        }
    }
    to.extend(content);
}

/// What is left of `number` divided by `modulus`, both without zeros in front; nothing if the modulus is zero.
pub(super) fn remainder(number: &[u8], modulus: &[u8]) -> Option<Vec<u8>> {
    if modulus.is_empty() {
        return None;
    }
    // One byte of room for what is doubled.
    let mut modulus_wide = vec![0];
    modulus_wide.extend(modulus);
    let mut rest = vec![0; modulus_wide.len()];
    for bit in (0..number.len() * 8).rev() {
        let byte = number[number.len() - 1 - bit / 8];
        let mut carry = byte >> (bit % 8) & 1;
        for digit in rest.iter_mut().rev() {
            let out = *digit >> 7;
            *digit = *digit << 1 | carry;
            carry = out;
        }
        if rest >= modulus_wide {
            subtract(&mut rest, &modulus_wide);
        }
    }
    Some(rest)
}

/// Takes `less` from `from`, which is as long and not smaller.
pub(super) fn subtract(from: &mut [u8], less: &[u8]) {
    let mut borrow = false;
    for (digit, other) in from.iter_mut().zip(less).rev() {
        let (first, one) = digit.overflowing_sub(*other);
        let (second, two) = first.overflowing_sub(u8::from(borrow));
        (*digit, borrow) = (second, one || two);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_divided() {
        for (number, modulus) in [
            (0_u64, 7),
            (6, 7),
            (7, 7),
            (1 << 40, 999),
            (u64::MAX, 255),
            (u64::MAX, u64::MAX - 3),
        ] {
            let (n, m) = (number.to_be_bytes(), modulus.to_be_bytes());
            let rest = remainder(bare(&n), bare(&m)).unwrap();
            let expected = (number % modulus).to_be_bytes();
            assert_eq!(bare(&rest), bare(&expected), "{number} {modulus}");
        }
        assert_eq!(remainder(&[1], &[]), None);
    }

    #[test]
    fn row48_lengths_that_are_not_there_are_nothing() {
        assert_eq!(Reader(&[0, 0, 0, 2, 1]).string(), None);
        assert_eq!(Reader(&[255, 255, 255, 255]).string(), None);
        assert_eq!(Reader(&[0, 0, 0, 1, 0x80]).number(), None, "it is negative");
        assert_eq!(Reader(&[2, 0x85, 1, 1, 1, 1, 1]).der(2), None);
        assert_eq!(Reader(&[2, 0x82, 0, 1, 9]).der(2), Some(&[9][..]));
        let mut long = Vec::new();
        der(&mut long, 0x30, &[7; 300]);
        assert_eq!(
            (Reader(&long).der(0x30).map(<[u8]>::len), &long[..4]),
            (Some(300), &[0x30, 0x82, 1, 44][..])
        );
    }
}
