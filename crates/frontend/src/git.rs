//! Git and HTTP sources of ADD and of named contexts (BuildKit `dfgitutil`, `gitutil`). Reads URLs; fetches nothing.

mod escape;

use std::collections::BTreeMap;
use std::string::FromUtf8Error;

use rbuild_dockerfile::csv;
use rbuild_dockerfile::path;
use rbuild_dockerfile::quote::quote;
use rbuild_graph::SourceOp;
use rbuild_oci::go_url::{percent_decoded, wrong_port};
use rbuild_oci::{Digest, DigestError};

/// A repository, and what of it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct GitUrl {
    /// URL without query and fragment.
    pub(crate) remote: String,
    /// Host, with its port.
    host: String,
    /// Path on the host.
    path: String,
    is_ssh: bool,
    pub(crate) reference: String,
    pub(crate) checksum: String,
    pub(crate) subdirectory: String,
    pub(crate) keep_git_dir: Option<bool>,
    pub(crate) submodules: Option<bool>,
    pub(crate) fetch_by_commit: bool,
    /// `checkout` or `commit`; contexts alone look at it.
    pub(crate) times: String,
}

/// A git URL with options there are not.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GitUrlError {
    /// An option without a value.
    #[error("query {} has no value", quote(.0))]
    NoValue(String),
    /// An option given twice.
    #[error("query {} has multiple values", quote(.0))]
    Repeated(String),
    /// An option there is not.
    #[error("unexpected query {}", quote(.0))]
    Unknown(String),
    /// Times that there are not.
    #[error("invalid mtime value: {} (must be \"checkout\" or \"commit\")", quote(.0))]
    Times(String),
    /// A value that cannot be read.
    #[error("invalid {key} value: {}", quote(.value))]
    Value {
        /// Option.
        key: String,
        /// Value.
        value: String,
    },
    /// Two different refs, or subdirectories.
    #[error("{what} conflicts: {} vs {}", quote(.first), quote(.second))]
    Conflict {
        /// `ref` or `subdir`.
        what: &'static str,
        /// One.
        first: String,
        /// The other.
        second: String,
    },
    /// A branch and a tag.
    #[error("branch conflicts with tag")]
    BranchAndTag,
}

/// Reads `text` as a git URL; `None` if it is something else: a path, or a URL of a file.
pub(crate) fn parse(text: &str) -> Option<Result<GitUrl, GitUrlError>> {
    match text.split_once("://") {
        Some((scheme, rest)) => parse_url(scheme, rest),
        None => parse_scp(text),
    }
}

/// `scheme://rest`. What Go cannot read (`net/url`) is no repository, so whoever asks for it as a file says why.
fn parse_url(scheme: &str, rest: &str) -> Option<Result<GitUrl, GitUrlError>> {
    let scheme = scheme.to_ascii_lowercase();
    if rest.bytes().any(|byte| byte.is_ascii_control()) {
        return None;
    }
    let (main, fragment) = rest.split_once('#').unwrap_or((rest, ""));
    let (place, query) = main.split_once('?').unwrap_or((main, ""));
    let (authority, path) = place.split_at(place.find('/').unwrap_or(place.len()));
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    if wrong_port(host).is_some() {
        return None;
    }
    let fragment = escape::decoded(fragment)?;
    let names = escape::decoded(path)?;
    match scheme.as_str() {
        "http" | "https" if !names.ends_with(".git") => return None,
        "http" | "https" | "ssh" | "git" => {}
        _ => return None,
    }
    // Go writes the mark of a query without one behind the URL again.
    let mark = if main.ends_with('?') && query.is_empty() {
        "?"
    } else {
        ""
    };
    let mut url = GitUrl {
        remote: format!("{scheme}://{place}{mark}"),
        host: host.to_owned(),
        path: path.to_owned(),
        is_ssh: scheme == "ssh",
        ..GitUrl::default()
    };
    url.read_fragment(&fragment);
    // Pairs that cannot be read are left out there, and nobody is told.
    let pairs = escape::pairs(query).filter_map(Result::ok);
    Some(url.read_query(pairs).map(|()| url))
}

/// `user@host:path` (`util/sshutil/scpurl.go`), of which a query that cannot be read makes something else.
fn parse_scp(text: &str) -> Option<Result<GitUrl, GitUrlError>> {
    let (main, fragment) = text.split_once('#').unwrap_or((text, ""));
    let (main, query) = main.split_once('?').unwrap_or((main, ""));
    let (user, rest) = main.split_once('@')?;
    let (host, path) = rest.split_once(':')?;
    let is_word = |text: &str, more: &[u8]| {
        let mut bytes = text.bytes();
        !text.is_empty() && bytes.all(|byte| byte.is_ascii_alphanumeric() || more.contains(&byte))
    };
    if !is_word(user, b"-_") || !is_word(host, b"-.") {
        return None;
    }
    let pairs: Vec<_> = escape::pairs(query).collect::<Result<_, _>>().ok()?;
    let mut url = GitUrl {
        remote: main.to_owned(),
        host: host.to_owned(),
        path: path.to_owned(),
        is_ssh: true,
        ..GitUrl::default()
    };
    url.read_fragment(fragment);
    Some(url.read_query(pairs.into_iter()).map(|()| url))
}

/// What is wrong with the options of `text` though it names files of a context: `github.com/…` is a repository for contexts
/// alone, and its options are read everywhere (`dfgitutil.ParseGitRef`).
pub(crate) fn wrong_options(text: &str) -> Option<GitUrlError> {
    text.starts_with("github.com/")
        .then(|| parse_context(text))
        .flatten()?
        .err()
}

/// The same for a context, where `github.com/…` needs no scheme.
pub(crate) fn parse_context(text: &str) -> Option<Result<GitUrl, GitUrlError>> {
    if !text.starts_with("github.com/") {
        return parse(text);
    }
    let (place, options) = text.split_at(text.find(['?', '#']).unwrap_or(text.len()));
    if place.ends_with(".git") {
        return parse(&format!("https://{text}"));
    }
    // Read with the ending that says what it is, and kept without it.
    let url = parse(&format!("https://{place}.git{options}"))?;
    Some(url.map(|mut url| {
        for field in [&mut url.remote, &mut url.path] {
            field.truncate(field.len() - ".git".len());
        }
        url
    }))
}

/// Whether `text` is the URL of a file.
pub(crate) fn is_http_file(text: &str) -> bool {
    (text.starts_with("http://") || text.starts_with("https://")) && !matches!(parse(text), Some(Ok(_)))
}

/// The source that is the file `name` behind `url`; `checksum` is empty if none was given.
///
/// # Errors
/// Those of a checksum that is none.
pub(crate) fn http_source(url: &str, name: &str, checksum: &str) -> Result<SourceOp, DigestError> {
    let mut attrs = BTreeMap::from([("http.filename".to_owned(), name.to_owned())]);
    if !checksum.is_empty() {
        attrs.insert("http.checksum".to_owned(), Digest::parse(checksum)?.to_string());
    }
    Ok(SourceOp {
        identifier: url.to_owned(),
        attrs,
    })
}

/// The name of the file behind a URL: the end of its path. `..` is one, and means the root of the source.
///
/// # Errors
/// A name that is no text.
pub(crate) fn http_file_name(url: &str) -> Result<String, FromUtf8Error> {
    let path = url.split(['?', '#']).next().unwrap_or_default();
    let path = path.split_once("://").map_or(path, |(_, rest)| rest);
    let path = path.find('/').map_or("", |at| &path[at..]);
    let path = String::from_utf8(percent_decoded(path))?;
    Ok(match path::base(&path) {
        "." | "/" => "__unnamed__".to_owned(),
        name => name.to_owned(),
    })
}

impl GitUrl {
    /// `ref:subdirectory`.
    fn read_fragment(&mut self, fragment: &str) {
        let (reference, subdirectory) = fragment.split_once(':').unwrap_or((fragment, ""));
        reference.clone_into(&mut self.reference);
        self.subdirectory = path::join(&["/", subdirectory])
            .trim_start_matches('/')
            .to_owned();
    }

    fn read_query(&mut self, pairs: impl Iterator<Item = (String, String)>) -> Result<(), GitUrlError> {
        let mut options: BTreeMap<String, String> = BTreeMap::new();
        for (key, value) in pairs {
            if options.insert(key.clone(), value).is_some() {
                return Err(GitUrlError::Repeated(key));
            }
        }
        let (mut tag, mut branch) = (None, None);
        for (key, value) in options {
            let switch = || match value.as_str() {
                "" => Ok(true),
                text => csv::boolean(text).ok_or_else(|| GitUrlError::Value {
                    key: key.clone(),
                    value: value.clone(),
                }),
            };
            match key.as_str() {
                "keep-git-dir" => self.keep_git_dir = Some(switch()?),
                "submodules" => self.submodules = Some(switch()?),
                "fetch-by-commit" => self.fetch_by_commit = switch()?,
                _ if value.is_empty() => return Err(GitUrlError::NoValue(key)),
                "ref" => agree("ref", &mut self.reference, value)?,
                "tag" => tag = Some(qualified("refs/tags/", &value)),
                "branch" => branch = Some(qualified("refs/heads/", &value)),
                "subdir" => agree("subdir", &mut self.subdirectory, value)?,
                "checksum" | "commit" => self.checksum = value,
                "mtime" if matches!(value.as_str(), "checkout" | "commit") => self.times = value,
                "mtime" => return Err(GitUrlError::Times(value)),
                _ => return Err(GitUrlError::Unknown(key)),
            }
        }
        if tag.is_some() && branch.is_some() {
            return Err(GitUrlError::BranchAndTag);
        }
        match tag.or(branch) {
            Some(reference) => agree("ref", &mut self.reference, reference),
            None => Ok(()),
        }
    }

    /// The source operation for it.
    pub(crate) fn to_source(&self) -> SourceOp {
        let mut identifier = format!("git://{}{}", self.host, path::join(&["/", &self.path]));
        if !self.reference.is_empty() || !self.subdirectory.is_empty() {
            identifier += &format!("#{}", self.reference);
            if !self.subdirectory.is_empty() {
                identifier += &format!(":{}", self.subdirectory);
            }
        }
        let mut attrs = BTreeMap::from([
            ("git.fullurl".to_owned(), self.remote.clone()),
            ("git.authtokensecret".to_owned(), "GIT_AUTH_TOKEN".to_owned()),
            ("git.authheadersecret".to_owned(), "GIT_AUTH_HEADER".to_owned()),
        ]);
        let mut set = |key: &str, value: &str, given: bool| {
            if given {
                attrs.insert(key.to_owned(), value.to_owned());
            }
        };
        set("git.keepgitdir", "true", self.keep_git_dir == Some(true));
        set("git.mountsshsock", "default", self.is_ssh);
        set("git.checksum", &self.checksum, !self.checksum.is_empty());
        set("git.skipsubmodules", "true", self.submodules == Some(false));
        set("git.fetchbycommit", "true", self.fetch_by_commit);
        set("git.mtime", &self.times, !self.times.is_empty());
        SourceOp { identifier, attrs }
    }
}

fn qualified(prefix: &str, name: &str) -> String {
    if name.starts_with(prefix) {
        name.to_owned()
    } else {
        format!("{prefix}{name}")
    }
}

fn agree(what: &'static str, field: &mut String, value: String) -> Result<(), GitUrlError> {
    if !field.is_empty() && *field != value {
        return Err(GitUrlError::Conflict {
            what,
            first: field.clone(),
            second: value,
        });
    }
    *field = value;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_git_and_what_is_not() {
        for (text, expected) in [
            (
                "https://github.com/moby/buildkit.git",
                Some("git://github.com/moby/buildkit.git"),
            ),
            (
                "https://u:p@h.example:8443/a.git#main:sub/../dir",
                Some("git://h.example:8443/a.git#main:dir"),
            ),
            (
                "git@github.com:moby/buildkit.git#v1",
                Some("git://github.com/moby/buildkit.git#v1"),
            ),
            ("git://h/a", Some("git://h/a")),
            ("ssh://git@h/a.git#:d", Some("git://h/a.git#:d")),
            (
                "https://h/a.git?branch=x&subdir=d",
                Some("git://h/a.git#refs/heads/x:d"),
            ),
            ("https://h/a.git?tag=v1", Some("git://h/a.git#refs/tags/v1")),
            ("https://h/a.tar.gz", None),
            ("https://h/a.git/x", None),
            ("./a.git", None),
            ("a@b", None),
            ("ftp://h/a.git", None),
            ("github.com/moby/buildkit", None),
            ("https://h/a.gi%74", Some("git://h/a.gi%74")),
            (
                "https://h:8443/a.git#d%65v:s%20t",
                Some("git://h:8443/a.git#dev:s t"),
            ),
            ("https://[::1]:1/a.git", Some("git://[::1]:1/a.git")),
            ("https://[::1/a.git", None),
            ("https://h:x/a.git", None),
            ("https://h/%zz.git", None),
            ("git://h/%zz", None),
            ("ssh://git@h/a%4", None),
            ("https://h/a.git#%zz", None),
            ("https://h/a\u{1}.git", None),
            ("https://h/a.git?ref=%zz&subdir=d", Some("git://h/a.git#:d")),
            ("git@h:a?ref=%zz", None),
            ("git@h:a?ref=b;c", None),
        ] {
            let found = parse(text).map(|url| url.unwrap().to_source().identifier);
            assert_eq!(found.as_deref(), expected, "{text}");
        }
        let source = parse("git@h:a.git?commit=abc&keep-git-dir&submodules=0")
            .unwrap()
            .unwrap()
            .to_source();
        let attrs: Vec<String> = source.attrs.iter().map(|(k, v)| format!("{k}={v}")).collect();
        assert_eq!(
            attrs.join(" "),
            "git.authheadersecret=GIT_AUTH_HEADER git.authtokensecret=GIT_AUTH_TOKEN git.checksum=abc git.fullurl=git@h:a.git git.keepgitdir=true git.mountsshsock=default git.skipsubmodules=true"
        );
    }

    #[test]
    fn a_mark_without_a_query_stays_in_the_url() {
        for (text, remote) in [
            ("https://h/a.git?", "https://h/a.git?"),
            ("HTTPS://h/a.git?#main", "https://h/a.git?"),
            ("https://h/a.git?&", "https://h/a.git"),
            ("https://h/a.git#?", "https://h/a.git"),
            ("git@h:a?", "git@h:a"),
        ] {
            assert_eq!(parse(text).unwrap().unwrap().remote, remote, "{text}");
        }
    }

    #[test]
    fn options_of_what_is_a_repository_for_contexts_alone_are_read() {
        let wrong = |text: &str| wrong_options(text).map(|error| error.to_string());
        assert_eq!(wrong("github.com/a/b?x=1").unwrap(), "unexpected query \"x\"");
        assert_eq!(
            wrong("github.com/a/b.git?ref=").unwrap(),
            "query \"ref\" has no value"
        );
        for text in [
            "github.com/a/b",
            "github.com/a/b?ref=c",
            "github.com/a%zz",
            "x/github.com/a?x=1",
        ] {
            assert_eq!(wrong(text), None, "{text}");
        }
    }

    #[test]
    fn wrong_queries() {
        for (text, message) in [
            ("https://h/a.git?x=1", "unexpected query \"x\""),
            ("https://h/a.git?ref", "query \"ref\" has no value"),
            ("https://h/a.git?ref=a&ref=b", "query \"ref\" has multiple values"),
            ("https://h/a.git?ref=a#b", "ref conflicts: \"b\" vs \"a\""),
            ("https://h/a.git?tag=a&branch=b", "branch conflicts with tag"),
            (
                "https://h/a.git?submodules=maybe",
                "invalid submodules value: \"maybe\"",
            ),
        ] {
            assert_eq!(parse(text).unwrap().unwrap_err().to_string(), message);
        }
    }

    #[test]
    fn file_names_of_urls() {
        for (url, name) in [
            ("https://h/a/b.tar?x=/y", "b.tar"),
            ("https://h/", "__unnamed__"),
            ("https://h", "__unnamed__"),
            ("https://h/a%20b#c", "a b"),
            ("https://h/a/..", ".."),
            ("https://h/%2e", "__unnamed__"),
            ("https://h/a/.", "__unnamed__"),
            ("https://h/a%2f..%2f..%2fb", "b"),
        ] {
            assert_eq!(http_file_name(url).unwrap(), name, "{url}");
        }
        assert!(http_file_name("https://h/a%ff").is_err());
        assert!(is_http_file("https://h/a.zip") && !is_http_file("https://h/a.git") && !is_http_file("a"));
    }

    #[test]
    fn pairs_with_semicolons_are_not_read_and_times_are_named() {
        let url = |text: &str| parse_context(text).unwrap();
        let plain = url("https://h/a.git?ref=v1;subdir=d&subdir=e").unwrap();
        assert_eq!((plain.reference.as_str(), plain.subdirectory.as_str()), ("", "e"));
        assert_eq!(
            url("https://h/a.git?mtime=x").unwrap_err().to_string(),
            "invalid mtime value: \"x\" (must be \"checkout\" or \"commit\")"
        );
    }
}
