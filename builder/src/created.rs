//! Containers that are created and never run: an image is given an id, and perhaps a name, under which its files can be
//! taken out until it is removed. Each is a name of the store, so the image stays for as long; there is nothing else of
//! it, and no file of one ever differs from its image.

use std::fmt::Write as _;

use rbuild_oci::{Platform, PlatformError};
use rbuild_store::{ImageError, ImageRecord, IndexError, Store, StoreError};
use rustix::io::Errno;

use crate::stored::{self, FindError};

/// Bytes of an id.
const ID_BYTES: usize = 32;
/// Digits of an id that are shown.
const SHORT_ID: usize = 12;
/// Longest name.
const NAME_MAX: usize = 128;

/// A container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Created {
    /// 64 hexadecimal digits.
    pub id: String,
    /// Its name, if it was given one.
    pub name: Option<String>,
    /// Platform of its image.
    pub platform: Platform,
    /// Its image.
    pub image: ImageRecord,
}

/// Why no container was created.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// There is no such image.
    #[error(transparent)]
    Find(#[from] FindError),
    /// Its name is none.
    #[error(
        "invalid container name ({0}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed, and no more than {NAME_MAX} of them"
    )]
    Name(String),
    /// Another has it.
    #[error("the container name {name:?} is already in use by container {id}")]
    NameTaken {
        /// The name.
        name: String,
        /// Who has it.
        id: String,
    },
    /// The kernel gave nothing to make an id of.
    #[error("make an id")]
    Random(#[source] Errno),
    /// The store's list.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// The store.
    #[error(transparent)]
    Image(#[from] ImageError),
}

/// Why a container was not found, or not removed.
#[derive(Debug, thiserror::Error)]
pub enum FindContainerError {
    /// There is none. What ran is gone.
    #[error("no such container: {0}; there are those of `create`: what `run` started is gone when it ends")]
    NotFound(String),
    /// An id begins like several.
    #[error("multiple containers have ids that begin with {0}")]
    Ambiguous(String),
    /// The store's list.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Created {
    /// The name of the store that it is.
    #[must_use]
    pub fn record_name(&self) -> String {
        let name = self.name.as_deref().unwrap_or_default();
        format!("{}@{}@{name}@{}", stored::CONTAINER, self.id, self.platform)
    }

    fn parse(name: &str, image: ImageRecord) -> Option<Self> {
        let (id, name, platform) = parts(name)?;
        let platform: Result<Platform, PlatformError> = Platform::parse(platform);
        Some(Self {
            id: id.to_owned(),
            name: Some(name.to_owned()).filter(|name| !name.is_empty()),
            platform: platform.ok()?,
            image,
        })
    }
}

/// Id, name and platform of a container, of the name of the store that it is.
fn parts(name: &str) -> Option<(&str, &str, &str)> {
    let rest = name.strip_prefix(stored::CONTAINER)?.strip_prefix('@')?;
    let mut parts = rest.split('@');
    Some((parts.next()?, parts.next()?, parts.next()?))
}

/// What a container is called: its name, or the start of its id.
pub(crate) fn shown_name(name: &str) -> Option<String> {
    let (id, name, _) = parts(name)?;
    let shown = if name.is_empty() {
        id.get(..SHORT_ID)?
    } else {
        name
    };
    Some(shown.to_owned())
}

/// Every container, the newest first.
///
/// # Errors
/// The store's.
pub fn list(store: &Store) -> Result<Vec<Created>, IndexError> {
    let all = store.list_images()?.into_iter();
    let mut found: Vec<Created> = all
        .filter_map(|(name, image)| Created::parse(&name, image))
        .collect();
    found.sort_by_key(|container| std::cmp::Reverse(container.image.tagged_ms));
    Ok(found)
}

/// Makes a container of an image of the store.
///
/// # Errors
/// [`CreateError`].
pub fn create(
    store: &Store,
    image: &str,
    name: Option<&str>,
    platform: &Platform,
) -> Result<Created, CreateError> {
    let (_, record) = stored::find(store, image)?;
    if let Some(name) = name {
        if !is_name(name) {
            return Err(CreateError::Name(name.to_owned()));
        }
        let taken = list(store)?
            .into_iter()
            .find(|other| other.name.as_deref() == Some(name));
        if let Some(other) = taken {
            return Err(CreateError::NameTaken {
                name: name.to_owned(),
                id: other.id,
            });
        }
    }
    let created = Created {
        id: new_id().map_err(CreateError::Random)?,
        name: name.map(str::to_owned),
        platform: platform.clone(),
        image: record,
    };
    store.set_image(&created.record_name(), &created.image)?;
    Ok(created)
}

/// The container that `text` means: its name, its id, or the start of one.
///
/// # Errors
/// [`FindContainerError`].
pub fn find(store: &Store, text: &str) -> Result<Created, FindContainerError> {
    let all = list(store)?;
    if let Some(named) = all
        .iter()
        .find(|container| container.name.as_deref() == Some(text))
    {
        return Ok(named.clone());
    }
    let mut matching = all
        .into_iter()
        .filter(|container| !text.is_empty() && container.id.starts_with(text));
    match (matching.next(), matching.next()) {
        (Some(container), None) => Ok(container),
        (Some(_), Some(_)) => Err(FindContainerError::Ambiguous(text.to_owned())),
        (None, _) => Err(FindContainerError::NotFound(text.to_owned())),
    }
}

/// Removes a container; its image is held by it no more.
///
/// # Errors
/// [`FindContainerError`].
pub fn remove(store: &Store, text: &str) -> Result<(), FindContainerError> {
    let container = find(store, text)?;
    store.remove_image(&container.record_name())?;
    Ok(())
}

/// Docker's rule (moby `daemon/names`).
fn is_name(name: &str) -> bool {
    let is_inner = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    (2..=NAME_MAX).contains(&name.len())
        && name.bytes().all(is_inner)
        && name.as_bytes()[0].is_ascii_alphanumeric()
}

fn new_id() -> Result<String, Errno> {
    let bytes = rbuild_sys::random_bytes::<ID_BYTES>()?;
    Ok(bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing into a string cannot fail.
        let _infallible = write!(text, "{byte:02x}");
        text
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_dockers() {
        for good in ["ab", "a.b-c_d", "0x"] {
            assert!(is_name(good), "{good}");
        }
        for bad in ["", "a", ".ab", "-ab", "a/b", "a@b", "ä1", "a b"] {
            assert!(!is_name(bad), "{bad}");
        }
        assert!(is_name(&"a".repeat(NAME_MAX)) && !is_name(&"a".repeat(NAME_MAX + 1)));
    }

    #[test]
    fn a_container_is_read_back_from_its_name_and_images_are_none() {
        let image = ImageRecord {
            digest: rbuild_oci::Digest::sha256(b"m"),
            media_type: String::new(),
            manifest_size: 1,
            config: None,
            size: 1,
            created_ms: 0,
            tagged_ms: 0,
        };
        let container = Created {
            id: new_id().unwrap(),
            name: None,
            platform: Platform::host(),
            image: image.clone(),
        };
        assert_eq!(container.id.len(), 2 * ID_BYTES);
        let named = Created {
            name: Some("built".to_owned()),
            ..container.clone()
        };
        for container in [container, named] {
            let name = container.record_name();
            assert!(stored::is_container(&name) && !stored::is_dangling(&name));
            let short = container.id[..SHORT_ID].to_owned();
            assert_eq!(shown_name(&name), Some(container.name.clone().unwrap_or(short)));
            assert_eq!(Created::parse(&name, image.clone()), Some(container));
            assert!(
                rbuild_oci::Reference::parse(&name).is_err(),
                "nobody can ask for {name} as an image"
            );
        }
        for other in [
            "docker.io/library/rbuild-container:latest",
            &stored::dangling_name(&image.digest),
        ] {
            assert_eq!(Created::parse(other, image.clone()), None, "{other}");
        }
    }
}
