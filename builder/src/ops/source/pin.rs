//! What a source turned out to be in this build, for provenance.

use rbuild_graph::SourceOp;
use rbuild_oci::Platform;

use super::{blob, git, http, upload};
use crate::images::source::Asker;
use crate::job::Job;
use crate::provenance::capture::Pin;

/// What `source` was when `job` asked for it; nothing for one that was not asked for, and for one that nothing pins.
pub async fn pin(job: &Job, source: &SourceOp, platform: Option<&Platform>) -> Option<Pin> {
    let (scheme, rest) = source.identifier.split_once("://")?;
    match scheme {
        "http" if rest.starts_with(upload::HOST) => None,
        "http" | "https" => http::found(job, source).map(Pin::Digest),
        blob::REGISTRY | blob::STORE => blob::digest(source).map(Pin::Digest),
        "git" => git::found(job, source).map(Pin::Commit),
        "docker-image" | "oci-layout" => {
            let asker = Asker {
                lease: &job.lease,
                client: &job.client,
            };
            // What was asked for in this build is known and not asked for again.
            let found = job.engine.images.of_source(asker, source, platform).await;
            found.ok().map(|found| Pin::Digest(found.image.digest.clone()))
        }
        _ => None,
    }
}
