//! What takes room, what is removed, and what the program says of itself.

use super::*;

#[test]
fn disk_usage() {
    let fake = || Fake {
        usage: vec![record("a", true, true), record("b", false, false)],
        ..Fake::default()
    };
    assert_eq!(
        run_with(fake(), &["du"], b"").stdout.text(),
        "ID   RECLAIMABLE   SIZE   LAST ACCESSED\na    false         1MB*   2 hours ago\nb*   true          1MB    2 hours ago\n\
         Shared:       1MB\nPrivate:      1MB\nReclaimable:  1MB\nTotal:        2MB\n"
    );
    let text = run_with(fake(), &["du", "--verbose"], b"").stdout.text();
    assert!(
        text.starts_with("ID:           a\nParents:\n - p\nCreated at:   1970-01-01T00:00:00Z\n"),
        "{text}"
    );
    assert!(
        text.contains("Description:  mount / from exec \\x1b[2J\n"),
        "row 44"
    );
    let filtered = run_with(
        fake(),
        &["du", "--filter", "until=24h", "--filter", "type=regular"],
        b"",
    );
    assert!(!filtered.stdout.text().contains("Total:"));
    assert!(filtered.asked[0].contains("86400s") && filtered.asked[0].contains("(\"type\", \"regular\")"));
    let json = run_with(fake(), &["du", "--format=json"], b"").stdout.text();
    let first: serde_json::Value = serde_json::from_str(json.lines().next().unwrap()).unwrap();
    assert_eq!(
        (first["ID"].as_str(), first["Size"].as_u64()),
        (Some("a"), Some(1_000_000))
    );
}

#[test]
fn filters_that_are_refused() {
    for (filters, expected) in [
        (
            &["until=x"][..],
            "\"until\" filter expects a duration (e.g., '24h')",
        ),
        (
            &["until=1h", "until=2h"],
            "\"until\" filter expects only one value",
        ),
        (
            &["until=1h", "unused-for=2h"],
            "conflicting filters \"until\" and \"unused-for\"",
        ),
        (&["id=a", "id=b"], "\"id\" filter expects only one value"),
        (
            &["colour=red"],
            "invalid filter \"colour=red\": there are until, unused-for, id, parents, description, type, inuse, mutable, shared, private",
        ),
    ] {
        let line: Vec<&str> = std::iter::once("du")
            .chain(filters.iter().flat_map(|f| ["--filter", f]))
            .collect();
        let ran = run_line(&line);
        assert_eq!(ran.stderr.text(), format!("ERROR: {expected}\n"));
        assert!(ran.asked.is_empty());
    }
}

#[test]
fn pruning_asks_first() {
    let fake = || Fake {
        usage: vec![record("a", false, false)],
        ..Fake::default()
    };
    let question =
        "WARNING! This will remove all dangling build cache. Are you sure you want to continue? [y/N] ";
    for answer in [&b""[..], b"n\n", b"yes please\n"] {
        let ran = run_with(fake(), &["prune"], answer);
        assert_eq!((ran.stdout.text().as_str(), ran.asked.len()), (question, 0));
        assert_eq!(ran.code, ExitCode::Success);
    }
    let ran = run_with(fake(), &["prune"], b"Y\n");
    assert!(ran.stdout.text().ends_with("Total:   1MB\n"));
    assert_eq!(ran.asked.len(), 1);
    assert!(
        run_with(fake(), &["prune", "-a"], b"n")
            .stdout
            .text()
            .starts_with("WARNING! This will remove all build cache.")
    );
    let ran = run_with(
        fake(),
        &["prune", "-af", "--max-used-space=1g", "--filter=until=1h"],
        b"",
    );
    assert!(
        ran.asked[0].contains("all: true") && ran.asked[0].contains("max_used_bytes: Some(1073741824)"),
        "{:?}",
        ran.asked
    );
    assert!(!ran.stdout.text().contains("WARNING"));
    assert_eq!(
        run_line(&["prune", "-f", "--max-used-space=x"]).code,
        ExitCode::Failure
    );
}

#[test]
fn versions_are_asked_for_as_of_a_client_and_a_server() {
    for template in [
        "{{.Server.Version}}",
        "{{.Client.Version}}",
        "{{ .Server.Version }}",
    ] {
        let ran = run_line(&["version", "--format", template]);
        assert_eq!(ran.stdout.text(), format!("{}\n", env!("CARGO_PKG_VERSION")));
    }
    let json = run_line(&["buildx", "version", "--format=json"]).stdout.text();
    let said: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(said["Server"]["Os"], "linux");
}

#[test]
fn the_version_names_the_platform() {
    assert_eq!(
        run_line(&["version"]).stdout.text(),
        format!("rbuild {} linux/amd64\n", env!("CARGO_PKG_VERSION"))
    );
}
