//! Files that want more time, memory or stack than they get; each beside one that is alike and read.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use rbuild_bake::{Chosen, File, Surroundings, read};

fn chosen(name: &str, text: &str) -> Result<Chosen, String> {
    chosen_with("", name, text)
}

/// The same beside a `.env` file.
fn chosen_with(dotenv: &str, name: &str, text: &str) -> Result<Chosen, String> {
    let surroundings = Surroundings {
        variable: &|_| None,
        dotenv: dotenv.to_owned(),
        file: &|_| Err(std::io::ErrorKind::NotFound.into()),
        builtins: BTreeMap::new(),
        now: 0,
        home: String::new(),
    };
    let file = File {
        name: name.to_owned(),
        bytes: text.as_bytes().to_vec(),
    };
    let definition = read(&[file], &surroundings).map_err(|error| error.to_string())?;
    definition
        .choose(&["default".to_owned()], &[], &|_| None)
        .map_err(|error| error.to_string())
}

#[track_caller]
fn refused(name: &str, text: &str, why: &str) {
    let error = chosen(name, text).expect_err("it is refused");
    assert!(error.contains(why), "{error}");
}

fn target(attribute: &str) -> String {
    format!("target \"default\" {{\n  {attribute}\n}}\n")
}

fn nested(levels: usize) -> String {
    target(&format!(
        "args = {{ A = {}1{} }}",
        "(".repeat(levels),
        ")".repeat(levels)
    ))
}

/// Variables each of which is the one before twice.
fn doubled(times: usize) -> String {
    let mut text = "v0 = \"0123456789\"\n".to_owned();
    for at in 0..times {
        writeln!(text, "v{} = \"${{v{at}}}${{v{at}}}\"", at + 1).expect("a text takes it");
    }
    text + &target(&format!("args = {{ A = strlen(v{times}) }}"))
}

/// Variables each of which refers to the one before.
fn chained(times: usize) -> String {
    let mut text = "v0 = 1\n".to_owned();
    for at in 0..times {
        writeln!(text, "v{} = v{at}", at + 1).expect("a text takes it");
    }
    text + &target(&format!("args = {{ A = v{times} }}"))
}

/// Aliases each of which is the one before ten times.
fn laughs(times: usize) -> String {
    let mut text = "x-a0: &a0 [x]\n".to_owned();
    for at in 0..times {
        let aliases = vec![format!("*a{at}"); 10].join(", ");
        writeln!(text, "x-a{}: &a{} [{aliases}]", at + 1, at + 1).expect("a text takes it");
    }
    text + "services:\n  default:\n    build: .\n"
}

#[test]
fn row48_what_bake_files_nest_is_bounded() {
    refused("a.hcl", &nested(200), "more than 100 levels");
    refused("a.hcl", &nested(1_000_000), "more than 100 levels");
    refused(
        "a.hcl",
        &target(&format!("args = {{ A = {}true }}", "!".repeat(100_000))),
        "more than 100 levels",
    );
    refused(
        "a.hcl",
        &target(&format!("args = {{ A = 1{} }}", "+1".repeat(100_000))),
        "operators in a row",
    );
    let chain = "true ? 1 : ".repeat(100_000);
    refused(
        "a.hcl",
        &target(&format!("args = {{ A = {chain} 2 }}")),
        "more than 100 levels",
    );
    refused("a.hcl", &chained(100_000), "too deeply");
    refused("a.hcl", &"a {\n".repeat(100_000), "more than 100 levels");
    let json = format!("{{\"target\": {}1{}}}", "[".repeat(100_000), "]".repeat(100_000));
    refused("a.json", &json, "recursion limit");
    refused("a.yml", &"- ".repeat(100_000), "levels");
}

#[test]
fn row48_what_bake_files_nest_a_little_is_read() {
    chosen("a.hcl", &nested(40)).unwrap();
    chosen("a.hcl", &chained(60)).unwrap();
    chosen(
        "a.hcl",
        &target(&format!("args = {{ A = 1{} }}", "+1".repeat(90))),
    )
    .unwrap();
}

#[test]
fn row48_what_bake_files_make_is_bounded() {
    refused("a.hcl", &doubled(60), "take more than there is room for");
    let loops = "[for a in range(1000) : [for b in range(1000) : [for c in range(1000) : c]]]";
    refused(
        "a.hcl",
        &target(&format!("args = {{ A = length({loops}) }}")),
        "take more than there is room for",
    );
    refused(
        "a.hcl",
        &target("args = { A = length(range(1e9)) }"),
        "more than 1024 values",
    );
    refused(
        "a.hcl",
        &target("args = { A = format(\"%999999999d\", 1) }"),
        "too large",
    );
    refused(
        "a.hcl",
        &target("args = { A = length(regexall(\"(((a{100}){100}){100})\", \"a\")) }"),
        "regexp",
    );
    let axis = format!("[{}]", vec!["1"; 300].join(","));
    let matrix = target(&format!(
        "name = \"t-${{a}}\"\n  matrix = {{ a = {axis}, b = {axis} }}"
    ));
    refused("a.hcl", &matrix, "more than 4096 targets");
    refused("a.yml", &laughs(9), "values");
    let large = format!("# {}\n", "x".repeat(5 << 20));
    refused("a.hcl", &large, "more than 4194304 bytes");
}

#[test]
fn row48_what_bake_files_make_a_little_of_is_read() {
    chosen("a.hcl", &doubled(10)).unwrap();
    chosen("a.yml", &laughs(3)).unwrap();
    chosen("a.hcl", &target("args = { A = length(range(1000)) }")).unwrap();
}

#[test]
fn row48_references_of_bake_files_end() {
    refused(
        "a.hcl",
        "a = b\nb = a\ntarget \"default\" {}\n",
        "cycle not allowed",
    );
    refused(
        "a.hcl",
        &target("args = { A = target.default.args.A }"),
        "reference cycle not allowed",
    );
    let function = "function \"f\" {\n  params = [x]\n  result = f(x)\n}\n";
    refused(
        "a.hcl",
        &format!("{function}{}", target("args = { A = f(1) }")),
        "function cycle not allowed",
    );
    refused(
        "a.hcl",
        &target("contexts = { a = \"target:default\" }"),
        "cannot link to itself",
    );
    let text = "target \"default\" {\n  contexts = { a = \"target:b\" }\n}\ntarget \"b\" {\n  contexts = { a = \"target:default\" }\n}\n";
    refused("a.hcl", text, "infinite loop");
    let services = "services:\n  default:\n    extends: other\n  other:\n    extends: default\n";
    refused("a.yml", services, "extends itself");
    // Inheritance that leads back is cut, as in buildx.
    let text = "target \"default\" {\n  inherits = [\"b\"]\n}\ntarget \"b\" {\n  inherits = [\"default\"]\n  tags = [\"t\"]\n}\n";
    assert!(
        chosen("a.hcl", text)
            .unwrap()
            .to_json()
            .to_text()
            .contains("\"t\"")
    );
}

#[test]
fn what_is_wrong_is_told_with_its_place() {
    for (text, told) in [
        (
            "target \"default\" {\n  tags = [x]\n}\n",
            "a.hcl:2,11-12: Unknown variable; There is no variable named \"x\".",
        ),
        (
            "target \"default\" {\n  tags = 1\n}\n",
            "a.hcl:2,10-11: Unsuitable value type",
        ),
        ("target \"default\" {\n  tags = [\n", "a.hcl:"),
        ("target \"a b\" {}\n", "only \"[a-zA-Z0-9_-]+\" are allowed"),
        (
            "group \"default\" { targets = [\"none\"] }\n",
            "failed to find target none",
        ),
        (
            "target \"default\" { args = { A = uper(\"x\") } }\n",
            "Did you mean \"upper\"?",
        ),
        (
            "target \"default\" { policy = [\"p.rego\"] }\n",
            "rbuild does not evaluate policies in Rego",
        ),
    ] {
        refused("a.hcl", text, told);
    }
}

#[test]
fn services_that_are_not_whole_are_refused() {
    for (services, told) in [
        (
            "a:\n    command: x\n",
            "service \"a\" has neither an image nor a build context",
        ),
        ("a:\n", "service \"a\" has neither an image nor a build context"),
        (
            "a:\n    build:\n      dockerfile: x\n      dockerfile_inline: FROM scratch\n",
            "service \"a\" declares mutually exclusive dockerfile and dockerfile_inline",
        ),
        (
            "a:\n    build:\n      additional_contexts:\n        b: service:b\n",
            "service \"a\" declares unknown service \"b\" as additional contexts b",
        ),
        (
            "a:\n    build:\n      additional_contexts: [\"x=service:b\"]\n  b:\n    image: b\n",
            "service \"a\" declares non-buildable service \"b\" as additional contexts x",
        ),
        (
            "a:\n    image: a\n    env_file: a.env\n",
            "env file a.env not found",
        ),
        (
            "a:\n    image: a\n    env_file:\n      - path: a.env\n        required: maybe\n",
            "required must be a boolean",
        ),
        (
            "a:\n    build: ${A:?}\n",
            "required variable A is missing a value",
        ),
        ("a:\n    build: ${A!x}\n", "invalid interpolation format"),
        ("a:\n    build: ${}\n", "invalid interpolation format"),
    ] {
        refused("compose.yaml", &format!("services:\n  {services}"), told);
    }
    let whole = "services:\n  default:\n    build: .\n    env_file: [{path: a.env, required: false}]\n";
    chosen("compose.yaml", whole).expect("a whole service");
}

#[test]
fn a_block_in_one_line_has_one_argument() {
    for (text, told) in [
        (
            "target \"default\" { tags = [\"a\"]\n}\n",
            "Invalid single-argument block definition",
        ),
        (
            "target \"default\" { tags = [\"a\"] # a\n}\n",
            "Invalid single-argument block definition",
        ),
        (
            "target \"default\" { tags = [\"a\"] target = \"b\" }\n",
            "Invalid single-argument block definition",
        ),
        (
            "variable \"A\" { validation { condition = true } }\n",
            "can have a single argument, and no block",
        ),
        (
            "target \"default\" { 1 }\n",
            "Argument or block definition required",
        ),
    ] {
        refused("a.hcl", text, told);
    }
    for text in [
        "target \"default\" { /* a */ tags = [\n\"a\"\n] /* b */ }\n",
        "target \"default\" { # a\n  tags = [\"a\"]\n  target = \"b\" }\n",
        "target \"default\" {}",
    ] {
        chosen("a.hcl", text).expect("a block");
    }
}

/// What the first of `files` comes to, `--print` of the targets.
fn with_files(files: &[(&str, String)]) -> Result<String, String> {
    let asked = std::cell::Cell::new(0);
    let file = |name: &str| {
        asked.set(asked.get() + 1);
        assert!(asked.get() < 2000, "files are asked for without end");
        let found = files.iter().find(|(known, _)| *known == name);
        let found = found.map(|(_, text)| text.clone());
        found.ok_or_else(|| std::io::ErrorKind::NotFound.into())
    };
    let surroundings = Surroundings {
        variable: &|_| None,
        dotenv: String::new(),
        file: &file,
        builtins: BTreeMap::new(),
        now: 0,
        home: String::new(),
    };
    let main = File {
        name: files[0].0.to_owned(),
        bytes: files[0].1.as_bytes().to_vec(),
    };
    let definition = read(&[main], &surroundings).map_err(|error| error.to_string())?;
    let chosen = definition.choose(&["default".to_owned()], &[], &|_| None);
    Ok(chosen.map_err(|error| error.to_string())?.to_json().to_text())
}

#[test]
fn files_that_name_each_other_end() {
    let refused = |files: &[(&str, String)], why: &str| {
        let error = with_files(files).expect_err("it is refused");
        assert!(error.contains(why), "{error}");
    };
    let service = "services: {a: {build: .}}\n";
    let include = |name: &str| format!("include: [{name}]\n{service}");
    let names = ["compose.yml", "b.yml", "c.yml"];
    refused(
        &[(names[0], include(names[0]))],
        "include cycle detected:\ncompose.yml\n include compose.yml",
    );
    refused(
        &[
            (names[0], include("./b.yml")),
            (names[1], include("c.yml")),
            (names[2], include("x/../b.yml")),
        ],
        "include cycle detected",
    );
    // Without a cycle, each file twice: 2^20 of them.
    let mut files = vec![("compose.yml", include("f0.yml"))];
    let doubled: Vec<(String, String)> = (0..20)
        .map(|at| {
            (
                format!("f{at}.yml"),
                include(&format!("f{0}.yml, f{0}.yml", at + 1)),
            )
        })
        .collect();
    files.extend(doubled.iter().map(|(name, text)| (name.as_str(), text.clone())));
    files.push(("f20.yml", service.to_owned()));
    refused(&files, "more than 200 files are named");
    // The twin: a few of them.
    with_files(&files[18..]).expect("three that are named twice");

    let extends =
        |file: &str| format!("services: {{a: {{build: ., extends: {{file: {file}, service: a}}}}}}\n");
    refused(
        &[(names[0], extends("b.yml")), (names[1], extends("compose.yml"))],
        "extends itself",
    );
    with_files(&[(names[0], extends("b.yml")), (names[1], service.to_owned())]).expect("one");
    refused(&[(names[0], include("../none.yml"))], "../none.yml: ");
    refused(
        &[
            (names[0], extends("b.yml")),
            (names[1], "services: {b: {build: .}}\n".to_owned()),
        ],
        "service \"a\" not found in b.yml",
    );
    refused(
        &[(
            names[0],
            "include: {path: b.yml}\nservices: {a: {build: .}}\n".to_owned(),
        )],
        "`include` must be a list",
    );
}

/// buildx says the outer directory twice there, and finds nothing.
#[test]
fn what_an_included_file_includes_is_below_its_own_directory() {
    let text = with_files(&[
        (
            "compose.yml",
            "include: [a/compose.yml]\nservices: {x: {image: y}}\n".to_owned(),
        ),
        (
            "a/compose.yml",
            "include: [b/compose.yml]\nservices: {one: {build: c}}\n".to_owned(),
        ),
        ("a/b/compose.yml", "services: {two: {build: ../c}}\n".to_owned()),
    ])
    .expect("two targets");
    assert_eq!(text.matches("\"context\": \"a/c\"").count(), 2, "{text}");
}

/// A file of so many services with a large argument each, which stands once: behind an alias, in a variable of the `.env` file, or
/// in a service that they extend.
fn copied(times: usize) -> [(String, String); 4] {
    let large = "x".repeat(1 << 20);
    let file = |start: &str, service: &str| {
        let mut text = format!("{start}services:\n  default:\n    build: .\n");
        for at in 0..times {
            writeln!(text, "  s{at}:\n    {service}").expect("a text takes it");
        }
        text
    };
    let mut variables = format!("A0={large}\n");
    for at in 0..times {
        writeln!(variables, "A{}=$A{at}", at + 1).expect("a text takes it");
    }
    [
        (
            String::new(),
            file(
                &format!("x-a: &a \"{large}\"\n"),
                "build: {context: ., args: {A: *a}}",
            ),
        ),
        (
            format!("A={large}\n"),
            file("", "build: {context: ., args: {A: $A}}"),
        ),
        (variables, file("", "build: .")),
        (
            String::new(),
            file("", "extends: large")
                + &format!("  large:\n    build: {{context: ., labels: {{A: {large}}}}}\n"),
        ),
    ]
}

#[test]
fn row48_what_compose_files_copy_is_bounded() {
    for (dotenv, text) in copied(2000) {
        let error = chosen_with(&dotenv, "a.yml", &text).expect_err("it is refused");
        assert!(error.contains("take more than there is room for"), "{error:.200}");
    }
    for (dotenv, text) in copied(5) {
        chosen_with(&dotenv, "a.yml", &text).unwrap();
    }
    // An argument that is only named has the value that it has here.
    let named = |times| {
        let mut text = "services:\n  default:\n    build: .\n".to_owned();
        for at in 0..times {
            writeln!(text, "  s{at}:\n    build: {{context: ., args: [A]}}").expect("a text takes it");
        }
        chosen_with(&format!("A={}\n", "x".repeat(1 << 20)), "a.yml", &text)
    };
    let error = named(2000).expect_err("it is refused");
    assert!(error.contains("take more than there is room for"), "{error:.200}");
    named(5).unwrap();
}

#[test]
fn row48_long_lists_are_laid_over_each_other_in_time() {
    let list = |name: &str| {
        let tags: Vec<String> = (0..60_000).map(|at| format!("{name}{at}")).collect();
        tags.join(",")
    };
    let text = format!(
        "services:\n  base:\n    build: {{context: ., tags: [{}]}}\n  default:\n    extends: base\n    build: {{tags: [{}]}}\n",
        list("a"),
        list("b"),
    );
    let start = std::time::Instant::now();
    chosen("a.yml", &text).unwrap();
    assert!(start.elapsed().as_secs() < 20, "{:?}", start.elapsed());
}
