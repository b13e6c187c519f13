//! COPY and ADD: one file operation with an action for each source.

use rbuild_dockerfile::shell::Lexer;
use rbuild_dockerfile::{Add, Copy, InlineFile, SourcesAndDestination, glob, path};
use rbuild_graph::progress::ProgressGroup;
use rbuild_graph::{ChownOpt, CopyAction, FileAction, FileActionKind, FileOp, MergeOp, Op, SourceOp};

use crate::dispatch::mode::{self, Mode};
use crate::dispatch::windows::without_drive;
use crate::dispatch::{Site, workdir};
use crate::error::{FrontendError, FrontendErrorKind};
use crate::git::{self, GitUrl};
use crate::lint::Rule;
use crate::lowering::{Lowering, NewVertex};
use crate::origins::{Inputs, Made};
use crate::remote::redact_credentials;
use crate::validate;

/// COPY or ADD with everything expanded.
struct Request {
    is_add: bool,
    paths: Vec<String>,
    contents: Vec<InlineFile>,
    destination: String,
    chown: String,
    chmod: String,
    exclude: Vec<String>,
    link: bool,
    parents: bool,
    keep_git_dir: Option<bool>,
    checksum: String,
    unpack: Option<bool>,
    /// Where paths come from; `None` is the main context.
    from: Option<Option<Made>>,
}

pub(super) fn copy(lowering: &mut Lowering<'_>, site: Site<'_>, copy: &Copy) -> Result<(), FrontendError> {
    let chown = lowering.expand(site, &copy.chown)?;
    let chmod = lowering.expand(site, &copy.chmod)?;
    let mut request = files(lowering, site, &copy.files)?;
    (request.chown, request.chmod) = (chown, chmod);
    request.exclude.clone_from(&copy.exclude);
    request.link = copy.link;
    request.parents = copy.parents;
    if let Some(source) = site.command.sources.first() {
        let source = &lowering.stages.list[*source];
        if !source.dispatched {
            let stage = lowering.stages.list[site.stage].shown_name.clone();
            return Err(FrontendErrorKind::CopyFromLater {
                from: copy.from.clone(),
                stage,
            }
            .into());
        }
        request.from = Some(source.state.root.clone());
    }
    dispatch(lowering, site, request)
}

pub(super) fn add(lowering: &mut Lowering<'_>, site: Site<'_>, add: &Add) -> Result<(), FrontendError> {
    let chown = lowering.expand(site, &add.chown)?;
    let chmod = lowering.expand(site, &add.chmod)?;
    let checksum = lowering.expand(site, &add.checksum)?;
    let mut request = files(lowering, site, &add.files)?;
    (request.chown, request.chmod, request.checksum) = (chown, chmod, checksum);
    request.exclude.clone_from(&add.exclude);
    request.link = add.link;
    request.keep_git_dir = add.keep_git_dir;
    request.unpack = add.unpack;
    request.is_add = true;
    if !request.checksum.is_empty() {
        let [only] = request.paths.as_slice() else {
            return Err(FrontendErrorKind::ChecksumOfMany.into());
        };
        if !git::is_http_file(only) && !matches!(git::parse(only), Some(Ok(_))) {
            return Err(FrontendErrorKind::ChecksumOfLocal.into());
        }
    }
    dispatch(lowering, site, request)
}

/// Expands sources and destination. Text of here-documents keeps its quotes.
fn files(
    lowering: &mut Lowering<'_>,
    site: Site<'_>,
    files: &SourcesAndDestination,
) -> Result<Request, FrontendError> {
    let paths = lowering.expand_all(site, &files.paths)?;
    let destination = lowering.expand(site, &files.destination)?;
    let text = Lexer {
        skip_quotes: true,
        ..Lexer::new('\\')
    };
    let mut contents = files.contents.clone();
    for file in contents.iter_mut().filter(|file| file.expand) {
        file.data = lowering.expand_in(site, text, &file.data)?;
    }
    Ok(Request {
        is_add: false,
        paths,
        contents,
        destination,
        chown: String::new(),
        chmod: String::new(),
        exclude: Vec::new(),
        link: false,
        parents: false,
        keep_git_dir: None,
        checksum: String::new(),
        unpack: None,
        from: None,
    })
}

fn dispatch(lowering: &mut Lowering<'_>, site: Site<'_>, request: Request) -> Result<(), FrontendError> {
    let mode = mode::parse(&request.chmod)?;
    let os = workdir::os_of(lowering, site);
    let dir = &lowering.stages.list[site.stage].state.dir;
    let destination =
        workdir::destination(dir, &request.destination, &os).map_err(FrontendErrorKind::Drive)?;
    let lexer = lowering.lexer;
    let env = lowering.take_env(site);
    let text = lowering.step_text(lexer, site.source(), &env);
    lowering.give_env(site, env);
    // The name is shown and kept with the result; what lets into a remote is not.
    let text: Vec<String> = text?.split(' ').map(redact_credentials).collect();
    let text = text.join(" ");
    let name = lowering.numbered(site, &text);
    let mut copies: Vec<(Option<Made>, CopyAction)> = Vec::new();
    let template = CopyAction {
        dest: destination,
        owner: (!request.chown.is_empty()).then(|| ChownOpt::parse(&request.chown, None)),
        mode: mode.octal,
        mode_str: mode.symbolic.clone(),
        create_dest_path: true,
        exclude_patterns: request.exclude.clone(),
        ..CopyAction::default()
    };
    for source in &request.paths {
        copies.push(from_path(lowering, site, &request, &template, &name, source)?);
    }
    for file in &request.contents {
        let file_name = without_drive(&file.name, &os, false).map_err(FrontendErrorKind::Drive)?;
        let edge = lowering.inline_file(&file_name, 0o644, &file.data);
        let src = path::join(&["/", &file_name]);
        copies.push((
            Some(edge),
            CopyAction {
                src,
                ..template.clone()
            },
        ));
    }
    let created_by = history(&request);
    if request.link && mode == Mode::default() {
        link(lowering, site, copies, &text, name);
    } else {
        let base = lowering.stages.list[site.stage].state.root.clone();
        let root = file_op(lowering, site, base, copies, name, None);
        lowering.stages.list[site.stage].state.root = Some(root);
    }
    lowering.budget.spend(created_by.len())?;
    lowering.commit(site.stage, created_by, true);
    Ok(())
}

/// `COPY [flags] sources… <<files… destination # buildkit`.
fn history(request: &Request) -> String {
    let mut text = String::from(if request.is_add { "ADD" } else { "COPY" });
    if request.parents {
        text += " --parents";
    }
    for (flag, value) in [("chown", &request.chown), ("chmod", &request.chmod)] {
        if !value.is_empty() {
            text += &format!(" --{flag}={value}");
        }
    }
    for path in &request.paths {
        text += &format!(" {path}");
    }
    for file in &request.contents {
        text += &format!(" <<{}", file.name);
    }
    text + &format!(" {} # buildkit", request.destination)
}

/// What one source brings.
fn from_path(
    lowering: &mut Lowering<'_>,
    site: Site<'_>,
    request: &Request,
    template: &CopyAction,
    name: &str,
    source: &str,
) -> Result<(Option<Made>, CopyAction), FrontendError> {
    if let Some(url) = git::parse(source) {
        let url = url.map_err(FrontendErrorKind::Git)?;
        if !request.is_add {
            return Err(FrontendErrorKind::CopyGit.into());
        }
        let op = git_source(url, request)?;
        let vertex = NewVertex {
            name: name.to_owned(),
            // BuildKit's have none, and then a wrong URL is told without its line.
            span: Some(site.span()),
            ..NewVertex::default()
        };
        let edge = lowering.add(Op::Source(op), vertex);
        return Ok((
            Some(edge),
            CopyAction {
                src: "/".to_owned(),
                ..template.clone()
            },
        ));
    }
    if git::is_http_file(source) {
        if !request.is_add {
            return Err(FrontendErrorKind::CopyUrl.into());
        }
        let file = git::http_file_name(source).map_err(FrontendErrorKind::FileName)?;
        let op = git::http_source(source, &file, &request.checksum).map_err(FrontendErrorKind::Checksum)?;
        let vertex = NewVertex {
            name: name.to_owned(),
            // BuildKit's have none, and then a wrong URL is told without its line.
            span: Some(site.span()),
            // The sources of BuildKit's ADD have no text of their own.
            command: Some(String::new()),
            ..NewVertex::default()
        };
        let edge = lowering.add(Op::Source(op), vertex);
        let src = path::join(&["/", &file]);
        let attempt_unpack = request.unpack.unwrap_or(false);
        return Ok((
            Some(edge),
            CopyAction {
                src,
                attempt_unpack,
                ..template.clone()
            },
        ));
    }
    if let Some(error) = git::wrong_options(source) {
        return Err(FrontendErrorKind::Git(error).into());
    }
    let from = match &request.from {
        Some(from) => from.clone(),
        None => local_source(lowering, site, request, source)?,
    };
    let edge = from.as_ref().map(|made| &made.edge);
    lowering.local_paths.add(edge, path::join(&["/", source]));
    let os = workdir::os_of(lowering, site);
    let action = local_action(request, template, source, &os)?;
    // In front of the pivot a wildcard finds whatever the directory has (`COPY --parents */./b/c`), and below a directory that
    // nothing else is asked of it must find something.
    let is_below = action.src.match_indices('/').count() > 1;
    if (is_below || !action.include_patterns.is_empty()) && glob::has_wildcards(&action.src) {
        lowering.local_paths.matter(edge);
    }
    Ok((from, action))
}

fn git_source(mut url: GitUrl, request: &Request) -> Result<SourceOp, FrontendError> {
    match (request.keep_git_dir, url.keep_git_dir) {
        (Some(flag), Some(query)) if flag != query => return Err(FrontendErrorKind::KeepGitDir.into()),
        (Some(flag), None) => url.keep_git_dir = Some(flag),
        _ => {}
    }
    if !request.checksum.is_empty() {
        if !url.checksum.is_empty() && url.checksum != request.checksum {
            let error = FrontendErrorKind::ChecksumMismatch(request.checksum.clone(), url.checksum);
            return Err(error.into());
        }
        url.checksum.clone_from(&request.checksum);
    }
    // As in BuildKit, which looks at them in contexts only.
    url.times.clear();
    Ok(url.to_source())
}

fn local_source(
    lowering: &mut Lowering<'_>,
    site: Site<'_>,
    request: &Request,
    source: &str,
) -> Result<Option<Made>, FrontendError> {
    let ignored = lowering
        .ignore
        .as_ref()
        .and_then(|matcher| validate::is_ignored(matcher, source));
    if let Some(source) = ignored {
        let verb = if request.is_add { "Add" } else { "Copy" };
        let shown = rbuild_dockerfile::quote::quote(&source);
        let message = format!("Attempting to {verb} file {shown} that is excluded by .dockerignore");
        lowering
            .lint
            .warn(Rule::CopyIgnoredFile, message, site.span(), site.comments());
    }
    lowering.context_paths.insert(path::join(&["/", source]));
    lowering.main_context()
}

fn local_action(
    request: &Request,
    template: &CopyAction,
    source: &str,
    os: &str,
) -> Result<CopyAction, FrontendErrorKind> {
    let normalized = |path: &str| -> Result<String, FrontendErrorKind> {
        let path = match path {
            "" => String::new(),
            path => without_drive(path, os, false).map_err(FrontendErrorKind::SourceDrive)?,
        };
        Ok(workdir::normalize("/", &path, false))
    };
    let mut root = source;
    let (mut include_patterns, mut required_paths) = (Vec::new(), Vec::new());
    if request.parents {
        // What stands before the first `/./` is not part of the copied paths.
        let (before, pattern) = source.split_once("/./").unwrap_or(("/", source));
        root = before;
        let pattern = normalized(pattern)?;
        if !glob::has_wildcards(root) && !glob::has_wildcards(&pattern) {
            required_paths.push(normalized(&path::join(&[root, &pattern]))?);
        }
        include_patterns.push(pattern.strip_prefix('/').unwrap_or(&pattern).to_owned());
    }
    Ok(CopyAction {
        src: path::join(&["/", &path::clean(&normalized(root)?)]),
        follow_symlink: true,
        dir_copy_contents: true,
        attempt_unpack: request.unpack.unwrap_or(request.is_add),
        allow_wildcard: true,
        allow_empty_wildcard: true,
        include_patterns,
        required_paths,
        ..template.clone()
    })
}

/// `--link`: the files alone on an empty root, laid over what is there. They need not be copied again when what is
/// below changes.
fn link(
    lowering: &mut Lowering<'_>,
    site: Site<'_>,
    copies: Vec<(Option<Made>, CopyAction)>,
    text: &str,
    name: String,
) {
    let stage = &mut lowering.stages.list[site.stage];
    let group = format!("link {}.{}", site.stage, stage.command_index);
    let base = stage.state.root.clone();
    stage.command_index = stage.command_index.saturating_sub(1);
    let link_name = lowering.numbered(site, &format!("LINK {text}"));
    let weak = ProgressGroup {
        id: group.clone(),
        name: name.clone(),
        weak: true,
    };
    let copied = file_op(lowering, site, None, copies, name.clone(), Some(weak));
    let root = match base {
        None => copied,
        Some(base) => {
            let ignore_cache = lowering.stages.list[site.stage].ignore_cache;
            let op = Op::Merge(MergeOp {
                inputs: vec![Some(0), Some(1)],
            });
            let strong = ProgressGroup {
                id: group,
                name,
                weak: false,
            };
            let mut inputs = Inputs::of(Some(&base));
            inputs.index(Some(&copied));
            let span = Some(site.span());
            let name = link_name;
            lowering.add(
                op,
                NewVertex {
                    inputs,
                    name,
                    ignore_cache,
                    span,
                    progress_group: Some(strong),
                    ..NewVertex::default()
                },
            )
        }
    };
    lowering.stages.list[site.stage].state.root = Some(root);
}

/// One operation that does all copies, each on the result of the one before.
fn file_op(
    lowering: &mut Lowering<'_>,
    site: Site<'_>,
    base: Option<Made>,
    copies: Vec<(Option<Made>, CopyAction)>,
    name: String,
    progress_group: Option<ProgressGroup>,
) -> Made {
    let mut inputs = Inputs::default();
    let base = inputs.index(base.as_ref());
    let sources: Vec<_> = copies
        .iter()
        .map(|(source, _)| inputs.index(source.as_ref()))
        .collect();
    inputs.last_action_first(base.is_some());
    let last = copies.len().saturating_sub(1);
    let result_of = |action: usize| u32::try_from(inputs.edges.len() + action).ok();
    let actions = copies
        .into_iter()
        .zip(sources)
        .enumerate()
        .map(|(at, ((_, mut copy), secondary_input))| {
            copy.owner = copy.owner.map(|owner| owner.looked_up_in(base));
            FileAction {
                input: at.checked_sub(1).map_or(base, result_of),
                secondary_input,
                output: (at == last).then_some(0),
                kind: FileActionKind::Copy(copy),
            }
        })
        .collect();
    let op = Op::File(FileOp { actions });
    let ignore_cache = lowering.stages.list[site.stage].ignore_cache;
    let span = Some(site.span());
    lowering.add(
        op,
        NewVertex {
            inputs,
            name,
            ignore_cache,
            span,
            progress_group,
            ..NewVertex::default()
        },
    )
}
