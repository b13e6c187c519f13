//! Lexical work on slash-separated paths, as Go's `path` package does it. Asks no file system and so follows no link.

/// Shortest equal path: no `.` element, no inner `..`, no doubled or trailing slash (Go `path.Clean`).
///
/// The empty path becomes `.`; a rooted path never leaves its root.
#[must_use]
pub fn clean(path: &str) -> String {
    let rooted = path.starts_with('/');
    let mut out: Vec<&str> = Vec::new();
    for element in path.split('/') {
        match element {
            "" | "." => {}
            ".." => match out.last() {
                Some(&last) if last != ".." => {
                    out.pop();
                }
                _ if rooted => {}
                _ => out.push(".."),
            },
            _ => out.push(element),
        }
    }
    let joined = out.join("/");
    match (rooted, joined.is_empty()) {
        (true, _) => format!("/{joined}"),
        (false, true) => ".".to_owned(),
        (false, false) => joined,
    }
}

/// Elements joined by one slash and cleaned; empty elements count for nothing (Go `path.Join`).
#[must_use]
pub fn join(elements: &[&str]) -> String {
    let kept: Vec<&str> = elements.iter().copied().filter(|e| !e.is_empty()).collect();
    if kept.is_empty() {
        String::new()
    } else {
        clean(&kept.join("/"))
    }
}

/// Last element of a path (Go `path.Base`): `.` for the empty path, `/` for one of slashes only.
#[must_use]
pub fn base(path: &str) -> &str {
    if path.is_empty() {
        return ".";
    }
    let trimmed = path.trim_end_matches('/');
    if trimmed.is_empty() {
        return "/";
    }
    trimmed.rsplit('/').next().unwrap_or(trimmed)
}

/// Whether a path starts at the root.
#[must_use]
pub fn is_absolute(path: &str) -> bool {
    path.starts_with('/')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clean_as_go_does() {
        for (path, expected) in [
            ("", "."),
            (".", "."),
            ("/", "/"),
            ("a/b/c", "a/b/c"),
            ("a//b/./c/", "a/b/c"),
            ("a/../..", ".."),
            ("../../a", "../../a"),
            ("/../a", "/a"),
            ("/a/b/../../..", "/"),
            ("a/b/../..", "."),
            ("./a", "a"),
        ] {
            assert_eq!(clean(path), expected, "{path:?}");
        }
    }

    #[test]
    fn join_and_base() {
        assert_eq!(join(&["/", "a/../b"]), "/b");
        assert_eq!(join(&["", ""]), "");
        assert_eq!(join(&["/w", "../x"]), "/x");
        assert_eq!(base(""), ".");
        assert_eq!(base("//"), "/");
        assert_eq!(base("/a/b/"), "b");
        assert_eq!(base("b"), "b");
    }
}
