//! What bake files are made of, whichever of HCL's two syntaxes they are written in. Owns the tree and its places; how it
//! is read stands in [`native`] and [`json`], what it means in [`crate::eval`].

mod cursor;
pub(crate) mod json;
pub(crate) mod native;
mod template;

use crate::value::Value;

/// Deepest nesting of what is read and of what is evaluated.
pub(crate) const DEPTH_MAX: usize = 100;

/// A stretch of one of the files; lines and columns count from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Span {
    /// Position of the file among those given.
    pub file: usize,
    /// Line and column of its first character.
    pub start: (u32, u32),
    /// Line and column behind its last character.
    pub end: (u32, u32),
}

impl Span {
    /// From the start of this to the end of `other`.
    pub(crate) const fn to(self, other: Self) -> Self {
        Self {
            end: other.end,
            ..self
        }
    }
}

/// What stands at the top of a file, or within a block.
#[derive(Debug, Clone, Default)]
pub(crate) struct Body {
    /// `name = value`.
    pub(crate) attributes: Vec<Attribute>,
    /// `kind "label" { … }`.
    pub(crate) blocks: Vec<Block>,
}

impl Body {
    /// The attribute called `name`.
    pub(crate) fn attribute(&self, name: &str) -> Option<&Attribute> {
        self.attributes.iter().find(|attribute| attribute.name == name)
    }
}

/// `name = value`.
#[derive(Debug, Clone)]
pub(crate) struct Attribute {
    pub(crate) name: String,
    pub(crate) span: Span,
    pub(crate) expr: Expr,
}

/// `kind "label" { … }`.
#[derive(Debug, Clone)]
pub(crate) struct Block {
    pub(crate) kind: String,
    pub(crate) labels: Vec<String>,
    /// Its first label, else its kind.
    pub(crate) span: Span,
    pub(crate) body: Body,
}

/// Something that has a value.
#[derive(Debug, Clone)]
pub(crate) struct Expr {
    pub(crate) span: Span,
    pub(crate) node: Node,
}

/// How its value comes about.
#[derive(Debug, Clone)]
pub(crate) enum Node {
    Literal(Value),
    /// Parts that are joined to one text.
    Template(Vec<Expr>),
    /// The texts that a loop of a template gives, joined.
    Joined(Box<Expr>),
    Tuple(Vec<Expr>),
    Object(Vec<(Expr, Expr)>),
    Variable(String),
    Attribute(Box<Expr>, String),
    Index(Box<Expr>, Box<Expr>),
    /// What the steps lead to, from each element.
    Splat(Box<Expr>, Vec<Step>),
    Call {
        name: String,
        args: Vec<Expr>,
        /// The last argument is a list of arguments.
        expands: bool,
    },
    For(Box<For>),
    Conditional(Box<[Expr; 3]>),
    Unary(UnaryOp, Box<Expr>),
    Binary(BinaryOp, Box<[Expr; 2]>),
}

/// From a value to one within it.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    Attribute(String),
    Index(Expr),
}

/// `for KEY, VALUE in COLLECTION : …`.
#[derive(Debug, Clone)]
pub(crate) struct For {
    pub(crate) key: Option<String>,
    pub(crate) value: String,
    pub(crate) collection: Expr,
    /// Given, an object is made.
    pub(crate) key_result: Option<Expr>,
    pub(crate) result: Expr,
    pub(crate) condition: Option<Expr>,
    /// Values with the same key are put together.
    pub(crate) groups: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum UnaryOp {
    Not,
    Negate,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BinaryOp {
    Or,
    And,
    Equal,
    NotEqual,
    Greater,
    GreaterOrEqual,
    Less,
    LessOrEqual,
    Add,
    Subtract,
    Multiply,
    Divide,
    Modulo,
}

impl Expr {
    /// The text that the expression is, where it is one without expansions.
    pub(crate) fn constant(&self) -> Option<&str> {
        match &self.node {
            Node::Literal(Value::String(text)) => Some(text),
            Node::Template(parts) => match parts.as_slice() {
                [] => Some(""),
                [only] => only.constant(),
                _ => None,
            },
            _ => None,
        }
    }

    /// The name that the expression is; JSON has texts in their place.
    pub(crate) fn keyword(&self) -> Option<&str> {
        match &self.node {
            Node::Variable(name) => Some(name),
            _ => self.constant(),
        }
    }
}
