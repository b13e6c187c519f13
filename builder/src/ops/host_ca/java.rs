//! PEM certificates as a Java trust store. Java reads no PEM, and every version reads this oldest format of its own.
//!
//! The format has a keyed digest at its end that is only checked by who gives a password; a trust store is opened without
//! one, so there is none here (`sun.security.provider.JavaKeyStore.engineLoad`). What is no certificate is left out:
//! Java refuses a store for one bad entry.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
const END: &str = "-----END CERTIFICATE-----";
/// Tag of a trusted certificate, as opposed to a private key.
const TRUSTED: u32 = 2;

/// The store with every certificate of `pem`.
pub(super) fn trust_store(pem: &[u8]) -> Vec<u8> {
    let certificates = certificates(pem);
    let mut store = Vec::with_capacity(pem.len());
    store.extend(0xFEED_FEED_u32.to_be_bytes());
    store.extend(2_u32.to_be_bytes());
    store.extend(length(certificates.len()));
    for (index, der) in certificates.iter().enumerate() {
        store.extend(TRUSTED.to_be_bytes());
        text(&mut store, &format!("host-ca-{index}"));
        // Time of creation, which nobody looks at.
        store.extend(0_u64.to_be_bytes());
        text(&mut store, "X.509");
        store.extend(length(der.len()));
        store.extend(der);
    }
    store
}

fn certificates(pem: &[u8]) -> Vec<Vec<u8>> {
    let text = String::from_utf8_lossy(pem);
    let blocks = text.split(BEGIN).skip(1);
    let bodies = blocks.filter_map(|block| block.split_once(END).map(|(body, _)| body));
    bodies
        .filter_map(|body| {
            let packed: String = body.split_ascii_whitespace().collect();
            BASE64_STANDARD.decode(packed).ok()
        })
        .filter(|der| is_one_sequence(der))
        .collect()
}

/// Whether `der` is exactly one ASN.1 sequence, as a certificate is.
fn is_one_sequence(der: &[u8]) -> bool {
    let (header, size) = match der {
        [0x30, short, ..] if *short < 0x80 => (2, usize::from(*short)),
        [0x30, 0x81, a, ..] => (3, usize::from(*a)),
        [0x30, 0x82, a, b, ..] => (4, usize::from(u16::from_be_bytes([*a, *b]))),
        _ => return false,
    };
    der.len() == header + size
}

/// Names here are short and ASCII, where Java's own UTF-8 is plain.
fn text(store: &mut Vec<u8>, text: &str) {
    let length = u16::try_from(text.len()).unwrap_or(u16::MAX);
    store.extend(length.to_be_bytes());
    store.extend(text.as_bytes());
}

/// The bundle's limit is far below 4 GiB, and so is all that it holds.
fn length(length: usize) -> [u8; 4] {
    u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pem(der: &[u8]) -> String {
        format!("# a comment\n{BEGIN}\n{}\n{END}\n", BASE64_STANDARD.encode(der))
    }

    #[test]
    fn one_entry_a_certificate() {
        let store = trust_store((pem(&[0x30, 1, 7]) + &pem(&[0x30, 2, 8, 9])).as_bytes());
        let mut expected = vec![0xfe, 0xed, 0xfe, 0xed, 0, 0, 0, 2, 0, 0, 0, 2];
        for (name, der) in [("host-ca-0", &[0x30, 1, 7][..]), ("host-ca-1", &[0x30, 2, 8, 9])] {
            expected.extend([0, 0, 0, 2, 0, 9]);
            expected.extend(name.as_bytes());
            expected.extend([0; 8]);
            expected.extend(b"\0\x05X.509\0\0\0");
            expected.push(u8::try_from(der.len()).unwrap());
            expected.extend(der);
        }
        assert_eq!(store, expected);
    }

    #[test]
    fn what_is_no_certificate_is_left_out() {
        let long = [&[0x30, 0x82, 1, 0][..], &[5; 256]].concat();
        for (body, count) in [
            (pem(&[0x30, 1]), 0),
            (pem(&[0x31, 1, 7]), 0),
            (pem(&[]), 0),
            (format!("{BEGIN}\nno base 64 !\n{END}\n"), 0),
            (format!("{BEGIN}\nMAEH\n"), 0),
            (pem(&long), 1),
            (pem(&long[..259]), 0),
        ] {
            assert_eq!(trust_store(body.as_bytes())[11], count, "{body}");
        }
    }
}
