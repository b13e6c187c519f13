//! Frames on a screen of fixed size, as the bytes that are written.

use std::sync::{Arc, Mutex};

use super::super::testing::{Screen as Written, *};
use super::*;

struct View {
    written: Written,
    tty: Tty<Written>,
    size: Arc<Mutex<(usize, usize)>>,
}

impl View {
    fn new(colors: Colors) -> Self {
        let written = Written::default();
        let size = Arc::new(Mutex::new((60, 20)));
        let asked = Arc::clone(&size);
        let options = TtyOptions {
            phase: "Building".to_owned(),
            description: None,
            colors,
            log_lines: DEFAULT_LOG_LINES,
            size: Box::new(move || *asked.lock().unwrap()),
        };
        Self {
            written: written.clone(),
            tty: Tty::new(written, options),
            size,
        }
    }

    fn plain() -> Self {
        Self::new(Colors::none())
    }

    /// The frame after `events`, without the sequences that every frame has.
    fn frame(&mut self, now: f64, events: Vec<Event>) -> String {
        self.tty.update(events, at(now)).unwrap();
        self.tty.refresh(at(now)).unwrap();
        content(&self.written.take())
    }
}

fn content(frame: &str) -> String {
    let inner = frame
        .strip_prefix("\x1b[?25l\x1b[?7l\r")
        .expect("a frame hides the cursor and stops wrapping");
    let (inner, rest) = inner
        .split_once("\x1b[J\x1b[?7h\x1b[?25h")
        .expect("a frame puts back what it changed");
    format!("{inner}{rest}").replace("\x1b[2K", "")
}

#[test]
fn rows_and_their_times() {
    let mut view = View::plain();
    assert_eq!(
        view.frame(
            1.2,
            vec![
                vertex("[internal] load").from(0.0).to(0.02).event(),
                vertex("[1/2] FROM a").from(0.1).event(),
                vertex("next").event()
            ]
        ),
        "[+] Building 1.2s (1/3)\n \
         => [internal] load                                    0.0s\n \
         => [1/2] FROM a                                       1.1s\n"
    );
    assert_eq!(
        view.frame(2.0, vec![vertex("[1/2] FROM a").from(0.1).to(2.0).event()]),
        "\x1b[3A[+] Building 2.0s (2/3)\n \
         => [internal] load                                    0.0s\n \
         => [1/2] FROM a                                       1.9s\n"
    );
}

#[test]
fn a_row_is_one_column_less_than_the_screen() {
    let mut view = View::plain();
    let frame = view.frame(0.0, vec![vertex(&"n".repeat(200)).from(0.0).event()]);
    let row = frame.lines().nth(1).unwrap();
    assert_eq!(width(row), 59);
    assert!(row.ends_with("nn  0.0s"), "{row}");
}

#[test]
fn marks_of_vertices() {
    let mut view = View::plain();
    let frame = view.frame(
        1.0,
        vec![
            vertex("a").from(0.0).to(0.0).cached().event(),
            vertex("b").from(0.0).to(1.0).error("x").event(),
            vertex("c").from(0.0).to(1.0).error("context canceled").event(),
            warn("c", "careful"),
        ],
    );
    let names: Vec<&str> = frame
        .lines()
        .skip(1)
        .map(|line| line[4..].split("   ").next().unwrap())
        .collect();
    assert_eq!(names, ["CACHED a", "ERROR b", "CANCELED c", "WARN: careful"]);
}

#[test]
fn statuses_show_bytes() {
    let mut view = View::plain();
    let frame = view.frame(
        1.0,
        vec![
            vertex("pull").from(0.0).event(),
            status("pull", "sha256:ab", (1_500_000, 3_000_000), 0.0, 1.0, false),
            status("pull", "resolve", (0, 0), 0.0, 0.3, true),
        ],
    );
    assert_eq!(
        frame,
        "[+] Building 1.0s (0/1)\n \
         => pull                                               1.0s\n \
         => => sha256:ab 1.50MB / 3.00MB                       1.0s\n \
         => => resolve                                         0.3s\n"
    );
}

#[test]
fn the_last_lines_of_a_running_step() {
    let mut view = View::plain();
    let many: String = (0..20).map(|number| format!("line {number}\n")).collect();
    let frame = view.frame(1.0, vec![vertex("run").from(0.0).event(), log("run", 0.5, &many)]);
    let shown: Vec<&str> = frame.lines().skip(2).collect();
    let expected: Vec<String> = (14..20).map(|number| format!(" => => # line {number}")).collect();
    assert_eq!(shown, expected);
    let after = view.frame(2.0, vec![vertex("run").from(0.0).to(2.0).event()]);
    assert!(
        after.starts_with("\x1b[8A"),
        "the cursor goes up over the log rows: {after:?}"
    );
    assert_eq!(after.lines().count(), 2, "a step that is over shows no output");
}

#[test]
fn a_small_screen_keeps_what_runs() {
    let mut view = View::plain();
    *view.size.lock().unwrap() = (60, 6);
    let mut events = vec![vertex("old but running").from(0.0).event()];
    events.extend((0..10).map(|number| vertex(&format!("done {number}")).from(0.0).to(1.0).event()));
    let frame = view.frame(1.0, events);
    let names: Vec<&str> = frame
        .lines()
        .skip(1)
        .map(|line| line[4..].split("   ").next().unwrap())
        .collect();
    assert_eq!(names, ["old but running", "done 7", "done 8", "done 9"]);
    *view.size.lock().unwrap() = (10, 6);
    assert_eq!(
        view.frame(1.0, vec![]),
        "\x1b[5A[+] Buildi\n",
        "too narrow for any row"
    );
}

#[test]
fn the_last_frame_shows_every_row_and_what_failed() {
    let mut view = View::plain();
    *view.size.lock().unwrap() = (60, 4);
    let mut events: Vec<Event> = (0..5)
        .map(|n| vertex(&format!("v{n}")).from(0.0).to(1.0).event())
        .collect();
    events.extend([
        vertex("bad").from(0.0).event(),
        log("bad", 0.5, "why\n"),
        vertex("bad").from(0.0).to(1.0).error("exit code: 1").event(),
    ]);
    view.tty.update(events, at(1.0)).unwrap();
    view.tty.finish(at(1.0)).unwrap();
    let text = content(&view.written.take());
    assert!(text.starts_with("[+] Building 1.0s (6/6) FINISHED\n"), "{text}");
    assert_eq!(text.lines().filter(|line| line.starts_with(" => ")).count(), 6);
    assert!(text.ends_with("------\n > bad:\n0.500 why\n------\n"), "{text}");
}

#[test]
fn colours_of_rows() {
    let mut view = View::new(Colors::default());
    let frame = view.frame(
        1.0,
        vec![
            vertex("a").from(0.0).to(1.0).event(),
            vertex("b").from(0.0).to(1.0).error("x").event(),
            vertex("c").from(0.0).event(),
            log("c", 0.5, "said\n"),
        ],
    );
    let rows: Vec<&str> = frame.lines().collect();
    assert!(rows[1].starts_with("\x1b[34m => a") && rows[1].ends_with("1.0s\x1b[0m"));
    assert!(rows[2].starts_with("\x1b[31m => ERROR b"));
    assert!(rows[3].starts_with(" => c"));
    assert_eq!(rows[4], "\x1b[2m => => # said\x1b[0m");
    let mut view = View::plain();
    let frame = view.frame(1.0, vec![vertex("a").from(0.0).to(1.0).event()]);
    assert!(!frame.contains('\x1b'), "NO_COLOR: {frame:?}");
}

#[test]
fn the_description_stands_at_the_right() {
    let mut view = View::plain();
    view.tty.options.description = Some("rootless".to_owned());
    let frame = view.frame(0.0, vec![vertex("a").from(0.0).event()]);
    let header = frame.lines().next().unwrap();
    assert!(header.ends_with(" rootless"));
    assert_eq!(width(header), 59);
}

#[test]
fn the_number_of_log_lines_can_be_set() {
    let mut view = View::plain();
    for (wanted, rows, expected) in [(2, 20, 2), (6, 10, 6), (15, 20, 13), (15, 60, 15), (15, 8, 6)] {
        view.tty.options.log_lines = wanted;
        assert_eq!(view.tty.log_lines(rows), expected, "{wanted} on {rows}");
    }
}

#[test]
fn row44_a_frame_moves_nothing_but_its_own_cursor() {
    let hostile: &[u8] =
        b"\x1b]0;pwn\x07\x1b]52;c;cHdu\x07\x1b[2J\x1b[?1049h\x1bP\xff\x1b\\\x9b31m\x1b[31mred\n10%\r20%\r";
    let name = "RUN \x1b[2J\r\n\u{202e}x";
    let mut view = View::new(Colors::default());
    let events = || {
        vec![
            vertex(name).from(0.0).event(),
            log_bytes(name, 0.5, hostile),
            warn(name, "w\x1b[2J\n"),
        ]
    };
    let frame = view.frame(1.0, events());
    let allowed = |text: &str| {
        let mut rest = text;
        while let Some((_, tail)) = rest.split_once('\x1b') {
            let end = tail
                .find(|c: char| c.is_ascii_alphabetic())
                .expect("a sequence ends");
            assert!(
                tail.starts_with('[') && tail.as_bytes()[end] == b'm',
                "{tail:?} in {text:?}"
            );
            rest = &tail[end + 1..];
        }
        assert!(
            text.chars()
                .all(|c| c == '\n' || c == '\x1b' || !crate::text::tests::steers(c)),
            "{text:?}"
        );
    };
    allowed(&frame);
    assert!(
        frame.contains(" => => # 20%"),
        "a progress bar shows its last state: {frame}"
    );
    view.tty
        .update(
            vec![vertex(name).from(0.0).to(1.0).error("e\x1b[2J").event()],
            at(1.0),
        )
        .unwrap();
    view.tty.finish(at(1.0)).unwrap();
    let last = content(&view.written.take());
    let (_, failure) = last.split_once("------\n").unwrap();
    allowed(failure);
    assert!(
        failure.contains("\x1b[31mred\x1b[0m\n"),
        "colours of the step pass in its report: {failure:?}"
    );
}
