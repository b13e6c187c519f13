//! Containers that were created and never run, as commands ask for them.

use std::sync::Arc;

use rbuild_builder::created::{self, CreateError, Created, FindContainerError};
use rbuild_builder::image_files::{CopyRules, ImageFiles};
use rbuild_builder::local_image::PullPolicy;
use rbuild_builder::stored::{FindError, id_of};
use rbuild_builder::transfer;
use rbuild_graph::progress::{NullSink, Sink};
use rbuild_store::Store;

use super::{Native, failed, from_ms, images, parse_platform};
use crate::engine::{ContainerRow, CreateRequest, EngineError, FilesTo, OpenOutput};

/// Digits of an image's id that stand for it where it has no name.
const SHORT_ID: usize = 12;

/// Every container, the newest first.
pub(super) fn rows(store: &Store) -> Result<Vec<ContainerRow>, EngineError> {
    let images = images::rows(store)?;
    let row = |container: Created| {
        let image = images.iter().find(|row| row.digest == container.image.digest);
        let named = image.and_then(|row| {
            let (repository, tag) = (row.repository.as_deref()?, row.tag.as_deref()?);
            Some(format!("{repository}:{tag}"))
        });
        let image_id = id_of(&container.image).clone();
        ContainerRow {
            image: named.unwrap_or_else(|| image_id.hex()[..SHORT_ID].to_owned()),
            image_id,
            created: from_ms(container.image.tagged_ms),
            id: container.id,
            name: container.name,
        }
    };
    let all = created::list(store).map_err(failed)?;
    Ok(all.into_iter().map(row).collect())
}

/// Removes a container; `false` if there is none and that is no error.
pub(super) fn remove(store: &Store, text: &str, force: bool) -> Result<bool, EngineError> {
    match created::remove(store, text) {
        Ok(()) => Ok(true),
        Err(FindContainerError::NotFound(_)) if force => Ok(false),
        Err(error) => Err(failed(error)),
    }
}

impl Native {
    /// Creates a container of an image, which is pulled where that is wanted.
    pub(super) fn create(&self, request: &CreateRequest, sink: Arc<dyn Sink>) -> Result<String, EngineError> {
        let platform = parse_platform(request.platform.as_deref())?;
        let store = &self.core.store;
        let create = || created::create(store, &request.image, request.name.as_deref(), &platform);
        let pull = || self.wait(transfer::pull(&self.core, &request.image, &platform, &sink));
        if request.pull == PullPolicy::Always {
            pull()?;
        }
        let container = match create() {
            Err(CreateError::Find(FindError::NotFound(_))) if request.pull == PullPolicy::Missing => {
                pull()?;
                create()
            }
            done => done,
        };
        Ok(container.map_err(failed)?.id)
    }

    /// Takes files out of a container: those at a path, or all.
    pub(super) fn take(
        &self,
        container: &str,
        path: Option<(&str, CopyRules)>,
        to: FilesTo<'_>,
    ) -> Result<(), EngineError> {
        let container = created::find(&self.core.store, container).map_err(failed)?;
        let stored = (container.record_name(), container.image.clone());
        let opened = ImageFiles::open(&self.core, &stored, &container.platform, Arc::new(NullSink));
        let files = self.wait(opened)?;
        match (to, path) {
            (FilesTo::Path(dest), Some((path, rules))) => files.copy_out(path, dest, rules),
            (FilesTo::Path(dest), None) => files.copy_out("/", dest, CopyRules::default()),
            (FilesTo::Tar(open), Some((path, rules))) => {
                files.write_tar(path, rules.follow_link, opened_output(open)?)
            }
            (FilesTo::Tar(open), None) => files.export(opened_output(open)?),
        }
        .map_err(failed)
    }
}

fn opened_output(open: OpenOutput<'_>) -> Result<Box<dyn std::io::Write>, EngineError> {
    open().map_err(|error| EngineError::failed(format!("cannot open the archive: {error}")))
}
