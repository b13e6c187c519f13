//! A buffer with a limit, which every form of an answer is written into.

use std::io;

use rbuild_oci::go_json;
use serde::Serialize;

/// Largest form of an answer, bytes. Two of them fit into the 16 MiB that BuildKit's clients take as one message.
pub const FORM_BYTES_MAX: usize = 7 << 20;

/// An answer that cannot be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FormError {
    /// It is too long.
    #[error("the answer about this Dockerfile is longer than {FORM_BYTES_MAX} bytes")]
    TooLong,
    /// Another front end left it out.
    #[error("the front end's answer has no {0}")]
    Missing(&'static str),
    /// Another front end wrote something else.
    #[error("the front end's {0} is not what was asked for")]
    Malformed(&'static str),
}

/// Bytes up to [`FORM_BYTES_MAX`].
#[derive(Debug, Default)]
pub(super) struct Bounded {
    bytes: Vec<u8>,
}

impl Bounded {
    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<(), FormError> {
        if bytes.len() > FORM_BYTES_MAX - self.bytes.len() {
            return Err(FormError::TooLong);
        }
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    /// Adds `count` spaces.
    pub(super) fn pad(&mut self, count: usize) -> Result<(), FormError> {
        if count > FORM_BYTES_MAX - self.bytes.len() {
            return Err(FormError::TooLong);
        }
        self.bytes.resize(self.bytes.len() + count, b' ');
        Ok(())
    }

    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.push(bytes)
            .map(|()| bytes.len())
            .map_err(|error| io::Error::new(io::ErrorKind::FileTooLarge, error))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// `value` as Go writes it, indented.
pub(super) fn json<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, FormError> {
    let mut out = Bounded::default();
    // Only strings are keys here, so nothing but the limit can fail.
    go_json::write_indented(value, &mut out).map_err(|_limit| FormError::TooLong)?;
    Ok(out.into_bytes())
}

/// Bytes as Go's encoder writes them.
pub(super) fn base64<S: serde::Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
    use base64::Engine as _;
    to.serialize_str(&base64::engine::general_purpose::STANDARD.encode(bytes))
}

/// A list of one text, as [`base64`] writes it.
pub(super) fn base64_list<S: serde::Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
    struct One<'a>(&'a [u8]);
    impl Serialize for One<'_> {
        fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
            base64(self.0, to)
        }
    }
    to.collect_seq(std::iter::once(One(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn row50_an_answer_has_an_end() {
        let mut out = Bounded::default();
        out.pad(FORM_BYTES_MAX - 1).unwrap();
        assert_eq!(out.push(b"ab"), Err(FormError::TooLong));
        assert_eq!(out.pad(2), Err(FormError::TooLong));
        out.push(b"a").unwrap();
        assert_eq!(out.into_bytes().len(), FORM_BYTES_MAX);
        assert_eq!(json(&"x".repeat(FORM_BYTES_MAX)), Err(FormError::TooLong));
        assert_eq!(json("x").unwrap(), b"\"x\"");
    }
}
