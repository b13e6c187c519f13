//! Graphs that are written and read again are the same graphs, and no bytes make reading panic.

use super::*;
use crate::encode_wire;
use proptest::prelude::*;
use rbuild_graph::progress::ProgressGroup;
use rbuild_graph::{
    CacheSharing, CdiDevice, ChownOpt, ContentCache, CopyAction, ExecMeta, ExecOp, FileAction,
    FileActionKind, FileOp, FileTime, HostIp, LinuxResources, MkDirAction, MkFileAction, Mount, MountKind,
    NetMode, ProxyEnv, RmAction, SecretEnv, SecurityMode, SourceLocation, SourcePosition, SourceRange,
    SourceText, SymlinkAction, Ulimit, UserOpt, VertexMeta,
};
use rbuild_oci::Platform;

/// Numbers that decide what is made.
struct Choices(std::vec::IntoIter<u32>);

impl Choices {
    fn below(&mut self, limit: usize) -> usize {
        self.0.next().unwrap_or_default() as usize % limit.max(1)
    }

    fn yes(&mut self) -> bool {
        self.below(2) == 1
    }

    fn number(&mut self) -> u32 {
        match self.below(4) {
            0 => 0,
            1 => u32::MAX - 1,
            _ => self.0.next().unwrap_or_default(),
        }
    }

    fn text(&mut self) -> String {
        ["", "a", "/some/path", "b=c", "ünï", "x,y:z"][self.below(6)].to_owned()
    }

    fn some_text(&mut self) -> Option<String> {
        Some(self.text()).filter(|text| !text.is_empty())
    }

    fn list<T>(&mut self, mut make: impl FnMut(&mut Self) -> T) -> Vec<T> {
        (0..self.below(3)).map(|_| make(self)).collect()
    }

    fn map(&mut self) -> BTreeMap<String, String> {
        self.list(|choices| (choices.text(), choices.text()))
            .into_iter()
            .collect()
    }

    fn option<T>(&mut self, make: impl FnOnce(&mut Self) -> T) -> Option<T> {
        self.yes().then(|| make(self))
    }

    /// An input below `count`, or none.
    fn input(&mut self, count: usize) -> InputIndex {
        self.below(count + 1)
            .checked_sub(1)
            .and_then(|index| u32::try_from(index).ok())
    }

    fn time(&mut self) -> Option<FileTime> {
        self.option(|choices| FileTime {
            seconds: i64::from(choices.number()) - i64::from(u32::MAX / 2),
            nanoseconds: choices.number() % 1_000_000_000,
        })
        .filter(|time| (time.seconds, time.nanoseconds) != (-1, 999_999_999))
    }

    fn owner(&mut self, count: usize) -> Option<ChownOpt> {
        let half = |choices: &mut Self| {
            if choices.yes() {
                UserOpt::Id(choices.number())
            } else {
                UserOpt::Name {
                    name: choices.text(),
                    input: choices.input(count),
                }
            }
        };
        self.option(|choices| ChownOpt {
            user: choices.option(half),
            group: choices.option(half),
        })
    }

    fn op(&mut self, inputs: usize) -> Op {
        match self.below(7) {
            0 => Op::Source(SourceOp {
                identifier: self.text(),
                attrs: self.map(),
            }),
            1 => Op::Exec(Box::new(self.exec(inputs))),
            2 => Op::File(self.file(inputs)),
            3 => Op::Merge(MergeOp {
                inputs: self.list(|choices| choices.input(inputs)),
            }),
            4 => Op::Diff(DiffOp {
                lower: self.input(inputs),
                upper: self.input(inputs),
            }),
            5 => Op::Build(BuildOp {
                builder: self.input(inputs),
                inputs: self
                    .list(|choices| (choices.text(), choices.input(inputs)))
                    .into_iter()
                    .collect(),
                definition: self.option(|choices| choices.text().into_bytes()),
                attrs: self.map(),
            }),
            _ if inputs == 0 => Op::Merge(MergeOp { inputs: vec![] }),
            _ => Op::Passthrough(PassthroughOp {
                id: format!("id{}", self.text()),
                outputs: (0..=self.below(2)).map(|_| self.below(inputs) as u32).collect(),
            }),
        }
    }

    fn exec(&mut self, inputs: usize) -> ExecOp {
        let count = 1 + self.below(4);
        let mounts = (0..count).map(|at| self.mount(inputs, at, count)).collect();
        ExecOp {
            meta: ExecMeta {
                args: (0..=self.below(3)).map(|_| self.text()).collect(),
                env: self.list(Self::text),
                cwd: self.text(),
                user: self.text(),
                proxy_env: self.option(|choices| ProxyEnv {
                    http_proxy: choices.text(),
                    https_proxy: choices.text(),
                    ftp_proxy: choices.text(),
                    no_proxy: choices.text(),
                    all_proxy: choices.text(),
                }),
                extra_hosts: self.list(|choices| HostIp {
                    host: choices.text(),
                    ip: choices.text(),
                }),
                hostname: self.text(),
                ulimit: self.list(|choices| Ulimit {
                    name: choices.text(),
                    soft: i64::from(choices.number()),
                    hard: -1,
                }),
                cgroup_parent: self.text(),
                remove_mount_stubs_recursive: self.yes(),
                valid_exit_codes: self.list(|choices| choices.number().cast_signed()),
            },
            mounts,
            network: [NetMode::Unset, NetMode::Host, NetMode::None][self.below(3)],
            security: [SecurityMode::Sandbox, SecurityMode::Insecure][self.below(2)],
            secret_env: self.list(|choices| SecretEnv {
                id: choices.text(),
                name: choices.text(),
                optional: choices.yes(),
            }),
            cdi_devices: self.list(|choices| CdiDevice {
                name: choices.text(),
                optional: choices.yes(),
            }),
        }
    }

    fn mount(&mut self, inputs: usize, at: usize, count: usize) -> Mount {
        let kind = match self.below(5) {
            0 => MountKind::Bind,
            1 => MountKind::Cache {
                id: self.text(),
                sharing: [CacheSharing::Shared, CacheSharing::Private, CacheSharing::Locked][self.below(3)],
            },
            2 => MountKind::Tmpfs {
                size_bytes: u64::from(self.number()),
            },
            3 => MountKind::Secret {
                id: self.text(),
                uid: self.number(),
                gid: self.number(),
                mode: self.number(),
                optional: self.yes(),
            },
            _ => MountKind::Ssh {
                id: self.text(),
                uid: self.number(),
                gid: self.number(),
                mode: self.number(),
                optional: self.yes(),
            },
        };
        let dest = if at == 0 { "/".to_owned() } else { self.text() };
        let mut mount = Mount {
            input: self.input(inputs),
            selector: self.text(),
            output: self.input(count),
            readonly: self.yes(),
            result_id: self.text(),
            content_cache: [ContentCache::Default, ContentCache::On, ContentCache::Off][self.below(3)],
            ..Mount::new(&dest, kind)
        };
        if !mount.may_count_by_content() {
            mount.content_cache = ContentCache::Off;
        }
        if matches!(mount.kind, MountKind::Secret { .. } | MountKind::Ssh { .. }) {
            mount.output = None;
        }
        mount
    }

    fn file(&mut self, inputs: usize) -> FileOp {
        let count = 1 + self.below(4);
        let made = self.below(count);
        let action = |choices: &mut Self, at: usize| FileAction {
            input: choices.input(inputs + at),
            secondary_input: choices.input(inputs + at),
            // The first `made` actions and the last one make an output, in the other order.
            output: (at < made || at + 1 == count).then(|| (made - at.min(made)) as u32),
            kind: choices.action(inputs + at),
        };
        FileOp {
            actions: (0..count).map(|at| action(self, at)).collect(),
        }
    }

    fn copy(&mut self, count: usize) -> FileActionKind {
        let mode_str = self.some_text();
        let mode_is_number = mode_str.is_none();
        FileActionKind::Copy(CopyAction {
            src: self.text(),
            dest: self.text(),
            owner: self.owner(count),
            mode: self
                .option(Self::number)
                .filter(|mode| *mode != u32::MAX && mode_is_number),
            mode_str,
            follow_symlink: self.yes(),
            dir_copy_contents: self.yes(),
            attempt_unpack: self.yes(),
            create_dest_path: self.yes(),
            allow_wildcard: self.yes(),
            allow_empty_wildcard: self.yes(),
            include_patterns: self.list(Self::text),
            exclude_patterns: self.list(Self::text),
            always_replace_existing: self.yes(),
            required_paths: self.list(Self::text),
            time: self.time(),
        })
    }

    fn action(&mut self, count: usize) -> FileActionKind {
        match self.below(5) {
            0 => self.copy(count),
            1 => FileActionKind::MkFile(MkFileAction {
                path: self.text(),
                mode: self.number(),
                data: self.text().into_bytes(),
                owner: self.owner(count),
                time: self.time(),
            }),
            2 => FileActionKind::MkDir(MkDirAction {
                path: self.text(),
                mode: self.number(),
                make_parents: self.yes(),
                owner: self.owner(count),
                time: self.time(),
            }),
            3 => FileActionKind::Rm(RmAction {
                path: self.text(),
                allow_not_found: self.yes(),
                allow_wildcard: self.yes(),
            }),
            _ => FileActionKind::Symlink(SymlinkAction {
                target: self.text(),
                path: self.text(),
                owner: self.owner(count),
                time: self.time(),
            }),
        }
    }

    fn meta(&mut self, sources: usize) -> VertexMeta {
        let position = |choices: &mut Self| SourcePosition {
            line: choices.number().cast_signed(),
            character: choices.number().cast_signed(),
        };
        let location = |choices: &mut Self| SourceLocation {
            source: choices.below(sources),
            ranges: choices.list(|choices| SourceRange {
                start: position(choices),
                end: position(choices),
            }),
        };
        VertexMeta {
            name: self.text(),
            ignore_cache: self.yes(),
            locations: if sources == 0 {
                Vec::new()
            } else {
                self.list(location)
            },
            progress_group: self.option(|choices| ProgressGroup {
                id: choices.text(),
                name: choices.text(),
                weak: choices.yes(),
            }),
            description: self.map(),
            export_cache: self.option(Self::yes),
            caps: self.list(Self::text).into_iter().collect(),
            linux_resources: self.option(|choices| LinuxResources {
                memory: i64::from(choices.number()),
                memory_swap: -1,
                cpu_shares: u64::from(choices.number()),
                cpu_period: u64::from(choices.number()),
                cpu_quota: i64::from(choices.number()),
                cpuset_cpus: choices.text(),
                cpuset_mems: choices.text(),
            }),
        }
    }

    /// A graph, and an edge that needs all of it.
    fn graph(&mut self) -> (Graph, Edge) {
        let mut graph = Graph::default();
        graph.sources = self.list(|choices| SourceText {
            filename: choices.text(),
            text: choices.text().into_bytes(),
            language: choices.text(),
            definition: choices.option(|choices| choices.text().into_bytes()),
        });
        let mut edges: Vec<Edge> = Vec::new();
        for _ in 0..=self.below(6) {
            let inputs: Vec<Edge> = match edges.len() {
                0 => Vec::new(),
                count => self.list(|choices| edges[choices.below(count)].clone()),
            };
            let op = self.op(inputs.len());
            let outputs = op.outputs();
            let vertex = Vertex {
                op,
                inputs,
                platform: self.option(|choices| Platform {
                    architecture: choices.text(),
                    os: choices.text(),
                    os_version: choices.some_text(),
                    os_features: choices.list(Self::text),
                    variant: choices.some_text(),
                }),
                constraints: self.list(Self::text),
                meta: self.meta(graph.sources.len()),
            };
            let vertex = graph.add(vertex).unwrap();
            let outputs = u32::try_from(outputs).unwrap();
            edges.extend((0..outputs).map(|output| Edge {
                vertex: vertex.clone(),
                output,
            }));
        }
        // One that stands on all, so that nothing is left out.
        let merge = Vertex {
            op: Op::Merge(MergeOp { inputs: vec![] }),
            inputs: edges,
            platform: None,
            constraints: vec![],
            meta: VertexMeta::default(),
        };
        let vertex = graph.add(merge).unwrap();
        (graph, Edge { vertex, output: 0 })
    }
}

/// The vertices that can be named: those without outputs are out of reach.
fn reached(graph: &Graph, edge: &Edge) -> Graph {
    let mut pruned = Graph::default();
    pruned.sources.clone_from(&graph.sources);
    for digest in graph.reachable(std::slice::from_ref(&edge.vertex)).unwrap() {
        pruned.add(graph.get(&digest).unwrap().clone()).unwrap();
    }
    pruned
}

proptest! {
    #[test]
    fn a_graph_survives_being_written(numbers in proptest::collection::vec(any::<u32>(), 0..600)) {
        let (graph, edge) = Choices(numbers.into_iter()).graph();
        let written = encode_wire(&graph, &edge).unwrap();
        let read = read(&written).unwrap();
        prop_assert_eq!(&read.graph, &reached(&graph, &edge));
        prop_assert_eq!(read.target.as_ref(), Some(&edge));
        let again = encode_wire(&read.graph, &edge).unwrap();
        prop_assert_eq!(&again, &written, "and so does a definition");
        // Every operation has a name of the client's, and the name is that of its bytes.
        for bytes in &written.def[..written.def.len() - 1] {
            let vertex = read.digests.vertex(&Digest::sha256(bytes)).unwrap();
            prop_assert_eq!(read.digests.client(vertex), Some(&Digest::sha256(bytes)));
        }
    }

    #[test]
    fn row48_no_bytes_make_reading_panic(
        numbers in proptest::collection::vec(any::<u32>(), 0..200),
        at in any::<proptest::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let mut client = Client::default();
        let base = client.source("local://a");
        let op = Choices(numbers.into_iter()).op(1);
        let mut graph = Graph::default();
        let source = Vertex {
            op: Op::Source(SourceOp { identifier: "local://a".into(), attrs: BTreeMap::new() }),
            inputs: vec![],
            platform: None,
            constraints: vec![],
            meta: VertexMeta::default(),
        };
        let vertex = graph.add(source).unwrap();
        let on = Vertex {
            op,
            inputs: vec![Edge { vertex, output: 0 }],
            platform: None,
            constraints: vec![],
            meta: VertexMeta::default(),
        };
        let vertex = graph.add(on).unwrap();
        let written = encode_wire(&graph, &Edge { vertex, output: 0 }).unwrap();
        let mut bytes = written.def[1].clone();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let digest = Digest::sha256(&bytes).to_string();
        client.definition.def.push(bytes);
        client.definition.def.extend_from_slice(&written.def[..1]);
        prop_assert_ne!(&digest, &base);
        // Whatever it is, there is an answer, and what is read can be written.
        if let Ok(decoded) = read(&client.end(&digest, 0)) {
            let edge = decoded.target.clone().unwrap();
            if let Ok(again) = encode_wire(&decoded.graph, &edge) {
                prop_assert_eq!(read(&again).unwrap().graph, decoded.graph);
            }
        }
    }
}
