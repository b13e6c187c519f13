//! Commands that install what a project lists as its dependencies, for `SourceBeforeDependencies`.

use crate::advice::commands::{operands, program};

/// The first such command, as it is called.
pub(super) fn tool(commands: &[Vec<String>]) -> Option<&'static str> {
    commands.iter().find_map(|command| {
        let (program, arguments) = program(command);
        of(program, arguments)
    })
}

fn of(program: &str, arguments: &[String]) -> Option<&'static str> {
    let words: Vec<&str> = operands(arguments).collect();
    let has = |option: &str| arguments.iter().any(|word| word == option);
    let tool = match (program, words.as_slice()) {
        ("npm", ["ci" | "clean-install"]) => "npm ci",
        ("npm", ["install" | "i"]) if !has("-g") && !has("--global") => "npm install",
        ("yarn", [] | ["install"]) if !has("--version") => "yarn install",
        ("pnpm", ["install" | "i" | "fetch"]) if !has("-g") => "pnpm install",
        ("bun", ["install" | "i"]) => "bun install",
        ("python" | "python3", ["pip", "install", ..]) if has("-m") && requirements(arguments) => {
            "pip install -r"
        }
        ("pip" | "pip3", ["install", ..]) if requirements(arguments) => "pip install -r",
        ("uv", ["sync"]) => "uv sync",
        ("uv", ["pip", "install", ..]) if requirements(arguments) => "uv pip install -r",
        ("poetry", ["install"]) => "poetry install",
        ("pipenv", ["install" | "sync"]) => "pipenv install",
        ("pdm", ["install" | "sync"]) => "pdm install",
        ("bundle" | "bundler", [] | ["install", ..]) if !has("--version") => "bundle install",
        ("composer", ["install", ..]) => "composer install",
        ("go", ["mod", "download"]) => "go mod download",
        ("cargo", ["fetch"]) => "cargo fetch",
        ("mvn" | "mvnw", words) if words.iter().any(|word| word.starts_with("dependency:")) => {
            "mvn dependency:go-offline"
        }
        ("dotnet", ["restore", ..]) => "dotnet restore",
        ("mix", ["deps.get"]) => "mix deps.get",
        ("dart" | "flutter", ["pub", "get"]) => "pub get",
        _ => return None,
    };
    Some(tool)
}

/// `-r FILE` in any spelling.
fn requirements(arguments: &[String]) -> bool {
    arguments
        .iter()
        .any(|word| word == "--requirement" || word.starts_with("--requirement=") || word.starts_with("-r"))
}
