//! Caches in a container of Azure Blob Storage (`cache/remotecache/azblob`). Only the account's key is taken as proof;
//! identities of Microsoft Entra ID are refused.

use std::sync::Arc;

use bytes::Bytes;
use http::Method;
use rbuild_oci::{Descriptor, Digest};
use rbuild_registry::{
    BlobSink, BlobSource, Client, Patience, Progress, Refusal, RelayError, ServiceUrl, UrlError,
};

use crate::attrs::{AttrError, Attrs};
use crate::azure::{Asker, Blob, SharedKey};
use crate::error::{ServiceError, answer_of, code};
use crate::sign::encoded;

/// Where a cache is in an account, and its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AzblobPlace {
    account_url: String,
    account: String,
    container: String,
    prefix: String,
    manifests_prefix: String,
    blobs_prefix: String,
    names: Vec<String>,
    key: SharedKey,
}

impl AzblobPlace {
    /// Reads attributes (`getConfig`).
    ///
    /// # Errors
    /// [`AttrError`].
    pub fn read(attrs: &Attrs<'_>) -> Result<Self, AttrError> {
        let account_url = attrs.given_or_env("account_url", "BUILDKIT_AZURE_STORAGE_ACCOUNT_URL");
        let account_url = account_url.ok_or(AttrError::NoAccountUrl)?;
        let url = ServiceUrl::given(&account_url);
        let host = url
            .as_ref()
            .map_or_else(|_| host_of(&account_url), ServiceUrl::host);
        let account = attrs
            .given_or_env("account_name", "BUILDKIT_AZURE_STORAGE_ACCOUNT_NAME")
            .or_else(|| host.split('.').next().map(str::to_owned))
            .filter(|name| !name.is_empty());
        let account = match (url, account) {
            (Err(error), None) if account_url.starts_with(':') => return Err(not_a_url(&error)),
            (_, None) => return Err(AttrError::NoAccountName),
            (Err(error), Some(_)) => return Err(not_a_url(&error)),
            (Ok(_), Some(account)) => account,
        };
        let container = attrs.or_env("container", "BUILDKIT_AZURE_STORAGE_CONTAINER");
        let container = container.unwrap_or_else(|| "buildkit-cache".to_owned());
        if !container
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'$')
        {
            return Err(AttrError::Value {
                key: "container",
                wanted: "letters, digits and hyphens",
            });
        }
        let key = attrs.filled("secret_access_key").ok_or(AttrError::NoAccountKey)?;
        let prefix = attrs.get("prefix").map(str::to_owned);
        Ok(Self {
            key: SharedKey::new(&account, key).ok_or(AttrError::AccountKey)?,
            account_url,
            account,
            container,
            prefix: prefix
                .or_else(|| attrs.env("BUILDKIT_AZURE_STORAGE_PREFIX"))
                .unwrap_or_default(),
            manifests_prefix: attrs.or("manifests_prefix", "manifests"),
            blobs_prefix: attrs.or("blobs_prefix", "blobs"),
            names: attrs.names()?,
        })
    }

    /// What a user is told it is called; also what it is told apart by.
    #[must_use]
    pub fn name(&self) -> String {
        let key = joined(&[&self.prefix, &self.manifests_prefix, &self.names.join(";")]);
        let url = self.account_url.split('?').next().unwrap_or_default();
        format!("azblob:{}/{key} of {} at {url}", self.container, self.account)
    }
}

fn not_a_url(error: &UrlError) -> AttrError {
    AttrError::AccountUrl(error.to_string())
}

/// The host in what is no URL of a service; `net/url` finds one behind any scheme, and none in what has no scheme.
fn host_of(text: &str) -> &str {
    let behind = text.split_once("://").map_or("", |(_, behind)| behind);
    let authority = behind.split(['/', '?', '#']).next().unwrap_or_default();
    let host = authority.rsplit('@').next().unwrap_or_default();
    host.split(':').next().unwrap_or_default()
}

/// Parts of a name as `filepath.Join` puts them together: nothing empty, no `.`, and `..` takes one away.
fn joined(parts: &[&str]) -> String {
    let is_rooted = parts
        .iter()
        .find(|part| !part.is_empty())
        .is_some_and(|part| part.starts_with('/'));
    let mut names: Vec<&str> = Vec::new();
    for name in parts.iter().flat_map(|part| part.split('/')) {
        match name {
            "" | "." => {}
            ".." if names.last().is_some_and(|last| *last != "..") => drop(names.pop()),
            ".." if is_rooted => {}
            name => names.push(name),
        }
    }
    format!("{}{}", if is_rooted { "/" } else { "" }, names.join("/"))
}

/// A container that is asked.
#[derive(Debug)]
pub(crate) struct Azblob {
    client: Client,
    place: AzblobPlace,
    base: ServiceUrl,
}

impl Azblob {
    pub(crate) fn new(client: &Client, place: &AzblobPlace) -> Result<Self, ServiceError> {
        let base = ServiceUrl::given(&place.account_url).map_err(|source| ServiceError::Unaskable {
            place: place.name(),
            source,
        })?;
        Ok(Self {
            client: client.clone(),
            place: place.clone(),
            base,
        })
    }

    fn asker(&self) -> Asker<'_> {
        Asker {
            client: &self.client,
            patience: Patience::default(),
            key: Some(&self.place.key),
        }
    }

    fn container_url(&self) -> Result<ServiceUrl, ServiceError> {
        self.at("", "restype=container")
    }

    fn at(&self, key: &str, query: &str) -> Result<ServiceUrl, ServiceError> {
        let top = self.base.path().trim_end_matches('/');
        let mut path = format!("{top}/{}", self.place.container);
        if !key.is_empty() {
            path = format!("{path}/{}", encoded(key, b"/:"));
        }
        self.base
            .with(&path, query)
            .map_err(|source| self.failed(RelayError::Url(source)))
    }

    fn blob_url(&self, digest: &Digest) -> Result<ServiceUrl, ServiceError> {
        self.at(
            &joined(&[&self.place.prefix, &self.place.blobs_prefix, digest.as_str()]),
            "",
        )
    }

    fn manifest_url(&self, name: &str) -> Result<ServiceUrl, ServiceError> {
        self.at(
            &joined(&[&self.place.prefix, &self.place.manifests_prefix, name]),
            "",
        )
    }

    fn failed(&self, error: RelayError) -> ServiceError {
        let place = format!("container {} of {}", self.place.container, self.place.account);
        ServiceError::of(&place, error, advice)
    }

    /// Makes the container if there is none.
    pub(crate) async fn prepare(&self) -> Result<(), ServiceError> {
        let (url, asker) = (self.container_url()?, self.asker());
        let found = asker.ask(|| asker.request("find container", &Method::GET, &url, None, &[]));
        match found.await {
            Ok(_) => return Ok(()),
            Err(error) if is_missing(&error) => {}
            Err(error) => return Err(self.failed(error)),
        }
        let made = asker.ask(|| {
            let request = asker.request("make container", &Method::PUT, &url, Some(0), &[])?;
            Ok(request.accepting(&[201]))
        });
        match made.await {
            Ok(_) => Ok(()),
            // Another build was first.
            Err(error) if matches!(answer_of(&error), Some((409, "ContainerAlreadyExists"))) => Ok(()),
            Err(error) => Err(self.failed(error)),
        }
    }

    /// The cache configs there are, of every name.
    pub(crate) async fn configs(&self, bytes_max: usize) -> Result<Vec<Vec<u8>>, ServiceError> {
        let asker = self.asker();
        let mut found = Vec::new();
        for name in &self.place.names {
            let url = self.manifest_url(name)?;
            match asker
                .ask(|| asker.request("get cache", &Method::GET, &url, None, &[]))
                .await
            {
                Ok(answer) => found.push(answer.body(bytes_max).await?),
                Err(error) if is_missing(&error) => {}
                Err(error) => return Err(self.failed(error)),
            }
        }
        Ok(found)
    }

    pub(crate) async fn has(&self, digest: &Digest) -> Result<bool, ServiceError> {
        let (url, asker) = (self.blob_url(digest)?, self.asker());
        match asker
            .ask(|| asker.request("find cache blob", &Method::HEAD, &url, None, &[]))
            .await
        {
            Ok(_) => Ok(true),
            Err(error) if is_missing(&error) => Ok(false),
            Err(error) => Err(self.failed(error)),
        }
    }

    pub(crate) async fn put_blob(
        &self,
        descriptor: &Descriptor,
        source: &Arc<dyn BlobSource>,
        progress: &Progress,
    ) -> Result<(), ServiceError> {
        let blob = Blob {
            descriptor,
            source,
            progress,
        };
        match self
            .asker()
            .put_blob(&self.blob_url(&descriptor.digest)?, &blob, true)
            .await
        {
            Ok(()) => Ok(()),
            Err(error) if matches!(answer_of(&error), Some((409, "BlobAlreadyExists"))) => Ok(()),
            Err(error) => Err(self.failed(error)),
        }
    }

    /// Sends a cache config under every name.
    pub(crate) async fn put_config(&self, config: &Bytes) -> Result<(), ServiceError> {
        for name in &self.place.names {
            let sent = self
                .asker()
                .put_bytes("put cache", &self.manifest_url(name)?, config)
                .await;
            sent.map_err(|error| self.failed(error))?;
        }
        Ok(())
    }

    pub(crate) async fn fetch(
        &self,
        descriptor: &Descriptor,
        sink: &mut dyn BlobSink,
        progress: &Progress,
    ) -> Result<(), ServiceError> {
        let (url, asker) = (self.blob_url(&descriptor.digest)?, self.asker());
        let make = |from: Option<u64>| -> Result<_, UrlError> {
            let range = from.map(|from| ("range", format!("bytes={from}-")));
            let more: Vec<_> = range.into_iter().collect();
            asker.request("get cache blob", &Method::GET, &url, None, &more)
        };
        let fetched = self.client.fetch_exchange(descriptor, sink, progress, make).await;
        fetched.map_err(|error| self.failed(error))
    }
}

/// Whether there is no such blob, or not even its container.
fn is_missing(error: &RelayError) -> bool {
    matches!(answer_of(error), Some((404, _)))
}

/// What to do about an answer ("Blob service error codes" of the REST reference).
fn advice(refusal: &Refusal) -> Option<&'static str> {
    Some(match (refusal.status.as_u16(), code(refusal)) {
        (_, "AuthenticationFailed") | (401, _) => {
            "the key is not that of the account: check secret_access_key and account_name, and this machine's clock"
        }
        (_, "KeyBasedAuthenticationNotPermitted") => {
            "the account does not allow its key to be used, and identities of Microsoft Entra ID are not served: allow \
             shared keys, or use another kind of cache"
        }
        (_, "AuthorizationFailure") => {
            "the account lets nobody in from here, or not with this key: check its firewall and secret_access_key"
        }
        (_, "ContainerNotFound") => "it does not exist: export a cache first, or name another by container=",
        (_, "ContainerBeingDeleted") => {
            "it is being deleted: try again in a minute, or name another by container="
        }
        (_, "InvalidResourceName") => "no container can have this name: choose another by container=",
        (403, _) => "the account's key does not allow this",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn place(attrs: &[(&str, &str)]) -> Result<AzblobPlace, AttrError> {
        let attrs: BTreeMap<String, String> = attrs.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
        AzblobPlace::read(&Attrs::new(&attrs, &|_| None))
    }

    #[test]
    fn names_are_joined_as_buildkit_joins_them() {
        assert_eq!(joined(&["", "manifests", "buildkit"]), "manifests/buildkit");
        assert_eq!(joined(&["a/", "/b//c/", "d"]), "a/b/c/d");
        assert_eq!(joined(&["a", "../..", "d"]), "../d");
        assert_eq!(joined(&["/a", "../..", "d"]), "/d");
    }

    #[test]
    fn an_account_is_named_by_its_url() {
        let url = ("account_url", "https://acct.blob.core.windows.net");
        let key = ("secret_access_key", "c2VjcmV0");
        let read = place(&[url, key, ("name", "a;b")]).unwrap();
        assert_eq!(read.account, "acct");
        assert_eq!(
            read.name(),
            "azblob:buildkit-cache/manifests/a;b of acct at https://acct.blob.core.windows.net"
        );
        assert_eq!(place(&[key]), Err(AttrError::NoAccountUrl));
        assert_eq!(place(&[url]), Err(AttrError::NoAccountKey));
        assert_eq!(
            place(&[url, ("secret_access_key", "?")]),
            Err(AttrError::AccountKey)
        );
        assert!(matches!(
            place(&[url, key, ("container", "a/../b")]),
            Err(AttrError::Value { .. })
        ));
    }

    /// What BuildKit says behind `failed to configure azblob cache exporter: `, asked with the same attributes. Where two texts
    /// stand, the reason behind its words is our own.
    #[test]
    fn what_is_no_account_is_told_in_buildkits_words() {
        let key = ("secret_access_key", "c2VjcmV0");
        let no_name = "failed to create azblob config: unable to retrieve account name from account url or \
            ${BUILDKIT_AZURE_STORAGE_ACCOUNT_NAME} or account_name attribute for azblob cache";
        let no_url =
            "failed to create azblob config: azure storage account url provided is not a valid url: ";
        for (attrs, says) in [
            (
                &[][..],
                "failed to create azblob config: either ${BUILDKIT_AZURE_STORAGE_ACCOUNT_URL} or account_url attribute is \
                 required for azblob cache",
            ),
            (&[("account_url", "")], no_name),
            (&[("account_url", "nope"), key], no_name),
            (&[("account_url", "http:///x"), key], no_name),
            (&[("account_url", "http://a"), ("account_name", ""), key], no_name),
            (&[("account_url", ":x"), key], no_url),
            (&[("account_url", "ftp://a"), key], no_url),
            (&[("account_url", "http://u:p@a.b:1/%zz"), key], no_url),
            (
                &[("account_url", "http://a"), ("secret_access_key", "%%")],
                "failed to create container client: failed to create shared key: ",
            ),
            (
                &[("account_url", "http://a")],
                "failed to create container client: ",
            ),
        ] {
            let told = place(attrs).unwrap_err().to_string();
            assert!(told.starts_with(says), "{attrs:?}: {told}");
            assert!(says.ends_with(": ") || told == says, "{attrs:?}: {told}");
        }
    }
}
