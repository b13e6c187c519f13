//! Rules of our own, in whole Dockerfiles: each where it speaks and where it must be silent.

use std::path::Path;

use rbuild_frontend::{FrontendOptions, LintWarning, Rule};

use crate::fake::{ALPINE, Fake, lower_with, options};

fn fake() -> Fake {
    let names = [
        "debian:12",
        "golang:1.23",
        "rust:1",
        "node:22",
        "golang:1.23-alpine",
        "alpine:3.20",
    ];
    let name = |name: &str| format!("docker.io/library/{name}");
    names
        .iter()
        .fold(Fake::new(), |fake, image| fake.image(&name(image), ALPINE))
}

fn found(options: &FrontendOptions) -> Vec<String> {
    let dockerfile = String::from_utf8_lossy(&options.dockerfile).into_owned();
    let lowered = lower_with(options, &fake()).unwrap_or_else(|error| panic!("{error}: {dockerfile}"));
    lowered.warnings.iter().map(LintWarning::short).collect()
}

/// Short texts of all warnings, rules of our own asked for.
fn warnings(dockerfile: &str) -> Vec<String> {
    let mut options = options(dockerfile);
    options.own_checks = true;
    found(&options)
}

#[track_caller]
fn only(dockerfile: &str, expected: &str) {
    assert_eq!(warnings(dockerfile), [expected], "{dockerfile}");
    assert_eq!(
        found(&options(dockerfile)),
        Vec::<String>::new(),
        "silent unless asked: {dockerfile}"
    );
}

#[track_caller]
fn silent(dockerfile: &str) {
    assert_eq!(warnings(dockerfile), Vec::<String>::new(), "{dockerfile}");
}

#[test]
fn many_sources_one_name() {
    let said = |line: usize, name: &str| {
        format!(
            "ManySourcesOneName: several sources and {name:?} without a slash behind it: unless that is a directory already, each replaces the one before it (line {line})"
        )
    };
    only("FROM debian:12\nCOPY a b /srv/app\n", &said(2, "/srv/app"));
    only("FROM debian:12\nENV D=out\nADD a b $D\n", &said(3, "out"));
    only("FROM debian:12\nCOPY <<A b /f\nx\nA\n", &said(2, "/f"));
    silent("FROM debian:12\nCOPY a b /srv/app/\n");
    silent("FROM debian:12\nCOPY a b .\n");
    silent("FROM debian:12\nCOPY a b ../..\n");
    silent("FROM debian:12\nENV D=out/\nCOPY a b $D\n");
    silent("FROM debian:12\nCOPY a /srv/app\n");
    // How many a wildcard matches is not in the text.
    silent("FROM debian:12\nCOPY *.txt /srv/app\n");
}

#[test]
fn package_cache_in_layer() {
    only(
        "FROM debian:12\nRUN apt-get update && apt-get install -y curl\n",
        "PackageCacheInLayer: apt-get update leaves its package lists in the layer: remove /var/lib/apt/lists/* in the same RUN, or mount a cache there (line 2)",
    );
    only(
        "FROM debian:12\nRUN <<EOF\napt-get update\napt-get install -y curl\nEOF\n",
        "PackageCacheInLayer: apt-get update leaves its package lists in the layer: remove /var/lib/apt/lists/* in the same RUN, or mount a cache there (line 2)",
    );
    silent("FROM debian:12\nRUN apt-get update && apt-get install -y curl && rm -rf /var/lib/apt/lists/*\n");
    silent(
        "FROM debian:12\nRUN --mount=type=cache,target=/var/lib/apt apt-get update && apt-get install -y curl\n",
    );
    // A layer that is in no image costs nobody anything.
    silent("FROM debian:12 AS build\nRUN apt-get update\nFROM scratch\nCOPY --from=build /etc/passwd /\n");
}

#[test]
fn copied_tree_changed() {
    only(
        "FROM debian:12\nWORKDIR /app\nCOPY src .\nRUN chown -R app:app .\n",
        "CopiedTreeChanged: chown of /app stores what line 3 copied a second time: give that instruction --chown instead (line 4)",
    );
    only(
        "FROM debian:12 AS base\nCOPY src /srv/app\nFROM base\nRUN [\"chmod\", \"-R\", \"755\", \"/srv\"]\n",
        "CopiedTreeChanged: chmod of /srv stores what line 2 copied a second time: give that instruction --chmod instead (line 4)",
    );
    silent("FROM debian:12\nCOPY --chown=app src /app\nRUN mkdir /data && chown -R app /data\n");
    silent("FROM debian:12\nCOPY run.sh /usr/local/bin/\nRUN chmod -R a+x /usr/local/bin\n");
    // Not a layer of the image.
    silent(
        "FROM debian:12 AS a\nCOPY src /app\nRUN chown -R app /app\nFROM scratch\nCOPY --from=a /app /app\n",
    );
}

#[test]
fn source_before_dependencies() {
    only(
        "FROM node:22\nWORKDIR /app\nCOPY . .\nRUN npm ci\n",
        "SourceBeforeDependencies: Any change of the context repeats 'npm ci' in line 4: copy the files that list the dependencies first, the rest after it (line 3)",
    );
    only(
        "FROM golang:1.23 AS build\nWORKDIR /src\nADD ./ ./\nRUN go mod download\nFROM debian:12\nCOPY --from=build /etc/passwd /x\n",
        "SourceBeforeDependencies: Any change of the context repeats 'go mod download' in line 4: copy the files that list the dependencies first, the rest after it (line 3)",
    );
    silent("FROM node:22\nWORKDIR /app\nCOPY package*.json ./\nRUN npm ci\nCOPY . .\nRUN npm run build\n");
    silent("FROM node:22\nCOPY package.json ./\nRUN npm ci\nCOPY . .\nRUN npm ci\n");
    silent("FROM node:22\nCOPY . .\nRUN --mount=type=cache,target=/root/.npm npm ci\n");
    silent("FROM debian:12 AS a\nFROM node:22\nCOPY --from=a / /x\nRUN npm ci\n");
}

#[test]
fn secret_in_value() {
    only(
        "FROM debian:12\nENV PGPASSWORD=hunter2\n",
        "SecretInValue: ENV PGPASSWORD looks like it holds a secret: it stays readable in the image (line 2)",
    );
    only(
        "ARG REPO=https://me:hunter2@example.org/r.git\nFROM debian:12\n",
        "SecretInValue: ARG REPO looks like it holds a URL with a password: it stays readable in the image (line 1)",
    );
    only(
        "FROM debian:12\nLABEL aws=AKIAIOSFODNN7EXAMPLE\n",
        "SecretInValue: LABEL aws looks like it holds an AWS access key: it stays readable in the image (line 2)",
    );
    silent("FROM debian:12\nARG PGPASSWORD\nENV URL=https://example.org/a:b@c PGPASSFILE=/run/secrets/pg\n");
}

#[test]
fn no_warning_repeats_the_secret() {
    let secret = "hunter2hunter2";
    for dockerfile in [
        format!("FROM debian:12\nENV PGPASSWORD={secret}\n"),
        format!("FROM debian:12\nARG U=https://a:{secret}@example.org/\n"),
    ] {
        let found = warnings(&dockerfile);
        assert!(!found.is_empty() && !found.concat().contains(secret), "{found:?}");
    }
}

#[test]
fn missing_loader() {
    only(
        "FROM golang:1.23 AS build\nWORKDIR /src\nRUN go build -o /app .\nFROM alpine\nCOPY --from=build /app /app\n",
        "MissingLoader: /app needs the loader of glibc, and this is an image with musl: set CGO_ENABLED=0 for 'go build' (line 5)",
    );
    only(
        "FROM rust:1 AS build\nWORKDIR /src\nRUN cargo build --release\nFROM scratch\nCOPY --from=build /src/target/release/app /\n",
        "MissingLoader: /src/target/release/app needs the loader of glibc, and this is an image without a C library: build it for a musl target (line 5)",
    );
    only(
        "FROM alpine\nCOPY --from=debian:12 /usr/bin/perl /usr/bin/\n",
        "MissingLoader: /usr/bin/perl needs the loader of glibc, and this is an image with musl: install it there instead (line 2)",
    );
    for legal in [
        "FROM golang:1.23 AS build\nENV CGO_ENABLED=0\nRUN go build -o /app .\nFROM alpine\nCOPY --from=build /app /app\n",
        "FROM golang:1.23-alpine AS build\nRUN go build -o /app .\nFROM alpine\nCOPY --from=build /app /app\n",
        "FROM golang:1.23 AS build\nRUN go build -o /app .\nFROM debian:12\nCOPY --from=build /app /app\n",
        "FROM golang:1.23 AS build\nRUN go build -o /app .\nFROM alpine\nRUN apk add --no-cache gcompat\nCOPY --from=build /app /app\n",
        "FROM debian:12 AS build\nFROM scratch\nCOPY --from=build /lib64/ld-linux-x86-64.so.2 /lib64/\nCOPY --from=build /bin/true /bin/\n",
        "FROM debian:12 AS build\nRUN curl -o /usr/bin/jq https://example.org/jq\nFROM alpine\nCOPY --from=build /usr/bin/jq /usr/bin/\n",
        "FROM debian:12 AS build\nCOPY tool /usr/bin/tool\nFROM alpine\nCOPY --from=build /usr/bin/tool /usr/bin/\n",
        "FROM debian:12 AS build\nFROM alpine\nCOPY --from=build /usr/bin/busybox.static /etc/passwd /x/\n",
    ] {
        silent(legal);
    }
}

#[test]
fn asked_for_in_the_file_for_one_instruction_and_turned_off_again() {
    let body = "FROM debian:12\nRUN apt-get update\nENV PGPASSWORD=x\n";
    let names = |dockerfile: &str| -> Vec<String> {
        let found = found(&options(dockerfile));
        found
            .iter()
            .map(|text| text.split(':').next().unwrap().to_owned())
            .collect()
    };
    assert_eq!(
        names(&format!("# check=experimental=rbuild\n{body}")),
        ["SecretInValue", "PackageCacheInLayer"]
    );
    assert_eq!(
        names(&format!("# check=experimental=SecretInValue\n{body}")),
        ["SecretInValue"]
    );
    assert!(names(&format!("# check=experimental=all\n{body}")).is_empty());
    let one =
        "FROM debian:12\n# check=experimental=PackageCacheInLayer\nRUN apt-get update\nRUN apt-get update\n";
    assert_eq!(names(one).len(), 1);
    assert!(
        warnings("FROM debian:12\n# check=skip=PackageCacheInLayer\nRUN apt-get update\n").is_empty(),
        "the file may refuse what the caller asks for"
    );
    let mut failing = options("# check=error=true\nFROM debian:12\nRUN apt-get update\n");
    assert!(lower_with(&failing, &fake()).is_ok());
    failing.own_checks = true;
    let error = lower_with(&failing, &fake()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "lint violation found for rules: PackageCacheInLayer"
    );
}

/// The page's examples do what the page says: the first is warned of, the others are not.
#[test]
fn every_rule_has_a_page_whose_examples_are_true() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let list = std::fs::read_to_string(root.join("docs/rules/README.md")).unwrap();
    for rule in Rule::OWN {
        let page =
            std::fs::read_to_string(root.join(rule.url())).unwrap_or_else(|e| panic!("{}: {e}", rule.url()));
        assert!(
            page.starts_with(&format!("# {}\n", rule.name())),
            "{}",
            rule.url()
        );
        let file = Path::new(rule.url()).file_name().unwrap().to_str().unwrap();
        assert!(
            list.contains(&format!("[{}]({file})", rule.name())),
            "{file} is not in the list"
        );
        let examples: Vec<&str> = page
            .split("```dockerfile\n")
            .skip(1)
            .filter_map(|rest| rest.split("```").next())
            .collect();
        assert!(!examples.is_empty(), "{file} has no example");
        for (number, example) in examples.into_iter().enumerate() {
            let unasked = found(&options(example));
            let own = |text: &&String| {
                Rule::OWN
                    .iter()
                    .any(|rule| text.starts_with(&format!("{}: ", rule.name())))
            };
            assert_eq!(
                unasked.iter().find(own),
                None,
                "{file}, example {number}, is told unasked"
            );
            let told = warnings(example);
            let of_rule = told
                .iter()
                .all(|text| text.starts_with(&format!("{}: ", rule.name())));
            assert!(
                of_rule && told.len() == usize::from(number == 0),
                "{file}, example {number}: {told:?}"
            );
        }
    }
}

#[test]
fn row50_rules_of_our_own_stay_cheap_on_hostile_text() {
    let grow = "ENV A=$A$A\n".repeat(12);
    let words = "chown -R x $A$A$A$A ;".repeat(2000);
    let dockerfile = format!("FROM debian:12\nENV A=/aaaaaaaaaaaaaaaa\n{grow}RUN {words}\n");
    let start = std::time::Instant::now();
    warnings(&dockerfile);
    assert!(start.elapsed().as_secs() < 20, "{:?}", start.elapsed());
    let many: String = (1..400)
        .map(|n| format!("FROM s{} AS s{n}\nCOPY --from=s0 /bin/a /bin/b\n", n - 1))
        .collect();
    warnings(&format!("FROM alpine AS s0\n{many}"));
}
