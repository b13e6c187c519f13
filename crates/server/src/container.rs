//! Containers of a front end, by the ids it chose (`frontend/gateway`, `NewContainer` and what goes with it).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use bollard_buildkit_proto::google::rpc;
use bollard_buildkit_proto::moby::buildkit::v1::frontend::NewContainerRequest;
use prost::Message as _;
use rbuild_builder::container::{Container, ContainerError, ProcessFailure};
use rbuild_builder::error::chain_text;
use rbuild_builder::value::{Chain, Value};
use rbuild_llb::errors::{Code, Detail, status_details};
use rbuild_sys::RootFd;
use tokio::sync::OwnedSemaphorePermit;
use tonic::Status;

use crate::errors::build_status;
use crate::forwarder::Forwarder;
use crate::running::Running;

pub mod exec;

/// `PATH` of a process that is given none (`util/system/path.go`).
const PATH_UNIX: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const PATH_WINDOWS: &str = "c:\\Windows\\System32;c:\\Windows;C:\\Windows\\System32\\WindowsPowerShell\\v1.0";

/// A container of a front end.
#[derive(Debug)]
pub struct Held {
    container: Container,
    /// `PATH` of its platform.
    path: &'static str,
    _permit: OwnedSemaphorePermit,
}

/// The containers of one front end.
#[derive(Debug, Default)]
pub struct Containers(Mutex<HashMap<String, Arc<Held>>>);

impl Containers {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Arc<Held>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The container of an id.
    fn find(&self, id: &str) -> Option<Arc<Held>> {
        self.lock().get(id).cloned()
    }

    /// Files of a container's mount.
    ///
    /// # Errors
    /// `not_found` for what there is none of.
    pub fn files(&self, id: &str, index: i32) -> Result<Arc<RootFd>, Status> {
        let missing = || Status::not_found(format!("container details for {id}@{index} not found"));
        let held = self.find(id).ok_or_else(missing)?;
        let index = usize::try_from(index)
            .map_err(|_negative| Status::invalid_argument(format!("mount index {index} is out of bounds")))?;
        held.container
            .files(index)
            .map_err(|error| container_status(&error))
    }

    /// Ends a container.
    ///
    /// # Errors
    /// `not_found`, and how its processes failed.
    pub async fn release(&self, id: &str) -> Result<(), Status> {
        let held = self.lock().remove(id);
        let held = held.ok_or_else(|| Status::not_found(format!("container details for {id} not found")))?;
        let released = held.container.release().await;
        released.map_err(|failure| failure_status(&failure))
    }

    /// Ends all of them.
    pub(crate) async fn release_all(&self) {
        let all: Vec<_> = self.lock().drain().collect();
        for (_, held) in all {
            // How they ended, nobody asks any more.
            held.container.release().await.ok();
        }
    }
}

/// Makes the container that `request` asks for.
///
/// # Errors
/// `invalid_argument`, `already_exists`, `resource_exhausted`; those of building what it mounts.
pub async fn create(
    running: &Running,
    forwarder: &Forwarder,
    request: NewContainerRequest,
) -> Result<(), Status> {
    let id = request.container_id.clone();
    let taken = || Status::already_exists(format!("Container {id} already exists"));
    if forwarder.containers.find(&id).is_some() {
        return Err(taken());
    }
    let permit = Arc::clone(&running.containers).try_acquire_owned();
    let permit = permit.map_err(|_none| Status::resource_exhausted("too many containers in this build"))?;
    let asked = rbuild_llb::container::container(&request)
        .map_err(|error| Status::invalid_argument(chain_text(&error)))?;
    let mut inputs = Vec::with_capacity(asked.inputs.len());
    for id in &asked.inputs {
        let chain = match forwarder.find(id)? {
            Some(found) => found
                .chain(&running.job, &running.cancel)
                .await
                .map_err(|error| build_status(&error))?,
            None => Chain::default(),
        };
        inputs.push(Value::Chain(chain));
    }
    let made = Container::create(&running.job, asked.exec, &inputs, Vec::new(), &running.cancel).await;
    let windows = request.platform.is_some_and(|platform| platform.os == "windows");
    let held = Arc::new(Held {
        container: made.map_err(|error| container_status(&error))?,
        path: if windows { PATH_WINDOWS } else { PATH_UNIX },
        _permit: permit,
    });
    let clash = {
        let mut all = forwarder.containers.lock();
        let clash = all.contains_key(&id);
        if !clash {
            all.insert(id.clone(), Arc::clone(&held));
        }
        clash
    };
    if clash {
        held.container.release().await.ok();
        return Err(taken());
    }
    Ok(())
}

/// A container, or a process of it, that cannot be.
fn container_status(error: &ContainerError) -> Status {
    let text = chain_text(error);
    match error {
        ContainerError::NoRoot | ContainerError::RootKind | ContainerError::NoSuchMount { .. } => {
            Status::invalid_argument(text)
        }
        ContainerError::Processes => Status::resource_exhausted(text),
        ContainerError::Stopped => Status::failed_precondition(text),
        _ => Status::unknown(text),
    }
}

/// A failed process, with its exit code for those who understand it.
fn failure_status(failure: &ProcessFailure) -> Status {
    let bytes = failure_details(failure);
    Status::with_details(tonic::Code::Unknown, failure.text.clone(), bytes.into())
}

fn failure_details(failure: &ProcessFailure) -> Vec<u8> {
    status_details(Code::Unknown, &failure.text, &[Detail::Exit(failure.code)])
}

/// The same as part of a message.
fn failure_proto(failure: &ProcessFailure) -> rpc::Status {
    // Bytes of our own making.
    rpc::Status::decode(failure_details(failure).as_slice()).unwrap_or_default()
}
