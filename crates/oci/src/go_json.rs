//! JSON bytes equal to what Go's `encoding/json` makes of the same data.
//!
//! Owns the two forms documents are written in: compact (image configs) and indented by two spaces (manifests and
//! indexes). Go escapes `<`, `>`, `&`, U+2028 and U+2029 in strings where serde_json does not; digests depend on it.
//! Key order is the caller's: struct order for structs and [`Json`], sorted for `BTreeMap`.

use std::io;

use serde::Serialize;
use serde_json::ser::{CompactFormatter, Formatter, PrettyFormatter, Serializer};

mod message;

pub use message::Json;

/// `value` as Go's `json.Marshal` writes it.
///
/// # Errors
/// When `value` has map keys that are not strings or a serializer of its own that fails.
pub fn to_vec<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, serde_json::Error> {
    write(value, CompactFormatter)
}

/// `value` as Go's `json.MarshalIndent(v, "", "  ")` writes it: no newline at the end.
///
/// # Errors
/// As [`to_vec`].
pub fn to_vec_indented<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, serde_json::Error> {
    to_vec_indented_by(value, "  ")
}

/// `value` as Go's `json.MarshalIndent(v, "", indent)` writes it.
///
/// # Errors
/// As [`to_vec`].
pub fn to_vec_indented_by<T: Serialize + ?Sized>(
    value: &T,
    indent: &str,
) -> Result<Vec<u8>, serde_json::Error> {
    write(value, PrettyFormatter::with_indent(indent.as_bytes()))
}

/// Writes what [`to_vec_indented`] gives into `out`.
///
/// # Errors
/// As [`to_vec`], and those of `out`.
pub fn write_indented<T: Serialize + ?Sized>(
    value: &T,
    out: &mut dyn io::Write,
) -> Result<(), serde_json::Error> {
    let inner = PrettyFormatter::with_indent(b"  ");
    value.serialize(&mut Serializer::with_formatter(out, GoFormatter { inner }))
}

fn write<T: Serialize + ?Sized, F: Formatter>(value: &T, inner: F) -> Result<Vec<u8>, serde_json::Error> {
    let mut out = Vec::new();
    value.serialize(&mut Serializer::with_formatter(&mut out, GoFormatter { inner }))?;
    Ok(out)
}

/// Passes everything to `inner` but the plain parts of strings.
struct GoFormatter<F> {
    inner: F,
}

impl<F: Formatter> Formatter for GoFormatter<F> {
    fn write_string_fragment<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        let mut plain_from = 0;
        for (at, c) in fragment.char_indices() {
            let escape: &[u8] = match c {
                '<' => br"\u003c",
                '>' => br"\u003e",
                '&' => br"\u0026",
                '\u{2028}' => br"\u2028",
                '\u{2029}' => br"\u2029",
                _ => continue,
            };
            writer.write_all(&fragment.as_bytes()[plain_from..at])?;
            writer.write_all(escape)?;
            plain_from = at + c.len_utf8();
        }
        writer.write_all(&fragment.as_bytes()[plain_from..])
    }

    fn begin_array<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.inner.begin_array(writer)
    }

    fn end_array<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.inner.end_array(writer)
    }

    fn begin_array_value<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        self.inner.begin_array_value(writer, first)
    }

    fn end_array_value<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.inner.end_array_value(writer)
    }

    fn begin_object<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.inner.begin_object(writer)
    }

    fn end_object<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.inner.end_object(writer)
    }

    fn begin_object_key<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        self.inner.begin_object_key(writer, first)
    }

    fn end_object_key<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.inner.end_object_key(writer)
    }

    fn begin_object_value<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.inner.begin_object_value(writer)
    }

    fn end_object_value<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.inner.end_object_value(writer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn strings_are_escaped_as_go_escapes_them() {
        let value = "a && b < c > d \u{2028}\u{2029} \u{1}\u{8}\u{c}\n\r\t\"\\ \u{7f} é /";
        let bytes = to_vec(value).expect("a string");
        assert_eq!(
            String::from_utf8(bytes).expect("utf-8"),
            r#""a \u0026\u0026 b \u003c c \u003e d \u2028\u2029 \u0001\b\f\n\r\t\"\\ "#.to_owned()
                + "\u{7f} é /\""
        );
    }

    #[test]
    fn indented_form_is_go_marshal_indent() {
        let value = json!({"a": [], "b": {}, "c": [1, {"d<": "e"}], "f": null});
        let text = String::from_utf8(to_vec_indented(&value).expect("json")).expect("utf-8");
        assert_eq!(
            text,
            "{\n  \"a\": [],\n  \"b\": {},\n  \"c\": [\n    1,\n    {\n      \"d\\u003c\": \"e\"\n    }\n  ],\n  \"f\": null\n}"
        );
    }

    #[test]
    fn compact_form_has_no_blanks() {
        assert_eq!(
            to_vec(&json!({"b": [1, 2], "a": {"x": true}})).expect("json"),
            br#"{"a":{"x":true},"b":[1,2]}"#
        );
    }
}
