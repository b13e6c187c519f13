//! WORKDIR, and paths relative to it.

use rbuild_dockerfile::path;
use rbuild_graph::{ChownOpt, FileAction, FileActionKind, FileOp, FileTime, MkDirAction, Op};

use crate::dispatch::Site;
use crate::dispatch::windows::{self, DriveError, without_drive};
use crate::error::{FrontendError, FrontendErrorKind};
use crate::lint::Rule;
use crate::lowering::{Lowering, NewVertex};
use crate::origins::Inputs;
use crate::stage::StageState;

pub(super) fn workdir(lowering: &mut Lowering<'_>, site: Site<'_>, path: &str) -> Result<(), FrontendError> {
    let path = lowering.expand(site, path)?;
    let os = os_of(lowering, site);
    let stage = &mut lowering.stages.list[site.stage];
    let absolute = without_drive(&path, &os, false).is_ok_and(|path| path::is_absolute(&path));
    if !std::mem::replace(&mut stage.workdir_set, true) && !absolute {
        let shown = rbuild_dockerfile::quote::quote(&path);
        let message =
            format!("Relative workdir {shown} can have unexpected results if the base image changes");
        lowering
            .lint
            .warn(Rule::WorkdirRelativePath, message, site.span(), site.comments());
    }
    let stage = &mut lowering.stages.list[site.stage];
    set_workdir(stage, &path, &os)?;
    let dir = stage.state.dir.clone();
    lowering.budget.spend(dir.len())?;
    let makes_layer = dir != "/";
    if makes_layer {
        make_directory(lowering, site, &dir)?;
    }
    lowering.commit(site.stage, format!("WORKDIR {dir}"), makes_layer);
    Ok(())
}

/// Makes `path` the working directory, joined to the one before if it is relative.
pub(crate) fn set_workdir(stage: &mut StageState, path: &str, os: &str) -> Result<(), FrontendError> {
    let given = |path: &str| match path {
        "" => Ok(String::new()),
        path => without_drive(path, os, false).map_err(FrontendErrorKind::WorkdirDrive),
    };
    let dir = normalize(&given(&stage.image.config.working_dir)?, &given(path)?, false);
    stage.image.config.working_dir = windows::in_config(&dir, os);
    stage.state.dir = dir;
    Ok(())
}

fn make_directory(lowering: &mut Lowering<'_>, site: Site<'_>, dir: &str) -> Result<(), FrontendError> {
    let lexer = lowering.lexer;
    let name = lowering.step_name(site, lexer, site.source(), &[])?;
    let time = lowering.epoch.map(FileTime::of);
    let stage = &lowering.stages.list[site.stage];
    let user = stage.image.config.user.clone();
    let base = stage.state.root.clone();
    let input = base.as_ref().map(|_| 0);
    let owner = (!user.is_empty()).then(|| ChownOpt::parse(&user, input));
    let action = FileAction {
        input,
        secondary_input: None,
        output: Some(0),
        kind: FileActionKind::MkDir(MkDirAction {
            path: path::clean(dir),
            mode: 0o755,
            make_parents: true,
            owner,
            time,
        }),
    };
    let op = Op::File(FileOp {
        actions: vec![action],
    });
    let inputs = Inputs::of(base.as_ref());
    let root = lowering.add(
        op,
        NewVertex {
            inputs,
            name,
            span: Some(site.span()),
            ..NewVertex::default()
        },
    );
    lowering.stages.list[site.stage].state.root = Some(root);
    Ok(())
}

/// `path` below `parent`, absolute. An absolute path stays as it is written; `keep_slash` keeps a `/` or `/.` at the
/// end, which say that a directory is meant (BuildKit `util/system.NormalizePath` for Linux).
pub(super) fn normalize(parent: &str, path: &str, keep_slash: bool) -> String {
    let parent = if path::is_absolute(parent) {
        parent.to_owned()
    } else {
        path::join(&["/", parent])
    };
    let given = if path.is_empty() { parent.as_str() } else { path };
    let mut out = if path::is_absolute(given) {
        given.to_owned()
    } else {
        path::join(&[&parent, given])
    };
    if keep_slash {
        restore_end(path, &mut out);
    }
    out
}

/// The cleaned path with the end of `written` (BuildKit `llb.normalizePath`).
pub(super) fn clean_keeping_slash(written: &str) -> String {
    let mut out = path::clean(written);
    restore_end(written, &mut out);
    out
}

fn restore_end(written: &str, out: &mut String) {
    if written.ends_with('/') && !out.ends_with('/') {
        out.push('/');
    } else if written.ends_with("/.") {
        if out != "/" {
            out.push('/');
        }
        out.push('.');
    }
}

/// What the stage's paths are of.
pub(super) fn os_of(lowering: &Lowering<'_>, site: Site<'_>) -> String {
    let stage = &lowering.stages.list[site.stage];
    let platform = stage.platform.as_ref().unwrap_or(&lowering.target_platform);
    platform.os.clone()
}

/// Destination of COPY for a stage in `dir`: absolute, cleaned, with a slash if a directory is meant.
pub(super) fn destination(dir: &str, written: &str, os: &str) -> Result<String, DriveError> {
    let written = &*without_drive(written, os, true)?;
    let written = if matches!(written, "" | ".") {
        "./"
    } else {
        written
    };
    let parent = if path::is_absolute(written) { "/" } else { dir };
    Ok(clean_keeping_slash(&normalize(parent, written, true)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn destinations() {
        for (dir, written, expected) in [
            ("/w", "", "/w/"),
            ("/w", ".", "/w/"),
            ("/", ".", "/"),
            ("/w", "x", "/w/x"),
            ("/w", "x/", "/w/x/"),
            ("/w", "..", "/"),
            ("/w", "../y/", "/y/"),
            ("/w", "/a", "/a"),
            ("/w", "/a/", "/a/"),
            ("/w", "/a/.", "/a/."),
            ("/w", "/", "/"),
            ("/w", "/a/../../b", "/b"),
            ("/w", "./", "/w/"),
        ] {
            let found = destination(dir, written, "linux").unwrap();
            assert_eq!(found, expected, "{written:?} in {dir}");
        }
        for (dir, written, expected) in [
            ("/w", "x\\y\\", "/w/x/y/"),
            ("/w", "C:\\x", "/x"),
            ("/w", "", "/w/"),
        ] {
            let found = destination(dir, written, "windows").unwrap();
            assert_eq!(found, expected, "{written:?} in {dir}");
        }
    }

    #[test]
    fn working_directories() {
        for (current, path, expected) in [
            ("", "a", "/a"),
            ("/a", "b", "/a/b"),
            ("/a", "/b/", "/b/"),
            ("/a", "../c", "/c"),
            ("/a", "../../..", "/"),
            ("/a", "", "/a"),
            ("rel", "x", "/rel/x"),
        ] {
            assert_eq!(
                normalize(current, path, false),
                expected,
                "{path:?} in {current:?}"
            );
        }
    }
}
