//! The parameters of a target (BuildKit `frontend/subrequests/outline`). They are noted while the target is lowered
//! ([`crate::outline`]). Cache mounts have a place in BuildKit's form, but it never tells of them.

use serde::Serialize;

use crate::subrequest::bounded::{Bounded, FormError, base64_list};
use crate::subrequest::{Location, tabs};

/// What a build of a target can be given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Outline {
    /// Name of the target; empty if it has none.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// What the comment above says of it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// Build arguments, by line.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<OutlineArg>,
    /// Secrets, by line.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<OutlineNeed>,
    /// Agents, by line.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ssh: Vec<OutlineNeed>,
    /// The Dockerfile.
    #[serde(rename = "sources", serialize_with = "base64_list")]
    pub source: Vec<u8>,
}

/// A build argument.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OutlineArg {
    /// Name.
    pub name: String,
    /// What the comment above says of it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// Value it has; empty if it has none.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub value: String,
    /// Where it is declared.
    pub location: Location,
}

/// A secret or an agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OutlineNeed {
    /// Id.
    pub name: String,
    /// The build fails without it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub required: bool,
    /// Where it is mounted first.
    pub location: Location,
}

impl Outline {
    pub(super) fn text(&self) -> Result<Vec<u8>, FormError> {
        let mut out = Bounded::default();
        if !self.name.is_empty() || !self.description.is_empty() {
            let name = match self.name.as_str() {
                "" => "(default)",
                name => name,
            };
            let mut table = format!("TARGET:\t{name}\n");
            if !self.description.is_empty() {
                table += &format!("DESCRIPTION:\t{}\n", self.description);
            }
            tabs::write(&mut out, 1, &table)?;
            out.push(b"\n")?;
        }
        if !self.args.is_empty() {
            let mut table = "BUILD ARG\tVALUE\tDESCRIPTION\n".to_owned();
            for arg in &self.args {
                table += &format!("{}\t{}\t{}\n", arg.name, arg.value, arg.description);
            }
            tabs::write(&mut out, 3, &table)?;
            out.push(b"\n")?;
        }
        needs(&mut out, "SECRET", &self.secrets)?;
        needs(&mut out, "SSH", &self.ssh)?;
        Ok(out.into_bytes())
    }
}

fn needs(out: &mut Bounded, title: &str, needs: &[OutlineNeed]) -> Result<(), FormError> {
    if needs.is_empty() {
        return Ok(());
    }
    let mut table = format!("{title}\tREQUIRED\n");
    for need in needs {
        let required = if need.required { "true" } else { "" };
        table += &format!("{}\t{required}\n", need.name);
    }
    tabs::write(out, 3, &table)?;
    out.push(b"\n")
}
