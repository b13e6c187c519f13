//! Where a repository is: a URL, or `user@host:path`. What git is given of it, what is shown of it, what lets git in
//! (security rows 37 and 41).

use rbuild_oci::go_url::percent_decoded;

use super::identifier::IdentifierError;

/// Stands for a user or password where a URL is kept (BuildKit `util/urlutil`).
const MASK: &str = "xxxxx";

/// Where a repository is.
#[derive(Clone, Default, PartialEq, Eq)]
pub(super) struct Remote {
    given: String,
    /// Empty for `user@host:path`.
    scheme: String,
    user: Option<String>,
    password: Option<String>,
    host: String,
    /// With its slash; for `user@host:path` without.
    path: String,
}

impl std::fmt::Debug for Remote {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Remote").field(&self.shown()).finish()
    }
}

struct ScpLike<'a> {
    user: &'a str,
    host: &'a str,
    path: &'a str,
}

impl<'a> ScpLike<'a> {
    /// `user@host:path` (`util/sshutil/scpurl.go`).
    fn parse(text: &'a str) -> Option<Self> {
        let (user, rest) = text.split_once('@')?;
        let (host, path) = rest.split_once(':')?;
        let is_user = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        let is_host = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.');
        let fits =
            !user.is_empty() && !host.is_empty() && user.bytes().all(is_user) && host.bytes().all(is_host);
        fits.then_some(Self { user, host, path })
    }
}

impl Remote {
    /// Reads a URL, or `user@host:path`.
    ///
    /// # Errors
    /// [`IdentifierError::Remote`] for transports that are not served and for what git could take for an option.
    pub(super) fn parse(text: &str) -> Result<Self, IdentifierError> {
        let remote = match text.split_once("://") {
            Some((scheme, rest)) => {
                let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
                let (userinfo, host) = match authority.rsplit_once('@') {
                    Some((userinfo, host)) => (Some(userinfo), host),
                    None => (None, authority),
                };
                let (user, password) = match userinfo.map(|text| text.split_once(':').unwrap_or((text, ""))) {
                    Some((user, "")) => (Some(user), None),
                    Some((user, password)) => (Some(user), Some(password)),
                    None => (None, None),
                };
                Self {
                    given: text.to_owned(),
                    scheme: scheme.to_ascii_lowercase(),
                    user: user.filter(|user| !user.is_empty()).map(str::to_owned),
                    password: password.map(str::to_owned),
                    host: host.to_owned(),
                    path: path.to_owned(),
                }
            }
            None => match ScpLike::parse(text) {
                Some(scp) => Self {
                    given: text.to_owned(),
                    scheme: String::new(),
                    user: Some(scp.user.to_owned()),
                    password: None,
                    host: scp.host.to_owned(),
                    path: scp.path.to_owned(),
                },
                None => Self {
                    path: text.to_owned(),
                    ..Self::default()
                },
            },
        };
        match remote.wrong() {
            Some(reason) => Err(IdentifierError::Remote {
                url: remote.shown(),
                reason,
            }),
            None => Ok(remote),
        }
    }

    fn wrong(&self) -> Option<&'static str> {
        let dash = |text: &str| text.starts_with('-') || text.starts_with("%2d") || text.starts_with("%2D");
        if !matches!(self.scheme.as_str(), "http" | "https" | "ssh" | "git" | "") || self.given.is_empty() {
            return Some("only https, http, ssh and git are served");
        }
        if self.host.is_empty() {
            return Some("it has no host");
        }
        if dash(&self.host) || self.user.as_deref().is_some_and(dash) || dash(&self.path) {
            return Some("host, user or path begins with a dash");
        }
        if self.given.chars().any(|c| c.is_control() || c == ' ') {
            return Some("it has a space or a control character");
        }
        None
    }

    pub(super) fn as_given(&self) -> &str {
        &self.given
    }

    /// Host with its port.
    pub(super) fn host(&self) -> &str {
        &self.host
    }

    pub(super) fn is_http(&self) -> bool {
        matches!(self.scheme.as_str(), "http" | "https")
    }

    pub(super) fn is_ssh(&self) -> bool {
        matches!(self.scheme.as_str(), "ssh" | "")
    }

    /// The URL that git is given: no password, and for http no user either, since git shows both in many places.
    pub(super) fn url(&self) -> String {
        match (self.scheme.as_str(), &self.user) {
            ("", Some(user)) => format!("{user}@{}:{}", self.host, self.path),
            ("ssh", Some(user)) => format!("ssh://{user}@{}{}", self.host, self.path),
            (scheme, _) => format!("{scheme}://{}{}", self.host, self.path),
        }
    }

    /// The URL as BuildKit keeps it: user and password masked.
    pub(super) fn shown(&self) -> String {
        if self.scheme.is_empty() {
            return self.given.clone();
        }
        let userinfo = match (&self.user, &self.password) {
            (Some(_), Some(_)) => format!("{MASK}:{MASK}@"),
            (Some(_), None) => format!("{MASK}@"),
            (None, Some(_)) => format!(":{MASK}@"),
            (None, None) => String::new(),
        };
        format!("{}://{userinfo}{}{}", self.scheme, self.host, self.path)
    }

    /// User and password of the URL, for http.
    pub(super) fn credentials(&self) -> Option<(String, String)> {
        let decoded = |text: &str| String::from_utf8_lossy(&percent_decoded(text)).into_owned();
        if !self.is_http() || (self.user.is_none() && self.password.is_none()) {
            return None;
        }
        Some((
            decoded(self.user.as_deref().unwrap_or_default()),
            decoded(self.password.as_deref().unwrap_or_default()),
        ))
    }

    /// Everything on the remote's host: what is named relative to it, as submodules are, needs the same credentials.
    pub(super) fn origin(&self) -> String {
        format!("{}://{}/", self.scheme, self.host)
    }

    /// Where a token of the build is sent: to the remote, or to all of a host that is known to take it everywhere.
    pub(super) fn token_scope(&self) -> String {
        let url = self.url();
        for everywhere in ["https://github.com/", "https://www.github.com/"] {
            if url.starts_with(everywhere) {
                return everywhere.to_owned();
            }
        }
        url
    }
}

/// `text` with a transport: https where it names none.
pub(super) fn with_transport(text: &str) -> String {
    let has_scheme = text.split_once("://").is_some_and(|(scheme, _)| {
        !scheme.is_empty() && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric())
    });
    if has_scheme || ScpLike::parse(text).is_some() {
        text.to_owned()
    } else {
        format!("https://{text}")
    }
}
