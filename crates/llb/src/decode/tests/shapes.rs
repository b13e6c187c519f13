//! What BuildKit's client sends, field by field.

use super::*;
use rbuild_graph::{ChownOpt, FileActionKind, LinuxResources, MountKind, SourceRange, UserOpt};
use rbuild_oci::Platform;

#[test]
fn an_empty_definition_is_an_empty_file_system() {
    assert_eq!(read(&wire::Definition::default()), Ok(Decoded::default()));
}

#[test]
fn a_build_becomes_a_graph_and_keeps_the_clients_digests() {
    let mut client = Client::default();
    let image = client.add(&wire::Op {
        platform: Some(pb::Platform {
            os: "linux".into(),
            architecture: "arm".into(),
            variant: "v7".into(),
            os_version: "1.2".into(),
            os_features: vec!["f".into()],
        }),
        constraints: Some(pb::WorkerConstraints {
            filter: vec!["a==b".into()],
        }),
        ..op(&[], source("docker-image://docker.io/library/busybox:latest"))
    });
    let run = client.add(&op(&[&image], OpKind::Exec(exec(&["sh", "-c", "true"]))));
    let made = client.add(&op(&[&run], file(vec![mkdir("/a", 0, -1), mkdir("/b", 1, 0)])));
    let decoded = read(&client.end(&made, 0)).unwrap();
    assert_eq!(decoded.graph.len(), 3);
    let vertex = |client: &str| {
        let digest = Digest::parse(client).unwrap();
        let ours = decoded.digests.vertex(&digest).unwrap();
        assert_eq!(decoded.digests.client(ours), Some(&digest));
        decoded.graph.get(ours).unwrap()
    };
    let expected = Platform {
        architecture: "arm".into(),
        os: "linux".into(),
        os_version: Some("1.2".into()),
        os_features: vec!["f".into()],
        variant: Some("v7".into()),
    };
    assert_eq!(vertex(&image).platform, Some(expected));
    assert_eq!(vertex(&image).constraints, ["a==b"]);
    assert_eq!(
        vertex(&image).meta.name,
        "docker-image://docker.io/library/busybox:latest"
    );
    assert_eq!(vertex(&run).meta.name, "sh -c true");
    assert_eq!(vertex(&run).platform, None);
    assert_eq!(vertex(&made).meta.name, "mkdir /a, mkdir /b");
    assert_eq!(decoded.target.as_ref().unwrap().vertex, vertex(&made).digest());
}

#[test]
fn order_does_not_matter_and_what_is_said_twice_is_one() {
    let mut client = Client::default();
    let base = client.source("local://a");
    let made = client.add(&op(&[&base], file(vec![mkdir("/a", 0, 0)])));
    let in_order = client.end(&made, 0);
    let mut shuffled = in_order.clone();
    shuffled.def.swap(0, 1);
    shuffled.def.insert(0, in_order.def[0].clone());
    assert_eq!(read(&shuffled), read(&in_order));
    assert!(read(&in_order).is_ok());
}

#[test]
fn places_in_texts_come_along() {
    let mut client = Client::default();
    let base = client.source("local://a");
    let position = |line, character| Some(pb::Position { line, character });
    let range = pb::Range {
        start: position(2, 1),
        end: position(3, 9),
    };
    let location = pb::Location {
        source_index: 0,
        ranges: vec![range, pb::Range::default()],
    };
    let locations = pb::Locations {
        locations: vec![location],
    };
    client.definition.source = Some(wire::Source {
        locations: [(base.clone(), locations)].into(),
        infos: vec![wire::SourceInfo {
            filename: "Dockerfile".into(),
            data: b"FROM a".to_vec(),
            definition: Some(vec![0x0a, 0]),
            language: "Dockerfile".into(),
        }],
    });
    let decoded = read(&client.end(&base, 0)).unwrap();
    let meta = &decoded.graph.vertices().next().unwrap().meta;
    assert_eq!(meta.locations[0].ranges[0].end.character, 9);
    assert_eq!(meta.locations[0].ranges[1], SourceRange::default());
    let span = meta.span().map(|span| (span.source, span.start, span.end));
    assert_eq!(span, Some((0, 2, 3)));
    let text = &decoded.graph.sources[0];
    let name = (text.filename.as_str(), text.language.as_str());
    assert_eq!(name, ("Dockerfile", "Dockerfile"));
    let content = (text.text.as_slice(), text.definition.as_deref());
    assert_eq!(content, (&b"FROM a"[..], Some(&[0x0a, 0][..])));
}

#[test]
fn metadata_name_and_limit_a_vertex() {
    let mut client = Client::default();
    let base = client.source("local://a");
    let resources = wire::LinuxResources {
        memory: 1,
        memory_swap: -1,
        cpu_shares: 2,
        cpu_period: 3,
        cpu_quota: 4,
        cpuset_cpus: "0-3".into(),
        cpuset_mems: "0".into(),
    };
    let metadata = wire::OpMetadata {
        ignore_cache: true,
        description: [("llb.customname", "[1/1] FROM a"), ("com.example", "kept")]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into(),
        export_cache: Some(pb::ExportCache { value: false }),
        caps: [("source.local".to_owned(), true), ("platform".to_owned(), false)].into(),
        progress_group: Some(pb::ProgressGroup {
            id: "g".into(),
            name: "n".into(),
            weak: true,
        }),
        linux_resources: Some(resources),
    };
    client.definition.metadata.insert(base.clone(), metadata);
    let mut definition = client.end(&base, 0);
    let terminal = Digest::sha256(&definition.def[1]).to_string();
    let caps = [("constraints".to_owned(), true)].into();
    definition.metadata.insert(
        terminal,
        wire::OpMetadata {
            caps,
            ..wire::OpMetadata::default()
        },
    );

    let decoded = read(&definition).unwrap();
    let meta = &decoded.graph.vertices().next().unwrap().meta;
    assert_eq!(meta.name, "[1/1] FROM a");
    assert!(meta.ignore_cache);
    assert_eq!(
        meta.description,
        [("com.example".to_owned(), "kept".to_owned())].into()
    );
    assert_eq!(meta.export_cache, Some(false));
    let group = meta.progress_group.as_ref().unwrap();
    assert_eq!(
        (group.id.as_str(), group.name.as_str(), group.weak),
        ("g", "n", true)
    );
    let expected = LinuxResources {
        memory: 1,
        memory_swap: -1,
        cpu_shares: 2,
        cpu_period: 3,
        cpu_quota: 4,
        cpuset_cpus: "0-3".into(),
        cpuset_mems: "0".into(),
    };
    assert_eq!(meta.linux_resources, Some(expected));
    let caps: Vec<&str> = decoded.caps.iter().map(String::as_str).collect();
    assert_eq!(
        caps,
        ["constraints", "platform", "source.local"],
        "even what is said not to be needed"
    );
}

#[test]
fn names_follow_what_is_merged_and_compared() {
    let mut client = Client::default();
    let (a, b) = (client.source("local://a"), client.source("local://b"));
    let merge = pb::MergeOp {
        inputs: vec![pb::MergeInput { input: 0 }, pb::MergeInput { input: 1 }],
    };
    let merged = client.add(&op(&[&a, &b], OpKind::Merge(merge)));
    let diff = pb::DiffOp {
        lower: Some(pb::LowerDiffInput { input: -1 }),
        upper: Some(pb::UpperDiffInput { input: 0 }),
    };
    let compared = client.add(&op(&[&merged], OpKind::Diff(diff)));
    let decoded = read(&client.end(&compared, 0)).unwrap();
    let name = |digest: &str| {
        let ours = decoded.digests.vertex(&Digest::parse(digest).unwrap()).unwrap();
        decoded.graph.get(ours).unwrap().meta.name.clone()
    };
    assert_eq!(name(&merged), "merge (local://a, local://b)");
    assert_eq!(name(&compared), "diff scratch -> (merge (local://a, local://b))");
}

#[test]
fn owners_modes_and_times_keep_what_is_not_set_apart() {
    let named = |name: &str| pb::UserOpt {
        user: Some(pb::user_opt::User::ByName(pb::NamedUserOpt {
            name: name.into(),
            input: 0,
        })),
    };
    let copy = pb::FileActionCopy {
        src: "/a".into(),
        dest: "/b".into(),
        mode: -1,
        timestamp: -1,
        owner: Some(pb::ChownOpt {
            user: Some(named("1000")),
            group: Some(pb::UserOpt {
                user: Some(pb::user_opt::User::ById(7)),
            }),
        }),
        ..pb::FileActionCopy::default()
    };
    let kind = |copy: pb::FileActionCopy| {
        let action = pb::FileAction {
            input: 0,
            secondary_input: 0,
            output: 0,
            action: Some(pb::file_action::Action::Copy(copy)),
        };
        let decoded = one(file(vec![action])).unwrap();
        let target = decoded.target.unwrap().vertex;
        match &decoded.graph.get(&target).unwrap().op {
            Op::File(file) => match &file.actions[0].kind {
                FileActionKind::Copy(copy) => copy.clone(),
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        }
    };
    let plain = kind(copy.clone());
    assert_eq!((plain.mode, plain.time, plain.mode_str), (None, None, None));
    let name = UserOpt::Name {
        name: "1000".into(),
        input: Some(0),
    };
    let owner = ChownOpt {
        user: Some(name),
        group: Some(UserOpt::Id(7)),
    };
    assert_eq!(plain.owner, Some(owner), "a name of digits is a name");
    let text = kind(pb::FileActionCopy {
        mode: 0,
        mode_str: "u=rwX".into(),
        ..copy.clone()
    });
    let both = (text.mode, text.mode_str.as_deref());
    assert_eq!(
        both,
        (None, Some("u=rwX")),
        "a text makes the number mean nothing"
    );
    let set = kind(pb::FileActionCopy {
        mode: 0,
        timestamp: -2_000_000_001,
        ..copy
    });
    let time = set.time.unwrap();
    assert_eq!((set.mode, set.mode_str), (Some(0), None));
    assert_eq!((time.seconds, time.nanoseconds), (-3, 999_999_999));
}

#[test]
fn edges_name_outputs_of_steps_and_files() {
    let mut client = Client::default();
    let base = client.source("local://a");
    let mut exec = exec(&["true"]);
    exec.mounts.push(pb::Mount {
        dest: "/out".into(),
        output: 1,
        ..pb::Mount::default()
    });
    exec.mounts.push(pb::Mount {
        dest: "/tmp".into(),
        input: -1,
        output: -1,
        mount_type: pb::MountType::Tmpfs.into(),
        ..pb::Mount::default()
    });
    let run = client.add(&op(&[&base], OpKind::Exec(exec)));
    let definition = Client {
        definition: client.definition.clone(),
    }
    .end(&run, 1);
    let decoded = read(&definition).unwrap();
    assert_eq!(decoded.target.as_ref().unwrap().output, 1);
    let vertex = decoded.graph.get(&decoded.target.unwrap().vertex).unwrap();
    let Op::Exec(exec) = &vertex.op else {
        panic!("{vertex:?}")
    };
    assert_eq!(
        exec.mounts[2].kind,
        MountKind::Tmpfs { size_bytes: 0 },
        "a tmpfs needs no options"
    );
    assert!(matches!(
        read(&client.end(&run, 2)),
        Err(LlbError::OutputIndex { index: 2, .. })
    ));
}

#[test]
fn newer_operations_and_nested_definitions_are_kept() {
    let passthrough = one(OpKind::Passthrough(wire::PassthroughOp {
        id: "p".into(),
        outputs: vec![0, 0],
    }))
    .unwrap();
    let target = passthrough.target.unwrap();
    assert_eq!(
        passthrough.graph.get(&target.vertex).unwrap().op,
        Op::Passthrough(PassthroughOp {
            id: "p".into(),
            outputs: vec![0, 0]
        })
    );
    let build = wire::BuildOp {
        builder: -1,
        inputs: [("buildkit.llb.definition".to_owned(), pb::BuildInput { input: 0 })].into(),
        def: Some(vec![0xff; 9]),
        attrs: [("llbbuild.filename".to_owned(), "f".to_owned())].into(),
    };
    let built = one(OpKind::Build(build)).unwrap();
    let vertex = built.graph.get(&built.target.unwrap().vertex).unwrap();
    let Op::Build(build) = &vertex.op else {
        panic!("{vertex:?}")
    };
    assert_eq!(build.builder, None);
    assert_eq!(build.inputs["buildkit.llb.definition"], Some(0));
    assert_eq!(
        build.definition,
        Some(vec![0xff; 9]),
        "what is inside is not looked at"
    );
}

#[test]
fn the_generated_messages_read_the_same_but_for_what_they_lack() {
    let mut client = Client::default();
    let base = client.source("local://a");
    client.definition.source = Some(wire::Source {
        infos: vec![wire::SourceInfo {
            definition: Some(
                pb::Definition {
                    def: vec![vec![1]],
                    ..Default::default()
                }
                .encode_to_vec(),
            ),
            ..Default::default()
        }],
        ..Default::default()
    });
    let wire = client.end(&base, 0);
    let bytes = wire.encode_to_vec();
    let generated = pb::Definition::decode(bytes.as_slice()).unwrap();
    assert_eq!(wire::Definition::from(&generated), wire);
}
