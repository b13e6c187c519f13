//! Exporters that a client chooses when it sees the result, and its last word on what they made
//! (`solver/llbsolver/export.go`). A client that does not serve them, or is gone, chooses none.

use std::collections::HashMap;
use std::sync::Arc;

use bollard_buildkit_proto::moby::buildkit::v1::Exporter;
use rbuild_session::{CallError, Session, Sessions};
use tonic::{Code, Status};

use crate::answer::Answer;
use crate::running::Running;

/// How long the session may take to appear.
const SESSION_WAIT: std::time::Duration = std::time::Duration::from_secs(5);
/// Most exporters that a client chooses.
const EXPORTERS_MAX: usize = 100;

/// The exporters that the client chooses for `answer`, whose file systems it can look into.
///
/// # Errors
/// The client's.
pub async fn find(
    sessions: &Sessions,
    running: &Arc<Running>,
    answer: &Answer,
) -> Result<Vec<Exporter>, Status> {
    let session = session(sessions, running).await?;
    let mut refs = Vec::new();
    for (_, found) in answer.all() {
        if let Some(found) = found {
            refs.push(running.forwarder.keep(found)?);
        }
    }
    let metadata = answer.metadata.clone().into_iter().collect();
    let found = tokio::select! {
        found = session.find_exporters(metadata, refs) => found,
        () = running.cancel.cancelled() => return Err(Status::cancelled("context canceled")),
    };
    match found {
        Ok(found) if found.len() > EXPORTERS_MAX => {
            let text = format!("more than {EXPORTERS_MAX} exporters are chosen by the session");
            Err(Status::resource_exhausted(text))
        }
        Ok(found) => Ok(found
            .into_iter()
            .map(|exporter| Exporter {
                r#type: exporter.kind,
                attrs: exporter.attrs.into_iter().collect(),
            })
            .collect()),
        Err(error) if is_absent(&error) => Ok(Vec::new()),
        Err(error) => Err(failed(&error)),
    }
}

/// Tells the client what the exporters answered; its failure is the build's.
///
/// # Errors
/// The client's.
pub async fn finalize(
    sessions: &Sessions,
    running: &Arc<Running>,
    response: &HashMap<String, String>,
) -> Result<(), Status> {
    let session = session(sessions, running).await?;
    let told = tokio::select! {
        told = session.finalize_export(response.clone()) => told,
        () = running.cancel.cancelled() => return Err(Status::cancelled("context canceled")),
    };
    match told {
        Err(error) if !is_absent(&error) => Err(failed(&error)),
        _ => Ok(()),
    }
}

async fn session(sessions: &Sessions, running: &Running) -> Result<Session, Status> {
    let session = sessions.get(&running.session, SESSION_WAIT).await;
    session.map_err(|error| Status::unavailable(error.to_string()))
}

fn is_absent(error: &CallError) -> bool {
    matches!(error.code(), Some(Code::Unimplemented | Code::Unavailable))
}

fn failed(error: &CallError) -> Status {
    Status::new(error.code().unwrap_or(Code::Unknown), error.to_string())
}
