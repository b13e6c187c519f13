//! `--call` and `--check`: a question about the Dockerfile instead of a build (`buildx/util/buildflags/callfunc.go`).

use rbuild_frontend::subrequest::Subrequest;
use rbuild_ui::values::csv;
use rbuild_ui::values::scalar::parse_bool;

use super::UsageError;
use crate::args::LowBuild;

/// A question, and how its answer is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Call {
    /// What is asked.
    pub(crate) subrequest: Subrequest,
    /// The answer is printed as JSON.
    pub(crate) as_json: bool,
    /// Findings of lint do not make the program fail.
    pub(crate) ignore_status: bool,
    /// What the Dockerfile is called in excerpts.
    pub(crate) dockerfile: String,
}

/// The question the flags ask; nothing for a build. With both flags, `--check` counts.
pub(super) fn of(low: &LowBuild) -> Result<Option<Call>, UsageError> {
    let text = match (low.check, low.call.as_deref()) {
        (Some(true), _) => "check",
        (_, Some(text)) if !text.is_empty() => text,
        _ => return Ok(None),
    };
    let fields = csv::fields(text).map_err(|error| UsageError::CallText {
        text: text.to_owned(),
        error,
    })?;
    let (mut name, mut as_json, mut ignore_status) = (String::new(), false, false);
    for field in fields {
        match field.split_once('=') {
            Some(("format", value)) => as_json = value == "json",
            Some(("ignorestatus", value)) => {
                ignore_status = parse_bool(value).ok_or_else(|| UsageError::CallStatus(value.to_owned()))?;
            }
            Some(_) => return Err(UsageError::CallField(field)),
            None if !name.is_empty() => return Err(UsageError::CallName(text.to_owned())),
            None => name = field,
        }
    }
    let id = match name.as_str() {
        "build" => return Ok(None),
        "check" => "frontend.lint".to_owned(),
        name => format!("frontend.{name}"),
    };
    Ok(Some(Call {
        subrequest: Subrequest::from_id(&id).ok_or(UsageError::CallUnknown(id))?,
        as_json,
        ignore_status,
        dockerfile: dockerfile(low),
    }))
}

/// The Dockerfile's name as the user would write it.
fn dockerfile(low: &LowBuild) -> String {
    match (low.file.as_deref().unwrap_or_default(), low.context.as_str()) {
        ("-", _) | ("", "-") => "stdin".to_owned(),
        ("", context) => match context.trim_end_matches('/') {
            "." => "Dockerfile".to_owned(),
            context => format!("{}/Dockerfile", context.trim_start_matches("./")),
        },
        (file, _) => file.to_owned(),
    }
}
