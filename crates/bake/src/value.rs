//! Values and their types, as cty has them (<https://github.com/zclconf/go-cty>): texts, numbers, truth values, lists, sets,
//! maps, tuples and objects. Numbers are IEEE doubles, where cty has 512 bits: integers are exact up to 2^53.

mod convert;

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;

pub(crate) use convert::{convert, unify};

/// A finite number.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Number(f64);

impl Number {
    /// `value`, if it is finite.
    pub(crate) fn new(value: f64) -> Option<Self> {
        // There is one zero.
        value
            .is_finite()
            .then_some(Self(if value == 0.0 { 0.0 } else { value }))
    }

    /// What `text` says, if it is a number.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let digits = text.trim_start_matches(['+', '-']);
        if !digits.starts_with(|next: char| next.is_ascii_digit() || next == '.') {
            return None;
        }
        text.parse().ok().and_then(Self::new)
    }

    pub(crate) const fn get(self) -> f64 {
        self.0
    }

    /// The integer it is, if it is one.
    pub(crate) fn integer(self) -> Option<i64> {
        let is_integer = self.0.fract() == 0.0 && self.0.abs() < 9.3e18;
        #[expect(clippy::cast_possible_truncation, reason = "it is an integer of the range")]
        is_integer.then_some(self.0 as i64)
    }

    #[expect(clippy::cast_precision_loss, reason = "numbers are doubles")]
    pub(crate) const fn of(value: i64) -> Self {
        Self(value as f64)
    }
}

impl fmt::Display for Number {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(out)
    }
}

/// What a value is of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Type {
    /// Anything.
    Any,
    String,
    Number,
    Bool,
    List(Box<Type>),
    Set(Box<Type>),
    Map(Box<Type>),
    Tuple(Vec<Type>),
    /// By name the type, and whether it may be absent.
    Object(BTreeMap<String, (Type, bool)>),
}

impl Type {
    pub(crate) const fn is_primitive(&self) -> bool {
        matches!(self, Self::String | Self::Number | Self::Bool)
    }

    /// What errors call it.
    pub(crate) fn friendly(&self) -> String {
        match self {
            Self::Any => "dynamic".to_owned(),
            Self::String => "string".to_owned(),
            Self::Number => "number".to_owned(),
            Self::Bool => "bool".to_owned(),
            Self::List(of) => format!("list of {}", of.friendly()),
            Self::Set(of) => format!("set of {}", of.friendly()),
            Self::Map(of) => format!("map of {}", of.friendly()),
            Self::Tuple(_) => "tuple".to_owned(),
            Self::Object(_) => "object".to_owned(),
        }
    }

    /// What errors that ask for it call it.
    pub(crate) fn constraint(&self) -> String {
        match self {
            Self::Any => "any type".to_owned(),
            Self::List(of) => format!("list of {}", of.constraint()),
            Self::Set(of) => format!("set of {}", of.constraint()),
            Self::Map(of) => format!("map of {}", of.constraint()),
            other => other.friendly(),
        }
    }
}

/// A value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    /// The absence of a value of some type.
    Null(Type),
    String(String),
    Number(Number),
    Bool(bool),
    /// Elements, and what all are of.
    List(Type, Vec<Value>),
    /// The same, sorted, each once.
    Set(Type, Vec<Value>),
    Map(Type, BTreeMap<String, Value>),
    Tuple(Vec<Value>),
    Object(BTreeMap<String, Value>),
}

impl Value {
    /// `null`.
    pub(crate) const NULL: Self = Self::Null(Type::Any);

    pub(crate) fn string(text: impl Into<String>) -> Self {
        Self::String(text.into())
    }

    /// The number that digits are, or the text where they are none.
    pub(crate) fn number(digits: &str) -> Self {
        Number::parse(digits).map_or_else(|| Self::string(digits), Self::Number)
    }

    pub(crate) const fn integer(value: i64) -> Self {
        Self::Number(Number::of(value))
    }

    pub(crate) const fn is_null(&self) -> bool {
        matches!(self, Self::Null(_))
    }

    /// A set of `values`.
    pub(crate) fn set(of: Type, mut values: Vec<Self>) -> Self {
        values.sort_by(Self::order);
        values.dedup();
        Self::Set(of, values)
    }

    pub(crate) fn strings(texts: impl IntoIterator<Item = String>) -> Self {
        Self::List(Type::String, texts.into_iter().map(Self::String).collect())
    }

    /// A total order, by which sets are kept.
    fn order(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::String(one), Self::String(two)) => one.cmp(two),
            (Self::Number(one), Self::Number(two)) => one.0.total_cmp(&two.0),
            (Self::Bool(one), Self::Bool(two)) => one.cmp(two),
            (one, two) => format!("{one:?}").cmp(&format!("{two:?}")),
        }
    }

    pub(crate) fn type_of(&self) -> Type {
        match self {
            Self::Null(of) => of.clone(),
            Self::String(_) => Type::String,
            Self::Number(_) => Type::Number,
            Self::Bool(_) => Type::Bool,
            Self::List(of, _) => Type::List(Box::new(of.clone())),
            Self::Set(of, _) => Type::Set(Box::new(of.clone())),
            Self::Map(of, _) => Type::Map(Box::new(of.clone())),
            Self::Tuple(values) => Type::Tuple(values.iter().map(Self::type_of).collect()),
            Self::Object(fields) => Type::Object(
                fields
                    .iter()
                    .map(|(name, value)| (name.clone(), (value.type_of(), false)))
                    .collect(),
            ),
        }
    }

    /// Its elements, if it is a list, a set or a tuple.
    pub(crate) const fn elements(&self) -> Option<&Vec<Self>> {
        match self {
            Self::List(_, values) | Self::Set(_, values) | Self::Tuple(values) => Some(values),
            _ => None,
        }
    }

    /// Its fields, if it is a map or an object.
    pub(crate) const fn fields(&self) -> Option<&BTreeMap<String, Self>> {
        match self {
            Self::Map(_, fields) | Self::Object(fields) => Some(fields),
            _ => None,
        }
    }

    /// How much room it takes, about, in bytes.
    pub(crate) fn weight(&self) -> usize {
        let inner: usize = match self {
            Self::String(text) => text.len(),
            Self::List(_, values) | Self::Set(_, values) | Self::Tuple(values) => {
                values.iter().map(Self::weight).sum()
            }
            Self::Map(_, fields) | Self::Object(fields) => fields
                .iter()
                .map(|(name, value)| name.len() + value.weight())
                .sum(),
            Self::Null(_) | Self::Number(_) | Self::Bool(_) => 0,
        };
        inner + 16
    }

    /// As JSON.
    pub(crate) fn to_json(&self) -> serde_json::Value {
        use serde_json::Value as Json;
        match self {
            Self::Null(_) => Json::Null,
            Self::String(text) => Json::String(text.clone()),
            Self::Bool(value) => Json::Bool(*value),
            Self::Number(number) => number.integer().map_or_else(
                || serde_json::Number::from_f64(number.0).map_or(Json::Null, Json::Number),
                Json::from,
            ),
            Self::List(_, values) | Self::Set(_, values) | Self::Tuple(values) => {
                Json::Array(values.iter().map(Self::to_json).collect())
            }
            Self::Map(_, fields) | Self::Object(fields) => Json::Object(
                fields
                    .iter()
                    .map(|(name, value)| (name.clone(), value.to_json()))
                    .collect(),
            ),
        }
    }

    /// What JSON says, as tuples and objects.
    pub(crate) fn from_json(json: &serde_json::Value) -> Self {
        use serde_json::Value as Json;
        match json {
            Json::Null => Self::NULL,
            Json::Bool(value) => Self::Bool(*value),
            Json::Number(number) => Self::number(&number.to_string()),
            Json::String(text) => Self::string(text),
            Json::Array(values) => Self::Tuple(values.iter().map(Self::from_json).collect()),
            Json::Object(fields) => Self::Object(
                fields
                    .iter()
                    .map(|(name, value)| (name.clone(), Self::from_json(value)))
                    .collect(),
            ),
        }
    }
}
