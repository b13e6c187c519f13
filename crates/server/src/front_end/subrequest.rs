//! Questions about a Dockerfile instead of a build (`frontend/dockerui/requests.go`), and what a front end must be able
//! to do for them (`frontend/dockerfile/builder/caps.go`).

use rbuild_builder::subrequest::{Warn, ask};
use rbuild_frontend::FrontendOptions;
use rbuild_frontend::subrequest::Subrequest;
use rbuild_llb::attrs::AttrError;
use rbuild_llb::errors::{Code as LlbCode, Detail, sentence, status_details};
use tonic::{Code, Status};

use crate::answer::{Answer, Refs};
use crate::errors::{build_status, refused};
use crate::running::Running;

/// Answers the question `id`: metadata, and no file system.
///
/// # Errors
/// A typed one for a question there is not, and those of lowering.
pub(super) async fn answer(
    running: &Running,
    options: FrontendOptions,
    id: &str,
    warn: &Warn<'_>,
) -> Result<Answer, Status> {
    let Some(subrequest) = Subrequest::from_id(id) else {
        let message = format!("unsupported request {id}");
        return Err(typed(
            LlbCode::Unknown,
            message,
            Detail::Subrequest(id.to_owned()),
        ));
    };
    let found = ask(&running.job, options, subrequest, warn, &running.cancel).await;
    let found = found.map_err(|error| build_status(&error))?;
    let metadata = found
        .metadata()
        .map_err(|error| Status::resource_exhausted(error.to_string()))?;
    Ok(Answer {
        refs: Refs::One(None),
        metadata,
        ..Answer::empty()
    })
}

/// Attributes that are refused.
pub(super) fn attrs_status(error: &AttrError) -> Status {
    match error {
        AttrError::FrontendCap(name) => missing_cap(name),
        other => refused(sentence(other)),
    }
}

/// A capability that this front end lacks.
pub(super) fn missing_cap(name: &str) -> Status {
    let message = format!("unsupported frontend capability {name}");
    typed(
        LlbCode::Unimplemented,
        message,
        Detail::FrontendCap(name.to_owned()),
    )
}

fn typed(code: LlbCode, message: String, detail: Detail) -> Status {
    let details = status_details(code, &message, &[detail]);
    Status::with_details(Code::from_i32(code as i32), message, details.into())
}

#[cfg(test)]
mod tests {
    use bollard_buildkit_proto::google::rpc;
    use prost::Message as _;

    use super::*;

    #[test]
    fn a_missing_capability_is_told_with_its_type() {
        let status = attrs_status(&AttrError::FrontendCap("moby.x".to_owned()));
        assert_eq!(status.code(), Code::Unimplemented);
        assert_eq!(status.message(), "unsupported frontend capability moby.x");
        let told = rpc::Status::decode(status.details()).unwrap();
        assert_eq!((told.code, told.message.as_str()), (12, status.message()));
        assert_eq!(
            told.details[0].type_url,
            "github.com/moby/buildkit/errdefs.FrontendCap+json"
        );
        assert_eq!(told.details[0].value, br#"{"name":"moby.x"}"#);
    }
}
