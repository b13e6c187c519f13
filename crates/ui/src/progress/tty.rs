//! The live view: a header, one row for each vertex and status, and the last lines of steps that run. The layout is
//! that of BuildKit's `util/progress/progressui/display.go`.
//!
//! A frame is one write that hides the cursor, stops line wrapping, draws, and puts both back: however the program
//! ends between two writes, the terminal is as it was.

use std::fmt::{self, Write as _};
use std::io::{self, Write};
use std::time::{Duration, SystemTime};

use rbuild_graph::progress::Event;

use super::Renderer;
use super::colors::{Colors, paint};
use super::interval::{Interval, since, total};
use super::trace::{Id, Shown, Status, Trace};
use super::window::Window;
use crate::text::{Styles, one_line, truncate, width};
use crate::units::progress_size;

/// Rows of step output shown at most, unless the screen has room for more.
pub const DEFAULT_LOG_LINES: usize = 6;
/// Columns that step output keeps free.
const LOG_PAD: usize = 10;
/// Rows of other things a screen keeps when step output is shown.
const LOG_MARGIN: usize = 3;
/// Steps shown lately go after others: weight of one frame, in bytes of output.
const FRAME_WEIGHT: usize = 50;

/// How it looks.
pub struct TtyOptions {
    /// The word in the header.
    pub phase: String,
    /// Shown at the right of the header.
    pub description: Option<String>,
    /// Colours.
    pub colors: Colors,
    /// `BUILDKIT_TTY_LOG_LINES`.
    pub log_lines: usize,
    /// Columns and rows of the terminal, asked for before each frame.
    pub size: Box<dyn Fn() -> (usize, usize) + Send>,
}

impl fmt::Debug for TtyOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TtyOptions")
            .field("phase", &self.phase)
            .finish_non_exhaustive()
    }
}

/// The renderer.
pub struct Tty<W> {
    out: W,
    options: TtyOptions,
    trace: Trace,
    windows: Vec<Screen>,
    /// Rows below the header in the frame that stands on the screen.
    rows: Option<usize>,
}

impl<W> fmt::Debug for Tty<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tty")
            .field("rows", &self.rows)
            .finish_non_exhaustive()
    }
}

/// Output of a vertex and how often it was shown.
#[derive(Debug, Default)]
struct Screen {
    window: Window,
    frames: usize,
}

/// How a row is coloured once it is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Normal,
    Stopped,
    Failed,
}

/// One row of the view.
#[derive(Debug)]
struct Row {
    name: String,
    detail: String,
    spent: Duration,
    over: bool,
    kind: Kind,
    /// Vertex whose output may be shown under it.
    vertex: Option<Id>,
    log_lines: usize,
}

impl<W: Write + Send> Tty<W> {
    /// A view that has drawn nothing.
    #[must_use]
    pub fn new(out: W, options: TtyOptions) -> Self {
        let styles = if options.colors == Colors::none() {
            Styles::Drop
        } else {
            Styles::Keep
        };
        Self {
            out,
            options,
            trace: Trace::new(styles),
            windows: Vec::new(),
            rows: None,
        }
    }

    fn draw(&mut self, now: SystemTime, last: bool) -> io::Result<()> {
        let (columns, lines) = (self.options.size)();
        let mut text = String::from("\x1b[?25l\x1b[?7l\r");
        if let Some(rows) = self.rows {
            add(&mut text, format_args!("\x1b[{}A", rows + 1));
        }
        let rows = self.frame(now, columns.max(1), lines, last, &mut text);
        text.push_str("\x1b[J\x1b[?7h\x1b[?25h");
        self.rows = Some(rows);
        if last {
            self.failures(&mut text);
        }
        self.out.write_all(text.as_bytes())?;
        self.out.flush()
    }

    /// Appends the header and the rows; returns how many rows there are below the header.
    fn frame(
        &mut self,
        now: SystemTime,
        columns: usize,
        lines: usize,
        last: bool,
        text: &mut String,
    ) -> usize {
        put(text, &self.header(now, columns, last));
        let rows = self.fit(self.all_rows(now), lines, last);
        let mut count = 0;
        for row in rows {
            let Some(line) = row.line(columns) else { continue };
            let color = match row.kind {
                _ if !row.over => "",
                Kind::Normal => &self.options.colors.run,
                Kind::Stopped => &self.options.colors.cancel,
                Kind::Failed => &self.options.colors.error,
            };
            let mut painted = String::new();
            paint(&mut painted, color, &line);
            put(text, &painted);
            count += 1;
            let Some(screen) = row
                .vertex
                .filter(|_| row.log_lines > 0)
                .and_then(|id| self.windows.get_mut(id))
            else {
                continue;
            };
            screen.frames += 1;
            for said in screen.window.last(row.log_lines) {
                let said = plain_text(said);
                let mut painted = String::new();
                let shown = format!(" => => # {}", truncate(&said, columns.saturating_sub(LOG_PAD)));
                paint(&mut painted, &self.options.colors.log, &shown);
                put(text, &painted);
                count += 1;
            }
        }
        count
    }

    fn header(&self, now: SystemTime, columns: usize, last: bool) -> String {
        let counted = || self.trace.vertices.iter().filter(|vertex| !vertex.hidden);
        let all = counted().count();
        let done = counted().filter(|vertex| vertex.is_completed()).count();
        let seconds = since(now, self.trace.start.unwrap_or(now)).as_secs_f64();
        let finished = if last && done > 0 && done == all {
            " FINISHED"
        } else {
            ""
        };
        let mut header = format!(
            "[+] {} {seconds:.1}s ({done}/{all}){finished}",
            self.options.phase
        );
        if let Some(description) = &self.options.description {
            let description = one_line(description);
            let used = width(&header) + width(&description);
            if used + 2 <= columns {
                header.push_str(&" ".repeat(columns - 1 - used));
                header.push_str(&description);
            }
        }
        truncate(&header, columns).to_owned()
    }

    fn all_rows(&self, now: SystemTime) -> Vec<Row> {
        let mut rows = Vec::new();
        for &id in &self.trace.started {
            let vertex = &self.trace.vertices[id];
            rows.push(Row::of_vertex(id, vertex, now));
            rows.extend(vertex.statuses.iter().map(|status| Row::of_status(status, now)));
            rows.extend(vertex.warnings.iter().map(|warning| {
                let spent = vertex
                    .latest()
                    .map_or(Duration::ZERO, |interval| interval.duration(now));
                Row {
                    name: format!("WARN: {}", one_line(&warning.short)),
                    detail: String::new(),
                    spent,
                    over: true,
                    kind: Kind::Stopped,
                    vertex: None,
                    log_lines: 0,
                }
            }));
        }
        rows
    }

    /// Chooses whose output is shown, and leaves out rows there is no room for: completed ones first, then old ones.
    fn fit(&self, mut rows: Vec<Row>, lines: usize, all: bool) -> Vec<Row> {
        let log_lines = self.log_lines(lines);
        let running = rows.iter().filter(|row| !row.over).count();
        let mut free = lines.saturating_sub(2 + running);
        let mut weights: Vec<(usize, usize)> = rows
            .iter()
            .enumerate()
            .filter(|(_, row)| !row.over)
            .filter_map(|(at, row)| Some((at, self.windows.get(row.vertex?)?)))
            .filter(|(_, screen)| screen.window.seen_bytes > 0)
            .map(|(at, screen)| (screen.window.seen_bytes + screen.frames * FRAME_WEIGHT, at))
            .collect();
        weights.sort_by_key(|&(weight, at)| (std::cmp::Reverse(weight), at));
        let mut taken = 0;
        for (_, at) in weights {
            if free <= log_lines + LOG_MARGIN {
                break;
            }
            rows[at].log_lines = log_lines;
            let screen = rows[at].vertex.and_then(|id| self.windows.get(id));
            taken += screen.map_or(0, |screen| screen.window.last(log_lines).len());
            free -= log_lines + LOG_MARGIN;
        }
        if all {
            rows
        } else {
            shorten(rows, lines.saturating_sub(2 + taken))
        }
    }

    /// A number below the default is taken as it is; a larger one only as far as the screen has room.
    fn log_lines(&self, lines: usize) -> usize {
        let wanted = self.options.log_lines;
        if wanted <= DEFAULT_LOG_LINES {
            wanted
        } else {
            wanted
                .min(lines.saturating_sub(DEFAULT_LOG_LINES + 1))
                .max(DEFAULT_LOG_LINES)
        }
    }

    /// What failed vertices said, below the last frame.
    fn failures(&self, text: &mut String) {
        for id in self.trace.failed() {
            add(
                text,
                format_args!("------\n > {}:\n", self.trace.vertices[id].name),
            );
            if let Some(screen) = self.windows.get(id) {
                if screen.window.dropped > 0 {
                    add(
                        text,
                        format_args!("[{} earlier lines left out]\n", screen.window.dropped),
                    );
                }
                for line in screen.window.lines() {
                    add(text, format_args!("{:.3} {}\n", line.seconds, line.text));
                }
            }
            text.push_str("------\n");
        }
    }
}

impl<W: Write + Send> Renderer for Tty<W> {
    fn update(&mut self, events: Vec<Event>, now: SystemTime) -> io::Result<()> {
        self.trace.update(events, now);
        self.windows
            .resize_with(self.trace.vertices.len(), Screen::default);
        for id in std::mem::take(&mut self.trace.updates) {
            let vertex = &mut self.trace.vertices[id];
            self.windows[id].window.take(vertex.output.drain(..));
            if vertex.is_completed() && !vertex.has_failed() {
                self.windows[id].window.clear();
            }
        }
        Ok(())
    }

    fn refresh(&mut self, now: SystemTime) -> io::Result<()> {
        self.draw(now, false)
    }

    fn finish(&mut self, now: SystemTime) -> io::Result<()> {
        self.draw(now, true)
    }
}

impl Row {
    fn of_vertex(id: Id, vertex: &Shown, now: SystemTime) -> Self {
        let (mark, kind) = match &vertex.error {
            Some(error) if super::is_cancelled(error) => ("CANCELED ", Kind::Stopped),
            Some(_) => ("ERROR ", Kind::Failed),
            None => ("", Kind::Normal),
        };
        let cached = if vertex.cached { "CACHED " } else { "" };
        Self {
            name: format!("{cached}{mark}{}", vertex.name),
            detail: String::new(),
            spent: total(&vertex.intervals, now),
            over: vertex.is_completed(),
            kind,
            vertex: Some(id),
            log_lines: 0,
        }
    }

    fn of_status(status: &Status, now: SystemTime) -> Self {
        let state = &status.state;
        let spent = state.started.map_or(Duration::ZERO, |start| {
            Interval {
                start,
                stop: state.completed,
            }
            .duration(now)
        });
        let detail = match (state.current, state.total) {
            (0, 0) => String::new(),
            (current, 0) => progress_size(current),
            (current, total) => format!("{} / {}", progress_size(current), progress_size(total)),
        };
        Self {
            name: format!("=> {}", status.name),
            detail,
            spent,
            over: state.completed.is_some(),
            kind: Kind::Normal,
            vertex: None,
            log_lines: 0,
        }
    }

    /// ` => name detail      1.2s`, one column less than there are; nothing if the screen is too narrow.
    fn line(&self, columns: usize) -> Option<String> {
        let seconds = if self.spent.as_millis() < 50 {
            0.0
        } else {
            self.spent.as_secs_f64()
        };
        let timer = format!(" {seconds:.1}s");
        let mut left = columns.checked_sub(4 + timer.len() + 2)?;
        let show_detail = !self.detail.is_empty() && left > 20;
        if show_detail {
            left = left.saturating_sub(self.detail.len() + 1);
        }
        if left < 12 {
            return None;
        }
        let mut line = format!(" => {}", truncate(&self.name, left));
        if show_detail {
            line.push(' ');
            line.push_str(&self.detail);
        }
        let gap = (columns - 1).saturating_sub(width(&line) + timer.len());
        line.push_str(&" ".repeat(gap));
        line.push_str(&timer);
        Some(line)
    }
}

/// At most `limit` rows: the newest, with older ones that still run in the place of those that are over.
fn shorten(mut rows: Vec<Row>, limit: usize) -> Vec<Row> {
    if rows.len() <= limit {
        return rows;
    }
    let kept = rows.split_off(rows.len() - limit);
    let mut running: Vec<Row> = rows.into_iter().filter(|row| !row.over).collect();
    let mut to_drop = running.len();
    let mut shown = Vec::with_capacity(limit);
    for row in kept {
        if row.over && to_drop > 0 {
            to_drop -= 1;
        } else {
            shown.push(row);
        }
    }
    let free = limit - shown.len();
    let mut wrapped = running.split_off(running.len().saturating_sub(free));
    wrapped.extend(shown);
    wrapped
}

/// Without colour sequences: under the cursor movements of a frame, and cut to width, only text is left.
fn plain_text(line: &str) -> String {
    let mut out = String::with_capacity(line.len());
    let mut rest = line;
    while let Some((text, tail)) = rest.split_once('\x1b') {
        out.push_str(text);
        rest = tail.split_once('m').map_or("", |(_, tail)| tail);
    }
    out.push_str(rest);
    out.replace('\t', "    ")
}

/// One line of a frame, over whatever stood there.
fn put(text: &mut String, line: &str) {
    add(text, format_args!("\x1b[2K{line}\n"));
}

fn add(text: &mut String, more: fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    let _infallible = text.write_fmt(more);
}

#[cfg(test)]
mod tests;
