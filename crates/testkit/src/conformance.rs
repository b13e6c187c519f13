//! Conformance cases: a Dockerfile, a context recipe, and what BuildKit itself made of them.
//!
//! A case is a directory `tests/conformance/<instruction>/<case>/` with `Dockerfile`, `case.toml` and `expect.json`. The
//! last is never written by hand: `cargo xtask record-conformance` runs the case under a real BuildKit and writes what
//! came out, with the version that spoke. Where rbuild differs on purpose, `case.toml` says so under `differs`.
//!
//! A case may ask for several platforms, and then every image of the index counts; or it may be a question (`call`), and then
//! the answer is the text that is printed.

mod definition;
mod expectation;
mod observed;
mod recipe;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};

use crate::context::BuildContext;

pub use expectation::{Expectation, answer, excerpt};
pub use observed::{ObservedImage, content_differences, differences};
pub use recipe::{Attributes, Call, Recipe};

/// A case on disk.
#[derive(Debug, Clone)]
pub struct Case {
    /// `<instruction>/<case>`.
    pub name: String,
    /// Its directory.
    pub dir: PathBuf,
    /// What `case.toml` says.
    pub recipe: Recipe,
}

impl Case {
    /// Every case below `root`, in order of name.
    ///
    /// # Errors
    /// A directory without its files, or a recipe with an unknown member.
    pub fn all(root: &Path) -> Result<Vec<Self>> {
        let mut cases = Vec::new();
        for group in sorted_dirs(root)? {
            for dir in sorted_dirs(&group)? {
                cases.push(Self::load(root, &dir)?);
            }
        }
        Ok(cases)
    }

    fn load(root: &Path, dir: &Path) -> Result<Self> {
        let name = dir.strip_prefix(root)?.display().to_string();
        let text = fs::read_to_string(dir.join("case.toml")).with_context(|| format!("{name}: case.toml"))?;
        let recipe = toml::from_str(&text).with_context(|| format!("{name}: case.toml"))?;
        ensure!(dir.join("Dockerfile").exists(), "{name}: no Dockerfile");
        Ok(Self {
            name,
            dir: dir.to_owned(),
            recipe,
        })
    }

    /// Puts the context into `dir/context`, the named contexts into `dir/named/<name>`, the secrets into
    /// `dir/secrets/<id>`.
    ///
    /// # Errors
    /// The file system's, or a recipe that contradicts itself.
    pub fn lay_out(&self, dir: &Path) -> Result<()> {
        let context = BuildContext::create(dir.join("context"))?;
        let name = self.dockerfile_name();
        if !self.recipe.files.iter().any(|entry| entry.path == name) {
            context.file(name, fs::read(self.dir.join("Dockerfile"))?);
        }
        context.fill(&self.recipe.files)?;
        for (name, entries) in &self.recipe.contexts {
            BuildContext::create(dir.join("named").join(name))?.fill(entries)?;
        }
        fs::create_dir_all(dir.join("secrets"))?;
        for (id, value) in &self.recipe.secrets {
            let path = dir.join("secrets").join(id);
            fs::create_dir_all(path.parent().context("an id is a name")?)?;
            fs::write(path, value)?;
        }
        Ok(())
    }

    /// Name of the Dockerfile inside the context.
    #[must_use]
    pub fn dockerfile_name(&self) -> &str {
        self.recipe.dockerfile.as_deref().unwrap_or("Dockerfile")
    }

    /// Whether the case is the build of one image.
    #[must_use]
    pub fn is_one_image(&self) -> bool {
        self.recipe.call.is_none() && self.recipe.platforms.len() < 2
    }

    /// Arguments of `rbuild build` for a case laid out in `dir`, all but the output.
    #[must_use]
    pub fn rbuild_args(&self, dir: &Path, bases: &Path) -> Vec<String> {
        let mut args = vec!["build".to_owned(), "--progress=plain".to_owned()];
        args.extend([
            "-f".to_owned(),
            dir.join("context")
                .join(self.dockerfile_name())
                .display()
                .to_string(),
        ]);
        for base in &self.recipe.bases {
            args.push(format!(
                "--build-context={base}=oci-layout://{}:{base}",
                bases.display()
            ));
        }
        for name in self.recipe.contexts.keys() {
            args.push(format!(
                "--build-context={name}={}",
                dir.join("named").join(name).display()
            ));
        }
        for id in self.recipe.secrets.keys() {
            args.push(format!(
                "--secret=id={id},src={}",
                dir.join("secrets").join(id).display()
            ));
        }
        args.extend(
            self.recipe
                .build_args
                .iter()
                .map(|(key, value)| format!("--build-arg={key}={value}")),
        );
        args.extend(
            self.recipe
                .labels
                .iter()
                .map(|(key, value)| format!("--label={key}={value}")),
        );
        args.extend(
            self.recipe
                .target
                .iter()
                .map(|target| format!("--target={target}")),
        );
        if !self.recipe.platforms.is_empty() {
            args.push(format!("--platform={}", self.recipe.platforms.join(",")));
        }
        args.extend(self.recipe.attributes.flags());
        args.extend(
            self.recipe
                .call
                .iter()
                .map(|call| format!("--call={}", call.flag())),
        );
        args.push(dir.join("context").display().to_string());
        args
    }

    /// The recorded expectation.
    ///
    /// # Errors
    /// Not recorded yet.
    pub fn expected(&self) -> Result<Expectation> {
        let path = self.dir.join("expect.json");
        let bytes = fs::read(&path).with_context(|| format!("{}: expect.json is not recorded", self.name))?;
        serde_json::from_slice(&bytes).with_context(|| format!("parse {}", path.display()))
    }

    /// Writes the expectation.
    ///
    /// # Errors
    /// The file system's.
    pub fn record(&self, expectation: &Expectation) -> Result<()> {
        let mut text = serde_json::to_string_pretty(expectation)?;
        text.push('\n');
        Ok(fs::write(self.dir.join("expect.json"), text)?)
    }
}

fn sorted_dirs(root: &Path) -> Result<Vec<PathBuf>> {
    let mut dirs = Vec::new();
    for entry in fs::read_dir(root).with_context(|| format!("list {}", root.display()))? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            dirs.push(entry.path());
        }
    }
    dirs.sort();
    Ok(dirs)
}
