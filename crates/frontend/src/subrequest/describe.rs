//! What can be asked (BuildKit `frontend/subrequests/describe.go`, `frontend/dockerui/requests.go`). Lint is not in the
//! list, as it is not in BuildKit's.

use serde::Serialize;

use crate::subrequest::bounded::{Bounded, FormError};
use crate::subrequest::{Subrequest, tabs};

/// A question, as clients read of it. Absent lists are `null` there.
#[derive(Debug, Serialize)]
pub(super) struct Request {
    name: &'static str,
    version: &'static str,
    #[serde(rename = "type")]
    kind: &'static str,
    description: &'static str,
    opts: Option<&'static [Named]>,
    inputs: Option<&'static [Named]>,
    metadata: &'static [Named],
    refs: Option<&'static [Named]>,
}

#[derive(Debug, Serialize)]
struct Named {
    name: &'static str,
    description: &'static str,
}

const FORMS: &[Named] = &[
    Named {
        name: "result.json",
        description: "",
    },
    Named {
        name: "result.txt",
        description: "",
    },
];

const TARGET: &[Named] = &[Named {
    name: "target",
    description: "Target build stage",
}];

pub(super) fn requests() -> [Request; 3] {
    let request = |what: Subrequest, description, opts| Request {
        name: what.id(),
        version: what.version(),
        kind: "rpc",
        description,
        opts,
        inputs: None,
        metadata: FORMS,
        refs: None,
    };
    [
        request(
            Subrequest::Outline,
            "List all parameters current build target supports",
            Some(TARGET),
        ),
        request(
            Subrequest::Targets,
            "List all targets current build supports",
            Some(&[]),
        ),
        request(Subrequest::Describe, "List available subrequest types", None),
    ]
}

pub(super) fn text() -> Result<Vec<u8>, FormError> {
    let mut table = "NAME\tVERSION\tDESCRIPTION\n".to_owned();
    for request in requests() {
        let name = request.name.trim_start_matches("frontend.");
        table += &format!("{name}\t{}\t{}\n", request.version, request.description);
    }
    let mut out = Bounded::default();
    tabs::write(&mut out, 1, &table)?;
    Ok(out.into_bytes())
}
