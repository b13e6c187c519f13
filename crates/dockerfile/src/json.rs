//! JSON arrays of strings, the exec form of instructions. Anything else is told apart only as far as BuildKit does:
//! an array with other values is an error, text that is no JSON array is not.

/// Why a text is no array of strings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotStrings {
    /// It is no JSON array (Go `encoding/json` refuses it).
    NotArray,
    /// It is an array that holds something besides strings.
    OtherValues,
}

/// Reads `text`, which may have blanks around it, as an array of strings.
pub(crate) fn string_array(text: &str) -> Result<Vec<String>, NotStrings> {
    let mut reader = Reader {
        rest: text.trim_start_matches(char::is_whitespace),
    };
    reader.expect('[')?;
    let mut strings = Vec::new();
    let mut others = false;
    reader.blanks();
    if !reader.take(']') {
        loop {
            reader.blanks();
            if reader.rest.starts_with('"') {
                strings.push(reader.string()?);
            } else {
                others = true;
                reader.skip_value()?;
            }
            reader.blanks();
            if reader.take(']') {
                break;
            }
            reader.expect(',')?;
        }
    }
    reader.blanks();
    match (reader.rest.is_empty(), others) {
        (false, _) => Err(NotStrings::NotArray),
        (true, true) => Err(NotStrings::OtherValues),
        (true, false) => Ok(strings),
    }
}

struct Reader<'a> {
    rest: &'a str,
}

impl Reader<'_> {
    fn blanks(&mut self) {
        self.rest = self.rest.trim_start_matches([' ', '\t', '\r', '\n']);
    }

    fn take(&mut self, c: char) -> bool {
        match self.rest.strip_prefix(c) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn expect(&mut self, c: char) -> Result<(), NotStrings> {
        if self.take(c) {
            Ok(())
        } else {
            Err(NotStrings::NotArray)
        }
    }

    fn next(&mut self) -> Result<char, NotStrings> {
        let c = self.rest.chars().next().ok_or(NotStrings::NotArray)?;
        self.rest = &self.rest[c.len_utf8()..];
        Ok(c)
    }

    fn string(&mut self) -> Result<String, NotStrings> {
        self.expect('"')?;
        let mut out = String::new();
        loop {
            match self.next()? {
                '"' => return Ok(out),
                '\\' => out.push(self.escape()?),
                '\0'..' ' => return Err(NotStrings::NotArray),
                c => out.push(c),
            }
        }
    }

    fn escape(&mut self) -> Result<char, NotStrings> {
        Ok(match self.next()? {
            c @ ('"' | '\\' | '/') => c,
            'b' => '\x08',
            'f' => '\x0c',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'u' => self.unicode()?,
            _ => return Err(NotStrings::NotArray),
        })
    }

    fn unicode(&mut self) -> Result<char, NotStrings> {
        let first = self.hex4()?;
        if let 0xD800..0xDC00 = first {
            let before = self.rest;
            if self.rest.starts_with("\\u") {
                self.rest = &self.rest[2..];
                if let second @ 0xDC00..0xE000 = self.hex4()? {
                    let code = 0x1_0000 + ((first - 0xD800) << 10) + (second - 0xDC00);
                    return Ok(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER));
                }
                self.rest = before;
            }
        }
        // Go reads half a surrogate pair as U+FFFD.
        Ok(char::from_u32(first).unwrap_or(char::REPLACEMENT_CHARACTER))
    }

    fn hex4(&mut self) -> Result<u32, NotStrings> {
        let digits = self.rest.get(..4).ok_or(NotStrings::NotArray)?;
        if !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(NotStrings::NotArray);
        }
        self.rest = &self.rest[4..];
        u32::from_str_radix(digits, 16).map_err(|_| NotStrings::NotArray)
    }

    /// Passes over one value of any type without recursion, so nesting costs no stack.
    fn skip_value(&mut self) -> Result<(), NotStrings> {
        let mut open: Vec<char> = Vec::new();
        loop {
            self.blanks();
            match self.rest.chars().next().ok_or(NotStrings::NotArray)? {
                c @ ('[' | '{') if open.len() < MAX_DEPTH => {
                    self.rest = &self.rest[1..];
                    self.blanks();
                    let close = if c == '[' { ']' } else { '}' };
                    if !self.take(close) {
                        open.push(close);
                        self.key_if(close)?;
                        continue;
                    }
                }
                '"' => {
                    self.string()?;
                }
                _ => self.skip_scalar()?,
            }
            loop {
                self.blanks();
                match open.last() {
                    None => return Ok(()),
                    Some(close) if self.take(*close) => {
                        open.pop();
                    }
                    Some(close) => {
                        let close = *close;
                        self.expect(',')?;
                        self.key_if(close)?;
                        break;
                    }
                }
            }
        }
    }

    /// Reads `"name":` inside an object.
    fn key_if(&mut self, close: char) -> Result<(), NotStrings> {
        if close == '}' {
            self.blanks();
            self.string()?;
            self.blanks();
            self.expect(':')?;
        }
        Ok(())
    }

    fn skip_scalar(&mut self) -> Result<(), NotStrings> {
        for word in ["true", "false", "null"] {
            if let Some(rest) = self.rest.strip_prefix(word) {
                self.rest = rest;
                return Ok(());
            }
        }
        let number = self.rest;
        self.take('-');
        let whole = self.digits();
        let leading_zero = whole.starts_with('0') && whole.len() > 1;
        if whole.is_empty() || leading_zero || (self.take('.') && self.digits().is_empty()) {
            return Err(NotStrings::NotArray);
        }
        if self.take('e') || self.take('E') {
            if !self.take('+') {
                self.take('-');
            }
            if self.digits().is_empty() {
                return Err(NotStrings::NotArray);
            }
        }
        // A number that no `float64` holds ends Go's decoder, and what it was reading is no array then.
        let number = &number[..number.len() - self.rest.len()];
        match number.parse::<f64>() {
            Ok(value) if value.is_finite() => Ok(()),
            _ => Err(NotStrings::NotArray),
        }
    }

    fn digits(&mut self) -> &str {
        let end = self
            .rest
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(self.rest.len());
        let (digits, rest) = self.rest.split_at(end);
        self.rest = rest;
        digits
    }
}

/// Nesting that Go's decoder accepts, less the array that everything stands in.
const MAX_DEPTH: usize = 9_999;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrays_of_strings() {
        for (text, expected) in [
            ("[]", Ok(&[][..])),
            (" [ ] ", Ok(&[])),
            (r#"["a","b"]"#, Ok(&["a", "b"])),
            (r#"[ "a" , "" ]"#, Ok(&["a", ""])),
            (r#"["\"\\\/\b\f\n\r\té"]"#, Ok(&["\"\\/\u{8}\u{c}\n\r\té"])),
            (r#"["\ud83d\ude00\ud83dx"]"#, Ok(&["😀\u{fffd}x"])),
            (r#"["a" "b"]"#, Err(NotStrings::NotArray)),
            (r#"["a",]"#, Err(NotStrings::NotArray)),
            (r#"["a"] x"#, Err(NotStrings::NotArray)),
            (r#"['a']"#, Err(NotStrings::NotArray)),
            (r#"["a\d"]"#, Err(NotStrings::NotArray)),
            (r#"["a"#, Err(NotStrings::NotArray)),
            ("[", Err(NotStrings::NotArray)),
            ("echo", Err(NotStrings::NotArray)),
            (r#"["a", 1]"#, Err(NotStrings::OtherValues)),
            (
                r#"[null, true, -1.5e+3, {"a": [1, {}]}, []]"#,
                Err(NotStrings::OtherValues),
            ),
            (r#"[01]"#, Err(NotStrings::NotArray)),
            ("[1e308]", Err(NotStrings::OtherValues)),
            ("[1e309]", Err(NotStrings::NotArray)),
            (r#"["a", {"b": -1e309}]"#, Err(NotStrings::NotArray)),
            (r#"[{"a"}]"#, Err(NotStrings::NotArray)),
            (r#"[ "a" [ "b" ] ]"#, Err(NotStrings::NotArray)),
        ] {
            let expected = expected.map(|list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect());
            assert_eq!(string_array(text), expected, "{text}");
        }
    }

    #[test]
    fn row50_deep_nesting_needs_no_stack() {
        let deep = format!("{}{}", "[".repeat(9_000), "]".repeat(9_000));
        assert_eq!(string_array(&deep), Err(NotStrings::OtherValues));
        for (depth, expected) in [(10_000, NotStrings::OtherValues), (10_001, NotStrings::NotArray)] {
            let text = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
            assert_eq!(string_array(&text), Err(expected), "{depth}");
        }
        let deeper = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(string_array(&deeper), Err(NotStrings::NotArray));
    }
}
