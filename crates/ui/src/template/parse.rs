//! Pieces to nodes.

use super::functions::Function;
use super::lex::{Piece, Token, pieces};

/// A piece of a template.
#[derive(Debug, Clone)]
pub(super) enum Node {
    Text(String),
    Print(Pipeline),
    /// `if`, and `with`, which hands its value on.
    If {
        test: Pipeline,
        is_with: bool,
        then: Vec<Node>,
        otherwise: Vec<Node>,
    },
    Range {
        over: Pipeline,
        body: Vec<Node>,
        empty: Vec<Node>,
    },
    Break,
    Continue,
}

/// Calls, each of which gets what the one before it gave; and the variables that get the last.
#[derive(Debug, Clone)]
pub(super) struct Pipeline {
    /// Names with their `$`: one, or two of a range.
    pub(super) variables: Vec<String>,
    /// `:=`, and not `=`.
    pub(super) is_declaration: bool,
    pub(super) calls: Vec<Call>,
}

/// One part of a pipeline: a function with its arguments, or a value alone.
#[derive(Debug, Clone)]
pub(super) struct Call {
    pub(super) function: Option<Function>,
    pub(super) arguments: Vec<Term>,
}

/// What an argument can be.
#[derive(Debug, Clone)]
pub(super) enum Term {
    /// `.A.B`, `$x.A`, `(…).A`
    Path {
        from: From,
        keys: Vec<String>,
    },
    /// A function without arguments.
    Function(Function),
    Text(String),
    Number(serde_json::Number),
    Bool(bool),
    Nil,
}

/// Where a path begins.
#[derive(Debug, Clone)]
pub(super) enum From {
    /// The value at hand.
    Dot,
    /// A variable, with its `$`; alone it is the whole.
    Variable(String),
    Pipe(Pipeline),
}

/// Why a template was not understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// `{{` without `}}`.
    #[error("template parsing error: unclosed action")]
    Unclosed,
    /// A string without its end.
    #[error("template parsing error: unterminated quoted string")]
    Quote,
    /// Not a function of Go's or docker's, or not one that is supported.
    #[error("template parsing error: function {0:?} not defined (there are {names})", names = Function::names())]
    Function(String),
    /// A variable that was not declared.
    #[error("template parsing error: undefined variable {0:?}")]
    Variable(String),
    /// `end` or `else` without a beginning.
    #[error("template parsing error: unexpected {{{{{0}}}}}")]
    Unexpected(String),
    /// `if` or `range` without `end`.
    #[error("template parsing error: {0} has no {{{{end}}}}")]
    NoEnd(&'static str),
    /// Something that is not of the language.
    #[error("template parsing error: cannot read {0:?}")]
    Syntax(String),
    /// `define`, `block` and `template`.
    #[error("template parsing error: {{{{{0}}}}} is not supported")]
    Unsupported(String),
    /// Blocks inside blocks.
    #[error("template parsing error: more than {0} blocks inside each other")]
    Deep(usize),
}

/// Blocks and parentheses inside each other.
const DEPTH_MAX: usize = 50;

pub(super) fn parse(text: &str) -> Result<Vec<Node>, ParseError> {
    let pieces = pieces(text)?;
    let mut parser = Parser {
        rest: &pieces,
        variables: vec!["$".to_owned()],
        loops: 0,
    };
    match parser.nodes(0)? {
        (nodes, None) => Ok(nodes),
        (_, Some(end)) => Err(ParseError::Unexpected(end.name().to_owned())),
    }
}

struct Parser<'a> {
    rest: &'a [Piece],
    /// Those that may be used here.
    variables: Vec<String>,
    /// Ranges around this place.
    loops: usize,
}

/// What ends a list of nodes: `end`, or `else` with the tokens that follow it.
enum End<'a> {
    End,
    Else(&'a [Token]),
}

impl End<'_> {
    const fn name(&self) -> &'static str {
        match self {
            Self::End => "end",
            Self::Else(_) => "else",
        }
    }
}

impl<'a> Parser<'a> {
    /// Nodes up to `end` or `else`.
    fn nodes(&mut self, depth: usize) -> Result<(Vec<Node>, Option<End<'a>>), ParseError> {
        if depth > DEPTH_MAX {
            return Err(ParseError::Deep(DEPTH_MAX));
        }
        let mut found = Vec::new();
        while let Some((piece, after)) = self.rest.split_first() {
            self.rest = after;
            let tokens = match piece {
                Piece::Text(text) => {
                    found.push(Node::Text(text.clone()));
                    continue;
                }
                Piece::Action(tokens) => tokens.as_slice(),
            };
            let (first, tail) = match tokens.split_first() {
                Some((first, tail)) => (first.word().unwrap_or_default(), tail),
                None => ("", tokens),
            };
            let node = match (first, tail) {
                ("end", []) => return Ok((found, Some(End::End))),
                ("else", tail) => return Ok((found, Some(End::Else(tail)))),
                ("if", tail) => self.branches("if", tail, depth)?,
                ("with", tail) => self.branches("with", tail, depth)?,
                ("range", tail) => self.range(tail, depth)?,
                ("break", []) if self.loops > 0 => Node::Break,
                ("continue", []) if self.loops > 0 => Node::Continue,
                ("define" | "block" | "template", _) => {
                    return Err(ParseError::Unsupported(first.to_owned()));
                }
                _ => Node::Print(self.pipeline(tokens, depth)?),
            };
            found.push(node);
        }
        Ok((found, None))
    }

    fn branches(&mut self, word: &'static str, test: &[Token], depth: usize) -> Result<Node, ParseError> {
        let outside = self.variables.len();
        let test = self.pipeline(test, depth)?;
        let (then, end) = self.nodes(depth + 1)?;
        let otherwise = self.otherwise(word, end, depth)?;
        self.variables.truncate(outside);
        Ok(Node::If {
            test,
            is_with: word == "with",
            then,
            otherwise,
        })
    }

    fn range(&mut self, over: &[Token], depth: usize) -> Result<Node, ParseError> {
        let outside = self.variables.len();
        let over = self.pipeline(over, depth)?;
        self.loops += 1;
        let (body, end) = self.nodes(depth + 1)?;
        self.loops -= 1;
        let empty = self.otherwise("range", end, depth)?;
        self.variables.truncate(outside);
        Ok(Node::Range { over, body, empty })
    }

    /// What follows `else`, if that is what came.
    fn otherwise(
        &mut self,
        word: &'static str,
        end: Option<End<'a>>,
        depth: usize,
    ) -> Result<Vec<Node>, ParseError> {
        let tail = match end {
            None => return Err(ParseError::NoEnd(word)),
            Some(End::End) => return Ok(Vec::new()),
            Some(End::Else(tail)) => tail,
        };
        if let Some((next, test)) = tail.split_first() {
            // `else if` is one block in the other, with one end for both.
            return match next.word() {
                Some("if") if word == "if" => Ok(vec![self.branches("if", test, depth + 1)?]),
                Some("with") if word == "with" => Ok(vec![self.branches("with", test, depth + 1)?]),
                _ => Err(ParseError::Unexpected("else".to_owned())),
            };
        }
        match self.nodes(depth + 1)? {
            (nodes, Some(End::End)) => Ok(nodes),
            (_, Some(end)) => Err(ParseError::Unexpected(end.name().to_owned())),
            (_, None) => Err(ParseError::NoEnd(word)),
        }
    }

    fn pipeline(&mut self, tokens: &[Token], depth: usize) -> Result<Pipeline, ParseError> {
        let is_variable = |token: &Token| token.word().is_some_and(|word| word.starts_with('$'));
        let (variables, is_declaration, tokens) = match tokens {
            [one, Token::Declare, tail @ ..] if is_variable(one) => (vec![one], true, tail),
            [one, Token::Assign, tail @ ..] if is_variable(one) => (vec![one], false, tail),
            [one, Token::Comma, two, Token::Declare, tail @ ..] if is_variable(one) && is_variable(two) => {
                (vec![one, two], true, tail)
            }
            [one, Token::Comma, two, Token::Assign, tail @ ..] if is_variable(one) && is_variable(two) => {
                (vec![one, two], false, tail)
            }
            tokens => (Vec::new(), false, tokens),
        };
        let names: Vec<String> = variables
            .into_iter()
            .filter_map(|token| token.word().map(str::to_owned))
            .collect();
        let calls = self.calls(tokens, depth)?;
        for name in &names {
            if is_declaration {
                self.variables.push(name.clone());
            } else {
                self.known(name)?;
            }
        }
        Ok(Pipeline {
            variables: names,
            is_declaration,
            calls,
        })
    }

    fn known(&self, name: &str) -> Result<(), ParseError> {
        let is_known = self.variables.iter().any(|known| known == name);
        is_known
            .then_some(())
            .ok_or_else(|| ParseError::Variable(name.to_owned()))
    }

    fn calls(&mut self, tokens: &[Token], depth: usize) -> Result<Vec<Call>, ParseError> {
        if depth > DEPTH_MAX {
            return Err(ParseError::Deep(DEPTH_MAX));
        }
        let mut calls = Vec::new();
        let mut level = 0_usize;
        let mut from = 0;
        for (at, token) in tokens.iter().enumerate() {
            match token {
                Token::Open => level += 1,
                Token::Close => {
                    level = level
                        .checked_sub(1)
                        .ok_or_else(|| ParseError::Unexpected(")".to_owned()))?;
                }
                Token::Pipe if level == 0 => {
                    calls.push(self.call(&tokens[from..at], depth)?);
                    from = at + 1;
                }
                _ => {}
            }
        }
        if level > 0 {
            return Err(ParseError::Unclosed);
        }
        calls.push(self.call(&tokens[from..], depth)?);
        Ok(calls)
    }

    fn call(&mut self, tokens: &[Token], depth: usize) -> Result<Call, ParseError> {
        let mut arguments = Vec::new();
        let mut at = 0;
        while at < tokens.len() {
            let (argument, used) = self.term(&tokens[at..], depth)?;
            arguments.push(argument);
            at += used;
        }
        match arguments.first() {
            None => Err(ParseError::Syntax("an empty pipeline".to_owned())),
            Some(Term::Function(function)) => Ok(Call {
                function: Some(*function),
                arguments: arguments.split_off(1),
            }),
            Some(_) if arguments.len() > 1 => {
                Err(ParseError::Syntax("several values side by side".to_owned()))
            }
            Some(_) => Ok(Call {
                function: None,
                arguments,
            }),
        }
    }

    fn term(&mut self, tokens: &[Token], depth: usize) -> Result<(Term, usize), ParseError> {
        match &tokens[0] {
            Token::Text(text) => Ok((Term::Text(text.clone()), 1)),
            Token::Word { text, .. } => self.word(text).map(|term| (term, 1)),
            Token::Open => {
                let mut level = 0_usize;
                let close = tokens.iter().position(|token| {
                    match token {
                        Token::Open => level += 1,
                        Token::Close => level -= 1,
                        _ => {}
                    }
                    level == 0
                });
                let close = close.ok_or(ParseError::Unclosed)?;
                let inside = self.pipeline(&tokens[1..close], depth + 1)?;
                let (keys, used) = match tokens.get(close + 1) {
                    Some(Token::Word { text, is_glued: true }) if text.starts_with('.') => {
                        (keys(text, text)?, close + 2)
                    }
                    _ => (Vec::new(), close + 1),
                };
                let from = From::Pipe(inside);
                Ok((Term::Path { from, keys }, used))
            }
            Token::Pipe => Err(ParseError::Syntax("|".to_owned())),
            Token::Close => Err(ParseError::Unexpected(")".to_owned())),
            Token::Comma => Err(ParseError::Syntax(",".to_owned())),
            Token::Declare => Err(ParseError::Syntax(":=".to_owned())),
            Token::Assign => Err(ParseError::Syntax("=".to_owned())),
        }
    }

    fn word(&self, word: &str) -> Result<Term, ParseError> {
        if word.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '-' | '+')) {
            let number = word.parse().map_err(|_bad| ParseError::Syntax(word.to_owned()))?;
            return Ok(Term::Number(number));
        }
        match word {
            "true" => return Ok(Term::Bool(true)),
            "false" => return Ok(Term::Bool(false)),
            "nil" => return Ok(Term::Nil),
            _ => {}
        }
        if word.starts_with('$') {
            let (name, path) = word.split_at(word.find('.').unwrap_or(word.len()));
            self.known(name)?;
            let from = From::Variable(name.to_owned());
            let keys = keys(path, word)?;
            return Ok(Term::Path { from, keys });
        }
        if word.starts_with('.') {
            let from = From::Dot;
            let keys = if word == "." {
                Vec::new()
            } else {
                keys(word, word)?
            };
            return Ok(Term::Path { from, keys });
        }
        let function = Function::of(word).ok_or_else(|| ParseError::Function(word.to_owned()))?;
        Ok(Term::Function(function))
    }
}

/// The names of `.A.B`, or none of nothing.
fn keys(path: &str, whole: &str) -> Result<Vec<String>, ParseError> {
    let Some(names) = path.strip_prefix('.') else {
        return Ok(Vec::new());
    };
    let keys: Vec<String> = names.split('.').map(str::to_owned).collect();
    if keys
        .iter()
        .any(|key| key.is_empty() || key.contains(['$', '-', '+']))
    {
        return Err(ParseError::Syntax(whole.to_owned()));
    }
    Ok(keys)
}
