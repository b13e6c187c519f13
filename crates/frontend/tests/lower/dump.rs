//! A graph as text: what `result` needs, inputs first, one vertex a paragraph.

use std::collections::HashMap;
use std::fmt::Write as _;

use rbuild_frontend::Lowered;
use rbuild_graph::{CopyAction, ExecOp, FileActionKind, Op, VertexDigest};

pub(crate) fn dump(lowered: &Lowered) -> String {
    let Some(result) = &lowered.result else {
        return "scratch\n".to_owned();
    };
    let order = lowered
        .graph
        .reachable(std::slice::from_ref(&result.vertex))
        .unwrap();
    let number: HashMap<&VertexDigest, usize> = order
        .iter()
        .enumerate()
        .map(|(at, digest)| (digest, at))
        .collect();
    let mut out = String::new();
    for digest in &order {
        let vertex = lowered.graph.get(digest).unwrap();
        let inputs: Vec<String> = vertex
            .inputs
            .iter()
            .map(|edge| format!("%{}", number[&edge.vertex]))
            .collect();
        write!(out, "%{} {}", number[digest], vertex.meta.name).unwrap();
        if let Some(span) = vertex.meta.span() {
            write!(out, " @{}", span.start).unwrap();
        }
        if let Some(platform) = &vertex.platform {
            write!(out, " <{}>", platform.short()).unwrap();
        }
        if vertex.meta.ignore_cache {
            out.push_str(" nocache");
        }
        if let Some(group) = &vertex.meta.progress_group {
            write!(
                out,
                " group[{}]{}",
                group.name,
                if group.weak { " weak" } else { "" }
            )
            .unwrap();
        }
        out.push('\n');
        op(&mut out, &vertex.op, &inputs);
    }
    out
}

fn at(inputs: &[String], index: Option<u32>) -> String {
    match index {
        None => "scratch".to_owned(),
        Some(index) => match inputs.get(index as usize) {
            Some(input) => input.clone(),
            None => format!("action{}", index as usize - inputs.len()),
        },
    }
}

fn op(out: &mut String, op: &Op, inputs: &[String]) {
    match op {
        Op::Source(source) => {
            let attrs: Vec<String> = source.attrs.iter().map(|(k, v)| format!(" {k}={v}")).collect();
            writeln!(out, "  source {}{}", source.identifier, attrs.concat()).unwrap();
        }
        Op::Exec(exec) => exec_op(out, exec, inputs),
        Op::Merge(merge) => {
            let parts: Vec<String> = merge.inputs.iter().map(|index| at(inputs, *index)).collect();
            writeln!(out, "  merge {}", parts.join(" ")).unwrap();
        }
        Op::Diff(_) | Op::Build(_) | Op::Passthrough(_) => writeln!(out, "  {op:?}").unwrap(),
        Op::File(file) => {
            for action in &file.actions {
                let output = if action.output.is_some() { " ->out" } else { "" };
                let on = at(inputs, action.input);
                let text = match &action.kind {
                    FileActionKind::Copy(copy) => {
                        format!("copy {}{}", at(inputs, action.secondary_input), copy_text(copy))
                    }
                    FileActionKind::MkFile(file) => {
                        format!(
                            "mkfile {} {:o} {:?}",
                            file.path,
                            file.mode,
                            String::from_utf8_lossy(&file.data)
                        )
                    }
                    FileActionKind::MkDir(dir) => {
                        let owner = dir
                            .owner
                            .as_ref()
                            .map(|owner| format!(" owner={owner}"))
                            .unwrap_or_default();
                        let time = dir
                            .time
                            .map(|t| format!(" time={}", t.seconds))
                            .unwrap_or_default();
                        format!("mkdir {} {:o}{owner}{time}", dir.path, dir.mode)
                    }
                    other => format!("{other:?}"),
                };
                writeln!(out, "  on {on}: {text}{output}").unwrap();
            }
        }
    }
}

fn copy_text(copy: &CopyAction) -> String {
    let mut text = format!("{} => {}", copy.src, copy.dest);
    for (flag, on) in [
        ("follow", copy.follow_symlink),
        ("contents", copy.dir_copy_contents),
        ("unpack", copy.attempt_unpack),
        ("mkdest", copy.create_dest_path),
        ("wildcard", copy.allow_wildcard),
        ("emptyok", copy.allow_empty_wildcard),
    ] {
        if on {
            text += &format!(" {flag}");
        }
    }
    if let Some(owner) = &copy.owner {
        text += &format!(" owner={owner}");
    }
    if let Some(mode) = copy.mode {
        text += &format!(" mode={mode:o}");
    }
    if let Some(mode) = &copy.mode_str {
        text += &format!(" mode={mode}");
    }
    for (name, list) in [
        ("include", &copy.include_patterns),
        ("exclude", &copy.exclude_patterns),
        ("required", &copy.required_paths),
    ] {
        if !list.is_empty() {
            text += &format!(" {name}={list:?}");
        }
    }
    text
}

fn exec_op(out: &mut String, exec: &ExecOp, inputs: &[String]) {
    let meta = &exec.meta;
    writeln!(
        out,
        "  exec {:?} cwd={} user={:?}",
        meta.args, meta.cwd, meta.user
    )
    .unwrap();
    writeln!(out, "  env {:?}", meta.env).unwrap();
    for mount in &exec.mounts {
        let input = at(inputs, mount.input);
        write!(out, "  mount {} {:?} from {input}", mount.dest, mount.kind).unwrap();
        for (flag, on) in [
            ("ro", mount.readonly),
            ("out", mount.output.is_some()),
            ("bycontent", mount.input.is_some() && mount.counts_by_content()),
        ] {
            if on {
                write!(out, " {flag}").unwrap();
            }
        }
        if !mount.selector.is_empty() {
            write!(out, " sel={}", mount.selector).unwrap();
        }
        out.push('\n');
    }
    for secret in &exec.secret_env {
        let optional = if secret.optional { " optional" } else { "" };
        writeln!(out, "  secret {} as ${}{optional}", secret.id, secret.name).unwrap();
    }
    writeln!(out, "  net={:?} security={:?}", exec.network, exec.security).unwrap();
    if let Some(proxy) = &meta.proxy_env {
        writeln!(out, "  proxy {} {}", proxy.http_proxy, proxy.no_proxy).unwrap();
    }
}
