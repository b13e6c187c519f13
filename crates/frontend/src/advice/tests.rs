//! What the rules read out of a command line.

use super::*;
use crate::advice::loader::Libc;

fn split(text: &str) -> Vec<String> {
    commands::split(text)
        .iter()
        .map(|words| words.join("|"))
        .collect()
}

#[test]
fn shell_text_is_cut_into_simple_commands() {
    for (text, expected) in [
        ("a b && c || d; e & f", vec!["a|b", "c", "d", "e", "f"]),
        ("a 'b c' \"d \\\" $e\" f\\ g", vec!["a|b c|d \" $e|f g"]),
        (
            "if [ -f x ]; then a; else b; fi",
            vec!["[|-f|x|]", "a", "b", "fi"],
        ),
        ("A=1 B= sudo a C=2", vec!["a|C=2"]),
        ("a # b; c\nd#e", vec!["a", "d#e"]),
        ("a >b 2>&1 &>c", vec!["a|>b|2>&1|&>c"]),
        ("(a) | { b; }", vec!["a", "b", "}"]),
        ("a ''", vec!["a|"]),
        ("a \\\n b", vec!["a|b"]),
        ("'never closed", vec!["never closed"]),
        ("a \\", vec!["a"]),
    ] {
        assert_eq!(split(text), expected, "{text}");
    }
}

#[test]
fn what_a_base_has_for_a_c_library() {
    for (name, expected) in [
        ("scratch", Some(Libc::Empty)),
        ("docker.io/library/alpine:3.20", Some(Libc::Musl)),
        ("docker.io/library/golang:1.23-alpine3.20", Some(Libc::Musl)),
        ("docker.io/library/golang:1.23@sha256:abc", Some(Libc::Glibc)),
        ("docker.io/library/rust:1-slim-bookworm", Some(Libc::Glibc)),
        ("docker.io/library/busybox:musl", Some(Libc::Musl)),
        ("docker.io/library/busybox:latest", None),
        ("gcr.io/distroless/static-debian12:nonroot", Some(Libc::Empty)),
        ("gcr.io/distroless/cc-debian12:latest", Some(Libc::Glibc)),
        ("localhost:5000/debian", None),
        ("docker.io/somebody/debian:latest", None),
    ] {
        assert_eq!(Libc::of(name), expected, "{name}");
    }
}

#[test]
fn what_a_package_manager_leaves() {
    let left = |text: &str, mounted: &[&str]| packages::left(&commands::split(text), mounted).len();
    for dirty in [
        "apt-get update && apt-get install -y curl",
        "apt update; apt install -y curl && rm -rf /tmp/*",
        "apt-get clean && apt-get update",
        "apk add curl",
        "dnf -y install curl",
        "zypper -n in curl",
        "pacman -Sy --noconfirm curl",
    ] {
        assert_eq!(left(dirty, &[]), 1, "{dirty}");
    }
    for clean in [
        "apt-get install -y curl",
        "apt-get update && apt-get install -y curl && rm -rf /var/lib/apt/lists/*",
        "apt-get update && apt-get install -y a && rm -r /var/lib/{apt,dpkg,cache,log}/",
        "apt-get update && apt-get install -y a; find /var/lib/apt/lists -type f -delete",
        "apk add --no-cache curl",
        "apk add --no-network --virtual .rundeps curl",
        "apk add curl && rm -rf /var/cache/apk/*",
        "dnf -y install curl && dnf clean all",
        "zypper -n in curl && zypper clean --all",
        "pacman -Syu && pacman -Scc",
        "echo 'apt-get update'",
    ] {
        assert_eq!(left(clean, &[]), 0, "{clean}");
    }
    assert_eq!(left("apt-get update", &["/var/lib/apt"]), 0);
    assert_eq!(left("apt-get update", &["/var/cache/apt"]), 1);
    assert_eq!(left("apt-get update && apk add a && yum install a", &[]), 3);
}

#[test]
fn what_links_against_glibc() {
    let resolve = |word: &str| Some(absolute("/src", word));
    let made = |text: &str, path: &str| {
        let built = loader::built(text, &commands::split(text), &Env::default(), &resolve);
        loader::how(&built.iter().collect::<Vec<_>>(), path).is_some()
    };
    for (text, path) in [
        ("go build -o /out/app ./cmd/app", "/out/app"),
        ("go build -o app .", "/src/app"),
        ("go build ./cmd/server", "/src/server"),
        ("go install ./...", "/go/bin/server"),
        ("cargo build --release", "/src/target/release/app"),
        ("cargo build --release && cp target/release/app /app", "/app"),
        (
            "cargo build && mv target/debug/app /usr/local/bin",
            "/usr/local/bin/app",
        ),
        ("cargo install ripgrep", "/usr/local/cargo/bin/rg"),
        ("gcc -O2 -o hello hello.c", "/src/hello"),
    ] {
        assert!(made(text, path), "{text}");
    }
    for (text, path) in [
        ("CGO_ENABLED=0 go build -o /out/app .", "/out/app"),
        ("export CGO_ENABLED=0; go build -o /out/app .", "/out/app"),
        (
            "go build -ldflags '-extldflags -static' -o /out/app .",
            "/out/app",
        ),
        ("GOARCH=arm64 go build -o /out/app .", "/out/app"),
        ("go build -o /out/app .", "/out/config.yaml"),
        ("go vet -o /out/app .", "/out/app"),
        (
            "cargo build --target x86_64-unknown-linux-musl",
            "/src/target/release/app",
        ),
        (
            "RUSTFLAGS='-C target-feature=+crt-static' cargo build",
            "/src/target/debug/app",
        ),
        ("cargo build", "/src/README"),
        ("gcc -static -o hello hello.c", "/src/hello"),
        ("gcc -c -o hello.o hello.c", "/src/hello.o"),
        ("make", "/src/hello"),
    ] {
        assert!(!made(text, path), "{text}");
    }
}

#[test]
fn what_installs_dependencies() {
    let tool = |text: &str| installs::tool(&commands::split(text));
    for (text, expected) in [
        ("npm ci --omit=dev", "npm ci"),
        ("cd /app && yarn", "yarn install"),
        ("python3 -m pip install -r requirements.txt", "pip install -r"),
        ("bundle install --jobs 4", "bundle install"),
        ("go mod download -x", "go mod download"),
        ("./mvnw -B dependency:go-offline", "mvn dependency:go-offline"),
    ] {
        assert_eq!(tool(text), Some(expected), "{text}");
    }
    for text in [
        "npm install -g pnpm",
        "npm run build",
        "pip install flask",
        "pip install .",
        "yarn --version",
        "go build ./...",
        "echo npm ci > note",
    ] {
        assert_eq!(tool(text), None, "{text}");
    }
}

#[test]
fn what_is_a_secret_by_its_form_or_name() {
    for (name, value, what) in [
        ("A", "AKIAIOSFODNN7EXAMPLE", "an AWS access key"),
        (
            "A",
            "x ghp_0123456789abcdefghijABCDEFGHIJ012345",
            "a GitHub token",
        ),
        (
            "DATABASE_URL",
            "postgres://me:hunter2@db/x",
            "a URL with a password",
        ),
        ("K", "-----BEGIN RSA PRIVATE KEY-----", "a private key"),
        ("PGPASSWORD", "hunter2", "a secret"),
        ("dbPassword", "\"abcdef\"", "a secret"),
    ] {
        assert_eq!(secrets::found(name, value), Some(what), "{name}");
    }
    for (name, value) in [
        ("A", "AKIA"),
        ("A", "a phrase about ghp_ tokens"),
        ("DATABASE_URL", "postgres://me:$PW@db/x"),
        ("DATABASE_URL", "postgres://me@db/x"),
        ("URL", "https://example.org/a:b@c"),
        ("PGPASSWORD", ""),
        ("PGPASSWORD", "$PW"),
        ("KEYTOKEN", "/run/secrets/token"),
        ("USETOKEN", "true"),
        // BuildKit's own rule speaks of these.
        ("DB_PASSWORD", "hunter2"),
    ] {
        assert_eq!(secrets::found(name, value), None, "{name}={value}");
    }
}

#[test]
fn trees_that_change_owner_or_mode() {
    let resolve = |word: &str| Some(absolute("/app", word));
    let changed = |text: &str| ownership::changes(&commands::split(text), &resolve).len();
    let mut copies = ownership::Copies::default();
    copies.add("/app", 3);
    copies.add("/srv/www/html", 4);
    let message = |text: &str| {
        let changes = ownership::changes(&commands::split(text), &resolve);
        changes.iter().find_map(|change| copies.message(change))
    };
    for (text, line) in [
        ("chown -R app:app /app", "line 3"),
        ("chmod -R g+w .", "line 3"),
        ("chown --recursive app /srv/www", "line 4"),
        ("chgrp -hR 0 /", "line 3"),
        ("find /srv -type d -exec chmod 755 {} +", "line 4"),
    ] {
        assert!(
            message(text).is_some_and(|message| message.contains(line)),
            "{text}"
        );
    }
    for text in [
        "chown app /app",
        "chmod +x /app/run",
        // What it makes itself, below what was copied.
        "mkdir -p /app/data && chown -R app /app/data",
        "chown -R app /srv/wwwroot",
        "find /srv -name x -delete",
    ] {
        assert_eq!(message(text), None, "{text}");
    }
    let many = "chown -R a /b;".repeat(1000);
    assert!(changed(&many) <= 17, "bounded");
}

#[test]
fn row50_words_of_steps_are_bounded_and_never_panic() {
    for text in ["'", "\"", "\\", "(((((", "a\0b", "🦀=1 🦀", "$((", "<<EOF", ""] {
        let commands = commands::split(text);
        assert!(
            packages::left(&commands, &[]).is_empty() && installs::tool(&commands).is_none(),
            "{text}"
        );
    }
    let long = "a".repeat(1 << 20);
    assert_eq!(commands::split(&long).len(), 1);
    let named: BTreeSet<_> = commands::split(&"x;".repeat(100_000)).into_iter().collect();
    assert_eq!(named.len(), 1);
}
