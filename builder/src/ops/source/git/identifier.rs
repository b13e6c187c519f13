//! Which files of which repository: the identifier and attributes of a git source (BuildKit `source/git/identifier.go`,
//! `solver/pb/attr.go`), judged before git sees any of it (security row 37).

use rbuild_graph::SourceOp;

use super::Resolved;
use super::remote::{Remote, with_transport};
use crate::ops::source::blob::{self, BlobError};

/// Longest name of a ref, bytes.
const REF_BYTES_MAX: usize = 1024;
/// Why a source cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum IdentifierError {
    /// A remote that git is not asked for.
    #[error("invalid git remote {url}: {reason}")]
    Remote {
        /// Without credentials.
        url: String,
        /// What is wrong.
        reason: &'static str,
    },
    /// A ref that git is not asked for.
    #[error("invalid git ref {0:?}")]
    Ref(String),
    /// A ref that no repository can have; BuildKit asks for it and finds nothing.
    #[error("repository does not contain ref {0}, output: \"\"")]
    NoRef(String),
    /// A checksum that is none.
    #[error("invalid checksum {0} for Git URL, expected hex commit hash")]
    Checksum(String),
    /// A commit and a checksum of another.
    #[error("expected checksum to match {expected}, got {found}")]
    Mismatch {
        /// The checksum.
        expected: String,
        /// The commit.
        found: String,
    },
    /// `fetch-by-commit` without a commit.
    #[error("fetch-by-commit requires a checksum or a commit SHA ref")]
    CommitNeeded,
    /// `fetch-by-commit` with a part of a commit.
    #[error("fetch-by-commit requires a full commit SHA checksum, got {0:?}")]
    FullCommitNeeded(String),
    /// A bundle without the commit that is meant.
    #[error("git.bundle requires git.checksum to be set")]
    ChecksumNeeded,
    /// A bundle that is named by no blob.
    #[error("failed to parse git.bundle locator {locator:?}")]
    Bundle {
        /// As written.
        locator: String,
        /// Why.
        #[source]
        source: Box<BlobError>,
    },
    /// Two attributes that exclude each other.
    #[error("git.checkoutbundle is incompatible with {0}")]
    Incompatible(&'static str),
    /// An attribute that is not served yet.
    #[error("source attribute {0} is not supported yet")]
    Unsupported(String),
    /// An attribute that cannot be read.
    #[error("invalid value {value:?} of source attribute {name}")]
    Attribute {
        /// Its name.
        name: String,
        /// Its value.
        value: String,
    },
}

/// A git source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Identifier {
    pub(super) remote: Remote,
    /// Empty for the default branch.
    pub(super) reference: String,
    pub(super) subdirectory: String,
    /// A commit or its beginning; may be empty.
    pub(super) checksum: String,
    pub(super) keep_git_dir: bool,
    pub(super) skip_submodules: bool,
    /// Files are as old as the commit.
    pub(super) commit_times: bool,
    pub(super) fetch_by_commit: bool,
    pub(super) known_hosts: String,
    /// Id of the ssh agent to use.
    pub(super) ssh_agent: String,
    /// The blob to take the commit from instead of asking the remote.
    pub(super) bundle: Option<SourceOp>,
    /// The result is a bundle instead of files.
    pub(super) checkout_bundle: bool,
    token_secret: String,
    header_secret: String,
}

/// A secret to look for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct SecretName {
    pub(super) id: String,
    /// Its value is a token, not a header.
    pub(super) is_token: bool,
}

impl Identifier {
    pub(super) fn of(source: &SourceOp) -> Result<Self, IdentifierError> {
        let text = source
            .identifier
            .strip_prefix("git://")
            .unwrap_or(&source.identifier);
        let (place, fragment) = text.split_once('#').unwrap_or((text, ""));
        let (reference, subdirectory) = fragment.split_once(':').unwrap_or((fragment, ""));
        let mut remote = with_transport(place);
        let mut id = Self {
            remote: Remote::default(),
            reference: reference.to_owned(),
            subdirectory: clean(subdirectory),
            checksum: String::new(),
            keep_git_dir: false,
            skip_submodules: false,
            commit_times: false,
            fetch_by_commit: false,
            known_hosts: String::new(),
            ssh_agent: String::new(),
            bundle: None,
            checkout_bundle: false,
            token_secret: String::new(),
            header_secret: String::new(),
        };
        for (name, value) in &source.attrs {
            match name.as_str() {
                "git.fullurl" => remote = with_transport(value),
                "git.keepgitdir" => id.keep_git_dir = value == "true",
                "git.skipsubmodules" => id.skip_submodules = value == "true",
                "git.checkoutbundle" => id.checkout_bundle = value == "true",
                "git.bundle" => id.bundle = Some(bundle(value, source)?),
                "git.fetchbycommit" => id.fetch_by_commit = value == "true",
                "git.checksum" => id.checksum.clone_from(value),
                "git.authtokensecret" => id.token_secret.clone_from(value),
                "git.authheadersecret" => id.header_secret.clone_from(value),
                "git.knownsshhosts" => id.known_hosts.clone_from(value),
                "git.mountsshsock" => id.ssh_agent.clone_from(value),
                "git.mtime" => match value.as_str() {
                    "" | "checkout" => {}
                    "commit" => id.commit_times = true,
                    _ => {
                        return Err(IdentifierError::Attribute {
                            name: name.clone(),
                            value: value.clone(),
                        });
                    }
                },
                name if name.starts_with("git.") => {
                    return Err(IdentifierError::Unsupported(name.to_owned()));
                }
                _ => {}
            }
        }
        id.remote = Remote::parse(&remote)?;
        check_ref(&id.reference)?;
        if !id.checksum.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(IdentifierError::Checksum(id.checksum));
        }
        if id.bundle.is_some() && id.checksum.is_empty() {
            return Err(IdentifierError::ChecksumNeeded);
        }
        if id.checkout_bundle && id.keep_git_dir {
            return Err(IdentifierError::Incompatible("git.keepgitdir"));
        }
        if id.checkout_bundle && !id.subdirectory.is_empty() {
            return Err(IdentifierError::Incompatible("git.subdir"));
        }
        Ok(id)
    }

    /// What it is, where that needs no question.
    pub(super) fn pinned(&self) -> Result<Option<Resolved>, IdentifierError> {
        let resolved = |reference: &str, object: &str| Resolved {
            name: reference.to_owned(),
            reference: reference.to_owned(),
            object: object.to_owned(),
            commit: None,
        };
        if is_commit(&self.reference) {
            if !self.reference.starts_with(&self.checksum) {
                return Err(IdentifierError::Mismatch {
                    expected: self.checksum.clone(),
                    found: self.reference.clone(),
                });
            }
            return Ok(Some(resolved(&self.reference, &self.reference)));
        }
        if self.bundle.is_some() && self.reference.is_empty() {
            if !is_commit(&self.checksum) {
                return Err(IdentifierError::FullCommitNeeded(self.checksum.clone()));
            }
            return Ok(Some(resolved(&self.checksum, &self.checksum)));
        }
        if !self.fetch_by_commit {
            return Ok(None);
        }
        if self.checksum.is_empty() {
            return Err(IdentifierError::CommitNeeded);
        }
        if !is_commit(&self.checksum) {
            return Err(IdentifierError::FullCommitNeeded(self.checksum.clone()));
        }
        let reference = match self.reference.as_str() {
            "" => self.checksum.clone(),
            full if full.starts_with("refs/") => full.to_owned(),
            branch => format!("refs/heads/{branch}"),
        };
        Ok(Some(resolved(&reference, &self.checksum)))
    }

    /// The secrets that may let git in, the first that there is counts (`authSecretNames`).
    pub(super) fn secret_names(&self) -> Vec<SecretName> {
        if !self.remote.is_http() {
            return Vec::new();
        }
        let host = self.remote.host();
        let of = |secret: &str, suffix: String, is_token| {
            (!secret.is_empty()).then(|| SecretName {
                id: format!("{secret}{suffix}"),
                is_token,
            })
        };
        [
            of(&self.header_secret, format!(".{host}"), false),
            of(&self.token_secret, format!(".{host}"), true),
            of(&self.header_secret, String::new(), false),
            of(&self.token_secret, String::new(), true),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

/// The blob that a bundle is. A content store is named as the blob is, unless an attribute names it.
fn bundle(locator: &str, source: &SourceOp) -> Result<SourceOp, IdentifierError> {
    let mut attrs = std::collections::BTreeMap::new();
    let (_, body) = locator.split_once("://").unwrap_or(("", locator));
    let name = body.split('@').next().unwrap_or_default();
    attrs.insert("oci.store".to_owned(), name.to_owned());
    for name in ["oci.session", "oci.store"] {
        if let Some(value) = source.attrs.get(name).filter(|value| !value.is_empty()) {
            attrs.insert(name.to_owned(), value.clone());
        }
    }
    let blob = SourceOp {
        identifier: locator.to_owned(),
        attrs,
    };
    match blob::check(&blob) {
        Ok(()) => Ok(blob),
        Err(source) => Err(IdentifierError::Bundle {
            locator: locator.to_owned(),
            source: Box::new(source),
        }),
    }
}

/// Whether `text` is a whole commit id, of SHA-1 or SHA-256.
pub(super) fn is_commit(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// Refuses what could be taken for an option or a pattern, and what git would refuse (git-check-ref-format(1)).
pub(super) fn check_ref(reference: &str) -> Result<(), IdentifierError> {
    let is_bad =
        |c: char| c.is_control() || matches!(c, ' ' | '~' | '^' | ':' | '?' | '*' | '[' | '\\' | '\u{7f}');
    let start = || reference.chars().take(100).collect();
    if reference.starts_with('-') || reference.contains("/-") {
        return Err(IdentifierError::Ref(start()));
    }
    let is_none = reference.contains("..")
        || reference.contains("@{")
        || reference.len() > REF_BYTES_MAX
        || reference.chars().any(is_bad);
    match is_none {
        true => Err(IdentifierError::NoRef(start())),
        false => Ok(()),
    }
}

/// A path with `.` and `..` resolved, without a slash at its start; it never climbs.
fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(identifier: &str, attrs: &[(&str, &str)]) -> Result<Identifier, IdentifierError> {
        Identifier::of(&SourceOp {
            identifier: identifier.into(),
            attrs: attrs.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect(),
        })
    }

    #[test]
    fn identifiers_and_attributes_are_read() {
        let id = read(
            "git://h.example/a.git#v1:sub/../dir/",
            &[
                ("git.fullurl", "https://us%40er:p%3aw@h.example:8443/a.git"),
                ("git.keepgitdir", "true"),
                ("git.authtokensecret", "GIT_AUTH_TOKEN"),
                ("git.authheadersecret", "GIT_AUTH_HEADER"),
            ],
        )
        .unwrap();
        assert_eq!(
            (id.reference.as_str(), id.subdirectory.as_str(), id.keep_git_dir),
            ("v1", "dir", true)
        );
        assert_eq!(id.remote.url(), "https://h.example:8443/a.git");
        assert_eq!(id.remote.shown(), "https://xxxxx:xxxxx@h.example:8443/a.git");
        assert_eq!(id.remote.credentials(), Some(("us@er".into(), "p:w".into())));
        let names: Vec<_> = id
            .secret_names()
            .into_iter()
            .map(|name| (name.id, name.is_token))
            .collect();
        assert_eq!(
            names,
            [
                ("GIT_AUTH_HEADER.h.example:8443".to_owned(), false),
                ("GIT_AUTH_TOKEN.h.example:8443".to_owned(), true),
                ("GIT_AUTH_HEADER".to_owned(), false),
                ("GIT_AUTH_TOKEN".to_owned(), true),
            ]
        );
        assert_eq!(read("git://h/a", &[]).unwrap().remote.url(), "https://h/a");
        let ssh = read("git://h/a", &[("git.fullurl", "git@h:a.git")]).unwrap();
        assert!(ssh.remote.is_ssh() && ssh.secret_names().is_empty());
        assert_eq!(ssh.remote.url(), "git@h:a.git");
        let ssh = read("git://h/a", &[("git.fullurl", "ssh://u:c4n4ry@h:22/a")]).unwrap();
        assert_eq!(ssh.remote.url(), "ssh://u@h:22/a");
        assert!(!format!("{ssh:?}").contains("c4n4ry"));
    }

    #[test]
    fn row37_nothing_becomes_an_option_or_another_transport() {
        for url in [
            "ssh://-oProxyCommand=touch%20x/y",
            "ssh://-F@h/y",
            "ssh://%2doProxyCommand=x/y",
            "git@-oX:r",
            "-oX@h:r",
            "git@h:-x",
            "ext::sh -c touch% /canary/x",
            "ext://sh",
            "fd::3",
            "file:///canary/repo",
            "transport::x",
            "https:///r.git",
            "https://h/r.git\n",
            "https://h/ r.git",
        ] {
            assert!(
                matches!(
                    read("git://h/a", &[("git.fullurl", url)]),
                    Err(IdentifierError::Remote { .. })
                ) || read("git://h/a", &[("git.fullurl", url)])
                    .is_ok_and(|id| id.remote.url().starts_with("https://")),
                "{url}"
            );
        }
        let bare = read("git://h/a", &[("git.fullurl", "/canary/repo")]);
        assert!(matches!(bare, Err(IdentifierError::Remote { .. })), "no host");
        for reference in [
            "--upload-pack=touch /canary/x",
            "-c",
            "a\nb",
            "a..b",
            "a@{1}",
            "a*",
            "refs/heads/--output=x",
            &"x".repeat(10_000),
        ] {
            assert!(
                matches!(
                    read(&format!("git://h/a#{reference}"), &[]),
                    Err(IdentifierError::Ref(_) | IdentifierError::NoRef(_))
                ),
                "{reference:.40}"
            );
        }
        for twin in ["main", "feature/x-y", "v1.0", "refs/tags/v1", ""] {
            assert_eq!(read(&format!("git://h/a#{twin}"), &[]).unwrap().reference, twin);
        }
        for (written, meant) in [("/etc", "etc"), ("../..", ""), ("a/../../b", "b"), (".", "")] {
            assert_eq!(
                read(&format!("git://h/a#:{written}"), &[]).unwrap().subdirectory,
                meant
            );
        }
    }

    #[test]
    fn what_is_pinned_needs_no_question() {
        let commit = "0123456789abcdef0123456789abcdef01234567";
        let pinned =
            |fragment: &str, attrs: &[_]| read(&format!("git://h/a#{fragment}"), attrs).unwrap().pinned();
        assert_eq!(pinned(commit, &[]).unwrap().unwrap().object, commit);
        assert!(pinned(commit, &[("git.checksum", "0123")]).unwrap().is_some());
        assert!(matches!(
            pinned(commit, &[("git.checksum", "ffff")]),
            Err(IdentifierError::Mismatch { .. })
        ));
        assert_eq!(pinned("main", &[("git.checksum", commit)]).unwrap(), None);
        let by_commit = ("git.fetchbycommit", "true");
        assert!(matches!(
            pinned("main", &[by_commit]),
            Err(IdentifierError::CommitNeeded)
        ));
        assert!(matches!(
            pinned("main", &[by_commit, ("git.checksum", "0123")]),
            Err(IdentifierError::FullCommitNeeded(_))
        ));
        let resolved = pinned("main", &[by_commit, ("git.checksum", commit)])
            .unwrap()
            .unwrap();
        assert_eq!(resolved.reference, "refs/heads/main");
        assert!(matches!(
            read("git://h/a", &[("git.checksum", "--x")]),
            Err(IdentifierError::Checksum(_))
        ));
        assert!(matches!(
            read("git://h/a", &[("git.sig.pubkey", "x")]),
            Err(IdentifierError::Unsupported(_))
        ));
        assert!(matches!(
            read("git://h/a", &[("git.bundle", "x")]),
            Err(IdentifierError::Bundle { .. })
        ));
        let blob = format!("docker-image+blob://h/b@sha256:{}", "a".repeat(64));
        let bundled = [("git.bundle", blob.as_str()), ("git.checksum", commit)];
        assert_eq!(pinned("", &bundled).unwrap().unwrap().object, commit);
        assert_eq!(pinned("main", &bundled).unwrap(), None);
    }
}
