//! What an operation's cache key is made of, besides its inputs' keys.
//!
//! As BuildKit's `CacheMap`s (`solver/llbsolver/ops/{exec,file}.go`): everything that can change the result counts;
//! proxy values, the addresses of extra hosts and the ids of cache mounts do not, since they say where a step gets
//! things from and not what it makes. The parts a user would name come first, so that a miss can name them.

use std::collections::BTreeSet;

use rbuild_graph::{ChownOpt, CopyAction, ExecOp, FileActionKind, FileOp, MountKind, Op, Vertex};
use serde::{Deserialize, Serialize};

use crate::solve::{ContentInput, Ingredient};

/// What of an input is read, by content. Serialised into [`ContentInput::selector`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Selector {
    /// What a copy action reads.
    Copy(Box<CopyAction>),
    /// A path that a mount shows, links followed.
    Path(String),
    /// All of it: something is built on it.
    Whole,
}

/// Key parts of one vertex.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Parts {
    /// From the operation itself.
    pub ingredients: Vec<Ingredient>,
    /// Inputs that count by content.
    pub content: Vec<ContentInput>,
}

/// The key parts of `vertex`. `by_content_only(i)` says that input `i` has no key worth anything (a directory of the
/// host), so even a mount of it counts by content.
#[must_use]
pub fn parts(vertex: &Vertex, by_content_only: impl Fn(usize) -> bool) -> Parts {
    let mut parts = Parts::default();
    match &vertex.op {
        Op::Source(source) => {
            parts.add("source", &source.identifier);
            parts.add_json("attributes", &source.attrs);
        }
        Op::Exec(exec) => exec_parts(exec, &by_content_only, &mut parts),
        Op::File(file) => file_parts(file, vertex.inputs.len(), &by_content_only, &mut parts),
        Op::Merge(merge) => parts.add_json("merge", merge),
        Op::Diff(diff) => parts.add_json("diff", diff),
        Op::Build(build) => parts.add_json("build", build),
        Op::Passthrough(passthrough) => parts.add_json("passthrough", passthrough),
    }
    if matches!(vertex.op, Op::Merge(_) | Op::Diff(_) | Op::Passthrough(_)) {
        for input in (0..vertex.inputs.len()).filter(|input| by_content_only(*input)) {
            parts.need_all(input);
        }
    }
    let platform = vertex.platform.as_ref();
    parts.add("platform", &platform.map(ToString::to_string).unwrap_or_default());
    parts
}

impl Parts {
    pub(crate) fn add(&mut self, name: &str, value: &str) {
        self.ingredients.push(Ingredient {
            name: name.to_owned(),
            value: value.to_owned(),
        });
    }

    fn add_json<T: Serialize>(&mut self, name: &str, value: &T) {
        let text = serde_json::to_string(value);
        assert!(
            text.is_ok(),
            "operations have string keys only, so they always serialise"
        );
        self.add(name, &text.unwrap_or_default());
    }

    fn need(&mut self, input: usize, label: String, selector: &Selector) {
        let text = serde_json::to_string(selector);
        assert!(text.is_ok(), "a selector always serialises");
        self.content.push(ContentInput {
            input,
            selector: text.unwrap_or_default(),
            label,
        });
    }
}

impl Parts {
    /// The input counts by all its content.
    fn need_all(&mut self, input: usize) {
        self.need(input, "content of the directory".to_owned(), &Selector::Whole);
    }
}

fn exec_parts(exec: &ExecOp, by_content_only: &impl Fn(usize) -> bool, parts: &mut Parts) {
    let mut keyed = exec.clone();
    keyed.meta.proxy_env = None;
    for host in &mut keyed.meta.extra_hosts {
        host.ip.clear();
    }
    for mount in &mut keyed.mounts {
        if let MountKind::Cache { id, .. } = &mut mount.kind {
            id.clear();
        }
        let Some(input) = mount.input.map(|input| input as usize) else {
            continue;
        };
        // Memory, secrets and sockets show nothing of an input.
        let shows_input = matches!(mount.kind, MountKind::Bind | MountKind::Cache { .. });
        if shows_input && (mount.counts_by_content() || by_content_only(input)) {
            let selector = std::mem::take(&mut mount.selector);
            let selector = if selector.is_empty() {
                "/".to_owned()
            } else {
                selector
            };
            parts.need(
                input,
                format!("content mounted at {}", mount.dest),
                &if mount.dest == "/" {
                    Selector::Whole
                } else {
                    Selector::Path(selector)
                },
            );
        }
    }
    parts.add_json("command", &keyed.meta.args);
    for variable in &keyed.meta.env {
        let (name, value) = variable.split_once('=').unwrap_or((variable, ""));
        parts.add(&format!("variable {name}"), value);
    }
    parts.add("working directory", &keyed.meta.cwd);
    parts.add("user", &keyed.meta.user);
    // The parts above are for the user; this one makes the key complete whatever fields the operation gains.
    parts.add_json("run options", &keyed);
}

/// Which inputs of `file` count by the content that is read of them. One that is changed counts by its key, and the result of an
/// earlier action is made of what is counted already (`solver/llbsolver/ops/file.go`, `CacheMap`).
pub(crate) fn read_by_content(file: &FileOp, inputs: usize) -> impl Fn(usize) -> bool + use<> {
    let changed = changed_inputs(file);
    move |input| input < inputs && !changed.contains(&input)
}

fn changed_inputs(file: &FileOp) -> BTreeSet<usize> {
    let changed = file.actions.iter().filter_map(|action| action.input);
    changed.map(|input| input as usize).collect()
}

fn file_parts(file: &FileOp, inputs: usize, by_content_only: &impl Fn(usize) -> bool, parts: &mut Parts) {
    parts.add_json("file operation", file);
    for base in changed_inputs(file)
        .into_iter()
        .filter(|input| *input < inputs && by_content_only(*input))
    {
        parts.need_all(base);
    }
    let is_source = read_by_content(file, inputs);
    for action in &file.actions {
        if let Some(users) = action.kind.owner().and_then(ChownOpt::database) {
            let users = users as usize;
            for path in ["/etc/passwd", "/etc/group"]
                .into_iter()
                .filter(|_| is_source(users))
            {
                parts.need(
                    users,
                    format!("content of {path}"),
                    &Selector::Path(path.to_owned()),
                );
            }
        }
        let FileActionKind::Copy(copy) = &action.kind else {
            continue;
        };
        let Some(source) = action.secondary_input.map(|input| input as usize) else {
            continue;
        };
        if is_source(source) {
            parts.need(
                source,
                format!("content of {}", copy.src),
                &Selector::Copy(Box::new(copy.clone())),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rbuild_graph::{
        CacheSharing, Edge, ExecMeta, FileAction, HostIp, Mount, NetMode, ProxyEnv, SecretEnv, SecurityMode,
        VertexDigest, VertexMeta,
    };
    use rbuild_oci::{Digest, Platform};

    fn mount(input: u32, dest: &str, kind: MountKind) -> Mount {
        Mount {
            input: Some(input),
            readonly: true,
            ..Mount::new(dest, kind)
        }
    }

    fn exec() -> ExecOp {
        let root = Mount {
            output: Some(0),
            readonly: false,
            ..mount(0, "/", MountKind::Bind)
        };
        ExecOp {
            meta: ExecMeta {
                args: vec!["make".into()],
                env: vec!["A=1".into()],
                ..ExecMeta::default()
            },
            mounts: vec![root, mount(1, "/src", MountKind::Bind)],
            network: NetMode::Unset,
            security: SecurityMode::Sandbox,
            secret_env: vec![],
            cdi_devices: vec![],
        }
    }

    fn vertex(op: Op) -> Vertex {
        let edge = |text: &str| Edge {
            vertex: VertexDigest(Digest::sha256(text.as_bytes())),
            output: 0,
        };
        Vertex {
            op,
            inputs: vec![edge("a"), edge("b")],
            platform: Some(Platform::new("linux", "amd64")),
            constraints: vec![],
            meta: VertexMeta::default(),
        }
    }

    fn parts_of(exec: ExecOp) -> Parts {
        parts(&vertex(Op::Exec(Box::new(exec))), |_| false)
    }

    #[test]
    fn row46_every_field_that_changes_a_run_changes_its_key() {
        let plain = parts_of(exec());
        type Change = Box<dyn Fn(&mut ExecOp)>;
        let changes: Vec<(&str, Change)> = vec![
            ("args", Box::new(|e| e.meta.args.push("all".into()))),
            ("env value", Box::new(|e| e.meta.env[0] = "A=2".into())),
            (
                "env order",
                Box::new(|e| e.meta.env = vec!["B=1".into(), "A=1".into()]),
            ),
            ("cwd", Box::new(|e| e.meta.cwd = "/w".into())),
            ("user", Box::new(|e| e.meta.user = "bob".into())),
            ("hostname", Box::new(|e| e.meta.hostname = "h".into())),
            ("network", Box::new(|e| e.network = NetMode::None)),
            ("security", Box::new(|e| e.security = SecurityMode::Insecure)),
            (
                "host name",
                Box::new(|e| {
                    e.meta.extra_hosts.push(HostIp {
                        host: "x".into(),
                        ip: "1.2.3.4".into(),
                    });
                }),
            ),
            ("mount dest", Box::new(|e| e.mounts[1].dest = "/other".into())),
            ("mount ro", Box::new(|e| e.mounts[1].readonly = false)),
            (
                "tmpfs",
                Box::new(|e| e.mounts[1].kind = MountKind::Tmpfs { size_bytes: 1 }),
            ),
            (
                "secret env",
                Box::new(|e| {
                    e.secret_env.push(SecretEnv {
                        id: "s".into(),
                        name: "S".into(),
                        optional: true,
                    });
                }),
            ),
        ];
        for (what, change) in changes {
            let mut changed = exec();
            change(&mut changed);
            assert_ne!(parts_of(changed).ingredients, plain.ingredients, "{what}");
        }
    }

    #[test]
    fn where_things_come_from_is_not_part_of_the_key() {
        let cache = |id: &str| {
            mount(
                1,
                "/c",
                MountKind::Cache {
                    id: id.into(),
                    sharing: CacheSharing::Shared,
                },
            )
        };
        let mut one = exec();
        let mut two = exec();
        one.mounts.push(cache("one"));
        two.mounts.push(cache("two"));
        one.meta.extra_hosts.push(HostIp {
            host: "x".into(),
            ip: "1.2.3.4".into(),
        });
        two.meta.extra_hosts.push(HostIp {
            host: "x".into(),
            ip: "4.3.2.1".into(),
        });
        two.meta.proxy_env = Some(ProxyEnv {
            http_proxy: "http://u:p@proxy".into(),
            ..ProxyEnv::default()
        });
        assert_eq!(parts_of(one), parts_of(two));
    }

    #[test]
    fn only_a_mount_without_output_counts_by_content() {
        let parts = parts_of(exec());
        assert_eq!(
            parts.content.iter().map(|need| need.input).collect::<Vec<_>>(),
            [1]
        );
        let mut written = exec();
        written.mounts[1].output = Some(1);
        written.mounts[1].selector = "part".into();
        written.mounts[1].readonly = false;
        assert_eq!(parts_of(written).content, []);
    }

    #[test]
    fn a_copy_counts_its_source_by_content_and_its_base_by_key() {
        let copy = CopyAction {
            src: "/src".into(),
            dest: "/".into(),
            ..CopyAction::default()
        };
        let action = |input, secondary| FileAction {
            input: Some(input),
            secondary_input: Some(secondary),
            output: Some(0),
            kind: FileActionKind::Copy(copy.clone()),
        };
        let plain = parts(
            &vertex(Op::File(FileOp {
                actions: vec![action(0, 1), action(2, 1)],
            })),
            |_| false,
        );
        assert_eq!(
            plain.content.iter().map(|need| need.input).collect::<Vec<_>>(),
            [1, 1]
        );
        let onto_itself = parts(
            &vertex(Op::File(FileOp {
                actions: vec![action(0, 0)],
            })),
            |_| false,
        );
        assert_eq!(
            onto_itself.content,
            [],
            "the base counts by key, which covers all of its content"
        );
    }
}
