//! What is known of a build so far: vertices, groups, statuses, and the output not yet shown. One for each renderer;
//! it writes nothing. The rules are those of BuildKit's `util/progress/progressui/display.go`.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::SystemTime;

use rbuild_graph::progress::{Event, VertexLog, VertexState, VertexStatus, Warning};
use rbuild_oci::Digest;

use super::interval::{Interval, merge, since};
use crate::text::{LineSplitter, Piece, Styles, one_line};

/// Index into [`Trace::vertices`].
pub(super) type Id = usize;

/// Everything seen.
#[derive(Debug)]
pub(super) struct Trace {
    pub(super) vertices: Vec<Shown>,
    /// Vertices and groups in the order they began.
    pub(super) started: Vec<Id>,
    /// What changed since it was last shown.
    pub(super) updates: BTreeSet<Id>,
    /// When the first vertex began.
    pub(super) start: Option<SystemTime>,
    by_digest: HashMap<Digest, Id>,
    groups: HashMap<String, Id>,
    styles: Styles,
}

/// A vertex, or a group of them shown as one.
#[derive(Debug)]
pub(super) struct Shown {
    /// Safe to print.
    pub(super) name: String,
    pub(super) cached: bool,
    /// Safe to print.
    pub(super) error: Option<String>,
    /// Safe to print.
    pub(super) miss_cause: Option<String>,
    /// A group that nothing has opened.
    pub(super) hidden: bool,
    /// Those that have begun, in order.
    pub(super) statuses: Vec<Status>,
    pub(super) warnings: Vec<Warning>,
    /// Output since it was last taken.
    pub(super) output: Vec<Output>,
    /// When the first of the `count` changes came.
    pub(super) waiting_since: Option<SystemTime>,
    /// Changes since it was last the current one.
    pub(super) count: u64,
    pub(super) intervals: Vec<Interval>,
    raw_intervals: BTreeMap<SystemTime, Interval>,
    members: BTreeMap<Digest, VertexState>,
    last: Option<VertexState>,
    splitter: LineSplitter,
}

/// A status of a vertex.
#[derive(Debug)]
pub(super) struct Status {
    pub(super) state: VertexStatus,
    /// Safe to print.
    pub(super) name: String,
    pub(super) updated: bool,
}

/// A piece of output and when it came, in seconds since the vertex began.
#[derive(Debug)]
pub(super) struct Output {
    pub(super) seconds: f64,
    pub(super) piece: Piece,
}

impl Shown {
    fn new(name: &str, styles: Styles) -> Self {
        Self {
            name: one_line(name).into_owned(),
            cached: false,
            error: None,
            miss_cause: None,
            hidden: false,
            statuses: Vec::new(),
            warnings: Vec::new(),
            output: Vec::new(),
            waiting_since: None,
            count: 0,
            intervals: Vec::new(),
            raw_intervals: BTreeMap::new(),
            members: BTreeMap::new(),
            last: None,
            splitter: LineSplitter::new(styles),
        }
    }

    pub(super) fn latest(&self) -> Option<Interval> {
        self.intervals.last().copied()
    }

    pub(super) fn is_started(&self) -> bool {
        !self.intervals.is_empty()
    }

    pub(super) fn is_completed(&self) -> bool {
        self.latest().is_some_and(|interval| interval.stop.is_some())
    }

    /// It failed; stopped ones did not.
    pub(super) fn has_failed(&self) -> bool {
        self.error
            .as_deref()
            .is_some_and(|error| !super::is_cancelled(error))
    }

    fn touch(&mut self, now: SystemTime) {
        if self.count == 0 {
            self.waiting_since = Some(now);
        }
        self.count += 1;
    }

    fn set_interval(&mut self, start: SystemTime, stop: Option<SystemTime>) -> bool {
        let interval = Interval { start, stop };
        let changed = self.raw_intervals.insert(start, interval) != Some(interval);
        self.intervals = merge(self.raw_intervals.values().copied().collect());
        changed
    }

    /// Hands out what the splitter still holds, once the vertex is over.
    fn end_output(&mut self) {
        let mut pieces = Vec::new();
        self.splitter.finish(&mut pieces);
        self.add_output(pieces, self.latest().and_then(|interval| interval.stop));
    }

    fn add_output(&mut self, pieces: Vec<Piece>, time: Option<SystemTime>) {
        let seconds = match (self.latest(), time) {
            (Some(interval), Some(time)) => since(time, interval.start).as_secs_f64(),
            _ => 0.0,
        };
        self.output
            .extend(pieces.into_iter().map(|piece| Output { seconds, piece }));
    }
}

impl Trace {
    /// The vertices that failed, in the order in which they were started.
    pub(super) fn failed(&self) -> impl Iterator<Item = usize> {
        self.started
            .iter()
            .copied()
            .filter(|&id| self.vertices[id].has_failed())
    }

    pub(super) fn new(styles: Styles) -> Self {
        Self {
            vertices: Vec::new(),
            started: Vec::new(),
            updates: BTreeSet::new(),
            start: None,
            by_digest: HashMap::new(),
            groups: HashMap::new(),
            styles,
        }
    }

    /// Takes events in order.
    pub(super) fn update(&mut self, events: Vec<Event>, now: SystemTime) {
        for event in events {
            match event {
                Event::Vertex(state) => self.vertex(state, now),
                Event::Status(status) => self.status(status, now),
                Event::Log(log) => self.log(&log, now),
                Event::Warning(warning) => self.warning(warning, now),
            }
        }
    }

    fn vertex(&mut self, state: VertexState, now: SystemTime) {
        self.start = self.start.or(state.started);
        if state.group.is_some() {
            self.group_member(state, now);
            return;
        }
        let id = match self.by_digest.get(&state.digest) {
            Some(&id) => id,
            None => {
                let id = self.add(Shown::new(&state.name, self.styles));
                self.by_digest.insert(state.digest.clone(), id);
                id
            }
        };
        let vertex = &mut self.vertices[id];
        let was_started = vertex.is_started();
        // A second announcement without a start takes nothing back.
        if was_started && state.started.is_none() {
            return;
        }
        vertex.name = one_line(&state.name).into_owned();
        vertex.cached = state.cached;
        vertex.error = safe(state.error.as_deref());
        if state.miss_cause.is_some() {
            vertex.miss_cause = safe(state.miss_cause.as_deref());
        }
        let Some(started) = state.started else { return };
        let was_completed = vertex.is_completed();
        vertex.set_interval(started, state.completed);
        if vertex.is_completed() && !was_completed {
            vertex.end_output();
        }
        if vertex.last.as_ref().is_none_or(|last| differs(last, &state)) {
            vertex.touch(now);
            self.updates.insert(id);
        }
        vertex.last = Some(state);
        if !was_started {
            self.started.push(id);
        }
    }

    fn group_member(&mut self, state: VertexState, now: SystemTime) {
        let Some(group) = state.group.clone() else { return };
        let id = match self.groups.get(&group.id) {
            Some(&id) => id,
            None => {
                let id = self.add(Shown {
                    hidden: true,
                    ..Shown::new(&group.name, self.styles)
                });
                self.groups.insert(group.id, id);
                id
            }
        };
        self.by_digest.insert(state.digest.clone(), id);
        let shown = &mut self.vertices[id];
        let was_hidden = shown.hidden;
        let mut changed = false;
        if let Some(started) = state.started {
            changed = shown.set_interval(started, state.completed);
            if !group.weak {
                shown.hidden = false;
            }
        }
        shown.members.insert(state.digest.clone(), state);
        let cached = shown.members.values().all(|member| member.cached);
        let error = safe(shown.members.values().find_map(|member| member.error.as_deref()));
        if error.is_some() && shown.is_started() {
            shown.hidden = false;
        }
        changed |= cached != shown.cached || error != shown.error;
        shown.cached = cached;
        shown.error = error;
        if shown.hidden {
            return;
        }
        if was_hidden {
            self.started.push(id);
        }
        if changed || was_hidden {
            shown.touch(now);
            self.updates.insert(id);
        }
    }

    fn status(&mut self, status: VertexStatus, now: SystemTime) {
        let Some(&id) = self.by_digest.get(&status.vertex) else {
            return;
        };
        let vertex = &mut self.vertices[id];
        match vertex
            .statuses
            .iter_mut()
            .find(|known| known.state.id == status.id)
        {
            Some(known) => {
                known.state = status;
                known.updated = true;
            }
            None if status.started.is_some() => {
                let name = one_line(&status.id).into_owned();
                vertex.statuses.push(Status {
                    state: status,
                    name,
                    updated: true,
                });
            }
            None => {}
        }
        vertex.touch(now);
        self.updates.insert(id);
    }

    fn warning(&mut self, warning: Warning, now: SystemTime) {
        let Some(&id) = self.by_digest.get(&warning.vertex) else {
            return;
        };
        let vertex = &mut self.vertices[id];
        vertex.warnings.push(warning);
        vertex.touch(now);
        self.updates.insert(id);
    }

    fn log(&mut self, log: &VertexLog, now: SystemTime) {
        let Some(&id) = self.by_digest.get(&log.vertex) else {
            return;
        };
        let vertex = &mut self.vertices[id];
        let mut pieces = Vec::new();
        vertex.splitter.push(&log.data, &mut pieces);
        vertex.add_output(pieces, Some(log.timestamp));
        vertex.touch(now);
        self.updates.insert(id);
    }

    fn add(&mut self, shown: Shown) -> Id {
        self.vertices.push(shown);
        self.vertices.len() - 1
    }
}

fn safe(text: Option<&str>) -> Option<String> {
    text.filter(|text| !text.is_empty())
        .map(|text| one_line(text).into_owned())
}

fn differs(old: &VertexState, new: &VertexState) -> bool {
    old.name != new.name
        || old.started != new.started
        || (old.completed != new.completed && new.completed.is_some())
        || old.cached != new.cached
        || old.error != new.error
        || old.miss_cause != new.miss_cause
}
