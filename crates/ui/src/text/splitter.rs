//! Cuts the output of a step into printable lines. Owns the state between two reads: half a character, half an
//! escape sequence, half a line. Refuses to hold more than [`MAX_LINE_BYTES`] of a line that does not end.

use super::{is_unsafe, push_byte_escape, push_escape};

/// A line longer than this goes on as another line: memory stays bounded, and no byte is lost.
pub const MAX_LINE_BYTES: usize = 64 * 1024;

/// Longest colour sequence that passes; a longer one is not a colour.
const MAX_SGR_BYTES: usize = 64;

/// What becomes of colour sequences.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Styles {
    /// They pass, and are switched off at the end of the line.
    Keep,
    /// They are left out.
    Drop,
}

/// Part of the output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// Text that goes on where the line stands.
    Text(String),
    /// The line is over.
    End,
    /// The cursor went back to the start of the line; what follows replaces it.
    Rewind,
}

/// Turns bytes into [`Piece`]s.
#[derive(Debug)]
pub struct LineSplitter {
    styles: Styles,
    /// Bytes whose meaning depends on what follows.
    held: Vec<u8>,
    /// Length of the line that is open.
    line_bytes: usize,
    /// A colour is on.
    styled: bool,
    /// A carriage return was read; a line feed may follow it.
    carriage: bool,
}

impl LineSplitter {
    /// A splitter at the start of a line.
    #[must_use]
    pub const fn new(styles: Styles) -> Self {
        Self {
            styles,
            held: Vec::new(),
            line_bytes: 0,
            styled: false,
            carriage: false,
        }
    }

    /// Takes more output.
    pub fn push(&mut self, data: &[u8], out: &mut Vec<Piece>) {
        let mut bytes = std::mem::take(&mut self.held);
        bytes.extend_from_slice(data);
        let mut text = String::new();
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            match self.next(rest, &mut text, out) {
                0 => {
                    self.held = rest.to_vec();
                    break;
                }
                used => rest = &rest[used..],
            }
            if self.line_bytes + text.len() > MAX_LINE_BYTES {
                self.end_line(&mut text, out);
            }
        }
        self.flush_text(&mut text, out);
    }

    /// Ends the stream: what was held comes out as it is, and an open line stays open.
    pub fn finish(&mut self, out: &mut Vec<Piece>) {
        let mut text = String::new();
        if std::mem::take(&mut self.carriage) {
            self.rewind(&mut text, out);
        }
        let held = std::mem::take(&mut self.held);
        if !held.is_empty() {
            push_lossy(&mut text, &held);
        }
        self.reset_style(&mut text);
        self.flush_text(&mut text, out);
    }

    /// Reads one unit of `rest` and returns its length; 0 if more bytes are needed to tell what it is.
    fn next(&mut self, rest: &[u8], text: &mut String, out: &mut Vec<Piece>) -> usize {
        let first = rest[0];
        if std::mem::take(&mut self.carriage) && first != b'\n' {
            if first == b'\r' {
                self.carriage = true;
                return 1;
            }
            self.rewind(text, out);
        }
        match first {
            b'\n' => {
                self.end_line(text, out);
                1
            }
            b'\r' => {
                self.carriage = true;
                1
            }
            b'\t' => {
                text.push('\t');
                1
            }
            0x1b => self.escape(rest, text),
            _ => character(rest, text),
        }
    }

    /// `ESC [ digits ; … m` is a colour; any other sequence is shown.
    fn escape(&mut self, rest: &[u8], text: &mut String) -> usize {
        let parameters = rest
            .iter()
            .skip(2)
            .take_while(|b| matches!(b, b'0'..=b'9' | b';' | b':'))
            .count();
        match (rest.get(1), rest.get(2 + parameters)) {
            (Some(b'['), Some(b'm')) if parameters <= MAX_SGR_BYTES => {
                let sequence = &rest[..parameters + 3];
                if self.styles == Styles::Keep {
                    text.extend(sequence.iter().map(|&b| char::from(b)));
                    self.styled = !matches!(&sequence[2..sequence.len() - 1], b"" | b"0" | b"00");
                }
                sequence.len()
            }
            (None, _) | (Some(b'['), None) if parameters <= MAX_SGR_BYTES => 0,
            _ => {
                push_byte_escape(text, 0x1b);
                1
            }
        }
    }

    fn rewind(&mut self, text: &mut String, out: &mut Vec<Piece>) {
        self.reset_style(text);
        self.flush_text(text, out);
        if self.line_bytes > 0 {
            out.push(Piece::Rewind);
        }
        self.line_bytes = 0;
    }

    fn end_line(&mut self, text: &mut String, out: &mut Vec<Piece>) {
        self.carriage = false;
        self.reset_style(text);
        self.flush_text(text, out);
        out.push(Piece::End);
        self.line_bytes = 0;
    }

    fn reset_style(&mut self, text: &mut String) {
        if std::mem::take(&mut self.styled) {
            text.push_str("\x1b[0m");
        }
    }

    fn flush_text(&mut self, text: &mut String, out: &mut Vec<Piece>) {
        if !text.is_empty() {
            self.line_bytes += text.len();
            out.push(Piece::Text(std::mem::take(text)));
        }
    }
}

/// Appends the character `rest` begins with; 0 if it is cut off.
fn character(rest: &[u8], text: &mut String) -> usize {
    let length = match rest[0] {
        0..0x80 => 1,
        0xc2..0xe0 => 2,
        0xe0..0xf0 => 3,
        0xf0..0xf5 => 4,
        _ => {
            push_byte_escape(text, rest[0]);
            return 1;
        }
    };
    let available = &rest[..rest.len().min(length)];
    match std::str::from_utf8(available) {
        Ok(valid) => {
            for c in valid.chars() {
                if is_unsafe(c) {
                    push_escape(text, c);
                } else {
                    text.push(c);
                }
            }
            available.len()
        }
        Err(error) if error.error_len().is_none() => 0,
        Err(_) => {
            push_byte_escape(text, rest[0]);
            1
        }
    }
}

fn push_lossy(text: &mut String, bytes: &[u8]) {
    for &byte in bytes {
        if byte.is_ascii_graphic() || byte == b' ' {
            text.push(char::from(byte));
        } else {
            push_byte_escape(text, byte);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn row44_a_colour_without_end_is_not_held() {
        let mut splitter = LineSplitter::new(Styles::Keep);
        let mut out = Vec::new();
        splitter.push(b"\x1b[", &mut out);
        assert_eq!((splitter.held.len(), out.len()), (2, 0));
        splitter.push(&vec![b'1'; 1024 * 1024], &mut out);
        assert!(splitter.held.len() <= MAX_SGR_BYTES + 2);
        splitter.push(b"\x1b[31mred", &mut out);
        assert!(matches!(out.last(), Some(Piece::Text(text)) if text == "\x1b[31mred"));
    }
}
