//! As much of YAML as CDI specs are written in, JSON included: mappings, sequences and scalars of one document. Anchors,
//! aliases, tags and names given twice are refused, and so is what is nested or large beyond reason.

use saphyr_parser::{Event, Parser, ScalarStyle};

/// Deepest nesting.
const DEPTH_MAX: usize = 20;
/// Most values of a document.
const VALUES_MAX: usize = 100_000;

/// A value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Node {
    /// Names with values, in order.
    Mapping(Vec<(String, Node)>),
    /// Values in order.
    Sequence(Vec<Node>),
    /// A text, a number, a truth value.
    Scalar(String),
    /// Nothing.
    Null,
}

/// Why a document is not read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum YamlError {
    /// It is no YAML.
    #[error("line {line}: {text}")]
    Syntax {
        /// Where, from 1.
        line: usize,
        /// Why.
        text: String,
    },
    /// It uses a part of YAML that is not read.
    #[error("line {line}: {what} is not supported")]
    Unsupported {
        /// Where, from 1.
        line: usize,
        /// The part.
        what: &'static str,
    },
    /// A name stands twice in a mapping.
    #[error("line {line}: key {key:?} already set in map")]
    Twice {
        /// Where, from 1.
        line: usize,
        /// The name.
        key: String,
    },
    /// More than is read.
    #[error("line {line}: more than {most} {what}")]
    TooMuch {
        /// Where, from 1.
        line: usize,
        /// The limit.
        most: usize,
        /// Of what.
        what: &'static str,
    },
    /// It ends before its time.
    #[error("the document is empty")]
    Empty,
}

/// Reads a document.
///
/// # Errors
/// [`YamlError`].
pub(super) fn parse(text: &str) -> Result<Node, YamlError> {
    let mut reader = Reader {
        parser: Parser::new_from_str(text),
        line: 1,
        values: 0,
    };
    loop {
        match reader.next()? {
            Event::StreamStart => {}
            Event::DocumentStart(_) => break,
            _ => return Err(YamlError::Empty),
        }
    }
    let first = reader.next()?;
    let node = reader.node(first, 0)?;
    // What stands behind the document is read too, for it may be wrong.
    loop {
        match reader.next()? {
            Event::DocumentEnd => {}
            Event::StreamEnd => return Ok(node),
            _ => return Err(reader.unsupported("a second document")),
        }
    }
}

struct Reader<'a> {
    parser: Parser<'a, saphyr_parser::StrInput<'a>>,
    line: usize,
    values: usize,
}

impl<'a> Reader<'a> {
    fn next(&mut self) -> Result<Event<'a>, YamlError> {
        match self.parser.next() {
            None => Err(YamlError::Empty),
            Some(Ok((event, span))) => {
                self.line = span.start.line();
                Ok(event)
            }
            Some(Err(error)) => Err(YamlError::Syntax {
                line: error.marker().line(),
                text: error.info().to_owned(),
            }),
        }
    }

    fn unsupported(&self, what: &'static str) -> YamlError {
        YamlError::Unsupported {
            line: self.line,
            what,
        }
    }

    fn plain(&self, anchor: usize, is_tagged: bool) -> Result<(), YamlError> {
        if anchor != 0 {
            return Err(self.unsupported("an anchor"));
        }
        if is_tagged {
            return Err(self.unsupported("a tag"));
        }
        Ok(())
    }

    /// The value that begins with `event`, `depth` values deep.
    fn node(&mut self, event: Event<'a>, depth: usize) -> Result<Node, YamlError> {
        self.values += 1;
        for (count, most, what) in [(depth, DEPTH_MAX, "levels"), (self.values, VALUES_MAX, "values")] {
            if count > most {
                let line = self.line;
                return Err(YamlError::TooMuch { line, most, what });
            }
        }
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                self.plain(anchor, tag.is_some())?;
                let is_null = matches!(&*text, "" | "~" | "null" | "Null" | "NULL");
                Ok(match style {
                    ScalarStyle::Plain if is_null => Node::Null,
                    _ => Node::Scalar(text.into_owned()),
                })
            }
            Event::SequenceStart(anchor, tag) => {
                self.plain(anchor, tag.is_some())?;
                let mut values = Vec::new();
                loop {
                    match self.next()? {
                        Event::SequenceEnd => return Ok(Node::Sequence(values)),
                        event => values.push(self.node(event, depth + 1)?),
                    }
                }
            }
            Event::MappingStart(anchor, tag) => {
                self.plain(anchor, tag.is_some())?;
                self.mapping(depth)
            }
            Event::Alias(_) => Err(self.unsupported("an alias")),
            _ => Err(YamlError::Empty),
        }
    }

    fn mapping(&mut self, depth: usize) -> Result<Node, YamlError> {
        let mut fields: Vec<(String, Node)> = Vec::new();
        let mut names = std::collections::HashSet::new();
        loop {
            let event = self.next()?;
            if event == Event::MappingEnd {
                return Ok(Node::Mapping(fields));
            }
            let Node::Scalar(key) = self.node(event, depth + 1)? else {
                return Err(self.unsupported("a key that is no text"));
            };
            if !names.insert(key.clone()) {
                return Err(YamlError::Twice { line: self.line, key });
            }
            let event = self.next()?;
            let value = self.node(event, depth + 1)?;
            fields.push((key, value));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Node {
        Node::Scalar(text.to_owned())
    }

    #[test]
    fn yaml_and_json_are_the_same() {
        let expected = Node::Mapping(vec![
            ("a".to_owned(), text("0.6.0")),
            (
                "b".to_owned(),
                Node::Sequence(vec![
                    Node::Mapping(vec![("c".to_owned(), text("true"))]),
                    text("X=y z"),
                ]),
            ),
            ("d".to_owned(), Node::Null),
        ]);
        let yaml = "---\n# words\na: \"0.6.0\"\nb:\n- c: true\n- X=y z\nd:\n";
        assert_eq!(parse(yaml).unwrap(), expected);
        let json = r#"{"a": "0.6.0", "b": [{"c": true}, "X=y z"], "d": null}"#;
        assert_eq!(parse(json).unwrap(), expected);
        assert_eq!(parse("'null'").unwrap(), text("null"));
    }

    #[test]
    fn row48_what_is_not_read_is_refused() {
        for (yaml, told) in [
            ("a: 1\na: 2\n", "line 2: key \"a\" already set in map"),
            ("a: &x 1\nb: *x\n", "line 1: an anchor is not supported"),
            ("a: !!str 1\n", "line 1: a tag is not supported"),
            ("? [1]\n: 2\n", "a key that is no text is not supported"),
            ("a: 1\n---\nb: 2\n", "a second document is not supported"),
            ("a: [1\n", "line "),
            ("", "the document is empty"),
        ] {
            let error = parse(yaml).unwrap_err().to_string();
            assert!(error.contains(told), "{yaml:?}: {error}");
        }
        let deep = |levels: usize| format!("{}1{}", "[".repeat(levels), "]".repeat(levels));
        assert!(parse(&deep(DEPTH_MAX)).is_ok());
        assert!(
            parse(&deep(DEPTH_MAX + 1))
                .unwrap_err()
                .to_string()
                .contains("levels")
        );
        let wide = |values: usize| format!("[{}]", vec!["1"; values].join(","));
        assert!(parse(&wide(VALUES_MAX - 1)).is_ok());
        assert!(
            parse(&wide(VALUES_MAX))
                .unwrap_err()
                .to_string()
                .contains("values")
        );
    }
}
