//! YAML as compose files are written in it: aliases and merge keys included, which are copied out within a budget. Keys of
//! any tag are texts; what a scalar is, is for its reader to say.

use std::collections::BTreeMap;

use saphyr_parser::{Event, Parser, ScalarStyle, StrInput};

/// Deepest nesting.
const DEPTH_MAX: usize = 60;
/// Most values, those that aliases copy included.
const VALUES_MAX: usize = 200_000;

/// A value.
#[derive(Debug, Clone, PartialEq, Eq)]
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

    fn count(&self) -> usize {
        1 + match self {
            Self::Null | Self::Scalar(_) => 0,
            Self::Sequence(values) => values.iter().map(Self::count).sum(),
            Self::Mapping(fields) => fields.values().map(Self::count).sum(),
        }
    }
}

/// Reads the first document.
///
/// # Errors
/// What is wrong, and in which line.
pub(super) fn parse(text: &str) -> Result<Node, String> {
    let mut reader = Reader {
        parser: Parser::new_from_str(text),
        line: 1,
        values: 0,
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
    values: usize,
    anchors: BTreeMap<usize, Node>,
}

impl<'a> Reader<'a> {
    fn next(&mut self) -> Result<Event<'a>, String> {
        match self.parser.next() {
            None => Err("it ends before its time".to_owned()),
            Some(Ok((event, span))) => {
                self.line = span.start.line();
                Ok(event)
            }
            Some(Err(error)) => Err(format!("line {}: {}", error.marker().line(), error.info())),
        }
    }

    fn count(&mut self, values: usize, depth: usize) -> Result<(), String> {
        self.values += values;
        if self.values > VALUES_MAX || depth > DEPTH_MAX {
            return Err(format!(
                "line {}: more than {VALUES_MAX} values, or {DEPTH_MAX} levels",
                self.line
            ));
        }
        Ok(())
    }

    /// The value that begins with `event`, `depth` values deep.
    fn node(&mut self, event: Event<'a>, depth: usize) -> Result<Node, String> {
        self.count(1, depth)?;
        let (node, anchor) = match event {
            Event::Scalar(text, style, anchor, _) => {
                let is_null = matches!(&*text, "" | "~" | "null" | "Null" | "NULL");
                let node = match style {
                    ScalarStyle::Plain if is_null => Node::Null,
                    _ => Node::Scalar(text.into_owned()),
                };
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
                let node = self.anchors.get(&anchor).cloned();
                let node = node.ok_or_else(|| format!("line {}: an alias of nothing", self.line))?;
                self.count(node.count(), depth)?;
                (node, 0)
            }
            _ => return Err(format!("line {}: the document ends before its time", self.line)),
        };
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    fn mapping(&mut self, depth: usize) -> Result<Node, String> {
        let mut fields = BTreeMap::new();
        let mut merged = Vec::new();
        loop {
            let event = self.next()?;
            if event == Event::MappingEnd {
                break;
            }
            let Node::Scalar(key) = self.node(event, depth + 1)? else {
                return Err(format!("line {}: a key that is no text", self.line));
            };
            let event = self.next()?;
            let value = self.node(event, depth + 1)?;
            if key == "<<" {
                merged.push(value);
            } else if fields.insert(key.clone(), value).is_some() {
                return Err(format!("line {}: mapping key {key:?} already defined", self.line));
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
