//! Which repositories have a blob: a push to another one of the same registry mounts it from there instead of sending it.
//! Refuses to be sure: a repository that has lost the blob, or may not be read, costs one request.

use std::sync::Arc;

use rbuild_oci::{Descriptor, Digest, Reference};
use rbuild_registry::{BlobSource, Client, Endpoint, Progress, PushBlobOptions, PushedBlob, RegistryError};
use rbuild_store::Store;

/// Values of the store: a digest, and the places of which the registry said that they have it, the last one first.
const SPACE: &str = "blob repositories";
/// Most digests kept.
const DIGESTS_MAX: usize = 20_000;
/// Most places kept of one.
const PLACES_MAX: usize = 8;

/// Pushes a blob to `name`, or has it mounted there from another repository of the same registry.
///
/// # Errors
/// [`RegistryError`].
pub async fn push_blob(
    store: &Store,
    client: &Client,
    name: &Reference,
    descriptor: &Descriptor,
    source: &Arc<dyn BlobSource>,
    progress: &Progress,
) -> Result<PushedBlob, RegistryError> {
    let target = client.config().push_endpoint(name)?;
    let options = PushBlobOptions {
        mount_from: nearest(places(store, &descriptor.digest), &target),
        ..PushBlobOptions::default()
    };
    let pushed = client
        .push_blob(name, descriptor, source, &options, progress)
        .await?;
    note(store, &descriptor.digest, &target);
    Ok(pushed)
}

/// Remembers that a repository has a blob. That this could not be kept costs a later push its mount, and nothing else.
pub(super) fn note(store: &Store, digest: &Digest, at: &Endpoint) {
    let place = format!("{} {}", at.host, at.repository);
    let known = places(store, digest);
    if known.contains(&place) {
        return;
    }
    let mut all = vec![place];
    all.extend(known.into_iter().take(PLACES_MAX - 1));
    drop(store.keep_kvs(
        SPACE,
        &[(digest.as_str(), all.join("\n").as_bytes())],
        DIGESTS_MAX,
    ));
}

fn places(store: &Store, digest: &Digest) -> Vec<String> {
    let kept = store.kv(SPACE, digest.as_str()).ok().flatten();
    let text = kept.and_then(|bytes| String::from_utf8(bytes).ok());
    text.unwrap_or_default().lines().map(str::to_owned).collect()
}

/// Of the places at the target's host the repository that shares most of the target's path, as containerd chooses
/// (`remotes/docker/handler.go`): whoever may write one may likely read the other.
fn nearest(places: Vec<String>, target: &Endpoint) -> Option<String> {
    let shared = |repository: &str| {
        let pairs = repository.split('/').zip(target.repository.split('/'));
        pairs.take_while(|(one, other)| one == other).count()
    };
    places
        .iter()
        .filter_map(|place| place.split_once(' '))
        .filter(|(host, repository)| *host == target.host && *repository != target.repository)
        .map(|(_, repository)| repository)
        // The last of the best is taken: the place that was noted last stands first.
        .rev()
        .max_by_key(|repository| shared(repository))
        .map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rbuild_registry::RegistryConfig;

    fn at(name: &str) -> Endpoint {
        let name = Reference::parse(name).expect("a reference");
        RegistryConfig::default()
            .push_endpoint(&name)
            .expect("an endpoint")
    }

    #[test]
    fn the_nearest_repository_of_the_same_host_is_chosen() {
        let places = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let target = at("reg.example/team/app/web:1");
        for (known, chosen) in [
            (&[][..], None),
            (&["reg.example team/app/web"][..], None),
            (&["other.example team/app/api"][..], None),
            (&["reg.example library/base"][..], Some("library/base")),
            (
                &[
                    "reg.example library/base",
                    "reg.example team/app/api",
                    "reg.example team/x",
                ],
                Some("team/app/api"),
            ),
            (&["reg.example newer", "reg.example older"], Some("newer")),
            (&["nonsense"][..], None),
        ] {
            assert_eq!(nearest(places(known), &target).as_deref(), chosen, "{known:?}");
        }
    }

    #[test]
    fn places_are_kept_once_and_only_so_many() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = Store::open(dir.path(), &rbuild_store::OpenOptions::default()).expect("a store");
        let digest = Digest::sha256(b"x");
        for number in 0..20 {
            note(&store, &digest, &at(&format!("reg.example/r{number}")));
            note(&store, &digest, &at("reg.example/r0"));
        }
        let kept = places(&store, &digest);
        assert_eq!(kept.len(), PLACES_MAX);
        assert_eq!(kept.iter().filter(|place| *place == "reg.example r0").count(), 1);
    }
}
