//! Text to pieces: literal text and actions of tokens.

use super::parse::ParseError;

/// What stands between actions, and actions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Piece {
    Text(String),
    Action(Vec<Token>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Token {
    /// A name, a path or a number; `is_glued` to the parenthesis before it.
    Word {
        text: String,
        is_glued: bool,
    },
    Text(String),
    Pipe,
    Open,
    Close,
    Comma,
    /// `:=`
    Declare,
    /// `=`
    Assign,
}

impl Token {
    /// The word it is.
    pub(super) fn word(&self) -> Option<&str> {
        match self {
            Self::Word { text, .. } => Some(text),
            _ => None,
        }
    }
}

pub(super) fn pieces(text: &str) -> Result<Vec<Piece>, ParseError> {
    let mut pieces = Vec::new();
    let mut rest = text;
    let mut trim = false;
    while let Some((before, after)) = rest.split_once("{{") {
        let before = if trim { before.trim_start() } else { before };
        let is_trimmed = after.starts_with('-') && after[1..].starts_with(char::is_whitespace);
        let (before, after) = if is_trimmed {
            (before.trim_end(), &after[1..])
        } else {
            (before, after)
        };
        if !before.is_empty() {
            pieces.push(Piece::Text(before.to_owned()));
        }
        let (action, after, trims) = action(after)?;
        pieces.extend(action.map(Piece::Action));
        trim = trims;
        rest = after;
    }
    let rest = if trim { rest.trim_start() } else { rest };
    if !rest.is_empty() {
        pieces.push(Piece::Text(rest.to_owned()));
    }
    Ok(pieces)
}

/// The tokens up to `}}` unless they are a comment, what follows, and whether that loses its leading space.
fn action(text: &str) -> Result<(Option<Vec<Token>>, &str, bool), ParseError> {
    let mut rest = text;
    let mut is_comment = false;
    if let Some(comment) = rest.trim_start().strip_prefix("/*") {
        (_, rest) = comment.split_once("*/").ok_or(ParseError::Unclosed)?;
        is_comment = true;
    }
    let mut tokens = Vec::new();
    loop {
        let trimmed = rest.trim_start();
        let is_apart = trimmed.len() < rest.len();
        let end = match trimmed.strip_prefix("-}}") {
            Some(after) if is_apart => Some((after, true)),
            _ => trimmed.strip_prefix("}}").map(|after| (after, false)),
        };
        if let Some((after, trims)) = end {
            return Ok(((!is_comment).then_some(tokens), after, trims));
        }
        let (token, after) = token(trimmed, !is_apart)?;
        tokens.push(token);
        rest = after;
    }
}

fn token(text: &str, is_glued: bool) -> Result<(Token, &str), ParseError> {
    let first = text.chars().next().ok_or(ParseError::Unclosed)?;
    let rest = &text[first.len_utf8()..];
    match first {
        '|' => Ok((Token::Pipe, rest)),
        '(' => Ok((Token::Open, rest)),
        ')' => Ok((Token::Close, rest)),
        ',' => Ok((Token::Comma, rest)),
        '=' => Ok((Token::Assign, rest)),
        ':' => match rest.strip_prefix('=') {
            Some(rest) => Ok((Token::Declare, rest)),
            None => Err(ParseError::Syntax(":".to_owned())),
        },
        '`' => {
            let (inside, after) = rest.split_once('`').ok_or(ParseError::Quote)?;
            Ok((Token::Text(inside.to_owned()), after))
        }
        '"' => quoted(rest),
        _ => {
            let is_word = |c: char| c.is_alphanumeric() || matches!(c, '.' | '_' | '$' | '-' | '+');
            let end = text.find(|c| !is_word(c)).unwrap_or(text.len());
            if end == 0 {
                return Err(ParseError::Syntax(first.to_string()));
            }
            let word = Token::Word {
                text: text[..end].to_owned(),
                is_glued,
            };
            Ok((word, &text[end..]))
        }
    }
}

fn quoted(text: &str) -> Result<(Token, &str), ParseError> {
    let mut inside = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Ok((Token::Text(inside), &text[at + 1..])),
            '\n' => return Err(ParseError::Quote),
            '\\' => match chars.next().ok_or(ParseError::Quote)?.1 {
                'n' => inside.push('\n'),
                't' => inside.push('\t'),
                'r' => inside.push('\r'),
                c @ ('"' | '\\') => inside.push(c),
                other => return Err(ParseError::Syntax(format!("\\{other}"))),
            },
            c => inside.push(c),
        }
    }
    Err(ParseError::Quote)
}
