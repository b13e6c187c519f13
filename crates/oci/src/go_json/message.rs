//! A value whose fields stand in the order in which Go's struct, or a protobuf message, declares them.
//!
//! Fields are dropped where Go drops them: what is made by `From` is [`Json::Absent`] for the zero value of its type
//! (`omitempty`, and fields of protobuf without presence). An [`Json::Object`] is never dropped, since in Go it is a
//! pointer to a struct; a map is made by [`Json::map`], which drops an empty one.

use std::borrow::Cow;

use serde::ser::{Serialize, SerializeMap as _, Serializer};

/// A value that keeps the order of its fields.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Json {
    /// No value: the field that has it is left out; alone it is `null`.
    #[default]
    Absent,
    /// `true` or `false`.
    Flag(bool),
    /// A number.
    Number(i64),
    /// A text.
    Text(String),
    /// A list.
    List(Vec<Self>),
    /// A struct, a message, or a map by sorted keys.
    Object(Vec<(Cow<'static, str>, Self)>),
}

impl Json {
    /// A struct or message of these fields; stays if all of them are absent.
    #[must_use]
    pub fn object<const N: usize>(fields: [(&'static str, Self); N]) -> Self {
        Self::Object(fields.map(|(name, value)| (name.into(), value)).into())
    }

    /// A list; absent if it has no element.
    #[must_use]
    pub fn list(elements: impl IntoIterator<Item = Self>) -> Self {
        let elements: Vec<Self> = elements.into_iter().collect();
        if elements.is_empty() {
            Self::Absent
        } else {
            Self::List(elements)
        }
    }

    /// A map, whose entries come by key; absent if it has none.
    #[must_use]
    pub fn map<'a>(entries: impl IntoIterator<Item = (&'a String, Self)>) -> Self {
        let entry = |(key, value): (&String, Self)| (Cow::Owned(key.clone()), value);
        let entries: Vec<_> = entries.into_iter().map(entry).collect();
        if entries.is_empty() {
            Self::Absent
        } else {
            Self::Object(entries)
        }
    }

    /// No value.
    #[must_use]
    pub const fn is_absent(&self) -> bool {
        matches!(self, Self::Absent)
    }

    /// A map that is there if it has no entry, too.
    #[must_use]
    pub fn or_empty(self) -> Self {
        if self.is_absent() {
            Self::Object(Vec::new())
        } else {
            self
        }
    }

    /// Texts; absent if there is none.
    #[must_use]
    pub fn texts(texts: &[String]) -> Self {
        Self::list(texts.iter().map(|text| Self::Text(text.clone())))
    }
}

impl From<bool> for Json {
    fn from(flag: bool) -> Self {
        if flag { Self::Flag(true) } else { Self::Absent }
    }
}

impl From<i64> for Json {
    fn from(number: i64) -> Self {
        if number == 0 {
            Self::Absent
        } else {
            Self::Number(number)
        }
    }
}

impl From<i32> for Json {
    fn from(number: i32) -> Self {
        i64::from(number).into()
    }
}

impl From<u32> for Json {
    fn from(number: u32) -> Self {
        i64::from(number).into()
    }
}

impl From<&str> for Json {
    fn from(text: &str) -> Self {
        if text.is_empty() {
            Self::Absent
        } else {
            Self::Text(text.to_owned())
        }
    }
}

impl From<&String> for Json {
    fn from(text: &String) -> Self {
        text.as_str().into()
    }
}

impl From<String> for Json {
    fn from(text: String) -> Self {
        if text.is_empty() {
            Self::Absent
        } else {
            Self::Text(text)
        }
    }
}

impl<T: Into<Self>> From<Option<T>> for Json {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Absent, Into::into)
    }
}

impl Serialize for Json {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Absent => to.serialize_unit(),
            Self::Flag(flag) => to.serialize_bool(*flag),
            Self::Number(number) => to.serialize_i64(*number),
            Self::Text(text) => to.serialize_str(text),
            Self::List(elements) => to.collect_seq(elements),
            Self::Object(fields) => {
                let present = || fields.iter().filter(|(_, value)| !value.is_absent());
                let mut map = to.serialize_map(Some(present().count()))?;
                for (name, value) in present() {
                    map.serialize_entry(name, value)?;
                }
                map.end()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_keep_their_order_and_zero_values_are_left_out() {
        let none = std::collections::BTreeMap::<String, Json>::new();
        let value = Json::object([
            ("z", "<".into()),
            (
                "a",
                Json::list([3.into(), Json::object([("left", false.into())])]),
            ),
            ("zero", 0.into()),
            ("false", false.into()),
            ("empty", "".into()),
            ("no list", Json::list([])),
            (
                "no map",
                Json::map(none.iter().map(|(key, value)| (key, value.clone()))),
            ),
            ("nothing", None::<bool>.into()),
            ("b", true.into()),
        ]);
        let text = String::from_utf8(crate::go_json::to_vec(&value).expect("json")).expect("utf-8");
        assert_eq!(text, r#"{"z":"\u003c","a":[3,{}],"b":true}"#);
        assert_eq!(crate::go_json::to_vec(&Json::Absent).expect("json"), b"null");
    }
}
