//! Paths of Windows images, which are copied into from Linux too: a drive letter, which can only be that of the system, and
//! backslashes (BuildKit `util/system/path.go`). Here all paths have slashes; only the image config has backslashes.

use rbuild_dockerfile::path;

/// A path that no Windows image can have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DriveError {
    /// A drive alone.
    #[error("No relative path specified in {}", rbuild_dockerfile::quote::quote(.0))]
    NoPath(String),
    /// `//server/share`.
    #[error("UNC paths are not supported")]
    Unc,
    /// Any drive but `C:`.
    #[error("The specified path is not on the system drive (C:)")]
    OtherDrive,
}

/// `written` with slashes and without its drive, cleaned, if `os` is Windows; as it is elsewhere. `keep_slash` keeps a slash at
/// the end, which says that a directory is meant.
pub(super) fn without_drive(written: &str, os: &str, keep_slash: bool) -> Result<String, DriveError> {
    if os != "windows" {
        return Ok(written.to_owned());
    }
    let slashed = written.replace('\\', "/");
    if slashed.len() == 2 && slashed.ends_with(':') {
        return Err(DriveError::NoPath(written.to_owned()));
    }
    if slashed.starts_with("//") {
        return Err(DriveError::Unc);
    }
    let rest = match slashed.split_once(':') {
        Some((drive, rest)) if drive.eq_ignore_ascii_case("c") => rest,
        Some(_) => return Err(DriveError::OtherDrive),
        None => slashed.as_str(),
    };
    let mut cleaned = path::clean(rest);
    if keep_slash && cleaned.len() > 1 && rest.ends_with('/') {
        cleaned.push('/');
    }
    Ok(cleaned)
}

/// A path as the config of an image for `os` has it.
pub(super) fn in_config(slashed: &str, os: &str) -> String {
    match os {
        "windows" => slashed.replace('/', "\\"),
        _ => slashed.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drives() {
        for (written, expected) in [
            ("C:\\a\\b", "/a/b"),
            ("c:/a/../b/", "/b"),
            ("c:a", "a"),
            ("\\a\\", "/a"),
            ("a", "a"),
            ("", "."),
        ] {
            assert_eq!(
                without_drive(written, "windows", false).unwrap(),
                expected,
                "{written}"
            );
            assert_eq!(without_drive(written, "linux", false).unwrap(), written);
        }
        assert_eq!(without_drive("C:\\a\\", "windows", true).unwrap(), "/a/");
        assert_eq!(without_drive("C:\\", "windows", true).unwrap(), "/");
        for (written, error) in [
            ("C:", "No relative path specified in \"C:\""),
            ("\\\\.\\C$\\a", "UNC paths are not supported"),
            ("d:\\a", "The specified path is not on the system drive (C:)"),
        ] {
            assert_eq!(
                without_drive(written, "windows", false).unwrap_err().to_string(),
                error
            );
        }
        assert_eq!(in_config("/a/b", "windows"), "\\a\\b");
        assert_eq!(in_config("/a\\b", "linux"), "/a\\b");
    }
}
