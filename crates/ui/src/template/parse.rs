//! Text to nodes.

/// A piece of a template.
#[derive(Debug, Clone)]
pub(super) enum Node {
    Text(String),
    Print(Vec<Call>),
    If {
        test: Vec<Call>,
        then: Vec<Node>,
        otherwise: Vec<Node>,
    },
    Range {
        over: Vec<Call>,
        body: Vec<Node>,
        empty: Vec<Node>,
    },
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
    /// `.` and `.A.B`, from the value at hand; `$.A` from the whole.
    Path {
        whole: bool,
        keys: Vec<String>,
    },
    Text(String),
    Number(i64),
    /// `( … )`
    Pipe(Vec<Call>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Function {
    Json,
    Join,
    Index,
    Len,
    Upper,
    Lower,
    Println,
    Eq,
    Ne,
}

impl Function {
    fn of(name: &str) -> Option<Self> {
        Some(match name {
            "json" => Self::Json,
            "join" => Self::Join,
            "index" => Self::Index,
            "len" => Self::Len,
            "upper" => Self::Upper,
            "lower" => Self::Lower,
            "println" => Self::Println,
            "eq" => Self::Eq,
            "ne" => Self::Ne,
            _ => return None,
        })
    }
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
    /// Not a function of Go's, or not one that is supported.
    #[error(
        "template parsing error: function {0:?} is not supported (json, join, index, len, upper, lower, println, eq, ne are)"
    )]
    Function(String),
    /// `end` or `else` without a beginning.
    #[error("template parsing error: unexpected {{{{{0}}}}}")]
    Unexpected(String),
    /// `if` or `range` without `end`.
    #[error("template parsing error: {0} has no {{{{end}}}}")]
    NoEnd(&'static str),
    /// Something that is not of the language.
    #[error("template parsing error: cannot read {0:?}")]
    Syntax(String),
    /// Blocks inside blocks.
    #[error("template parsing error: more than {0} blocks inside each other")]
    Deep(usize),
}

/// Blocks and parentheses inside each other.
const DEPTH_MAX: usize = 50;

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(String),
    Action(Vec<Token>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    /// A name, a path or a number.
    Word(String),
    Text(String),
    Pipe,
    Open,
    Close,
}

pub(super) fn parse(text: &str) -> Result<Vec<Node>, ParseError> {
    let pieces = pieces(text)?;
    let mut rest = pieces.as_slice();
    let (nodes, end) = nodes(&mut rest, 0)?;
    match end {
        None => Ok(nodes),
        Some(word) => Err(ParseError::Unexpected(word)),
    }
}

fn pieces(text: &str) -> Result<Vec<Piece>, ParseError> {
    let mut pieces = Vec::new();
    let mut rest = text;
    let mut trim = false;
    while let Some(at) = rest.find("{{") {
        let (before, after) = rest.split_at(at);
        let after = &after[2..];
        let before = if trim { before.trim_start() } else { before };
        let (before, after) = match after.strip_prefix("- ") {
            Some(after) => (before.trim_end(), after),
            None => (before, after),
        };
        if !before.is_empty() {
            pieces.push(Piece::Text(before.to_owned()));
        }
        let (tokens, after) = action(after)?;
        trim = after.1;
        if !tokens.is_empty() {
            pieces.push(Piece::Action(tokens));
        }
        rest = after.0;
    }
    let rest = if trim { rest.trim_start() } else { rest };
    if !rest.is_empty() {
        pieces.push(Piece::Text(rest.to_owned()));
    }
    Ok(pieces)
}

/// The tokens up to `}}`, what follows it, and whether that loses its leading space.
fn action(text: &str) -> Result<(Vec<Token>, (&str, bool)), ParseError> {
    let mut rest = text;
    if let Some(comment) = rest.strip_prefix("/*") {
        let (_, after) = comment.split_once("*/").ok_or(ParseError::Unclosed)?;
        rest = after;
    }
    let mut tokens = Vec::new();
    loop {
        let trimmed = rest.trim_start();
        if trimmed.len() < rest.len()
            && let Some(after) = trimmed.strip_prefix("-}}")
        {
            return Ok((tokens, (after, true)));
        }
        rest = trimmed;
        if let Some(after) = rest.strip_prefix("}}") {
            return Ok((tokens, (after, false)));
        }
        let (token, after) = token(rest)?;
        tokens.push(token);
        rest = after;
    }
}

fn token(text: &str) -> Result<(Token, &str), ParseError> {
    let mut chars = text.char_indices();
    let Some((_, first)) = chars.next() else {
        return Err(ParseError::Unclosed);
    };
    let rest = &text[first.len_utf8()..];
    match first {
        '|' => Ok((Token::Pipe, rest)),
        '(' => Ok((Token::Open, rest)),
        ')' => Ok((Token::Close, rest)),
        '`' => {
            let (inside, after) = rest.split_once('`').ok_or(ParseError::Quote)?;
            Ok((Token::Text(inside.to_owned()), after))
        }
        '"' => quoted(rest),
        _ => {
            let is_word = |c: char| c.is_alphanumeric() || matches!(c, '.' | '_' | '$' | '-');
            let end = text.find(|c| !is_word(c)).unwrap_or(text.len());
            if end == 0 {
                return Err(ParseError::Syntax(first.to_string()));
            }
            Ok((Token::Word(text[..end].to_owned()), &text[end..]))
        }
    }
}

fn quoted(text: &str) -> Result<(Token, &str), ParseError> {
    let mut inside = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Ok((Token::Text(inside), &text[at + 1..])),
            '\\' => match chars.next().ok_or(ParseError::Quote)?.1 {
                'n' => inside.push('\n'),
                't' => inside.push('\t'),
                c @ ('"' | '\\') => inside.push(c),
                other => return Err(ParseError::Syntax(format!("\\{other}"))),
            },
            c => inside.push(c),
        }
    }
    Err(ParseError::Quote)
}

/// Nodes up to `end` or `else`, which is given too.
fn nodes(rest: &mut &[Piece], depth: usize) -> Result<(Vec<Node>, Option<String>), ParseError> {
    if depth > DEPTH_MAX {
        return Err(ParseError::Deep(DEPTH_MAX));
    }
    let mut found = Vec::new();
    while let Some((piece, after)) = rest.split_first() {
        *rest = after;
        let tokens = match piece {
            Piece::Text(text) => {
                found.push(Node::Text(text.clone()));
                continue;
            }
            Piece::Action(tokens) => tokens.as_slice(),
        };
        match tokens {
            [Token::Word(word)] if word == "end" || word == "else" => return Ok((found, Some(word.clone()))),
            [Token::Word(word), tail @ ..] if word == "if" => {
                let test = pipeline(tail, depth)?;
                let (then, otherwise) = branches(rest, "if", depth)?;
                found.push(Node::If {
                    test,
                    then,
                    otherwise,
                });
            }
            [Token::Word(word), tail @ ..] if word == "range" => {
                let over = pipeline(tail, depth)?;
                let (body, empty) = branches(rest, "range", depth)?;
                found.push(Node::Range { over, body, empty });
            }
            tokens => found.push(Node::Print(pipeline(tokens, depth)?)),
        }
    }
    Ok((found, None))
}

fn branches(
    rest: &mut &[Piece],
    block: &'static str,
    depth: usize,
) -> Result<(Vec<Node>, Vec<Node>), ParseError> {
    let (first, end) = nodes(rest, depth + 1)?;
    match end.as_deref() {
        None => Err(ParseError::NoEnd(block)),
        Some("else") => match nodes(rest, depth + 1)? {
            (second, Some(end)) if end == "end" => Ok((first, second)),
            (_, Some(end)) => Err(ParseError::Unexpected(end)),
            (_, None) => Err(ParseError::NoEnd(block)),
        },
        Some(_) => Ok((first, Vec::new())),
    }
}

fn pipeline(tokens: &[Token], depth: usize) -> Result<Vec<Call>, ParseError> {
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
                calls.push(call(&tokens[from..at], depth)?);
                from = at + 1;
            }
            _ => {}
        }
    }
    if level > 0 {
        return Err(ParseError::Unclosed);
    }
    calls.push(call(&tokens[from..], depth)?);
    Ok(calls)
}

fn call(tokens: &[Token], depth: usize) -> Result<Call, ParseError> {
    let (function, tokens) = match tokens.split_first() {
        None => return Err(ParseError::Syntax("an empty pipeline".to_owned())),
        Some((Token::Word(word), tail)) if word.starts_with(char::is_alphabetic) => {
            let function = Function::of(word).ok_or_else(|| ParseError::Function(word.clone()))?;
            (Some(function), tail)
        }
        Some(_) => (None, tokens),
    };
    let mut arguments = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let (argument, used) = term(&tokens[at..], depth)?;
        arguments.push(argument);
        at += used;
    }
    if function.is_none() && arguments.len() != 1 {
        return Err(ParseError::Syntax("several values side by side".to_owned()));
    }
    Ok(Call { function, arguments })
}

fn term(tokens: &[Token], depth: usize) -> Result<(Term, usize), ParseError> {
    match &tokens[0] {
        Token::Text(text) => Ok((Term::Text(text.clone()), 1)),
        Token::Word(word) => word_term(word).map(|term| (term, 1)),
        Token::Open => {
            let mut level = 0_usize;
            for (at, token) in tokens.iter().enumerate() {
                match token {
                    Token::Open => level += 1,
                    Token::Close if level == 1 => {
                        return Ok((Term::Pipe(pipeline(&tokens[1..at], depth + 1)?), at + 1));
                    }
                    Token::Close => level -= 1,
                    _ => {}
                }
            }
            Err(ParseError::Unclosed)
        }
        Token::Pipe | Token::Close => Err(ParseError::Syntax("|".to_owned())),
    }
}

fn word_term(word: &str) -> Result<Term, ParseError> {
    if let Ok(number) = word.parse() {
        return Ok(Term::Number(number));
    }
    let (whole, path) = match word.strip_prefix('$') {
        Some(path) => (true, path),
        None => (false, word),
    };
    let keys = |path: &str| path.split('.').map(str::to_owned).collect::<Vec<String>>();
    let keys = match path.strip_prefix('.') {
        Some("") => Vec::new(),
        Some(path) => keys(path),
        None if whole && path.is_empty() => Vec::new(),
        None => return Err(ParseError::Function(word.to_owned())),
    };
    if keys.iter().any(|key| key.is_empty() || key.contains(['$', '-'])) {
        return Err(ParseError::Syntax(word.to_owned()));
    }
    Ok(Term::Path { whole, keys })
}
