//! YAML as compose files are written in it: aliases and merge keys included, which are copied out as far as there is room. Keys
//! of any tag are texts; what a scalar is, is for its reader to say.

use std::borrow::Cow;
use std::collections::BTreeMap;

use saphyr_parser::{Event, Parser, ScalarStyle, StrInput};

use super::room::Room;

/// Deepest nesting.
const DEPTH_MAX: usize = 60;
/// What a value takes beside its text, bytes, about.
const VALUE_BYTES: usize = 48;
/// Most that is read again because lines of it are not deep enough, bytes.
const AGAIN_BYTES_MAX: usize = 64 << 20;
/// What the scanner says of a line between brackets that is not deeper than the block around it.
const SHALLOW: [&str; 2] = ["invalid indentation", "invalid indentation in flow construct"];

/// A value.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Node {
    Null,
    Scalar(String),
    Sequence(Vec<Node>),
    Mapping(BTreeMap<String, Node>),
}

impl Node {
    pub(super) const fn mapping(&self) -> Option<&BTreeMap<String, Self>> {
        match self {
            Self::Mapping(fields) => Some(fields),
            _ => None,
        }
    }

    /// The field `name` of a mapping.
    pub(super) fn field(&self, name: &str) -> Option<&Self> {
        self.mapping()?.get(name).filter(|node| **node != Self::Null)
    }

    pub(super) const fn mapping_mut(&mut self) -> Option<&mut BTreeMap<String, Self>> {
        match self {
            Self::Mapping(fields) => Some(fields),
            _ => None,
        }
    }

    pub(super) fn field_mut(&mut self, name: &str) -> Option<&mut Self> {
        self.mapping_mut()?.get_mut(name)
    }

    /// How much room it takes, about, in bytes.
    pub(super) fn weight(&self) -> usize {
        let inner: usize = match self {
            Self::Null => 0,
            Self::Scalar(text) => text.len(),
            Self::Sequence(values) => values.iter().map(Self::weight).sum(),
            Self::Mapping(fields) => fields
                .iter()
                .map(|(name, value)| name.len() + value.weight())
                .sum(),
        };
        VALUE_BYTES + inner
    }
}

/// Reads the first document. YAML 1.2 wants what stands between brackets deeper than the block around it, the closing bracket
/// too (section 7.4); most readers do not, and people write it so. Blanks in front of such a line mean nothing, so it gets some.
///
/// # Errors
/// What is wrong, and in which line.
pub(super) fn parse(text: &str, room: &Room) -> Result<Node, String> {
    let mut text = Cow::Borrowed(text);
    let (mut left, mut last) = (AGAIN_BYTES_MAX, 0);
    let before = room.left();
    loop {
        room.go_back(before);
        let (line, told) = match first_document(&text, room) {
            Ok(node) => return Ok(node),
            Err(Malformed::Shallow { line, told }) => (line, told),
            Err(Malformed::Other(told)) => return Err(told),
        };
        let Some(rest) = left.checked_sub(text.len()).filter(|_| line > last) else {
            return Err(told);
        };
        (left, last) = (rest, line);
        text = Cow::Owned(deeper(&text, line));
    }
}

/// Why a text is no document.
enum Malformed {
    /// That line may only need blanks in front of it.
    Shallow { line: usize, told: String },
    /// Something else.
    Other(String),
}

impl From<String> for Malformed {
    fn from(told: String) -> Self {
        Self::Other(told)
    }
}

/// `text` with its line `number` deeper than all lines in front of it.
fn deeper(text: &str, number: usize) -> String {
    let blanks = |line: &str| line.len() - line.trim_start_matches(' ').len();
    let deepest = text.lines().take(number).map(blanks).max().unwrap_or_default();
    let mut out = String::with_capacity(text.len() + deepest + 1);
    for (at, line) in text.split_inclusive('\n').enumerate() {
        if at + 1 == number {
            out.extend(std::iter::repeat_n(' ', deepest + 1));
        }
        out.push_str(line);
    }
    out
}

fn first_document(text: &str, room: &Room) -> Result<Node, Malformed> {
    let mut reader = Reader {
        parser: Parser::new_from_str(text),
        line: 1,
        room,
        anchors: BTreeMap::new(),
    };
    loop {
        match reader.next()? {
            Event::StreamStart | Event::DocumentStart(_) => {}
            Event::StreamEnd => return Ok(Node::Null),
            first => return reader.node(first, 0),
        }
    }
}

struct Reader<'a> {
    parser: Parser<'a, StrInput<'a>>,
    line: usize,
    room: &'a Room,
    anchors: BTreeMap<usize, Node>,
}

impl<'a> Reader<'a> {
    fn next(&mut self) -> Result<Event<'a>, Malformed> {
        match self.parser.next() {
            None => Err("it ends before its time".to_owned().into()),
            Some(Ok((event, span))) => {
                self.line = span.start.line();
                Ok(event)
            }
            Some(Err(error)) => {
                let line = error.marker().line();
                let told = format!("line {line}: {}", error.info());
                Err(if SHALLOW.contains(&error.info()) {
                    Malformed::Shallow { line, told }
                } else {
                    Malformed::Other(told)
                })
            }
        }
    }

    fn take(&self, bytes: usize) -> Result<(), String> {
        let taken = self.room.take(bytes);
        taken.map_err(|error| format!("line {}: {error}", self.line))
    }

    /// The value that begins with `event`, `depth` values deep.
    fn node(&mut self, event: Event<'a>, depth: usize) -> Result<Node, Malformed> {
        if depth > DEPTH_MAX {
            return Err(format!("line {}: more than {DEPTH_MAX} levels", self.line).into());
        }
        self.take(VALUE_BYTES)?;
        let (node, anchor) = match event {
            Event::Scalar(text, style, anchor, _) => {
                let is_null = matches!(&*text, "" | "~" | "null" | "Null" | "NULL");
                let node = match style {
                    ScalarStyle::Plain if is_null => Node::Null,
                    _ => Node::Scalar(text.into_owned()),
                };
                self.take(node.weight() - VALUE_BYTES)?;
                (node, anchor)
            }
            Event::SequenceStart(anchor, _) => {
                let mut values = Vec::new();
                loop {
                    match self.next()? {
                        Event::SequenceEnd => break,
                        event => values.push(self.node(event, depth + 1)?),
                    }
                }
                (Node::Sequence(values), anchor)
            }
            Event::MappingStart(anchor, _) => (self.mapping(depth)?, anchor),
            Event::Alias(anchor) => {
                let node = self.anchors.get(&anchor);
                let node = node.ok_or_else(|| format!("line {}: an alias of nothing", self.line))?;
                self.take(node.weight())?;
                (node.clone(), 0)
            }
            _ => return Err(format!("line {}: the document ends before its time", self.line).into()),
        };
        if anchor != 0 {
            self.take(node.weight())?;
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    fn mapping(&mut self, depth: usize) -> Result<Node, Malformed> {
        let mut fields = BTreeMap::new();
        let mut merged = Vec::new();
        loop {
            let event = self.next()?;
            if event == Event::MappingEnd {
                break;
            }
            let Node::Scalar(key) = self.node(event, depth + 1)? else {
                return Err(format!("line {}: a key that is no text", self.line).into());
            };
            let event = self.next()?;
            let value = self.node(event, depth + 1)?;
            if key == "<<" {
                merged.push(value);
            } else if fields.insert(key.clone(), value).is_some() {
                return Err(format!("line {}: mapping key {key:?} already defined", self.line).into());
            }
        }
        for value in merged {
            let sources = match value {
                Node::Sequence(values) => values,
                one => vec![one],
            };
            for source in sources {
                for (name, value) in source.mapping().into_iter().flatten() {
                    fields.entry(name.clone()).or_insert_with(|| value.clone());
                }
            }
        }
        Ok(Node::Mapping(fields))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One scalar of each line, so that a line that was read wrongly is seen.
    fn test_of(text: &str) -> Result<Vec<String>, String> {
        let node = parse(text, &Room::default())?;
        let Some(Node::Sequence(values)) = node.field("a").and_then(|a| a.field("test")).cloned() else {
            return Err(format!("{node:?}"));
        };
        let text = |value| match value {
            Node::Scalar(text) => text,
            other => format!("{other:?}"),
        };
        Ok(values.into_iter().map(text).collect())
    }

    #[test]
    fn brackets_may_close_where_their_key_begins_or_before() {
        let expected = Ok(vec!["CMD".to_owned(), "two words".to_owned()]);
        for text in [
            "a:\n    test: [\n      \"CMD\",\n      two\n      words\n    ]\n    after: 1\n",
            "a:\n    test: [\n    CMD,\n  \"two words\"\n  ]\n    after: 1\n",
            "a:\n    test:\n      [\nCMD,\ntwo words,\n]\n    after: [\n    ]\n",
            "a: {\ntest: [CMD,\n two words]\n}\n",
        ] {
            assert_eq!(test_of(text), expected, "{text}");
        }
        // What is wrong in another way stays so, and is told with its line.
        let told = parse("a:\n    test: [\n      CMD\n    ]\n  b: c\n", &Room::default()).unwrap_err();
        assert!(told.starts_with("line 5: "), "{told}");
        let told = parse("a:\n    test: [\n      CMD\n    \n", &Room::default()).unwrap_err();
        assert!(told.starts_with("line "), "{told}");
    }

    #[test]
    fn lines_that_are_not_deep_enough_end() {
        let line = "x,\n";
        let many = format!("  a: [\n{}]\n", line.repeat(FILE_LINES));
        let before = std::time::Instant::now();
        let told = parse(&many, &Room::default()).unwrap_err();
        assert!(told.contains("invalid indentation"), "{told}");
        assert!(before.elapsed().as_secs() < 60, "{:?}", before.elapsed());
        let few = format!("  a: [\n{}]\n", line.repeat(100));
        assert!(parse(&few, &Room::default()).is_ok());
    }

    /// As many as a file of the largest size has.
    const FILE_LINES: usize = (4 << 20) / 3;
}
