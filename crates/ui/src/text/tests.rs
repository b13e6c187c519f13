//! Security row 44 for text, with its legal twins.

use super::*;

/// What must not pass, by Unicode's numbers and not by the code under test: C0, DEL and C1; marks and overrides of
/// direction; what has no width; line separators; annotations; tags.
const STEERING: [(u32, u32); 10] = [
    (0x00, 0x1f),
    (0x7f, 0x9f),
    (0x61c, 0x61c),
    (0x200b, 0x200b),
    (0x200e, 0x200f),
    (0x2028, 0x202e),
    (0x2060, 0x206f),
    (0xfeff, 0xfeff),
    (0xfff9, 0xfffb),
    (0xe_0000, 0xe_007f),
];

/// Whether `c` is one of [`STEERING`].
pub(crate) fn steers(c: char) -> bool {
    STEERING
        .iter()
        .any(|&(first, last)| (first..=last).contains(&u32::from(c)))
}

fn split(chunks: &[&[u8]], styles: Styles) -> Vec<Piece> {
    let mut splitter = LineSplitter::new(styles);
    let mut out = Vec::new();
    for chunk in chunks {
        splitter.push(chunk, &mut out);
    }
    splitter.finish(&mut out);
    out
}

fn joined(chunks: &[&[u8]], styles: Styles) -> String {
    split(chunks, styles)
        .into_iter()
        .map(|piece| match piece {
            Piece::Text(text) => text,
            Piece::End => "|".to_owned(),
            Piece::Rewind => "<".to_owned(),
        })
        .collect()
}

#[test]
fn row44_names_pass_no_control_character() {
    for (text, shown) in [
        ("plain name", "plain name"),
        ("a\tb", "a b"),
        ("a\nb", "a\\nb"),
        ("a\rb", "a\\rb"),
        ("\x1b]0;pwn\x07", "\\x1b]0;pwn\\x07"),
        ("\u{9b}2J", "\\u{9b}2J"),
        ("a\u{202e}b", "a\\u{202e}b"),
        ("zero\u{200b}width", "zero\\u{200b}width"),
        ("del\x7f", "del\\x7f"),
        ("a\u{2028}b\u{2029}", "a\\u{2028}b\\u{2029}"),
        ("\u{2066}x\u{2069}", "\\u{2066}x\\u{2069}"),
        ("\u{feff}\u{fff9}\u{61c}", "\\u{feff}\\u{fff9}\\u{61c}"),
        ("tag\u{e0041}", "tag\\u{e0041}"),
        ("größe 大 👍", "größe 大 👍"),
    ] {
        assert_eq!(one_line(text), shown);
    }
}

#[test]
fn row44_every_character_passes_or_is_one_that_steers() {
    let mut steering = 0;
    for c in '\0'..=char::MAX {
        let text = c.to_string();
        let shown = one_line(&text);
        if steers(c) {
            steering += 1;
            assert_ne!(shown, text, "{:x}", u32::from(c));
            assert!(
                shown.bytes().all(|byte| (b' '..=b'~').contains(&byte)),
                "{shown:?}"
            );
        } else {
            assert_eq!(shown, text, "the legal twin {:x}", u32::from(c));
        }
    }
    assert_eq!(steering, 32 + 33 + 1 + 1 + 2 + 7 + 16 + 1 + 3 + 128);
}

#[test]
fn row44_source_lines_keep_tabs_only() {
    assert_eq!(source_line("\tRUN x\r"), "\tRUN x");
    assert_eq!(source_line("RUN \x1b[2J"), "RUN \\x1b[2J");
    assert_eq!(lines("a\r\nb\x07\nc"), "a\nb\\x07\nc");
}

#[test]
fn row44_steps_may_colour_and_nothing_else() {
    for (bytes, shown) in [
        (&b"\x1b[31mred\x1b[0m\n"[..], "\x1b[31mred\x1b[0m|"),
        (b"\x1b[1;38;5;9mx\n", "\x1b[1;38;5;9mx\x1b[0m|"),
        (b"\x1b[38:2::1:2:3mx\x1b[m\n", "\x1b[38:2::1:2:3mx\x1b[m|"),
        (b"\x1b]0;pwn\x07\n", "\\x1b]0;pwn\\x07|"),
        (b"\x1b]52;c;cHdu\x07\n", "\\x1b]52;c;cHdu\\x07|"),
        (b"\x1b[2J\x1b[?1049h\n", "\\x1b[2J\\x1b[?1049h|"),
        (b"\x1bP q\x1b\\\n", "\\x1bP q\\x1b\\|"),
        (b"a\x9b31mb\n", "a\\x9b31mb|"),
        ("a\u{9b}31mb\n".as_bytes(), "a\\u{9b}31mb|"),
        ("a\u{202e}b\n".as_bytes(), "a\\u{202e}b|"),
        (b"bad \xff\xfe utf8 \xc3(\n", "bad \\xff\\xfe utf8 \\xc3(|"),
        (b"bell\x07 back\x08\n", "bell\\x07 back\\x08|"),
        (b"tab\tstays\n", "tab\tstays|"),
        ("größe 大\n".as_bytes(), "größe 大|"),
    ] {
        assert_eq!(joined(&[bytes], Styles::Keep), shown, "{bytes:?}");
    }
}

#[test]
fn styles_can_be_dropped() {
    assert_eq!(
        joined(&[b"\x1b[31mred\x1b[0m \x1b[2J\n"], Styles::Drop),
        "red \\x1b[2J|"
    );
}

#[test]
fn carriage_returns_rewind_and_windows_lines_do_not() {
    assert_eq!(joined(&[b"a\r\nb\r\n"], Styles::Keep), "a|b|");
    assert_eq!(joined(&[b"a\r", b"\nb"], Styles::Keep), "a|b");
    assert_eq!(joined(&[b"10%\r20%\r\r30%\n"], Styles::Keep), "10%<20%<30%|");
    assert_eq!(joined(&[b"\rx\r"], Styles::Keep), "x<");
}

#[test]
fn any_cut_of_a_stream_gives_the_same_text() {
    let stream = "größe \x1b[31mrot\x1b[0m 大\r\nx\x1b]0;t\x07\ry\u{202e}\n\x1b[".as_bytes();
    let whole = joined(&[stream], Styles::Keep);
    for at in 0..=stream.len() {
        let (left, right) = stream.split_at(at);
        assert_eq!(joined(&[left, right], Styles::Keep), whole, "cut at {at}");
    }
    let bytes: Vec<&[u8]> = stream.chunks(1).collect();
    assert_eq!(joined(&bytes, Styles::Keep), whole);
}

#[test]
fn row44_a_line_without_end_is_cut_and_nothing_is_lost() {
    let stream = vec![b'x'; 10 * 1024 * 1024];
    let pieces = split(&[&stream], Styles::Keep);
    let total: usize = pieces
        .iter()
        .map(|p| if let Piece::Text(t) = p { t.len() } else { 0 })
        .sum();
    assert_eq!(total, stream.len());
    let longest = pieces
        .iter()
        .map(|p| if let Piece::Text(t) = p { t.len() } else { 0 })
        .max();
    assert!(longest <= Some(MAX_LINE_BYTES + 8), "{longest:?}");
}

#[test]
fn widths() {
    assert_eq!(width("abc"), 3);
    assert_eq!(width("大x"), 3);
    assert_eq!(width("e\u{301}"), 1);
    assert_eq!(truncate("abcdef", 3), "abc");
    assert_eq!(truncate("a大b", 2), "a");
    assert_eq!(truncate("ab", 5), "ab");
}
