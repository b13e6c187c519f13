//! The devices of a step: which they are, for its key and before anything runs; and what they bring into its sandbox.

use rbuild_graph::ExecOp;
use rbuild_sandbox::Plan;

use crate::cdi::{CdiError, Devices, inject as inject_devices};
use crate::job::Job;
use crate::ops::define::Parts;
use crate::ops::{OpError, blocking};

/// Makes the devices that `exec` gets a part of its key. Names may mean other devices another day.
///
/// # Errors
/// [`OpError::Device`] for devices there are not, or that the build may not use.
pub(crate) async fn define(job: &Job, exec: &ExecOp, parts: &mut Parts) -> Result<(), OpError> {
    let Some(devices) = read(job, exec).await? else {
        return Ok(());
    };
    let granted = devices.granted(&exec.cdi_devices, &job.settings.devices)?;
    let names: Vec<&str> = granted.iter().map(|device| device.name.as_str()).collect();
    parts.add("devices", &names.join(","));
    Ok(())
}

/// Gives the devices of `exec` to the sandbox of `plan`.
///
/// # Errors
/// [`OpError::Device`].
pub(crate) async fn inject(job: &Job, exec: &ExecOp, plan: &mut Plan) -> Result<(), OpError> {
    let Some(devices) = read(job, exec).await? else {
        return Ok(());
    };
    let granted = devices.granted(&exec.cdi_devices, &job.settings.devices)?;
    inject_devices(plan, &granted).map_err(CdiError::from)?;
    Ok(())
}

/// The devices of the machine, if `exec` asks for any.
async fn read(job: &Job, exec: &ExecOp) -> Result<Option<Devices>, OpError> {
    if exec.cdi_devices.is_empty() {
        return Ok(None);
    }
    let Some(config) = job.settings.cdi.clone() else {
        let required = exec.cdi_devices.iter().find(|device| !device.optional);
        return match required {
            Some(device) => Err(CdiError::Disabled(device.name.clone()).into()),
            None => Ok(None),
        };
    };
    Ok(Some(blocking(move || Devices::read(&config)).await))
}
