//! Where keys for S3 are looked for, in the order of AWS's tools: attributes, environment, the profile's files.
//!
//! Roles are not assumed and no metadata service is asked: what needs that is refused with the way to do it before.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use rbuild_registry::Secret;

use super::sigv4::Keys;
use crate::attrs::Attrs;

/// Most of a file that is read, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Why there are no credentials for S3.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CredentialsError {
    /// Nowhere are any.
    #[error(
        "no credentials for S3: neither access_key_id and secret_access_key nor AWS_ACCESS_KEY_ID and \
         AWS_SECRET_ACCESS_KEY are set, and profile {profile:?} has none in {files}; metadata services of machines and \
         containers are not asked"
    )]
    None {
        /// The profile.
        profile: String,
        /// Where it was looked for.
        files: String,
    },
    /// Only half of a key is there.
    #[error("access_key_id and secret_access_key of an s3 cache go together, and only one of them is set")]
    Half,
    /// A role that would have to be assumed.
    #[error(
        "the credentials for S3 are a role ({by}), which is not assumed here: do that first, as \
         `aws configure export-credentials --format env` does, and set AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and \
         AWS_SESSION_TOKEN"
    )]
    Role {
        /// What says so.
        by: String,
    },
    /// A file that is there cannot be read.
    #[error("cannot read {file}: {reason}")]
    File {
        /// The file.
        file: String,
        /// Why.
        reason: String,
    },
}

/// Finds the keys.
///
/// # Errors
/// [`CredentialsError`].
pub(super) fn find(attrs: &Attrs<'_>) -> Result<Keys, CredentialsError> {
    let keys = |id: String, secret: String, token: Option<String>| Keys {
        access_key_id: Secret::new(id),
        secret_access_key: Secret::new(secret),
        session_token: token.filter(|text| !text.is_empty()).map(Secret::new),
    };
    let given = |key: &str| attrs.filled(key).map(str::to_owned);
    match (given("access_key_id"), given("secret_access_key")) {
        (Some(id), Some(secret)) => return Ok(keys(id, secret, given("session_token"))),
        (None, None) => {}
        _ => return Err(CredentialsError::Half),
    }
    let id = attrs
        .env("AWS_ACCESS_KEY_ID")
        .or_else(|| attrs.env("AWS_ACCESS_KEY"));
    let secret = attrs
        .env("AWS_SECRET_ACCESS_KEY")
        .or_else(|| attrs.env("AWS_SECRET_KEY"));
    if let (Some(id), Some(secret)) = (id, secret) {
        return Ok(keys(id, secret, attrs.env("AWS_SESSION_TOKEN")));
    }
    let profile = attrs
        .env("AWS_PROFILE")
        .or_else(|| attrs.env("AWS_DEFAULT_PROFILE"))
        .unwrap_or_else(|| "default".to_owned());
    let mut looked = Vec::new();
    for (path, sections) in files(attrs, &profile) {
        looked.push(path.display().to_string());
        let Some(text) = read(&path)? else { continue };
        for section in sections {
            let entries = entries_of(&text, &section);
            let entry = |key: &str| entries.get(key).cloned().filter(|text| !text.is_empty());
            if let (Some(id), Some(secret)) = (entry("aws_access_key_id"), entry("aws_secret_access_key")) {
                return Ok(keys(id, secret, entry("aws_session_token")));
            }
            let indirect = [
                "role_arn",
                "credential_process",
                "sso_session",
                "sso_start_url",
                "web_identity_token_file",
            ];
            if let Some(key) = indirect.iter().find(|key| entries.contains_key(**key)) {
                let by = format!("{key} of profile {profile:?} in {}", path.display());
                return Err(CredentialsError::Role { by });
            }
        }
    }
    let roles = [
        "AWS_WEB_IDENTITY_TOKEN_FILE",
        "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
        "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    ];
    if let Some(by) = roles.iter().find(|name| attrs.env(name).is_some()) {
        return Err(CredentialsError::Role { by: (*by).to_owned() });
    }
    Err(CredentialsError::None {
        profile,
        files: looked.join(", "),
    })
}

/// The files a profile may be in, and what its section is called in each.
fn files(attrs: &Attrs<'_>, profile: &str) -> Vec<(PathBuf, Vec<String>)> {
    let home = attrs.env("HOME").map(PathBuf::from);
    let place = |variable: &str, name: &str| {
        let own = attrs.env(variable).map(PathBuf::from);
        own.or_else(|| Some(home.as_ref()?.join(".aws").join(name)))
    };
    let own = vec![profile.to_owned()];
    let mut in_config = vec![format!("profile {profile}")];
    if profile == "default" {
        in_config.push(profile.to_owned());
    }
    let credentials = place("AWS_SHARED_CREDENTIALS_FILE", "credentials").map(|path| (path, own));
    let config = place("AWS_CONFIG_FILE", "config").map(|path| (path, in_config));
    credentials.into_iter().chain(config).collect()
}

fn read(path: &Path) -> Result<Option<String>, CredentialsError> {
    let failed = |reason: String| CredentialsError::File {
        file: path.display().to_string(),
        reason,
    };
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error.to_string())),
    };
    let mut text = String::new();
    let count = file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text);
    if count.map_err(|error| failed(error.to_string()))? as u64 > FILE_BYTES_MAX {
        return Err(failed(format!("it has more than {FILE_BYTES_MAX} bytes")));
    }
    Ok(Some(text))
}

/// The entries of a section of an INI file as AWS's tools read it: `#` and `;` begin a comment, indented lines belong
/// to the entry above and say nothing here.
fn entries_of(text: &str, section: &str) -> BTreeMap<String, String> {
    let mut entries = BTreeMap::new();
    let mut inside = false;
    for line in text.lines() {
        let trimmed = line.trim();
        if trimmed.is_empty() || trimmed.starts_with(['#', ';']) || line.starts_with([' ', '\t']) {
            continue;
        }
        if let Some(name) = trimmed.strip_prefix('[').and_then(|rest| rest.split(']').next()) {
            let name: Vec<&str> = name.split_whitespace().collect();
            inside = name.join(" ").replace('"', "") == section;
            continue;
        }
        if let Some((key, value)) = trimmed.split_once('=').filter(|_| inside) {
            let value = value.split(" #").next().unwrap_or_default();
            let value = value.split(" ;").next().unwrap_or_default();
            entries.insert(key.trim().to_lowercase(), value.trim().to_owned());
        }
    }
    entries
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(attrs: &[(&str, &str)], env: &[(&str, &str)]) -> Result<(String, Option<String>), String> {
        let pairs = |list: &[(&str, &str)]| -> BTreeMap<String, String> {
            list.iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                .collect()
        };
        let (attrs, env) = (pairs(attrs), pairs(env));
        let get = |name: &str| env.get(name).cloned();
        let keys = find(&Attrs::new(&attrs, &get)).map_err(|error| error.to_string())?;
        let token = keys.session_token.map(|token| token.reveal().to_owned());
        Ok((
            format!(
                "{}:{}",
                keys.access_key_id.reveal(),
                keys.secret_access_key.reveal()
            ),
            token,
        ))
    }

    #[test]
    fn attributes_win_over_the_environment_and_that_over_files() {
        let home = tempfile::tempdir().unwrap();
        let aws = home.path().join(".aws");
        std::fs::create_dir(&aws).unwrap();
        let credentials = "# keys\n[default]\naws_access_key_id = F # mine\nAWS_SECRET_ACCESS_KEY=G\n  x = y\n\
                           [ci]\naws_access_key_id=H\naws_secret_access_key=I\naws_session_token=J\n";
        std::fs::write(aws.join("credentials"), credentials).unwrap();
        let config = "[profile \"conf\"]\naws_access_key_id=K\naws_secret_access_key=L\n[profile role]\nrole_arn=arn:x\n";
        std::fs::write(aws.join("config"), config).unwrap();
        let home = home.path().to_str().unwrap();
        let attrs = [
            ("access_key_id", "A"),
            ("secret_access_key", "B"),
            ("session_token", "C"),
        ];
        let env = [
            ("AWS_ACCESS_KEY_ID", "D"),
            ("AWS_SECRET_ACCESS_KEY", "E"),
            ("AWS_SESSION_TOKEN", "T"),
            ("HOME", home),
        ];
        assert_eq!(found(&attrs, &env), Ok(("A:B".into(), Some("C".into()))));
        assert_eq!(
            found(&attrs[..2], &env),
            Ok(("A:B".into(), None)),
            "a token goes with its key"
        );
        assert_eq!(found(&[], &env), Ok(("D:E".into(), Some("T".into()))));
        let with = |profile: &str| found(&[], &[("HOME", home), ("AWS_PROFILE", profile)]);
        assert_eq!(with("default"), Ok(("F:G".into(), None)));
        assert_eq!(with("ci"), Ok(("H:I".into(), Some("J".into()))));
        assert_eq!(with("conf"), Ok(("K:L".into(), None)));
        let role = with("role").unwrap_err();
        assert!(role.contains("role_arn of profile \"role\""), "{role}");
        let none = with("other").unwrap_err();
        assert!(
            none.contains("profile \"other\" has none in") && none.contains(".aws/config"),
            "{none}"
        );
        assert!(found(&attrs[..1], &env).unwrap_err().contains("go together"));
    }

    #[test]
    fn roles_are_refused_with_the_way_to_do_it() {
        for name in [
            "AWS_WEB_IDENTITY_TOKEN_FILE",
            "AWS_CONTAINER_CREDENTIALS_FULL_URI",
        ] {
            let text = found(&[], &[(name, "/x")]).unwrap_err();
            assert!(
                text.contains(name) && text.contains("AWS_SESSION_TOKEN"),
                "{text}"
            );
        }
    }
}
