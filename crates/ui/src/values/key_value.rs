//! `--build-arg`, `--label`, `--annotation`: lists of `key=value`. Refuses an empty key.

use std::collections::BTreeMap;

/// Why a text is not a key and a value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyValueError {
    /// Nothing stands before the `=`.
    #[error("invalid key-value pair {0:?}: empty key")]
    EmptyKey(String),
    /// There is no `=`.
    #[error("invalid annotation {0:?}, expected key=value")]
    NoValue(String),
    /// What stands before the key is no list of types.
    #[error("invalid annotation type {0:?}, expected type and optional platform in square brackets")]
    AnnotationShape(String),
    /// The annotation is for something that is not written.
    #[error("unknown annotation type {0:?}")]
    AnnotationType(String),
}

/// `--build-arg K=V`, or `K`, which takes the variable of that name and is dropped if there is none. Later ones win.
///
/// # Errors
/// [`KeyValueError::EmptyKey`].
pub fn build_args(
    values: &[String],
    env: impl Fn(&str) -> Option<String>,
) -> Result<BTreeMap<String, String>, KeyValueError> {
    let mut map = BTreeMap::new();
    for text in values {
        let (key, value) = split(text)?;
        if let Some(value) = value.map(str::to_owned).or_else(|| env(key)) {
            map.insert(key.to_owned(), value);
        }
    }
    Ok(map)
}

/// `--label K=V`, or `K` for an empty value. Later ones win.
///
/// # Errors
/// [`KeyValueError::EmptyKey`].
pub fn labels(values: &[String]) -> Result<BTreeMap<String, String>, KeyValueError> {
    let mut map = BTreeMap::new();
    for text in values {
        let (key, value) = split(text)?;
        map.insert(key.to_owned(), value.unwrap_or_default().to_owned());
    }
    Ok(map)
}

fn split(text: &str) -> Result<(&str, Option<&str>), KeyValueError> {
    let (key, value) = match text.split_once('=') {
        Some((key, value)) => (key, Some(value)),
        None => (text, None),
    };
    if key.is_empty() {
        return Err(KeyValueError::EmptyKey(text.to_owned()));
    }
    Ok((key, value))
}

/// What an annotation is put on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AnnotationType {
    /// The manifest; also if no type is given.
    Manifest,
    /// The manifest's descriptor in the index.
    ManifestDescriptor,
    /// The index.
    Index,
    /// The index's descriptor.
    IndexDescriptor,
}

/// One `--annotation`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Annotation {
    /// What it is put on.
    pub kind: AnnotationType,
    /// The platform in brackets.
    pub platform: Option<String>,
    /// Key.
    pub key: String,
    /// Value.
    pub value: String,
}

/// Reads `[type[platform],…:]key=value`, one annotation for each type. The first `:` of the key ends the types.
///
/// # Errors
/// [`KeyValueError`].
pub fn annotations(text: &str) -> Result<Vec<Annotation>, KeyValueError> {
    let (left, value) = text
        .split_once('=')
        .ok_or_else(|| KeyValueError::NoValue(text.to_owned()))?;
    let (types, key) = left.split_once(':').unwrap_or(("manifest", left));
    types
        .split(',')
        .map(|written| {
            let shape = || KeyValueError::AnnotationShape(written.to_owned());
            let (name, platform) = match written.split_once('[') {
                None => (written, None),
                Some((name, platform)) => (name, Some(platform.strip_suffix(']').ok_or_else(shape)?)),
            };
            let is_name = |b: u8| b.is_ascii_lowercase() || b == b'-';
            let is_platform = |b: u8| b.is_ascii_alphanumeric() || b"_/-".contains(&b);
            if name.is_empty()
                || !name.bytes().all(is_name)
                || platform.is_some_and(|text| text.is_empty() || !text.bytes().all(is_platform))
            {
                return Err(shape());
            }
            let kind = match name {
                "manifest" => AnnotationType::Manifest,
                "manifest-descriptor" => AnnotationType::ManifestDescriptor,
                "index" => AnnotationType::Index,
                "index-descriptor" => AnnotationType::IndexDescriptor,
                _ => return Err(KeyValueError::AnnotationType(name.to_owned())),
            };
            Ok(Annotation {
                kind,
                platform: platform.map(str::to_owned),
                key: key.to_owned(),
                value: value.to_owned(),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(values: &[&str]) -> Vec<String> {
        values.iter().map(|&value| value.to_owned()).collect()
    }

    #[test]
    fn a_bare_build_arg_takes_the_variable() {
        let env = |name: &str| (name == "SET").then(|| "from env".to_owned());
        let map = build_args(&strings(&["A=1", "A=2=3", "SET", "UNSET", "E="]), env).unwrap();
        let pairs: Vec<(&str, &str)> = map.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        assert_eq!(pairs, [("A", "2=3"), ("E", ""), ("SET", "from env")]);
        assert_eq!(
            build_args(&strings(&["=x"]), env),
            Err(KeyValueError::EmptyKey("=x".to_owned()))
        );
    }

    #[test]
    fn a_bare_label_is_empty() {
        let map = labels(&strings(&["a", "b=c"])).unwrap();
        assert_eq!(map["a"], "");
        assert_eq!(map["b"], "c");
        assert!(labels(&strings(&[""])).is_err());
    }

    #[test]
    fn annotation_types() {
        let one = |text| annotations(text).unwrap().remove(0);
        assert_eq!(
            one("k=v"),
            Annotation {
                kind: AnnotationType::Manifest,
                platform: None,
                key: "k".to_owned(),
                value: "v".to_owned()
            }
        );
        assert_eq!(one("index:k=v:w").kind, AnnotationType::Index);
        assert_eq!(
            one("manifest[linux/amd64]:k=v").platform.as_deref(),
            Some("linux/amd64")
        );
        assert_eq!(annotations("index,manifest-descriptor:k=v").unwrap().len(), 2);
        assert_eq!(annotations("k"), Err(KeyValueError::NoValue("k".to_owned())));
        assert_eq!(
            annotations("org:k=v"),
            Err(KeyValueError::AnnotationType("org".to_owned()))
        );
    }
}
