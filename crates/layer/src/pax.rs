//! PAX extended header records: `"<length> <key>=<value>\n"` (POSIX.1-2017, pax, "pax Extended Header").
//!
//! Reads them as Go's archive/tar does, and refuses what GNU tar and Go understand differently.

use crate::entry::{Time, Xattr};
use crate::field::decimal;
use crate::reader::sparse;

/// What one extended header said about the next entry. Unknown keys are dropped.
#[derive(Debug, Default)]
pub(crate) struct Records {
    pub(crate) path: Option<Vec<u8>>,
    pub(crate) link: Option<Vec<u8>>,
    pub(crate) size: Option<u64>,
    pub(crate) uid: Option<u64>,
    pub(crate) gid: Option<u64>,
    pub(crate) mtime: Option<Time>,
    pub(crate) xattrs: Vec<Xattr>,
    /// What `GNU.sparse.*` keys say, if there are any.
    pub(crate) sparse: Option<sparse::Records>,
}

/// Why records cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PaxError {
    /// The length before the space is not a number, or points outside the header or not after a newline.
    #[error("a record has a wrong length")]
    Length,
    /// No `=`, an empty key, or a NUL where none may be.
    #[error("a record has no valid key")]
    Key,
    /// A number or time that is none.
    #[error("a record has a value of the wrong form")]
    Value,
    /// A known key without a value: Go keeps the older value, GNU tar takes the empty one.
    #[error("a record empties a field")]
    Empty,
}

/// The prefix of keys that are extended attributes (star's convention; GNU tar, Go and containerd use it).
pub(crate) const XATTR_KEY: &[u8] = b"SCHILY.xattr.";

impl Records {
    /// Reads all records of one extended header.
    pub(crate) fn parse(mut bytes: &[u8]) -> Result<Self, PaxError> {
        let mut records = Self::default();
        while !bytes.is_empty() {
            let (key, value, rest) = split(bytes)?;
            records.set(key, value)?;
            bytes = rest;
        }
        // The last of equal names counts, as for every other key.
        records.xattrs.reverse();
        records.xattrs.sort_by(|a, b| a.0.cmp(&b.0));
        records.xattrs.dedup_by(|later, kept| later.0 == kept.0);
        Ok(records)
    }

    fn set(&mut self, key: &[u8], value: &[u8]) -> Result<(), PaxError> {
        let named = |value: &[u8]| {
            if value.contains(&0) {
                Err(PaxError::Key)
            } else {
                filled(value)
            }
        };
        let number = |value: &[u8]| filled(value).and_then(|v| decimal(&v).ok_or(PaxError::Value));
        match key {
            b"path" => self.path = Some(named(value)?),
            b"linkpath" => self.link = Some(named(value)?),
            b"uname" | b"gname" if value.contains(&0) => return Err(PaxError::Key),
            b"size" => self.size = Some(number(value)?),
            b"uid" => self.uid = Some(number(value)?),
            b"gid" => self.gid = Some(number(value)?),
            b"mtime" => self.mtime = Some(time(&filled(value)?).ok_or(PaxError::Value)?),
            _ => {
                if let Some(name) = key.strip_prefix(XATTR_KEY) {
                    self.xattrs.push((name.to_vec(), value.to_vec()));
                } else if let Some(key) = key.strip_prefix(b"GNU.sparse.") {
                    self.sparse.get_or_insert_default().set(key, value)?;
                }
            }
        }
        Ok(())
    }
}

fn filled(value: &[u8]) -> Result<Vec<u8>, PaxError> {
    if value.is_empty() {
        Err(PaxError::Empty)
    } else {
        Ok(value.to_vec())
    }
}

/// Key and value of the first record, and what follows it.
type Split<'a> = (&'a [u8], &'a [u8], &'a [u8]);

/// Splits the first record off.
fn split(bytes: &[u8]) -> Result<Split<'_>, PaxError> {
    let space = bytes.iter().position(|b| *b == b' ').ok_or(PaxError::Length)?;
    let length = decimal(&bytes[..space])
        .and_then(|n| usize::try_from(n).ok())
        .ok_or(PaxError::Length)?;
    if length < space + 2 || length > bytes.len() || bytes[length - 1] != b'\n' {
        return Err(PaxError::Length);
    }
    let record = &bytes[space + 1..length - 1];
    let equals = record.iter().position(|b| *b == b'=').ok_or(PaxError::Key)?;
    let key = &record[..equals];
    if key.is_empty() || key.contains(&0) {
        return Err(PaxError::Key);
    }
    Ok((key, &record[equals + 1..], &bytes[length..]))
}

/// `[-]seconds[.fraction]`; the fraction moves away from zero, as Go has it.
fn time(value: &[u8]) -> Option<Time> {
    let (whole, fraction) = match value.iter().position(|b| *b == b'.') {
        Some(dot) => (&value[..dot], &value[dot + 1..]),
        None => (value, &b""[..]),
    };
    let (negative, digits) = match whole.strip_prefix(b"-") {
        Some(digits) => (true, digits),
        None => (false, whole),
    };
    let seconds = i64::try_from(decimal(digits)?).ok()?;
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let nanoseconds = (0..9).fold(0_u32, |value, at| {
        value * 10 + u32::from(fraction.get(at).map_or(0, |digit| digit - b'0'))
    });
    Some(match (negative, nanoseconds) {
        (false, _) => Time { seconds, nanoseconds },
        (true, 0) => Time {
            seconds: -seconds,
            nanoseconds: 0,
        },
        (true, _) => Time {
            seconds: -seconds - 1,
            nanoseconds: 1_000_000_000 - nanoseconds,
        },
    })
}

/// Appends one record, its length included.
pub(crate) fn push_record(out: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let body = key.len() + value.len() + 3;
    let mut length = body + decimal_digits(body);
    if body + decimal_digits(length) != length {
        length = body + decimal_digits(length);
    }
    out.extend_from_slice(length.to_string().as_bytes());
    out.push(b' ');
    out.extend_from_slice(key);
    out.push(b'=');
    out.extend_from_slice(value);
    out.push(b'\n');
}

fn decimal_digits(value: usize) -> usize {
    value.checked_ilog10().map_or(1, |log| log as usize + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_count_their_own_length() {
        for value_len in 0..1100 {
            let mut out = Vec::new();
            push_record(&mut out, b"SCHILY.xattr.user.a", &vec![b'v'; value_len]);
            let space = out.iter().position(|b| *b == b' ').unwrap();
            assert_eq!(decimal(&out[..space]).unwrap(), out.len() as u64);
            let records = Records::parse(&out).unwrap();
            assert_eq!(records.xattrs, [(b"user.a".to_vec(), vec![b'v'; value_len])]);
        }
    }

    #[test]
    fn row10_malformed_records_are_refused_and_the_last_of_equal_ones_counts() {
        for (bytes, error) in [
            (&b"99 path=a\n"[..], PaxError::Length),
            (b"8 path=a\n", PaxError::Length),
            (b"9 path=a", PaxError::Length),
            (b"x path=a\n", PaxError::Length),
            (b" path=a\n", PaxError::Length),
            (b"+9 path=a\n", PaxError::Length),
            (b"2 \n", PaxError::Length),
            (b"8 patha\n", PaxError::Key),
            (b"6 =ab\n", PaxError::Key),
            (b"11 path=a\0\n", PaxError::Key),
            (b"10 size=x\n", PaxError::Value),
            (b"11 size=-1\n", PaxError::Value),
            (b"8 size=\n", PaxError::Empty),
            (b"8 path=\n", PaxError::Empty),
            (b"13 mtime=1.x\n", PaxError::Value),
        ] {
            assert_eq!(
                Records::parse(bytes).err(),
                Some(error),
                "{}",
                bytes.escape_ascii()
            );
        }
        let twice = Records::parse(b"10 size=1\n10 size=2\n").unwrap();
        assert_eq!(twice.size, Some(2));
        let xattrs = Records::parse(b"24 SCHILY.xattr.user.a=1\n24 SCHILY.xattr.user.a=2\n");
        assert!(xattrs.is_err(), "the lengths above are one short");
        let xattrs = Records::parse(b"25 SCHILY.xattr.user.a=1\n25 SCHILY.xattr.user.a=2\n").unwrap();
        assert_eq!(xattrs.xattrs, [(b"user.a".to_vec(), b"2".to_vec())]);
    }

    #[test]
    fn times_keep_nanoseconds_and_sign() {
        for (text, seconds, nanoseconds) in [
            (&b"1"[..], 1, 0),
            (b"1.5", 1, 500_000_000),
            (b"1.0000000019", 1, 1),
            (b"-1.5", -2, 500_000_000),
            (b"-3", -3, 0),
        ] {
            assert_eq!(
                time(text),
                Some(Time { seconds, nanoseconds }),
                "{}",
                text.escape_ascii()
            );
        }
        assert_eq!(time(b"1.-5"), None);
        assert_eq!(time(b"."), None);
    }
}
