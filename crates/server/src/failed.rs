//! Failed operations as front ends hear of them: with the operation, and with ids of the file systems it had
//! (`frontend/gateway/gateway.go`, `wrapSolveError`). A front end opens a container in them to look around.

use std::sync::Arc;

use rbuild_builder::error::BuildError;
use rbuild_builder::failed::{FailedPart, FailedVertex};
use rbuild_builder::value::Value;
use rbuild_llb::errors::{Detail, SolveDetail, SolveSubject};
use tonic::Status;

use crate::answer::BuildRef;
use crate::errors::{annotated, build_status};
use crate::forwarder::Forwarder;

/// A failed build for the front end that holds `forwarder`.
#[must_use]
pub fn status(forwarder: &Forwarder, error: &BuildError) -> Status {
    let status = build_status(error);
    let BuildError::Step {
        failed: Some(failed), ..
    } = error
    else {
        return status;
    };
    // A front end that holds too much already hears of the failure all the same.
    match detail(forwarder, failed) {
        Ok(detail) if !error.is_canceled() => annotated(&status, &[Detail::Solve(Box::new(detail))]),
        _ => status,
    }
}

fn detail(forwarder: &Forwarder, failed: &FailedVertex) -> Result<SolveDetail, Status> {
    let ids = |values: &[Option<Value>]| -> Result<Vec<String>, Status> {
        let id = |value: &Option<Value>| match value {
            Some(value) => forwarder.keep(&Arc::new(BuildRef::of_value(value.clone()))),
            None => Ok(String::new()),
        };
        values.iter().map(id).collect()
    };
    let number = |index: usize| i64::try_from(index).unwrap_or(i64::MAX);
    let left = &failed.left;
    Ok(SolveDetail {
        input_ids: ids(&left.inputs)?,
        mount_ids: ids(&left.outputs)?,
        // What LLB has no room for came from no client.
        op: rbuild_llb::encode_op(&failed.vertex).ok(),
        subject: left.part.map(|part| match part {
            FailedPart::Action(index) => SolveSubject::FileAction(number(index)),
            FailedPart::Content(index) => SolveSubject::ContentCache(number(index)),
        }),
        description: failed.vertex.meta.description.clone(),
    })
}
