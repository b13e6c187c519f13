//! What the fake client answers of itself, from what a test gave it.

use std::sync::{Arc, Mutex, PoisonError};

use bollard_buildkit_proto::moby::buildkit::secrets::v1::{GetSecretRequest, GetSecretResponse};
use bollard_buildkit_proto::moby::filesync::v1::{CredentialsRequest, CredentialsResponse};
use tonic::Status;
use tonic::metadata::MetadataMap;

use super::{FakeClient, files};
use crate::serve::Dialogue;
use crate::wire::{
    BytesMessage, Info, InfoRequest, InfoResponse, Packet, ReadContentRequest, ReadContentResponse,
};

impl FakeClient {
    pub(super) fn with_services(mut self) -> Self {
        if !self.secrets.is_empty() {
            let secrets = std::mem::take(&mut self.secrets);
            self.routes.unary(
                "/moby.buildkit.secrets.v1.Secrets/GetSecret",
                move |_, q: GetSecretRequest| match secrets.get(&q.id) {
                    Some(data) => Ok(GetSecretResponse { data: data.clone() }),
                    None => Err(Status::not_found(format!("secret {}: not found", q.id))),
                },
            );
        }
        if !self.credentials.is_empty() {
            self.serve_auth();
        }
        if !self.directories.is_empty() {
            let directories = Arc::new(std::mem::take(&mut self.directories));
            self.routes.script(
                "/moby.filesync.v1.FileSync/DiffCopy",
                move |talk: Dialogue<Packet, Packet>| {
                    let directories = Arc::clone(&directories);
                    async move { files::send(&directories, talk).await }
                },
            );
        }
        if !self.outputs.is_empty() {
            let outputs = Arc::new(std::mem::take(&mut self.outputs));
            self.routes.script(
                "/moby.filesync.v1.FileSend/DiffCopy",
                move |talk: Dialogue<files::Raw, files::Raw>| {
                    let outputs = Arc::clone(&outputs);
                    async move { files::receive(&outputs, talk).await }
                },
            );
        }
        if !self.uploads.is_empty() {
            let uploads = Arc::new(Mutex::new(std::mem::take(&mut self.uploads)));
            self.routes.script(
                "/moby.upload.v1.Upload/Pull",
                move |talk: Dialogue<BytesMessage, BytesMessage>| {
                    let path = talk.header("urlpath");
                    let key = path.rsplit('/').next().unwrap_or_default().to_owned();
                    let found = uploads
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .remove(&key);
                    files::upload(found, key, talk)
                },
            );
        }
        if !self.blobs.is_empty() {
            self.serve_content();
        }
        self
    }

    fn serve_auth(&mut self) {
        let credentials = std::mem::take(&mut self.credentials);
        self.routes.unary(
            "/moby.filesync.v1.Auth/Credentials",
            move |_, q: CredentialsRequest| {
                let (username, secret) = credentials.get(&q.host).cloned().unwrap_or_default();
                Ok(CredentialsResponse { username, secret })
            },
        );
    }

    fn serve_content(&mut self) {
        let blobs = Arc::new(std::mem::take(&mut self.blobs));
        let find = move |metadata: &MetadataMap, digest: &str| {
            let store = crate::header::first(metadata, "buildkit-attachable-store-id").unwrap_or_default();
            blobs
                .get(&(store.to_owned(), digest.to_owned()))
                .cloned()
                .ok_or_else(|| Status::not_found(format!("{store}: {digest}: not found")))
        };
        let of = find.clone();
        self.routes.unary(
            "/containerd.services.content.v1.Content/Info",
            move |metadata, q: InfoRequest| {
                let blob = of(metadata, &q.digest)?;
                let info = Info {
                    digest: q.digest,
                    size: i64::try_from(blob.len()).unwrap_or(i64::MAX),
                    ..Info::default()
                };
                Ok(InfoResponse { info: Some(info) })
            },
        );
        self.routes.script(
            "/containerd.services.content.v1.Content/Read",
            move |mut talk: Dialogue<ReadContentRequest, ReadContentResponse>| {
                let find = find.clone();
                async move {
                    let q = talk
                        .next()
                        .await?
                        .ok_or_else(|| Status::internal("no question"))?;
                    let blob = find(talk.metadata(), &q.digest)?;
                    files::read_blob(&blob, &q, &talk).await
                }
            },
        );
    }
}
