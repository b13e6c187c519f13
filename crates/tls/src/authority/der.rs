//! As much of DER (X.690) as certificates take.

/// An element of a tag.
pub(super) fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    let length = content.len().to_be_bytes();
    let significant = &length[length.iter().take_while(|byte| **byte == 0).count()..];
    match significant {
        [] => out.push(0),
        [short] if *short < 0x80 => out.push(*short),
        long => {
            // At most eight bytes of a length.
            out.push(0x80 | u8::try_from(long.len()).unwrap_or(8));
            out.extend_from_slice(long);
        }
    }
    out.extend_from_slice(content);
    out
}

/// Elements in their order.
pub(super) fn sequence(parts: &[&[u8]]) -> Vec<u8> {
    tlv(0x30, &parts.concat())
}

/// A set of one.
pub(super) fn set(part: &[u8]) -> Vec<u8> {
    tlv(0x31, part)
}

/// What an id stands for, encoded as it is.
pub(super) fn object(id: &[u8]) -> Vec<u8> {
    tlv(0x06, id)
}

/// Bytes.
pub(super) fn octets(bytes: &[u8]) -> Vec<u8> {
    tlv(0x04, bytes)
}

/// A number of big-endian bytes that is positive and has no leading zeros.
pub(super) fn integer(bytes: &[u8]) -> Vec<u8> {
    tlv(0x02, bytes)
}

/// An element with a number around it.
pub(super) fn explicit(number: u8, content: &[u8]) -> Vec<u8> {
    tlv(0xa0 | number, content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_as_short_as_can_be() {
        assert_eq!(tlv(4, &[]), [4, 0]);
        assert_eq!(tlv(4, &[7; 127])[..3], [4, 127, 7]);
        assert_eq!(tlv(4, &[7; 128])[..4], [4, 0x81, 128, 7]);
        assert_eq!(tlv(4, &[7; 256])[..5], [4, 0x82, 1, 0, 7]);
        assert_eq!(
            sequence(&[&integer(&[2]), &explicit(3, &set(&octets(&[1])))]),
            [0x30, 10, 2, 1, 2, 0xa3, 5, 0x31, 3, 4, 1, 1]
        );
    }
}
