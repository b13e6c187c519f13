//! Paths as texts, by the rules of Go's `path`.

/// The shortest path that means the same: `path.Clean`.
#[must_use]
pub fn clean(path: &str) -> String {
    let is_absolute = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => {
                parts.pop();
            }
            ".." if is_absolute => {}
            part => parts.push(part),
        }
    }
    match (is_absolute, parts.join("/")) {
        (true, joined) => format!("/{joined}"),
        (false, joined) if joined.is_empty() => ".".to_owned(),
        (false, joined) => joined,
    }
}

/// Whether a text names something of another machine (buildx' `util/urlutil`).
#[must_use]
pub fn is_remote(text: &str) -> bool {
    ["http://", "https://", "git://", "ssh://", "github.com/", "git@"]
        .iter()
        .any(|prefix| text.starts_with(prefix))
}
