//! Named contexts that are OCI layouts, for front ends that are images: those know a layout as a content store of the client,
//! and what of it by a digest (`buildx/build/opt.go`, `dockerui/namedcontext.go`).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rbuild_oci::Digest;
use tokio::io::AsyncReadExt as _;

use crate::client::{ClientBytes, ClientReadError, ContentPlace};
use crate::images::layout::{LayoutReadError, LayoutRef, open_blob};

/// How the value of such a context begins.
const SCHEME: &str = "oci-layout://";

/// Layouts by the names of their stores.
#[derive(Debug, Clone, Default)]
pub struct LayoutStores(BTreeMap<String, PathBuf>);

/// The layouts among `contexts`: each with its name, the store it is, and what of it.
fn of(contexts: &BTreeMap<String, String>) -> impl Iterator<Item = (&str, String, LayoutRef)> {
    contexts.iter().enumerate().filter_map(|(at, (name, value))| {
        let place = LayoutRef::parse(value.strip_prefix(SCHEME)?);
        Some((name.as_str(), format!("layout{at}"), place))
    })
}

/// The options of a front end that name the layouts among `contexts`.
///
/// # Errors
/// [`LayoutReadError`] of a layout without what is asked of it.
pub fn attrs(contexts: &BTreeMap<String, String>) -> Result<Vec<(String, String)>, LayoutReadError> {
    let attr = |(name, store, place): (&str, String, LayoutRef)| {
        let digest = place.resolve()?.digest;
        Ok((format!("context:{name}"), format!("{SCHEME}{store}@{digest}")))
    };
    of(contexts).map(attr).collect()
}

impl LayoutStores {
    /// The layouts among `contexts`.
    #[must_use]
    pub fn of(contexts: &BTreeMap<String, String>) -> Self {
        Self(of(contexts).map(|(_, store, place)| (store, place.dir)).collect())
    }

    /// A blob, not verified, and its size.
    ///
    /// # Errors
    /// [`ClientReadError`].
    pub async fn open(
        &self,
        place: &ContentPlace,
        digest: &Digest,
    ) -> Result<(ClientBytes, u64), ClientReadError> {
        let dir = place
            .store
            .strip_prefix("oci:")
            .and_then(|store| self.0.get(store));
        let dir: &Path = dir.ok_or(ClientReadError::NoClient)?;
        let (dir, wanted) = (dir.to_owned(), digest.clone());
        let opened = tokio::task::spawn_blocking(move || {
            let file = open_blob(&dir, &wanted)?;
            let size = file.metadata()?.len();
            Ok::<_, std::io::Error>((file, size))
        });
        let opened = opened
            .await
            .map_err(|error| ClientReadError::Client(error.into()))?;
        let (file, size) = opened.map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => ClientReadError::Missing(digest.clone()),
            _ => ClientReadError::Client(error.into()),
        })?;
        Ok((Box::pin(tokio::fs::File::from_std(file).take(size)), size))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(dir: &Path) -> Digest {
        let digest = Digest::sha256(b"content");
        let blobs = dir.join("blobs/sha256");
        std::fs::create_dir_all(&blobs).unwrap();
        std::fs::write(blobs.join(digest.hex()), "content").unwrap();
        let entry = serde_json::json!({
            "mediaType": rbuild_oci::media_type::OCI_MANIFEST,
            "digest": digest,
            "size": 7,
            "annotations": {"org.opencontainers.image.ref.name": "v1"},
        });
        let index = serde_json::json!({"schemaVersion": 2, "manifests": [entry]});
        std::fs::write(dir.join("index.json"), index.to_string()).unwrap();
        digest
    }

    #[tokio::test]
    async fn a_layout_is_a_store_whose_image_has_a_digest() {
        let dir = tempfile::tempdir().unwrap();
        let digest = layout(dir.path());
        let contexts = BTreeMap::from([
            ("a".to_owned(), "docker-image://x".to_owned()),
            ("b".to_owned(), format!("{SCHEME}{}:v1", dir.path().display())),
        ]);
        let told = attrs(&contexts).unwrap();
        assert_eq!(
            told,
            [("context:b".to_owned(), format!("oci-layout://layout1@{digest}"))]
        );
        let stores = LayoutStores::of(&contexts);
        let place = |store: &str| ContentPlace {
            session: String::new(),
            store: store.to_owned(),
        };
        let (mut bytes, size) = stores.open(&place("oci:layout1"), &digest).await.unwrap();
        let mut text = String::new();
        bytes.read_to_string(&mut text).await.unwrap();
        assert_eq!((text.as_str(), size), ("content", 7));
        let other = Digest::sha256(b"other");
        let missing = stores
            .open(&place("oci:layout1"), &other)
            .await
            .map(drop)
            .unwrap_err();
        assert!(matches!(missing, ClientReadError::Missing(_)), "{missing}");
        let unknown = stores
            .open(&place("oci:layout0"), &digest)
            .await
            .map(drop)
            .unwrap_err();
        assert!(matches!(unknown, ClientReadError::NoClient), "{unknown}");
        let wrong = BTreeMap::from([("b".to_owned(), format!("{SCHEME}{}:v2", dir.path().display()))]);
        assert!(matches!(attrs(&wrong), Err(LayoutReadError::NotFound { .. })));
    }
}
