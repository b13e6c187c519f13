//! The grammar of `--ssh` (`buildx/util/buildflags/ssh.go`): `ID` or `ID=PATH[,PATH]`. Looks at no path.

/// Id of an agent that none was given for.
const DEFAULT_ID: &str = "default";

/// One `--ssh`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SshFlag {
    /// Id that steps use.
    pub id: String,
    /// Sockets or keys; the agent of the environment if empty.
    pub paths: Vec<String>,
}

impl SshFlag {
    /// Reads one `--ssh`. Every text is one.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let (id, paths) = match text.split_once('=') {
            Some((id, paths)) => (id, paths.split(',').map(str::to_owned).collect()),
            None => (text, Vec::new()),
        };
        let id = if id.is_empty() { DEFAULT_ID } else { id };
        // A single empty path is none.
        let paths = if paths == [""] { Vec::new() } else { paths };
        Self {
            id: id.to_owned(),
            paths,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_and_paths_are_told_apart() {
        for (text, id, paths) in [
            ("default", "default", &[][..]),
            ("", "default", &[]),
            ("a=", "a", &[]),
            ("a=/x", "a", &["/x"]),
            ("=/x,/y=z", "default", &["/x", "/y=z"]),
        ] {
            let flag = SshFlag::parse(text);
            assert_eq!(
                (flag.id.as_str(), flag.paths),
                (id, paths.iter().map(|p| (*p).to_owned()).collect())
            );
        }
    }
}
