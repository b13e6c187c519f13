//! A main context that is not the client's: a git repository, or a file behind a URL that is an archive or the
//! Dockerfile itself (BuildKit `frontend/dockerui/context.go`). Reads names; fetches nothing.

use std::collections::BTreeMap;

use rbuild_graph::{
    CopyAction, Edge, FileAction, FileActionKind, FileOp, Graph, Op, SourceOp, Vertex, VertexMeta,
};

use crate::git::{self, GitUrlError};

/// Stands for a user or password (BuildKit `util/urlutil`).
const MASK: &str = "xxxxx";

/// What the file behind a URL is called when it is a context.
const CONTEXT_FILE: &str = "context";

/// Where the files of a main context come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteContext {
    /// The source.
    pub source: SourceOp,
    /// What to show while it is brought.
    pub name: String,
    /// Name of the one file in the source, if it is one behind a URL.
    pub file: Option<&'static str>,
    /// The file is an archive: the context is what is in it. Known when its beginning has been read.
    pub is_archive: bool,
    /// The part of it that is the context.
    pub subdirectory: Option<String>,
}

impl RemoteContext {
    /// Reads `text` as a remote context; `None` if it is none. `keep_git_dir` keeps `.git` whatever the URL says;
    /// `commit_times` gives the files of a repository the time of their commit.
    ///
    /// # Errors
    /// [`GitUrlError`] for the URL of a repository with options there are not.
    pub fn parse(text: &str, keep_git_dir: bool, commit_times: bool) -> Result<Option<Self>, GitUrlError> {
        if let Some(url) = git::parse_context(text) {
            let mut url = url?;
            if keep_git_dir {
                url.keep_git_dir = Some(true);
            }
            if commit_times && url.times.is_empty() {
                "commit".clone_into(&mut url.times);
            }
            return Ok(Some(Self {
                source: url.to_source(),
                name: git_name(text),
                file: None,
                is_archive: false,
                subdirectory: None,
            }));
        }
        let is_http = text.starts_with("http://") || text.starts_with("https://");
        Ok(is_http.then(|| Self {
            source: context_file(text),
            name: "[internal] load remote build context".to_owned(),
            file: Some(CONTEXT_FILE),
            is_archive: false,
            subdirectory: None,
        }))
    }

    /// Adds the source alone to `graph`.
    pub fn add_source_to(&self, graph: &mut Graph) -> Edge {
        add(
            graph,
            Op::Source(self.source.clone()),
            Vec::new(),
            self.name.clone(),
        )
    }

    /// Adds what brings the context's files to `graph`.
    pub fn add_to(&self, graph: &mut Graph) -> Edge {
        let mut edge = self.add_source_to(graph);
        if let Some(file) = self.file.filter(|_| self.is_archive) {
            let copy = CopyAction {
                src: format!("/{file}"),
                dest: "/".to_owned(),
                attempt_unpack: true,
                ..CopyAction::default()
            };
            edge = add_copy(graph, edge, copy);
        }
        if let Some(subdirectory) = &self.subdirectory {
            edge = add_subdirectory(graph, edge, subdirectory);
        }
        edge
    }
}

/// The source that is the file behind `url`, as a context.
pub(crate) fn context_file(url: &str) -> SourceOp {
    SourceOp {
        identifier: url.to_owned(),
        attrs: BTreeMap::from([("http.filename".to_owned(), CONTEXT_FILE.to_owned())]),
    }
}

/// What is shown while a repository that is a context is brought.
pub(crate) fn git_name(text: &str) -> String {
    format!("[internal] load git source {}", redact_credentials(text))
}

/// Adds an empty file system with what is in `subdirectory` of `from`, which is an edge of `graph`.
pub fn add_subdirectory(graph: &mut Graph, from: Edge, subdirectory: &str) -> Edge {
    let copy = CopyAction {
        src: rbuild_dockerfile::path::join(&["/", subdirectory]),
        dest: "/".to_owned(),
        dir_copy_contents: true,
        ..CopyAction::default()
    };
    add_copy(graph, from, copy)
}

fn add_copy(graph: &mut Graph, from: Edge, copy: CopyAction) -> Edge {
    let name = format!("copy {} {}", copy.src, copy.dest);
    let action = FileAction {
        input: None,
        secondary_input: Some(0),
        output: Some(0),
        kind: FileActionKind::Copy(copy),
    };
    let op = Op::File(FileOp {
        actions: vec![action],
    });
    add(graph, op, vec![from], name)
}

fn add(graph: &mut Graph, op: Op, inputs: Vec<Edge>, name: String) -> Edge {
    let vertex = Vertex {
        op,
        inputs,
        platform: None,
        constraints: Vec::new(),
        meta: VertexMeta {
            name,
            ..VertexMeta::default()
        },
    };
    match graph.add(vertex) {
        Ok(vertex) => Edge { vertex, output: 0 },
        Err(error) => unreachable!("the edge came out of this graph: {error}"),
    }
}

/// `text` with user and password masked if it is a URL that has them.
#[must_use]
pub fn redact_credentials(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else {
        return text.to_owned();
    };
    let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    let Some((userinfo, host)) = authority.rsplit_once('@') else {
        return text.to_owned();
    };
    let masked = match userinfo.split_once(':') {
        Some(("", _)) => format!(":{MASK}"),
        Some(_) => format!("{MASK}:{MASK}"),
        None if userinfo.is_empty() => String::new(),
        None => MASK.to_owned(),
    };
    format!("{scheme}://{masked}@{host}{path}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Option<RemoteContext> {
        RemoteContext::parse(text, false, false).unwrap()
    }

    #[test]
    fn contexts_are_told_apart() {
        for (text, identifier, file) in [
            ("https://h/r.git#main:dir", "git://h/r.git#main:dir", None),
            ("git@h:r.git", "git://h/r.git", None),
            ("git://h/r", "git://h/r", None),
            ("ssh://git@h/r", "git://h/r", None),
            (
                "github.com/moby/buildkit#v1",
                "git://github.com/moby/buildkit#v1",
                None,
            ),
            (
                "github.com/moby/buildkit.git",
                "git://github.com/moby/buildkit.git",
                None,
            ),
            ("https://h/ctx.tar.gz", "https://h/ctx.tar.gz", Some("context")),
            ("http://h/Dockerfile", "http://h/Dockerfile", Some("context")),
        ] {
            let found = parse(text).unwrap();
            assert_eq!(
                (found.source.identifier.as_str(), found.file),
                (identifier, file),
                "{text}"
            );
        }
        let github = parse("github.com/moby/buildkit#v1").unwrap();
        assert_eq!(
            github.source.attrs["git.fullurl"],
            "https://github.com/moby/buildkit"
        );
        for text in [".", "dir", "./github.com/x", "/abs", "ftp://h/x"] {
            assert_eq!(parse(text), None, "{text}");
        }
        assert!(RemoteContext::parse("https://h/r.git?what=x", false, false).is_err());
        let kept = RemoteContext::parse("https://h/r.git", true, true)
            .unwrap()
            .unwrap();
        assert_eq!(kept.source.attrs["git.keepgitdir"], "true");
        assert_eq!(kept.source.attrs["git.mtime"], "commit");
    }

    #[test]
    fn row41_names_hold_no_credentials() {
        for (text, shown) in [
            ("https://us:canary@h/r.git#x", "https://xxxxx:xxxxx@h/r.git#x"),
            ("https://canary@h/r.git", "https://xxxxx@h/r.git"),
            ("https://:canary@h", "https://:xxxxx@h"),
            ("https://h/a@b", "https://h/a@b"),
            ("git@h:r.git", "git@h:r.git"),
        ] {
            assert_eq!(redact_credentials(text), shown);
        }
        let context = parse("https://us:canary@h/r.git").unwrap();
        assert!(!context.name.contains("canary") && !context.source.identifier.contains("canary"));
    }

    #[test]
    fn archives_and_subdirectories_are_copies() {
        let mut context = parse("https://h/ctx.tar").unwrap();
        let mut graph = Graph::default();
        let plain = context.add_to(&mut graph);
        assert_eq!(plain, context.add_source_to(&mut graph));
        context.is_archive = true;
        context.subdirectory = Some("a/../b".into());
        let edge = context.add_to(&mut graph);
        let copy = graph.get(&edge.vertex).unwrap();
        assert_eq!(copy.meta.name, "copy /b /");
        let unpack = graph.get(&copy.inputs[0].vertex).unwrap();
        assert_eq!(unpack.meta.name, "copy /context /");
        assert_eq!(unpack.inputs, [plain]);
    }
}
