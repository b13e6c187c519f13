//! The build while it is being lowered: the graph so far, and how operations get into it.

use std::collections::{BTreeMap, BTreeSet};

use rbuild_dockerfile::Span;
use rbuild_dockerfile::ignore::PatternMatcher;
use rbuild_dockerfile::shell::{Expansion, Lexer, Variables};
use rbuild_graph::progress::ProgressGroup;
use rbuild_graph::{
    Edge, FileAction, FileActionKind, FileOp, Graph, LinuxResources, MkFileAction, Op, ProxyEnv,
    SourceLocation, SourceOp, Vertex, VertexMeta,
};
use rbuild_oci::{Platform, Timestamp, go_json};

use crate::advice::Advice;
use crate::budget::Budget;
use crate::context::NamedContexts;
use crate::env::Env;
use crate::error::{FrontendError, FrontendErrorKind};
use crate::input::ContextOrigin;
use crate::lint::Linter;
use crate::local_paths::LocalPaths;
use crate::options::FrontendOptions;
use crate::origins::{Inputs, Made, Origins};
use crate::outline::Arguments;
use crate::stage::Stages;

/// Key of a vertex's description: its instruction as written (`dockerfile2llb/convert.go`, `dfCmd`).
const COMMAND: &str = "com.docker.dockerfile.v1.command";

/// Everything that is known and made during one lowering.
pub(crate) struct Lowering<'a> {
    pub(crate) options: &'a FrontendOptions,
    /// `--build-arg`, with `SOURCE_DATE_EPOCH` resolved.
    pub(crate) build_args: BTreeMap<String, String>,
    pub(crate) contexts: NamedContexts<'a>,
    pub(crate) lexer: Lexer,
    pub(crate) lint: Linter,
    pub(crate) advice: Advice,
    pub(crate) budget: Budget,
    pub(crate) graph: Graph,
    pub(crate) origins: Origins,
    pub(crate) stages: Stages,
    pub(crate) global_args: Env,
    pub(crate) global_outline: Arguments,
    /// Names of all arguments FROM may use, those without a value too.
    pub(crate) declared_globals: BTreeSet<String>,
    pub(crate) target_platform: Platform,
    /// No platform was asked for.
    pub(crate) implicit_target: bool,
    pub(crate) epoch: Option<Timestamp>,
    pub(crate) proxy: Option<ProxyEnv>,
    pub(crate) ignore: Option<PatternMatcher>,
    /// Paths of the main context that are used.
    pub(crate) context_paths: BTreeSet<String>,
    /// What is used of directories of a client.
    pub(crate) local_paths: LocalPaths,
}

/// A vertex to be added.
#[derive(Default)]
pub(crate) struct NewVertex {
    pub(crate) inputs: Inputs,
    pub(crate) platform: Option<Platform>,
    pub(crate) name: String,
    pub(crate) ignore_cache: bool,
    pub(crate) span: Option<Span>,
    /// The instruction it is of, where BuildKit tells that ([`COMMAND`]).
    pub(crate) command: Option<String>,
    pub(crate) progress_group: Option<ProgressGroup>,
    pub(crate) linux_resources: Option<LinuxResources>,
}

impl Lowering<'_> {
    /// Adds a vertex; the edge is its first output.
    pub(crate) fn add(&mut self, op: Op, new: NewVertex) -> Made {
        let location = new
            .span
            .map(|span| SourceLocation::lines(0, span.start, span.end));
        let meta = VertexMeta {
            name: new.name,
            ignore_cache: new.ignore_cache,
            locations: location.into_iter().collect(),
            progress_group: new.progress_group,
            linux_resources: new.linux_resources,
            description: new
                .command
                .map(|text| (COMMAND.to_owned(), text))
                .into_iter()
                .collect(),
            ..VertexMeta::default()
        };
        let vertex = Vertex {
            op,
            inputs: new.inputs.edges.clone(),
            platform: new.platform,
            constraints: Vec::new(),
            meta: meta.clone(),
        };
        let known = self.graph.len();
        match self.graph.add(vertex) {
            Ok(vertex) => {
                let again = self.graph.len() == known;
                self.origins
                    .note(Edge { vertex, output: 0 }, new.inputs, meta, again)
            }
            Err(error) => unreachable!("every edge used here came out of this graph: {error}"),
        }
    }

    /// Expands `word`, within the limits.
    pub(crate) fn expand_with(
        &mut self,
        lexer: Lexer,
        word: &str,
        variables: &dyn Variables,
    ) -> Result<Expansion, FrontendError> {
        let expansion = lexer.expand(word, variables).map_err(FrontendErrorKind::Expand)?;
        self.budget.spend(expansion.text.len())?;
        Ok(expansion)
    }

    /// The text of a step name: variables expanded where that works, the keyword in upper case.
    pub(crate) fn step_text(
        &mut self,
        lexer: Lexer,
        text: &str,
        variables: &dyn Variables,
    ) -> Result<String, FrontendError> {
        let text = lexer
            .expand(text, variables)
            .map_or_else(|_| text.to_owned(), |found| found.text);
        self.budget.spend(text.len())?;
        Ok(match text.split_once(' ') {
            Some((keyword, rest)) => format!("{} {rest}", keyword.to_uppercase()),
            None => text.to_uppercase(),
        })
    }

    /// The main context, as the user's ignore file leaves it.
    pub(crate) fn main_context(&mut self) -> Result<Option<Made>, FrontendError> {
        if let Some(input) = &self.options.main_context {
            return self.add_input(input);
        }
        if let Some(remote) = &self.options.remote_context {
            let edge = remote.add_to(&mut self.graph);
            return Ok(Some(self.origins.outside(edge)));
        }
        let mut attrs = BTreeMap::from([("local.sharedkeyhint".to_owned(), "context".to_owned())]);
        let clients = match &self.options.context_origin {
            ContextOrigin::Host => None,
            ContextOrigin::Client(clients) => Some(clients),
        };
        if let Some(clients) = clients {
            attrs.insert(
                "local.session".to_owned(),
                clients.session_of("context").to_owned(),
            );
        }
        if !self.options.ignore_patterns.is_empty() {
            attrs.insert(
                "local.excludepatterns".to_owned(),
                json(&self.options.ignore_patterns),
            );
        }
        let op = Op::Source(SourceOp {
            identifier: "local://context".to_owned(),
            attrs,
        });
        let made = self.add(
            op,
            NewVertex {
                name: "[internal] load build context".to_owned(),
                ..NewVertex::default()
            },
        );
        self.local_paths.watch(&made.edge, clients.is_some());
        Ok(Some(made))
    }

    /// An empty root that holds one file.
    pub(crate) fn inline_file(&mut self, name: &str, mode: u32, data: &str) -> Made {
        let path = rbuild_dockerfile::path::join(&["/", name]);
        let kind = FileActionKind::MkFile(MkFileAction {
            path,
            mode,
            data: data.as_bytes().to_vec(),
            owner: None,
            time: None,
        });
        let action = FileAction {
            input: None,
            secondary_input: None,
            output: Some(0),
            kind,
        };
        let op = Op::File(FileOp {
            actions: vec![action],
        });
        let name = "[internal] preparing inline document".to_owned();
        self.add(
            op,
            NewVertex {
                name,
                ..NewVertex::default()
            },
        )
    }
}

/// A list of strings as Go's encoder writes it.
pub(crate) fn json(list: &[String]) -> String {
    let bytes = go_json::to_vec(list);
    assert!(bytes.is_ok(), "a list of strings is JSON");
    String::from_utf8(bytes.unwrap_or_default()).unwrap_or_default()
}
