//! `--progress=plain`: one line for everything that happens, each with the number of its vertex. The grammar and the
//! choice of what is shown next are those of BuildKit's `util/progress/progressui/printer.go`.
//!
//! Beside it: `#N cache miss: <cause>` when the cause is known; a lone carriage return of a step ends a line, so no
//! line begins with text of a stranger; and a vertex that failed is reported even if one of its statuses never ended.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::fmt::{self, Write as _};
use std::io::{self, Write};
use std::time::{Duration, SystemTime};

use rbuild_graph::progress::Event;

use super::Renderer;
use super::interval::{since, total};
use super::trace::{Id, Shown, Trace};
use crate::text::{Piece, Styles, one_line};
use crate::units::progress_size;

/// Lines repeated for a vertex that failed.
const TAIL_LINES: usize = 10;
/// A producer keeps the current place at least about this long.
const FAIR_SHARE: Duration = Duration::from_secs(5);
/// Nothing waits longer than this to be shown.
const MAX_WAIT: Duration = Duration::from_secs(10);
/// Nor with more pieces of output, which take some twenty times the memory of what they say.
const MAX_PIECES: usize = 20_000;
/// A status is shown again after this long, or after this part of its total.
const STATUS_TIME: Duration = Duration::from_secs(5);
const STATUS_PART: f64 = 0.05;
/// Names are cut here if that is asked for.
const NAME_BYTES: usize = 72;

/// How it looks.
#[derive(Debug, Clone, Default)]
pub struct PlainOptions {
    /// Shown as `#0` before everything else.
    pub description: Option<String>,
    /// Cut long names (`PROGRESS_NO_TRUNC=0`).
    pub truncate_names: bool,
}

/// The renderer.
pub struct Plain<W> {
    out: W,
    options: PlainOptions,
    trace: Trace,
    printed: Vec<Printed>,
    current: Option<Id>,
    next_number: u32,
    any: bool,
}

impl<W> fmt::Debug for Plain<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plain")
            .field("current", &self.current)
            .finish_non_exhaustive()
    }
}

/// What was printed of a vertex.
#[derive(Debug, Default)]
struct Printed {
    /// 0: nothing yet.
    number: u32,
    miss_cause: bool,
    warnings: usize,
    /// Where each status stood when it was last printed.
    statuses: HashMap<String, (u64, SystemTime)>,
    log: Log,
    concluded: bool,
}

/// Output of a vertex.
#[derive(Debug, Default)]
struct Log {
    /// Lines with their times, the first may be printed in part.
    lines: Vec<String>,
    /// The last line has not ended.
    partial: bool,
    /// Bytes of the first line that stand on the screen, if it is the current one.
    offset: usize,
    tail: VecDeque<String>,
}

impl<W: Write + Send> Plain<W> {
    /// A renderer that has printed nothing.
    #[must_use]
    pub fn new(out: W, options: PlainOptions) -> Self {
        Self {
            out,
            options,
            trace: Trace::new(Styles::Keep),
            printed: Vec::new(),
            current: None,
            next_number: 1,
            any: false,
        }
    }

    fn print(&mut self, now: SystemTime, text: &mut String) {
        let (completed, waiting) = self.updated();
        let current = self.current;
        if let Some(id) = current.filter(|id| completed.contains(id)) {
            self.print_vertex(id, now, text);
        }
        let mut others: Vec<Id> = completed
            .iter()
            .copied()
            .filter(|&id| Some(id) != current)
            .collect();
        others.sort_by_key(|&id| {
            self.trace.vertices[id]
                .latest()
                .and_then(|interval| interval.stop)
        });
        for id in others {
            self.print_vertex(id, now, text);
        }
        if waiting.is_empty() {
            let goes_on = |shown: &Shown| shown.is_started() && !shown.is_completed();
            if current.is_some_and(|id| goes_on(&self.trace.vertices[id])) {
                return;
            }
            let open = |&id: &Id| goes_on(&self.trace.vertices[id]) && !self.trace.vertices[id].hidden;
            if let Some(id) = self.trace.started.iter().copied().find(open) {
                self.print_vertex(id, now, text);
            }
            return;
        }
        if let Some(id) = current.filter(|id| waiting.contains(id)) {
            self.print_vertex(id, now, text);
        }
        if let Some(id) = self.next_of(waiting, current.filter(|id| !completed.contains(id)), now) {
            self.print_vertex(id, now, text);
        }
    }

    /// What changed: completed vertices, and the others.
    fn updated(&self) -> (BTreeSet<Id>, BTreeSet<Id>) {
        self.trace
            .updates
            .iter()
            .filter(|&&id| !self.trace.vertices[id].hidden)
            .partition(|&&id| self.trace.vertices[id].is_completed())
    }

    /// The vertex that takes the place of `current`, if one should: the fastest producer, but not before the current
    /// one had its share, and never one after another has waited too long.
    fn next_of(&self, mut waiting: BTreeSet<Id>, current: Option<Id>, now: SystemTime) -> Option<Id> {
        struct Rate {
            waited: Duration,
            speed: f64,
            late: bool,
        }
        let pieces = |id: &Id| self.trace.vertices[*id].output.len();
        let fullest = waiting.iter().copied().filter(|id| Some(*id) != current);
        if let Some(fullest) = fullest.max_by_key(pieces).filter(|id| pieces(id) > MAX_PIECES) {
            return Some(fullest);
        }
        waiting.extend(current);
        let mut rates: BTreeMap<Id, Rate> = BTreeMap::new();
        let mut fastest: Option<Id> = None;
        for id in waiting {
            let vertex = &self.trace.vertices[id];
            let Some(since_when) = vertex.waiting_since else {
                continue;
            };
            let waited = since(now, since_when);
            #[allow(clippy::cast_precision_loss, reason = "a rate is compared, not shown")]
            let speed = vertex.count as f64 / waited.as_secs_f64();
            let late = waited > MAX_WAIT && Some(id) != current;
            if late
                || fastest
                    .and_then(|id| rates.get(&id))
                    .is_none_or(|best| best.speed < speed)
            {
                fastest = Some(id);
            }
            rates.insert(id, Rate { waited, speed, late });
        }
        let Some(current_rate) = current.and_then(|id| rates.get(&id)) else {
            return fastest;
        };
        if let Some((&late, _)) = rates.iter().find(|(_, rate)| rate.late) {
            return Some(late);
        }
        let sum: f64 = rates.values().map(|rate| rate.speed).sum();
        let share = current_rate.speed / sum;
        let has_had = FAIR_SHARE.as_secs_f64() / (1.0 - share) < current_rate.waited.as_secs_f64();
        fastest.filter(|_| has_had)
    }

    fn print_vertex(&mut self, id: Id, now: SystemTime, text: &mut String) {
        while self.printed.len() < self.trace.vertices.len() {
            self.printed.push(Printed::default());
        }
        if self.printed[id].number == 0 {
            self.printed[id].number = self.next_number;
            self.next_number += 1;
        }
        if self.current != Some(id) {
            self.suspend(text);
            self.header(id, text);
        }
        let vertex = &mut self.trace.vertices[id];
        let printed = &mut self.printed[id];
        let number = printed.number;
        let mut notes = String::new();
        let open_status = printed.notes(vertex, &mut notes);
        if !notes.is_empty() {
            printed.log.break_line(text);
            text.push_str(&notes);
        }
        printed.log.take(vertex);
        printed.log.print(number, text);
        self.current = Some(id);
        // A status may outlive its vertex (BuildKit: "remote cache loading"); a failure is told at once.
        if vertex.is_completed() && (!open_status || vertex.error.is_some()) {
            self.current = None;
            vertex.count = 0;
            printed.log.end(text);
            printed.concluded = true;
            line(text, number, format_args!("{}", conclusion(vertex, now)));
        }
        self.trace.updates.remove(&id);
    }

    fn suspend(&mut self, text: &mut String) {
        let Some(old) = self.current else { return };
        self.printed[old].log.break_line(text);
        self.trace.vertices[old].count = 0;
        line(text, self.printed[old].number, format_args!("..."));
    }

    fn header(&mut self, id: Id, text: &mut String) {
        if self.any {
            text.push('\n');
        } else {
            if let Some(description) = &self.options.description {
                line(text, 0, format_args!("{}\n", one_line(description)));
            }
            self.any = true;
        }
        let name = &self.trace.vertices[id].name;
        let cut = name.floor_char_boundary(NAME_BYTES);
        if self.options.truncate_names && cut < name.len() {
            line(text, self.printed[id].number, format_args!("{}...", &name[..cut]));
        } else {
            line(text, self.printed[id].number, format_args!("{name}"));
        }
    }

    /// What a failed vertex said last.
    fn failures(&self, text: &mut String) {
        for id in self.trace.failed() {
            add(
                text,
                format_args!("------\n > {}:\n", self.trace.vertices[id].name),
            );
            if let Some(printed) = self.printed.get(id) {
                for kept in &printed.log.tail {
                    text.push_str(kept);
                    text.push('\n');
                }
            }
            text.push_str("------\n");
        }
    }

    fn write(&mut self, text: &str) -> io::Result<()> {
        if text.is_empty() {
            return Ok(());
        }
        self.out.write_all(text.as_bytes())?;
        self.out.flush()
    }
}

impl<W: Write + Send> Renderer for Plain<W> {
    fn update(&mut self, events: Vec<Event>, now: SystemTime) -> io::Result<()> {
        self.trace.update(events, now);
        Ok(())
    }

    fn refresh(&mut self, now: SystemTime) -> io::Result<()> {
        let mut text = String::new();
        self.print(now, &mut text);
        self.write(&text)
    }

    fn finish(&mut self, now: SystemTime) -> io::Result<()> {
        let mut text = String::new();
        self.print(now, &mut text);
        for id in 0..self.trace.vertices.len() {
            let vertex = &mut self.trace.vertices[id];
            let due =
                vertex.is_completed() && !vertex.hidden && self.printed.get(id).is_none_or(|p| !p.concluded);
            if due {
                for status in &mut vertex.statuses {
                    status.updated = false;
                }
                self.print_vertex(id, now, &mut text);
            }
        }
        if let Some(id) = self.current {
            self.printed[id].log.break_line(&mut text);
        }
        self.failures(&mut text);
        self.write(&text)
    }
}

impl Printed {
    /// Cause of the miss, statuses and warnings that are due. Returns whether a status printed here goes on.
    fn notes(&mut self, vertex: &mut Shown, text: &mut String) -> bool {
        if let Some(cause) = vertex.miss_cause.as_deref().filter(|_| !self.miss_cause) {
            line(text, self.number, format_args!("cache miss: {cause}"));
            self.miss_cause = true;
        }
        let mut open = false;
        for status in vertex.statuses.iter_mut().filter(|status| status.updated) {
            status.updated = false;
            let state = &status.state;
            if let Some(&(shown, when)) = self.statuses.get(&state.id)
                && state.completed.is_none()
                && part(state.current.saturating_sub(shown), state.total) < STATUS_PART
                && since(state.timestamp, when) < STATUS_TIME
            {
                continue;
            }
            self.statuses
                .insert(state.id.clone(), (state.current, state.timestamp));
            let mut tail = match (state.current, state.total) {
                (0, 0) => String::new(),
                (current, 0) => format!(" {}", progress_size(current)),
                (current, total) => format!(" {} / {}", progress_size(current), progress_size(total)),
            };
            let took = state
                .started
                .map(|start| since(state.completed.unwrap_or(state.timestamp), start).as_secs_f64());
            if let Some(seconds) = took.filter(|&seconds| seconds > 0.01) {
                add(&mut tail, format_args!(" {seconds:.1}s"));
            }
            if state.completed.is_some() {
                tail.push_str(" done");
            } else {
                open = true;
            }
            line(text, self.number, format_args!("{}{tail}", status.name));
        }
        for warning in &vertex.warnings[self.warnings..] {
            line(
                text,
                self.number,
                format_args!("WARN: {}", one_line(&warning.short)),
            );
        }
        self.warnings = vertex.warnings.len();
        open
    }
}

impl Log {
    /// Takes the new output of `vertex` as lines.
    fn take(&mut self, vertex: &mut Shown) {
        for output in vertex.output.drain(..) {
            match output.piece {
                Piece::Text(text) if self.partial => {
                    if let Some(last) = self.lines.last_mut() {
                        last.push_str(&text);
                    }
                }
                Piece::Text(text) => {
                    self.lines.push(timed(output.seconds, &text));
                    self.partial = true;
                }
                Piece::End if !self.partial => self.lines.push(timed(output.seconds, "")),
                Piece::End | Piece::Rewind => self.partial = false,
            }
        }
    }

    /// Prints every line, and what there is of the last one.
    fn print(&mut self, number: u32, text: &mut String) {
        let count = self.lines.len();
        for (at, kept) in self.lines.drain(..).collect::<Vec<_>>().into_iter().enumerate() {
            if at == 0 && self.offset > 0 {
                text.push_str(&kept[self.offset..]);
            } else {
                add(text, format_args!("#{number} {kept}"));
            }
            self.offset = 0;
            if at + 1 == count && self.partial {
                self.offset = kept.len();
                self.lines.push(kept);
            } else {
                text.push('\n');
                self.remember(kept);
            }
        }
    }

    /// Ends the line on the screen; if the vertex goes on, the line is printed again from its start.
    fn break_line(&mut self, text: &mut String) {
        if std::mem::take(&mut self.offset) > 0 {
            text.push('\n');
        }
    }

    /// Ends the line for good.
    fn end(&mut self, text: &mut String) {
        self.break_line(text);
        self.partial = false;
        for kept in std::mem::take(&mut self.lines) {
            self.remember(kept);
        }
    }

    fn remember(&mut self, kept: String) {
        if self.tail.len() == TAIL_LINES {
            self.tail.pop_front();
        }
        self.tail.push_back(kept);
    }
}

fn conclusion(vertex: &Shown, now: SystemTime) -> String {
    match &vertex.error {
        Some(error) if super::is_cancelled(error) => "CANCELED".to_owned(),
        Some(error) => format!("ERROR: {error}"),
        None if vertex.cached => "CACHED".to_owned(),
        None => format!("DONE {:.1}s", total(&vertex.intervals, now).as_secs_f64()),
    }
}

/// Seconds with as many places as BuildKit gives, then the text.
fn timed(seconds: f64, text: &str) -> String {
    let places = match seconds {
        s if s < 10.0 => 3,
        s if s < 100.0 => 2,
        _ => 1,
    };
    format!("{seconds:.places$} {text}")
}

#[allow(clippy::cast_precision_loss, reason = "compared with five percent")]
fn part(step: u64, total: u64) -> f64 {
    if total == 0 {
        0.0
    } else {
        step as f64 / total as f64
    }
}

fn line(text: &mut String, number: u32, rest: fmt::Arguments<'_>) {
    add(text, format_args!("#{number} {rest}\n"));
}

fn add(text: &mut String, more: fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    let _infallible = text.write_fmt(more);
}

#[cfg(test)]
mod tests;
