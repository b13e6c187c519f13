//! What signatures of both clouds are made of: keyed hashes, hexadecimal digits, percent signs and times.

use std::fmt::Write as _;
use std::io::Read as _;

use aws_lc_rs::hmac;
use jiff::Timestamp;
use rbuild_oci::push_hex;
use rbuild_registry::BlobSource;
use sha2::{Digest as _, Sha256};

/// HMAC-SHA256.
pub(crate) fn hmac_sha256(key: &[u8], message: &[u8]) -> Vec<u8> {
    let key = hmac::Key::new(hmac::HMAC_SHA256, key);
    hmac::sign(&key, message).as_ref().to_vec()
}

/// Lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 * bytes.len());
    push_hex(&mut text, bytes);
    text
}

/// SHA-256 in hexadecimal digits.
pub(crate) fn sha256_hex(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// SHA-256 of a part of a blob, in hexadecimal digits. Blocks.
///
/// # Errors
/// Whatever the source says.
pub(crate) fn part_sha256_hex(source: &dyn BlobSource, offset: u64, bytes: u64) -> std::io::Result<String> {
    let mut reader = source.open(offset)?.take(bytes);
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 256 << 10];
    loop {
        match reader.read(&mut buffer)? {
            0 => return Ok(hex(&hasher.finalize())),
            count => hasher.update(&buffer[..count]),
        }
    }
}

/// `text` with everything but letters, digits and `-_.~` percent-encoded, and without the bytes of `kept`.
pub(crate) fn encoded(text: &str, kept: &[u8]) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) || kept.contains(&byte) {
            out.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            write!(out, "%{byte:02X}").ok();
        }
    }
    out
}

/// A time as HTTP has it.
pub(crate) fn http_date(time: Timestamp) -> String {
    time.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
}

/// The time of an HTTP date.
pub(crate) fn parsed_http_date(text: &str) -> Option<Timestamp> {
    Some(jiff::fmt::rfc2822::parse(text).ok()?.timestamp())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_what_signatures_say() {
        // RFC 4231, test case 2.
        assert_eq!(
            hex(&hmac_sha256(b"Jefe", b"what do ya want for nothing?")),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
        assert_eq!(encoded("a b/sha256:~é", b"/"), "a%20b/sha256%3A~%C3%A9");
        assert_eq!(encoded("a/b", b""), "a%2Fb");
        let time: Timestamp = "2015-06-26T23:39:12Z".parse().unwrap();
        assert_eq!(http_date(time), "Fri, 26 Jun 2015 23:39:12 GMT");
        assert_eq!(parsed_http_date("Fri, 26 Jun 2015 23:39:12 GMT"), Some(time));
        assert_eq!(parsed_http_date("yesterday"), None);
        let blob = b"0123456789".to_vec();
        assert_eq!(part_sha256_hex(&blob, 2, 3).unwrap(), sha256_hex(b"234"));
    }
}
