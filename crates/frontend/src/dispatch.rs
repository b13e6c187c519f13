//! One instruction at a time: its words expanded, its operations added, the image config and history changed
//! (BuildKit `dispatch…` in `dockerfile2llb`).

mod args;
mod config;
mod copy;
mod mode;
mod mounts;
mod ports;
mod run;
mod windows;
mod workdir;

use std::collections::BTreeSet;

use rbuild_dockerfile::shell::{Lexer, Variables as _};
use rbuild_dockerfile::suggest::nearest;
use rbuild_dockerfile::{InstructionKind, KeyValue, Span};

use crate::advice;
pub use crate::dispatch::ports::PortError;
pub use crate::dispatch::windows::DriveError;
pub(crate) use crate::dispatch::workdir::set_workdir;
use crate::env::Env;
use crate::error::FrontendError;
use crate::lint::Rule;
use crate::lowering::Lowering;
use crate::stage::{Command, StageIndex};

/// The instruction at work: which stage, where, and what its comments say.
#[derive(Clone, Copy)]
pub(crate) struct Site<'a> {
    pub(crate) stage: StageIndex,
    pub(crate) command: &'a Command,
}

impl<'a> Site<'a> {
    fn span(self) -> Span {
        self.command.instruction.span
    }

    fn comments(self) -> &'a [String] {
        &self.command.instruction.comments
    }

    fn source(self) -> &'a str {
        &self.command.instruction.source
    }
}

/// Applies an instruction to its stage.
pub(crate) fn command(
    lowering: &mut Lowering<'_>,
    stage: StageIndex,
    command: &Command,
) -> Result<(), FrontendError> {
    let site = Site { stage, command };
    dispatch(lowering, site)?;
    advice::note(lowering, site);
    Ok(())
}

fn dispatch(lowering: &mut Lowering<'_>, site: Site<'_>) -> Result<(), FrontendError> {
    use InstructionKind as K;
    let Site { stage, command } = site;
    match &command.instruction.kind {
        K::Add(add) => copy::add(lowering, site, add),
        K::Arg(definitions) => args::arg(lowering, site, definitions),
        K::Cmd(line) => config::cmd(lowering, site, line),
        K::Copy(copy) => copy::copy(lowering, site, copy),
        K::Entrypoint(line) => config::entrypoint(lowering, site, line),
        K::Env(pairs) => args::env(lowering, site, pairs),
        K::Expose(ports) => ports::expose(lowering, site, ports),
        K::Healthcheck(check) => {
            config::healthcheck(lowering, site, check);
            Ok(())
        }
        K::Label(pairs) => config::label(lowering, site, pairs),
        K::Maintainer(name) => {
            lowering.stages.list[stage].image.author.clone_from(name);
            lowering.commit(stage, format!("MAINTAINER {name}"), false);
            Ok(())
        }
        K::Onbuild(text) => {
            lowering.stages.list[stage]
                .image
                .config
                .on_build
                .push(text.clone());
            Ok(())
        }
        K::Run(run) => run::run(lowering, site, run),
        K::Shell(shell) => {
            lowering.stages.list[stage].image.config.shell.clone_from(shell);
            lowering.commit(stage, format!("SHELL [{}]", shell.join(" ")), false);
            Ok(())
        }
        K::StopSignal(signal) => config::stop_signal(lowering, site, signal),
        K::User(user) => config::user(lowering, site, user),
        K::Volume(paths) => config::volume(lowering, site, paths),
        K::Workdir(path) => workdir::workdir(lowering, site, path),
    }
}

impl Lowering<'_> {
    /// Expands a word with the stage's variables and lints those that are unset.
    fn expand(&mut self, site: Site<'_>, word: &str) -> Result<String, FrontendError> {
        self.expand_in(site, self.lexer, word)
    }

    fn expand_in(&mut self, site: Site<'_>, lexer: Lexer, word: &str) -> Result<String, FrontendError> {
        let env = self.take_env(site);
        let found = self.expand_with(lexer, word, &env);
        self.give_env(site, env);
        let unmatched = match &found {
            Ok(found) => &found.unmatched,
            Err(error) => error.unmatched(),
        };
        self.lint_unset(site, unmatched);
        Ok(found?.text)
    }

    fn expand_all(&mut self, site: Site<'_>, words: &[String]) -> Result<Vec<String>, FrontendError> {
        words.iter().map(|word| self.expand(site, word)).collect()
    }

    fn expand_pairs(
        &mut self,
        site: Site<'_>,
        pairs: &[KeyValue],
    ) -> Result<Vec<(String, String)>, FrontendError> {
        pairs
            .iter()
            .map(|pair| Ok((self.expand(site, &pair.key)?, self.expand(site, &pair.value)?)))
            .collect()
    }

    /// The stage's variables, out of the way of the rest; they go back with [`Self::give_env`].
    fn take_env(&mut self, site: Site<'_>) -> Env {
        std::mem::take(&mut self.stages.list[site.stage].state.env)
    }

    fn give_env(&mut self, site: Site<'_>, env: Env) {
        self.stages.list[site.stage].state.env = env;
    }

    /// Warns of variables that were asked for and are neither set nor declared.
    fn lint_unset(&mut self, site: Site<'_>, unmatched: &BTreeSet<String>) {
        let stage = &self.stages.list[site.stage];
        for name in unmatched {
            let declared = stage.build_args.iter().any(|(arg, _)| arg == name);
            if declared || NOT_IN_ENVIRONMENT.contains(&name.as_str()) {
                continue;
            }
            let hint = nearest(name, stage.state.env.names(), true);
            let hint = hint
                .map(|hint| format!(" (did you mean ${hint}?)"))
                .unwrap_or_default();
            let message = format!("Usage of undefined variable '${name}'{hint}");
            self.lint
                .warn(Rule::UndefinedVar, message, site.span(), site.comments());
        }
    }

    fn lint_legacy(&mut self, site: Site<'_>, pairs: &[KeyValue]) {
        let keyword = &site.command.instruction.keyword;
        for _ in pairs.iter().filter(|pair| pair.legacy) {
            let message = format!(
                "\"{keyword} key=value\" should be used instead of legacy \"{keyword} key value\" format"
            );
            self.lint
                .warn(Rule::LegacyKeyValueFormat, message, site.span(), site.comments());
        }
    }

    /// The step name of an instruction whose text is `text`.
    fn step_name(
        &mut self,
        site: Site<'_>,
        lexer: Lexer,
        text: &str,
        secrets: &[String],
    ) -> Result<String, FrontendError> {
        let env = self.take_env(site);
        let step = self.step_text(lexer, text, &crate::env::Masked { env: &env, secrets });
        self.give_env(site, env);
        Ok(self.numbered(site, &step?))
    }

    fn numbered(&mut self, site: Site<'_>, text: &str) -> String {
        let stage = &self.stages.list[site.stage];
        let platform = stage.platform.as_ref().unwrap_or(&self.target_platform);
        let shown = crate::convert::shown(self, platform, &stage.state.env);
        self.stages.list[site.stage].numbered(text, site.command.on_build, &shown)
    }
}

/// Arguments that steer the build and are no variables of steps.
const NOT_IN_ENVIRONMENT: [&str; 2] = ["BUILDKIT_SBOM_SCAN_CONTEXT", "BUILDKIT_SBOM_SCAN_STAGE"];
