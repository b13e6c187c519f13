//! What a target can be given, noted while it is lowered (BuildKit `dockerfile2llb/outline.go`). Nothing is noted
//! unless [`FrontendOptions::outline`](crate::FrontendOptions::outline) asks for it.

use std::collections::{BTreeMap, BTreeSet};

use rbuild_dockerfile::shell::Variables as _;
use rbuild_dockerfile::{ArgDefinition, Span, Stage};

use crate::error::FrontendError;
use crate::lowering::Lowering;
use crate::stage::StageIndex;
use crate::subrequest::{Location, Outline, OutlineArg, OutlineNeed};

/// An ARG that was read.
#[derive(Debug, Clone)]
pub(crate) struct Argument {
    value: String,
    description: String,
    /// Arguments its value was made of.
    from: BTreeSet<String>,
    span: Span,
}

/// Arguments by name; a later one takes the place of an earlier one.
pub(crate) type Arguments = BTreeMap<String, Argument>;

/// Secrets or agents by id: whether each is required, and where the first mount stands.
type Needs = BTreeMap<String, (bool, Span)>;

/// What was noted of one stage.
#[derive(Debug, Clone, Default)]
pub(crate) struct StageOutline {
    /// ARGs of the stage itself.
    args: Arguments,
    /// Names of arguments that the stage or one of its bases uses.
    used: BTreeSet<String>,
    secrets: Needs,
    ssh: Needs,
}

impl Lowering<'_> {
    /// Notes an ARG in front of the first FROM. `matched` are the variables its default is made of.
    pub(crate) fn note_global_arg(
        &mut self,
        definition: &ArgDefinition,
        value: Option<&str>,
        mut matched: BTreeSet<String>,
        span: Span,
    ) -> Result<(), FrontendError> {
        if !self.options.outline {
            return Ok(());
        }
        if matched.contains(&definition.key)
            && let Some(before) = self.global_outline.get(&definition.key)
        {
            matched.extend(before.from.iter().cloned());
        }
        let value = value.unwrap_or_default().to_owned();
        self.budget.spend(value.len() + bytes(&matched))?;
        let argument = Argument {
            value,
            description: definition.doc_comment.clone(),
            from: matched,
            span,
        };
        self.global_outline.insert(definition.key.clone(), argument);
        Ok(())
    }

    /// Notes the arguments a FROM is made of. A base that is a stage brings its own.
    pub(crate) fn note_from(
        &mut self,
        index: StageIndex,
        base: Option<StageIndex>,
        used: BTreeSet<String>,
    ) -> Result<(), FrontendError> {
        if !self.options.outline {
            return Ok(());
        }
        let mut all = used;
        if let Some(base) = base {
            let inherited = &self.stages.list[base].outline.used;
            self.budget.spend(bytes(inherited))?;
            all.extend(inherited.iter().cloned());
        }
        self.stages.list[index].outline.used = all;
        Ok(())
    }

    /// Notes an ARG of a stage; one that only passes on the value of a global one does not take its place.
    pub(crate) fn note_arg(
        &mut self,
        index: StageIndex,
        definition: &ArgDefinition,
        value: Option<&str>,
        span: Span,
    ) {
        if !self.options.outline {
            return;
        }
        let name = &definition.key;
        let own = definition.value.is_some() || self.build_args.contains_key(name);
        let passes_on = !own && self.global_args.get(name).is_some();
        let outline = &mut self.stages.list[index].outline;
        if !passes_on {
            let argument = Argument {
                value: value.unwrap_or_default().to_owned(),
                description: definition.doc_comment.clone(),
                from: BTreeSet::new(),
                span,
            };
            outline.args.insert(name.clone(), argument);
        }
        outline.used.insert(name.clone());
    }

    /// Notes a secret mount.
    pub(crate) fn note_secret(&mut self, index: StageIndex, id: &str, required: bool, span: Span) {
        if self.options.outline {
            note(&mut self.stages.list[index].outline.secrets, id, required, span);
        }
    }

    /// Notes an ssh mount.
    pub(crate) fn note_ssh(&mut self, index: StageIndex, id: &str, required: bool, span: Span) {
        if self.options.outline {
            note(&mut self.stages.list[index].outline.ssh, id, required, span);
        }
    }

    /// Everything noted of `target` and what it is made of.
    pub(crate) fn outline(&self, target: StageIndex, written: &Stage) -> Outline {
        let mut found = Found::default();
        let mut seen = vec![false; self.stages.list.len()];
        let mut open = vec![target];
        while let Some(index) = open.pop() {
            if std::mem::replace(&mut seen[index], true) {
                continue;
            }
            let stage = &self.stages.list[index];
            self.collect(&stage.outline, &mut found);
            open.extend(stage.deps.keys().rev());
            open.extend(stage.base);
        }
        found.args.sort_by_key(|arg| arg.location.0.start);
        Outline {
            name: written.name.clone(),
            description: written.doc_comment.clone(),
            args: found.args,
            secrets: by_line(found.secrets),
            ssh: by_line(found.ssh),
            source: self.options.dockerfile.clone(),
        }
    }

    fn collect(&self, outline: &StageOutline, found: &mut Found) {
        let argument = |name: &str| outline.args.get(name).or_else(|| self.global_outline.get(name));
        // Those used, and those their values are made of.
        let mut used: BTreeSet<&str> = BTreeSet::new();
        let mut open: Vec<&str> = outline.used.iter().map(String::as_str).collect();
        while let Some(name) = open.pop() {
            if used.insert(name)
                && let Some(argument) = argument(name)
            {
                open.extend(argument.from.iter().map(String::as_str));
            }
        }
        for name in used {
            let Some(argument) = argument(name) else { continue };
            if found.names.insert(name.to_owned()) {
                found.args.push(OutlineArg {
                    name: name.to_owned(),
                    description: argument.description.clone(),
                    value: argument.value.clone(),
                    location: Location(argument.span),
                });
            }
        }
        for (id, need) in &outline.secrets {
            found.secrets.entry(id.clone()).or_insert(*need);
        }
        for (id, need) in &outline.ssh {
            found.ssh.entry(id.clone()).or_insert(*need);
        }
    }
}

#[derive(Default)]
struct Found {
    args: Vec<OutlineArg>,
    names: BTreeSet<String>,
    secrets: Needs,
    ssh: Needs,
}

fn note(needs: &mut Needs, id: &str, required: bool, span: Span) {
    needs.entry(id.to_owned()).or_insert((required, span));
}

fn by_line(needs: Needs) -> Vec<OutlineNeed> {
    let need = |(name, (required, span)): (String, (bool, Span))| OutlineNeed {
        name,
        required,
        location: Location(span),
    };
    let mut list: Vec<OutlineNeed> = needs.into_iter().map(need).collect();
    list.sort_by_key(|need| need.location.0.start);
    list
}

fn bytes(names: &BTreeSet<String>) -> usize {
    names.iter().map(|name| name.len() + size_of::<String>()).sum()
}
