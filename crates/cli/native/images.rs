//! The store's images, as commands ask for them.

use std::io::Write as _;
use std::time::Duration;

use rbuild_builder::created;
use rbuild_builder::save;
use rbuild_builder::stored::{self, FindError, dangling_name, id_of, is_container, is_dangling};
use rbuild_oci::{Descriptor, ImageConfig, Platform, Reference};
use rbuild_store::{ImageRecord, Store};

use super::{failed, from_ms};
use crate::engine::{EngineError, ImageDetails, ImageRow, OpenOutput, Removed};

/// Every name, and every image without one.
pub(super) fn rows(store: &Store) -> Result<Vec<ImageRow>, EngineError> {
    let row = |(name, record): (String, ImageRecord)| {
        let reference = parse(&name);
        ImageRow {
            repository: reference
                .as_ref()
                .map(|reference| reference.repository().familiar()),
            tag: reference
                .as_ref()
                .and_then(|reference| reference.tag().map(str::to_owned)),
            id: id_of(&record).clone(),
            created: from_ms(record.created_ms),
            size_bytes: record.size,
            digest: record.digest,
        }
    };
    let all = store.list_images().map_err(failed)?;
    let images = all.into_iter().filter(|(name, _)| !is_container(name));
    Ok(images.map(row).collect())
}

/// A name of the store as a reference; nothing for an image without a name.
fn parse(name: &str) -> Option<Reference> {
    Reference::parse(name).ok().filter(|_| !is_dangling(name))
}

/// Every name of the image that `record` is, those of containers apart.
fn names(store: &Store, record: &ImageRecord) -> Result<Vec<String>, EngineError> {
    let all = store.list_images().map_err(failed)?;
    let same = all
        .into_iter()
        .filter(|(name, other)| other.digest == record.digest && !is_container(name));
    Ok(same.map(|(name, _)| name).collect())
}

/// All there is to say of the image `text`.
pub(super) fn details(store: &Store, text: &str, platform: &Platform) -> Result<ImageDetails, EngineError> {
    let (name, record) = stored::find(store, text).map_err(failed)?;
    let lease = store.lease("inspect").map_err(failed)?;
    let product = stored::read(store, &lease, &name, &record).map_err(failed)?;
    let image = stored::for_platform(&product, platform).ok_or_else(|| {
        let platform = platform.short();
        EngineError::failed(format!("image {text} has nothing for platform {platform}"))
    })?;
    Ok(ImageDetails {
        id: id_of(&record).clone(),
        names: names(store, &record)?
            .iter()
            .filter_map(|name| parse(name))
            .collect(),
        descriptor: Descriptor::new(&record.media_type, record.digest.clone(), record.manifest_size),
        config: ImageConfig::parse(&image.config_bytes).map_err(failed)?,
        layers: image.layers.clone(),
        size_bytes: record.size,
        tagged: from_ms(record.tagged_ms),
    })
}

/// Gives the image `source` the name `target` too.
pub(super) fn tag(store: &Store, source: &str, target: &str) -> Result<(), EngineError> {
    let (_, record) = stored::find(store, source).map_err(failed)?;
    let target = Reference::parse(target).map_err(failed)?;
    if target.digest().is_some() {
        return Err(EngineError::failed(
            "refusing to create a tag with a digest reference",
        ));
    }
    let target = target.or_latest().to_string();
    store.set_image(&target, &record).map_err(failed)?;
    store
        .remove_image(&dangling_name(&record.digest))
        .map_err(failed)?;
    Ok(())
}

/// Takes the name `text`, or the image with all its names, out of the store.
pub(super) fn remove(store: &Store, text: &str, force: bool) -> Result<Removed, EngineError> {
    let (found, record) = match stored::find(store, text) {
        Err(FindError::NotFound(_)) if force => {
            return Ok(Removed {
                missing: true,
                ..Removed::default()
            });
        }
        found => found.map_err(failed)?,
    };
    let same = names(store, &record)?;
    let by_name = Reference::parse(text).is_ok_and(|reference| reference.or_latest().to_string() == found);
    if !by_name && !force && same.len() > 1 {
        return Err(EngineError::failed(format!(
            "unable to remove {text} (must be forced): image is named {} times",
            same.len()
        )));
    }
    let gone = if by_name && !force {
        vec![found]
    } else {
        same.clone()
    };
    let mut removed = Removed::default();
    let all = created::list(store).map_err(failed)?;
    let user = all
        .into_iter()
        .find(|container| container.image.digest == record.digest);
    let is_last = gone.len() == same.len();
    if let Some(container) = user.as_ref().filter(|_| is_last && !force) {
        return Err(EngineError::failed(format!(
            "unable to remove {text} (must be forced): container {} is of this image",
            container.name.as_deref().unwrap_or(&container.id[..12])
        )));
    }
    let is_last = is_last && user.is_none();
    for name in gone {
        store.remove_image(&name).map_err(failed)?;
        removed
            .untagged
            .extend(parse(&name).map(|reference| reference.familiar()));
    }
    if is_last {
        removed.deleted.push(record.digest);
    }
    Ok(removed)
}

/// Forgets images that nobody named, but for those younger than `unused_for`.
pub(super) fn forget_unnamed(store: &Store, unused_for: Option<Duration>) -> Result<(), EngineError> {
    for (name, record) in store.list_images().map_err(failed)? {
        let age = from_ms(record.tagged_ms).and_then(|time| time.elapsed().ok());
        let is_old = unused_for.is_none_or(|least| age.is_some_and(|age| age >= least));
        if is_dangling(&name) && is_old {
            store.remove_image(&name).map_err(failed)?;
        }
    }
    Ok(())
}

/// Writes images as one archive into what `open` gives, which is not called before all of them were found whole.
pub(super) fn save(store: &Store, texts: &[String], open: OpenOutput<'_>) -> Result<(), EngineError> {
    let saved = save::find(store, texts).map_err(failed)?;
    let mut out = open().map_err(|error| EngineError::failed(format!("cannot open the archive: {error}")))?;
    saved.write(&mut out).map_err(failed)?;
    out.flush()
        .map_err(|error| EngineError::failed(format!("cannot write the archive: {error}")))
}
