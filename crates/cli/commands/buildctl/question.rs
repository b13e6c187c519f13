//! A question to a front end, asked through a server (`--opt requestid=…`): its answer is what a front end in the client gets to
//! see of the result, so that this program is one for as long (`cmd/buildctl/build.go`, `client/build.go`).

use std::collections::{BTreeMap, HashMap};

use bollard_buildkit_proto::google::rpc;
use bollard_buildkit_proto::moby::buildkit::v1 as api;
use bollard_buildkit_proto::moby::buildkit::v1::frontend as gateway;
use rbuild_client::Bridge;
use rbuild_llb::{BUILD_ID, SUBREQUESTS_CAP};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::{Request, Status};

/// The option that makes a request a question.
const REQUEST_ID: &str = "requestid";
/// The option with what the front end must be able to do.
const CAPS: &str = "frontend.caps";
/// The answer for people, and the beginning of the names of all its forms.
const TEXT: &str = "result.txt";
const FORMS: &str = "result.";

/// What the front end of a build is asked.
#[derive(Debug)]
pub(super) struct Question {
    bridge: Bridge,
    build: MetadataValue<Ascii>,
    request: gateway::SolveRequest,
}

impl Question {
    /// Takes the question out of a request, if there is one in it: what is left asks for a build whose front end is this program.
    pub(super) fn of(request: &mut api::SolveRequest, bridge: Bridge) -> Option<Self> {
        if !request.frontend_attrs.contains_key(REQUEST_ID) {
            return None;
        }
        let mut options = std::mem::take(&mut request.frontend_attrs);
        options
            .entry(CAPS.to_owned())
            .or_insert_with(|| SUBREQUESTS_CAP.to_owned());
        let imports = request
            .cache
            .iter_mut()
            .flat_map(|cache| std::mem::take(&mut cache.imports));
        let imports = imports.map(|import| gateway::CacheOptionsEntry {
            r#type: import.r#type,
            attrs: import.attrs,
        });
        Some(Self {
            bridge,
            build: request.r#ref.parse().ok()?,
            request: gateway::SolveRequest {
                definition: request.definition.take(),
                frontend: std::mem::take(&mut request.frontend),
                frontend_opt: options,
                allow_result_return: true,
                allow_result_array_ref: true,
                cache_imports: imports.collect(),
                ..gateway::SolveRequest::default()
            },
        })
    }

    /// Asks, and gives what is to be printed. A refusal becomes the build's, and is told with that.
    pub(super) async fn ask(mut self) -> Vec<Vec<u8>> {
        let asked = self.bridge.solve(call(&self.build, self.request)).await;
        let (returned, shown) = match asked {
            Ok(answer) => {
                let result = answer.into_inner().result;
                let shown = result.as_ref().map(|result| printed(&result.metadata));
                let returned = gateway::ReturnRequest { result, error: None };
                (returned, shown.unwrap_or_default())
            }
            Err(status) => (refused(&status), Vec::new()),
        };
        // If the build is over already, that is told by its own call.
        self.bridge.r#return(call(&self.build, returned)).await.ok();
        shown
    }
}

fn call<T>(build: &MetadataValue<Ascii>, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert(BUILD_ID, build.clone());
    request
}

fn refused(status: &Status) -> gateway::ReturnRequest {
    use prost::Message as _;
    // The details tell where in the Dockerfile it is.
    let whole = rpc::Status::decode(status.details()).unwrap_or_default();
    gateway::ReturnRequest {
        result: None,
        error: Some(rpc::Status {
            code: i32::from(status.code()),
            message: status.message().to_owned(),
            details: whole.details,
        }),
    }
}

/// The text for people, or each form there is behind its name.
fn printed(metadata: &HashMap<String, Vec<u8>>) -> Vec<Vec<u8>> {
    if let Some(text) = metadata.get(TEXT) {
        return vec![text.clone()];
    }
    let forms: BTreeMap<_, _> = metadata
        .iter()
        .filter(|(name, _)| name.starts_with(FORMS))
        .collect();
    forms
        .into_iter()
        .map(|(name, form)| [name.as_bytes(), b"\n", form, b"\n"].concat())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_for_people_is_all_that_is_printed() {
        let of = |pairs: &[(&str, &str)]| {
            let pairs = pairs
                .iter()
                .map(|(name, text)| ((*name).to_owned(), text.as_bytes().to_vec()));
            String::from_utf8(printed(&pairs.collect()).concat()).unwrap()
        };
        assert_eq!(
            of(&[("result.txt", "for people\n"), ("result.json", "{}")]),
            "for people\n"
        );
        assert_eq!(
            of(&[("version", "1"), ("result.json", "{}"), ("result.a", "x")]),
            "result.a\nx\nresult.json\n{}\n"
        );
        assert_eq!(of(&[("version", "1")]), "");
    }
}
