//! The one matcher under [`crate::glob`] and [`crate::ignore`]: a pattern becomes a list of states, and a name is run
//! through all of them at once. Never backtracks, so the time is states times characters whatever the pattern says.

/// The pattern is malformed: an open class, an empty class, a range without an end, or a backslash at the end
/// (Go `filepath.ErrBadPattern`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("syntax error in pattern")]
pub struct BadPattern;

/// What `**` means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Globstar {
    /// The same as `*` (Go `filepath.Match`).
    Plain,
    /// Any number of directories (moby/patternmatcher).
    Directories,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    Literal(char),
    /// One character that is no slash.
    Any,
    /// Characters that are no slash.
    Star,
    /// One character of a class. A class may match a slash, in Go too.
    Class {
        negated: bool,
        ranges: Box<[(char, char)]>,
    },
    /// Before `(.*/)?`: goes on inside it or past it.
    DirectoriesEnter,
    /// Inside `.*/`: left with a slash only.
    DirectoriesInner,
    /// Anything, slashes too.
    Tail,
}

/// A compiled pattern.
#[derive(Debug, Clone)]
pub(crate) struct Wildcard {
    states: Box<[State]>,
    /// Names shorter than this many characters cannot match.
    min_chars: usize,
    prefix: Box<str>,
    suffix: Box<str>,
}

impl Wildcard {
    /// Compiles `pattern`.
    pub(crate) fn new(pattern: &str, globstar: Globstar) -> Result<Self, BadPattern> {
        let states = compile(pattern, globstar)?;
        let min_chars = states
            .iter()
            .filter(|s| matches!(s, State::Literal(_) | State::Any | State::Class { .. }))
            .count();
        let literal = |state: &State| {
            if let State::Literal(c) = state {
                Some(*c)
            } else {
                None
            }
        };
        let prefix: String = states.iter().map_while(literal).collect();
        let suffix: Vec<char> = states.iter().rev().map_while(literal).collect();
        let suffix: String = suffix.into_iter().rev().collect();
        Ok(Self {
            states: states.into(),
            min_chars,
            prefix: prefix.into(),
            suffix: suffix.into(),
        })
    }

    /// What every match begins with.
    pub(crate) fn literal_prefix(&self) -> &str {
        &self.prefix
    }

    /// What every match ends with.
    pub(crate) fn literal_suffix(&self) -> &str {
        &self.suffix
    }

    /// The only name that matches, if there are no wildcards.
    pub(crate) fn literal(&self) -> Option<&str> {
        (self.prefix.chars().count() == self.states.len()).then_some(&*self.prefix)
    }

    /// Whether the pattern matches all of `name`.
    pub(crate) fn is_match(&self, name: &str) -> bool {
        if !name.starts_with(&*self.prefix) || !name.ends_with(&*self.suffix) || name.len() < self.min_chars {
            return false;
        }
        let words = self.states.len() / 64 + 1;
        if words <= STACK_WORDS {
            let (mut now, mut next) = ([0; STACK_WORDS], [0; STACK_WORDS]);
            self.run(name, &mut now[..words], &mut next[..words])
        } else {
            self.run(name, &mut vec![0; words], &mut vec![0; words])
        }
    }

    fn run<'a>(&self, name: &str, mut now: &'a mut [u64], mut next: &'a mut [u64]) -> bool {
        self.enter(now, 0);
        for c in name.chars() {
            next.fill(0);
            let mut alive = false;
            for (word, bits) in now.iter().enumerate() {
                let mut bits = *bits;
                while bits != 0 {
                    let index = word * 64 + bits.trailing_zeros() as usize;
                    bits &= bits - 1;
                    alive |= self.step(index, c, next);
                }
            }
            if !alive {
                return false;
            }
            std::mem::swap(&mut now, &mut next);
        }
        let last = self.states.len();
        now[last / 64] & (1 << (last % 64)) != 0
    }

    /// Feeds `c` to one state and marks where it leads; false if nowhere.
    fn step(&self, index: usize, c: char, next: &mut [u64]) -> bool {
        let Some(state) = self.states.get(index) else {
            return false;
        };
        let (stay, advance) = match state {
            State::Literal(literal) => (false, c == *literal),
            State::Any => (false, c != '/'),
            State::Class { negated, ranges } => (
                false,
                ranges.iter().any(|(low, high)| (*low..=*high).contains(&c)) != *negated,
            ),
            State::Star => (c != '/', false),
            State::Tail => (true, false),
            State::DirectoriesEnter => (false, false),
            State::DirectoriesInner => (true, c == '/'),
        };
        if stay {
            self.enter(next, index);
        }
        if advance {
            self.enter(next, index + 1);
        }
        stay || advance
    }

    /// Marks a state and all that are reached from it without a character.
    fn enter(&self, set: &mut [u64], mut index: usize) {
        loop {
            let bit = 1 << (index % 64);
            if set[index / 64] & bit != 0 {
                return;
            }
            set[index / 64] |= bit;
            match self.states.get(index) {
                Some(State::Star | State::Tail) => index += 1,
                Some(State::DirectoriesEnter) => {
                    set[(index + 1) / 64] |= 1 << ((index + 1) % 64);
                    index += 2;
                }
                _ => return,
            }
        }
    }
}

fn compile(pattern: &str, globstar: Globstar) -> Result<Vec<State>, BadPattern> {
    let mut states = Vec::new();
    let mut rest = pattern.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '*' if globstar == Globstar::Directories && rest.peek() == Some(&'*') => {
                rest.next();
                rest.next_if_eq(&'/');
                if rest.peek().is_none() {
                    states.push(State::Tail);
                } else if states.last() != Some(&State::DirectoriesInner) {
                    states.extend([State::DirectoriesEnter, State::DirectoriesInner]);
                }
            }
            '*' if states.last() == Some(&State::Star) => {}
            '*' => states.push(State::Star),
            '?' => states.push(State::Any),
            '[' => states.push(class(&mut rest)?),
            '\\' => states.push(State::Literal(rest.next().ok_or(BadPattern)?)),
            _ => states.push(State::Literal(c)),
        }
    }
    Ok(states)
}

fn class(rest: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Result<State, BadPattern> {
    let negated = rest.next_if_eq(&'^').is_some();
    let mut ranges = Vec::new();
    loop {
        if !ranges.is_empty() && rest.next_if_eq(&']').is_some() {
            return Ok(State::Class {
                negated,
                ranges: ranges.into(),
            });
        }
        let low = class_char(rest)?;
        let high = if rest.next_if_eq(&'-').is_some() {
            class_char(rest)?
        } else {
            low
        };
        ranges.push((low, high));
    }
}

fn class_char(rest: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Result<char, BadPattern> {
    let c = match rest.next() {
        None | Some('-' | ']') => return Err(BadPattern),
        Some('\\') => rest.next().ok_or(BadPattern)?,
        Some(c) => c,
    };
    if rest.peek().is_none() {
        Err(BadPattern)
    } else {
        Ok(c)
    }
}

/// Patterns of up to 255 states need no heap while they match.
const STACK_WORDS: usize = 4;
