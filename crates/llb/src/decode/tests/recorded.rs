//! Definitions that BuildKit's own client made: a Go program of ours called `client/llb` at commit 73ed6825c4b7 and
//! wrote what it marshals. They decode, and what is written from them is the same to the byte.

use super::*;
use crate::encode_wire;
use rbuild_graph::{
    CacheSharing, ChownOpt, ContentCache, FileActionKind, MountKind, NetMode, SecurityMode, UserOpt,
};

const EXEC: &str = include_str!("../../../fixtures/exec.hex");
const EXEC_OUTPUT: &str = include_str!("../../../fixtures/exec-output.hex");
const FILE: &str = include_str!("../../../fixtures/file.hex");
const FILE_SCRATCH: &str = include_str!("../../../fixtures/file-scratch.hex");
const STACK: &str = include_str!("../../../fixtures/stack.hex");
const PLATFORM: &str = include_str!("../../../fixtures/platform.hex");
const BUILD: &str = include_str!("../../../fixtures/build.hex");

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(byte).collect()
}

fn recorded(hex: &str) -> (wire::Definition, Decoded) {
    let definition = wire::Definition::decode(bytes(hex).as_slice()).unwrap();
    let decoded = read(&definition).unwrap();
    (definition, decoded)
}

/// The vertex of that name.
fn named<'a>(decoded: &'a Decoded, name: &str) -> &'a Vertex {
    let found = decoded.graph.vertices().find(|vertex| vertex.meta.name == name);
    found.unwrap_or_else(|| {
        let names: Vec<&str> = decoded
            .graph
            .vertices()
            .map(|vertex| vertex.meta.name.as_str())
            .collect();
        panic!("no {name:?} in {names:?}")
    })
}

#[test]
fn what_buildkits_client_wrote_is_written_again() {
    for (name, hex) in [
        ("exec", EXEC),
        ("exec-output", EXEC_OUTPUT),
        ("file", FILE),
        ("file-scratch", FILE_SCRATCH),
        ("stack", STACK),
        ("platform", PLATFORM),
        ("build", BUILD),
    ] {
        let (definition, decoded) = recorded(hex);
        let mut written = encode_wire(&decoded.graph, decoded.target.as_ref().unwrap()).unwrap();
        let mut expected = definition;
        for definition in [&mut written, &mut expected] {
            definition.def.sort();
            // What the terminal operation needs is said in other words.
            definition
                .metadata
                .retain(|_, metadata| !metadata.caps.contains_key("constraints"));
        }
        let ops = |definition: &wire::Definition| -> Vec<wire::Op> {
            let decode = |bytes: &Vec<u8>| wire::Op::decode(bytes.as_slice()).unwrap();
            definition.def.iter().map(decode).collect()
        };
        assert_eq!(ops(&written), ops(&expected), "{name}");
        assert_eq!(written.metadata, expected.metadata, "{name}");
        assert_eq!(written.source, expected.source, "{name}");
        assert!(written == expected, "{name}: to the byte");
    }
}

#[test]
fn what_is_needed_is_found_in_the_operations() {
    // A client that knows its server also asks for the path that a step has if nothing sets one.
    const OF_KNOWN_SERVERS: &str = "exec.meta.setsdefaultpath";
    // That a way of comparing is no mere wish stands in no attribute.
    const OF_NO_ATTRIBUTE: &str = "source.local.differ";
    for (name, hex) in [
        ("exec", EXEC),
        ("exec-output", EXEC_OUTPUT),
        ("file", FILE),
        ("stack", STACK),
    ] {
        let (_, decoded) = recorded(hex);
        let mut bare = decoded.graph.clone();
        for (digest, vertex) in decoded.graph.iter() {
            let caps = BTreeSet::new();
            bare.set_meta(
                digest,
                rbuild_graph::VertexMeta {
                    caps,
                    ..vertex.meta.clone()
                },
            );
        }
        caps::note(&mut bare);
        for (digest, vertex) in decoded.graph.iter() {
            let mut found = bare.get(digest).unwrap().meta.caps.clone();
            let is_step = matches!(vertex.op, Op::Exec(_));
            assert_eq!(found.remove(OF_KNOWN_SERVERS), is_step, "{name}");
            let mut wanted = vertex.meta.caps.clone();
            wanted.remove(OF_NO_ATTRIBUTE);
            assert_eq!(found, wanted, "{name}: {}", vertex.meta.name);
        }
    }
}

#[test]
fn a_step_has_all_it_was_given() {
    let (_, decoded) = recorded(EXEC);
    let vertex = named(&decoded, "[1/1] RUN true");
    let Op::Exec(exec) = &vertex.op else {
        panic!("{vertex:?}")
    };
    assert_eq!(exec.meta.args, ["sh", "-c", "true"]);
    assert_eq!(
        (
            exec.meta.cwd.as_str(),
            exec.meta.user.as_str(),
            exec.meta.hostname.as_str()
        ),
        ("/w", "bob", "h")
    );
    assert_eq!(
        (exec.network, exec.security),
        (NetMode::Host, SecurityMode::Insecure)
    );
    assert_eq!(exec.meta.valid_exit_codes, [0, 3]);
    assert!(exec.meta.remove_mount_stubs_recursive);
    assert_eq!((exec.meta.ulimit[0].soft, exec.meta.ulimit[0].hard), (10, 20));
    assert_eq!(exec.meta.extra_hosts[0].ip, "1.2.3.4");
    assert_eq!(exec.meta.proxy_env.as_ref().unwrap().http_proxy, "p");
    assert_eq!(
        (exec.secret_env[0].id.as_str(), exec.secret_env[0].name.as_str()),
        ("t", "TOKEN")
    );
    assert_eq!(exec.cdi_devices[0].name, "vendor.com/gpu=0");
    let mount = |dest: &str| exec.mounts.iter().find(|mount| mount.dest == dest).unwrap();
    assert_eq!(mount("/").output, Some(0));
    assert!(
        matches!(&mount("/cache").kind, MountKind::Cache { id, sharing: CacheSharing::Locked } if id == "id")
    );
    assert_eq!(mount("/tmp").kind, MountKind::Tmpfs { size_bytes: 1024 });
    let src = mount("/src");
    assert_eq!(
        (src.selector.as_str(), src.readonly, src.content_cache),
        ("sub", true, ContentCache::On)
    );
    assert!(matches!(
        mount("/run/secrets/s").kind,
        MountKind::Secret {
            uid: 1,
            gid: 2,
            mode: 0o400,
            optional: true,
            ..
        }
    ));
    assert!(matches!(&mount("/ssh.sock").kind, MountKind::Ssh { id, optional: true, .. } if id == "default"));
    assert_eq!(mount("/ssh.sock").output, None);
    assert!(vertex.meta.ignore_cache);
    assert_eq!(vertex.meta.export_cache, Some(true));
    assert_eq!(vertex.meta.progress_group.as_ref().unwrap().name, "group");
    let limits = vertex.meta.linux_resources.as_ref().unwrap();
    assert_eq!((limits.memory, limits.cpuset_cpus.as_str()), (1 << 20, "0-1"));
    assert!(decoded.caps.contains("exec.meta.cdi"));
    assert_eq!(caps::check(decoded.caps.iter().map(String::as_str), &[]), Ok(()));
}

#[test]
fn an_edge_names_the_output_of_a_mount() {
    let (_, decoded) = recorded(EXEC_OUTPUT);
    let target = decoded.target.unwrap();
    let Op::Exec(exec) = &decoded.graph.get(&target.vertex).unwrap().op else {
        panic!()
    };
    let out = exec.mounts.iter().find(|mount| mount.dest == "/out").unwrap();
    assert_eq!(out.output, Some(target.output));
    assert_ne!(target.output, 0);
}

#[test]
fn file_actions_have_all_they_were_given() {
    let (_, decoded) = recorded(FILE);
    let vertex = named(&decoded, "files");
    let Op::File(file) = &vertex.op else {
        panic!("{vertex:?}")
    };
    let [dir, made, link, removed, copied] = file.actions.as_slice() else {
        panic!("{file:?}")
    };
    let FileActionKind::MkDir(dir) = &dir.kind else {
        panic!("{dir:?}")
    };
    let bob = Some(UserOpt::Name {
        name: "bob".into(),
        input: Some(0),
    });
    assert_eq!(
        dir.owner,
        Some(ChownOpt {
            user: bob.clone(),
            group: Some(UserOpt::Id(7))
        })
    );
    let time = dir.time.unwrap();
    assert_eq!((time.seconds, time.nanoseconds), (1_700_000_000, 5));
    let FileActionKind::MkFile(made) = &made.kind else {
        panic!("{made:?}")
    };
    assert_eq!(
        (made.path.as_str(), made.data.as_slice(), made.mode),
        ("/base/b", &b"data\0\xff"[..], 0o600)
    );
    assert_eq!(made.owner, Some(ChownOpt::ids(5, 6)));
    let FileActionKind::Symlink(link) = &link.kind else {
        panic!("{link:?}")
    };
    assert_eq!((link.target.as_str(), link.path.as_str()), ("/a", "/link"));
    assert!(matches!(&removed.kind, FileActionKind::Rm(rm) if rm.allow_wildcard && rm.allow_not_found));
    assert_eq!((copied.secondary_input, copied.output), (Some(1), Some(0)));
    let FileActionKind::Copy(copy) = &copied.kind else {
        panic!("{copied:?}")
    };
    assert_eq!((copy.mode, copy.mode_str.as_deref()), (None, Some("u=rwX")));
    assert_eq!(
        copy.owner,
        Some(ChownOpt {
            user: bob,
            group: Some(UserOpt::Id(9))
        })
    );
    assert!(copy.attempt_unpack && copy.always_replace_existing && copy.dir_copy_contents);
    assert_eq!(
        (&copy.include_patterns[..], &copy.exclude_patterns[..]),
        (&["i".to_owned()][..], &["e".to_owned()][..])
    );
    let Op::Source(local) = &named(&decoded, "local://ctx").op else {
        panic!()
    };
    assert_eq!(local.attrs["local.sharedkeyhint"], "hint");
}

#[test]
fn texts_and_places_come_along() {
    let (_, decoded) = recorded(STACK);
    let vertex = named(&decoded, "mkdir /m");
    let location = &vertex.meta.locations[0];
    assert_eq!(
        (location.ranges[0].start.line, location.ranges[0].start.character),
        (1, 2)
    );
    let text = &decoded.graph.sources[location.source];
    assert_eq!(
        (text.filename.as_str(), text.language.as_str()),
        ("Dockerfile", "Dockerfile")
    );
    assert_eq!(text.text, b"FROM x\nRUN y\n");
    assert!(named(&decoded, "diffed").meta.description.is_empty());
    let merged = decoded
        .graph
        .vertices()
        .find(|vertex| vertex.meta.description.contains_key("com.example"));
    assert!(matches!(merged.unwrap().op, Op::Merge(_)));
    assert!(matches!(
        named(&decoded, "diffed").op,
        Op::Diff(DiffOp {
            lower: Some(0),
            upper: Some(1)
        })
    ));
}

#[test]
fn a_nested_build_keeps_its_attributes() {
    let (_, decoded) = recorded(BUILD);
    let Op::Build(build) = &named(&decoded, "build").op else {
        panic!()
    };
    assert_eq!(build.attrs["llbbuild.filename"], "fn");
    assert_eq!(
        (build.builder, build.inputs["buildkit.llb.definition"]),
        (None, Some(0))
    );
}

#[test]
fn scratch_has_no_operations() {
    assert_eq!(read(&wire::Definition::default()), Ok(Decoded::default()));
}
