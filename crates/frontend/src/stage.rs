//! Stages while they are turned into a graph: what each is based on, what it depends on, how far it has come
//! (BuildKit `dispatchState`, `dispatchStates`).

use std::collections::{BTreeMap, HashMap};

use rbuild_dockerfile::shell::Variables;
use rbuild_dockerfile::{Instruction, Span, Stage};
use rbuild_graph::Edge;
use rbuild_oci::{ImageConfig, Platform};

use crate::context::NamedContext;
use crate::env::Env;
use crate::error::{FrontendError, FrontendErrorKind};
use crate::origins::Made;
use crate::outline::StageOutline;

/// Name of the empty image.
pub(crate) const SCRATCH: &str = "scratch";

/// The root file system a stage has come to, and the process settings that go with it.
#[derive(Debug, Clone)]
pub(crate) struct State {
    /// `None` is an empty root.
    pub(crate) root: Option<Made>,
    pub(crate) env: Env,
    pub(crate) dir: String,
    pub(crate) user: String,
}

impl State {
    /// The root; `None` is an empty one.
    pub(crate) fn edge(&self) -> Option<Edge> {
        self.root.as_ref().map(|made| made.edge.clone())
    }
}

impl Default for State {
    fn default() -> Self {
        Self {
            root: None,
            env: Env::default(),
            dir: "/".to_owned(),
            user: String::new(),
        }
    }
}

/// Position of a stage in [`Stages`].
pub(crate) type StageIndex = usize;

/// An instruction and the stages it takes files from.
#[derive(Debug, Clone)]
pub(crate) struct Command {
    pub(crate) instruction: Instruction,
    /// For COPY one with `--from`, for RUN one for each mount.
    pub(crate) sources: Vec<StageIndex>,
    pub(crate) on_build: bool,
}

/// One stage, or an image that is only copied from.
#[derive(Debug, Clone, Default)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "switch for switch BuildKit's dispatchState"
)]
pub(crate) struct StageState {
    /// Name, lower case; empty if it has none.
    pub(crate) name: String,
    /// Name in step names: `stage-N` if it has none.
    pub(crate) shown_name: String,
    /// Base as it is now known: expanded, then a full reference.
    pub(crate) base_name: String,
    /// The whole FROM line.
    pub(crate) source: String,
    pub(crate) span: Span,
    pub(crate) comments: Vec<String>,
    pub(crate) instructions: Vec<Instruction>,
    pub(crate) commands: Vec<Command>,
    pub(crate) base: Option<StageIndex>,
    pub(crate) deps: BTreeMap<StageIndex, Span>,
    pub(crate) named_context: Option<NamedContext>,
    pub(crate) platform: Option<Platform>,
    pub(crate) state: State,
    pub(crate) image: ImageConfig,
    pub(crate) base_image: Option<ImageConfig>,
    /// ARGs so far, with their values.
    pub(crate) build_args: Vec<(String, Option<String>)>,
    pub(crate) ignore_cache: bool,
    /// Only copied from: an image, not a stage.
    pub(crate) unregistered: bool,
    pub(crate) resolved: bool,
    pub(crate) dispatched: bool,
    /// Its own lines were lowered: it is no image, and no context stands for it.
    pub(crate) is_built: bool,
    pub(crate) triggers_read: bool,
    pub(crate) command_index: usize,
    pub(crate) command_total: usize,
    pub(crate) workdir_set: bool,
    pub(crate) last_cmd: Option<Span>,
    pub(crate) last_entrypoint: Option<Span>,
    pub(crate) last_healthcheck: Option<Span>,
    pub(crate) outline: StageOutline,
}

impl StageState {
    pub(crate) fn from_stage(stage: Stage) -> Self {
        Self {
            shown_name: stage.name.clone(),
            name: stage.name,
            base_name: stage.base_name,
            source: stage.source,
            span: stage.span,
            comments: stage.comments,
            instructions: stage.instructions,
            ..Self::default()
        }
    }

    /// An image that is only copied from.
    pub(crate) fn image(name: &str, span: Span) -> Self {
        Self {
            base_name: name.to_owned(),
            span,
            unregistered: true,
            ..Self::default()
        }
    }

    /// The step name for `text`: `[stage 2/4] RUN …` (BuildKit `prefixCommand`).
    pub(crate) fn numbered(&mut self, text: &str, on_build: bool, platform: &str) -> String {
        if self.command_total == 0 {
            return text.to_owned();
        }
        self.command_index += 1;
        let platform = if platform.is_empty() {
            String::new()
        } else {
            format!("{platform} ")
        };
        let stage = if self.shown_name.is_empty() {
            String::new()
        } else {
            format!("{} ", self.shown_name)
        };
        let width = self.command_total.to_string().len();
        let on_build = if on_build { "ONBUILD " } else { "" };
        format!(
            "[{platform}{stage}{:width$}/{}] {on_build}{text}",
            self.command_index, self.command_total
        )
    }
}

/// All stages, in the order of the file; images that are only copied from come behind.
#[derive(Debug, Default)]
pub(crate) struct Stages {
    pub(crate) list: Vec<StageState>,
    by_name: HashMap<String, StageIndex>,
}

impl Stages {
    /// Adds a stage and finds its base among those before it.
    pub(crate) fn add(&mut self, mut stage: StageState) -> StageIndex {
        let index = self.list.len();
        stage.base = self.by_name.get(&stage.base_name).copied();
        if !stage.name.is_empty() {
            self.by_name.insert(stage.name.clone(), index);
        }
        self.list.push(stage);
        index
    }

    pub(crate) fn find(&self, name: &str) -> Option<StageIndex> {
        self.by_name.get(&name.to_lowercase()).copied()
    }

    pub(crate) fn names(&self) -> Vec<&str> {
        self.list
            .iter()
            .map(|s| s.shown_name.as_str())
            .filter(|name| !name.is_empty())
            .collect()
    }

    /// What `stage` takes over from its base.
    pub(crate) fn inherit(&mut self, index: StageIndex) {
        let Some(base) = self.list[index].base else { return };
        let (stage, base) = if base < index {
            let (before, after) = self.list.split_at_mut(index);
            (&mut after[0], &before[base])
        } else {
            let (before, after) = self.list.split_at_mut(base);
            (&mut before[index], &after[0])
        };
        stage.state = base.state.clone();
        stage.platform.clone_from(&base.platform);
        stage.image = base.image.clone();
        stage.image.config.on_build.clear();
        stage.base_image.clone_from(&base.base_image);
        stage.workdir_set = base.workdir_set;
        stage.build_args.extend(base.build_args.iter().cloned());
    }

    /// The stages `target` needs, itself included.
    pub(crate) fn reachable(&self, target: StageIndex) -> Vec<bool> {
        let mut reached = vec![false; self.list.len()];
        let mut open = vec![target];
        while let Some(index) = open.pop() {
            if !std::mem::replace(&mut reached[index], true) {
                open.extend(self.list[index].base);
                open.extend(self.list[index].deps.keys());
            }
        }
        reached
    }

    /// Refuses stages that need each other through COPY or mounts (BuildKit `validateCircularDependency`).
    pub(crate) fn check_circles(&self) -> Result<(), FrontendError> {
        let mut seen = vec![false; self.list.len()];
        for start in 0..self.list.len() {
            if let Some(spans) = self.circle_from(start, &mut seen) {
                let name = self.list[start].shown_name.clone();
                return Err(FrontendError {
                    spans,
                    ..FrontendError::new(FrontendErrorKind::Circular(name))
                });
            }
        }
        Ok(())
    }

    /// Where the instructions stand that lead from `start` into a circle and around it. What is `seen` leads into none.
    fn circle_from(&self, start: StageIndex, seen: &mut [bool]) -> Option<Vec<Span>> {
        if std::mem::replace(&mut seen[start], true) {
            return None;
        }
        let mut on_path = vec![false; self.list.len()];
        on_path[start] = true;
        let mut path = vec![(start, self.list[start].deps.iter())];
        let mut spans = Vec::new();
        while let Some((index, deps)) = path.last_mut() {
            let Some((dep, span)) = deps.next() else {
                on_path[*index] = false;
                path.pop();
                spans.pop();
                continue;
            };
            if on_path[*dep] {
                spans.push(*span);
                return Some(spans);
            }
            if !std::mem::replace(&mut seen[*dep], true) {
                on_path[*dep] = true;
                spans.push(*span);
                path.push((*dep, self.list[*dep].deps.iter()));
            }
        }
        None
    }
}

/// Platform part of step names, with `->arch` where the stage compiles for another one.
pub(crate) fn shown_platform(platform: &Platform, env: &Env) -> String {
    let mut text = platform.to_string();
    let Some(mut target) = target_of(env) else {
        return text;
    };
    if target.os.is_empty() {
        target.os.clone_from(&platform.os);
    }
    if target.architecture.is_empty() {
        target.architecture.clone_from(&platform.architecture);
    }
    let target = target.normalized();
    if target.os != platform.os {
        text += &format!("->{target}");
    } else if target.architecture != platform.architecture {
        text += &format!("->{}", target.architecture);
        if let Some(variant) = &target.variant {
            text += &format!("/{variant}");
        }
    }
    text
}

/// The platform a stage's `TARGET*` variables name.
fn target_of(env: &Env) -> Option<Platform> {
    if let Some(platform) = env
        .get("TARGETPLATFORM")
        .and_then(|text| Platform::parse(text).ok())
    {
        return Some(platform);
    }
    let (os, arch, variant) = (
        env.get("TARGETOS"),
        env.get("TARGETARCH"),
        env.get("TARGETVARIANT"),
    );
    if os.is_none() && arch.is_none() && variant.is_none() {
        return None;
    }
    Some(Platform {
        os: os.unwrap_or_default().to_owned(),
        architecture: arch.unwrap_or_default().to_owned(),
        variant: variant.filter(|v| !v.is_empty()).map(str::to_owned),
        ..Platform::default()
    })
}
