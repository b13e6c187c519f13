//! What clients must not get away with, each with a legal twin.

use super::*;

fn op_error(kind: OpKind) -> OpError {
    match one(kind) {
        Err(LlbError::Op { source, .. }) => source,
        other => panic!("{other:?}"),
    }
}

#[test]
fn row48_an_input_that_is_not_there_is_refused_even_if_nobody_needs_it() {
    let mut client = Client::default();
    let base = client.source("local://a");
    let absent = Digest::sha256(b"absent").to_string();
    let loose = client.add(&op(&[&absent], file(vec![mkdir("/x", 0, 0)])));
    let legal = Client::default;
    assert_eq!(
        read(&client.end(&base, 0)),
        Err(LlbError::MissingInput {
            digest: Digest::parse(&loose).unwrap(),
            missing: absent,
        })
    );
    let mut client = legal();
    let base = client.source("local://a");
    client.add(&op(&[&base], file(vec![mkdir("/x", 0, 0)])));
    let decoded = read(&client.end(&base, 0)).unwrap();
    assert_eq!(decoded.graph.len(), 1, "what nobody needs is dropped");
}

#[test]
fn row48_digests_that_are_none_name_nothing() {
    for name in ["", "sha256:", "sha512:00", "../../etc/passwd", "\0"] {
        let mut client = Client::default();
        client.source("local://a");
        let error = read(&client.end(name, 0)).unwrap_err();
        assert!(matches!(error, LlbError::MissingInput { missing, .. } if missing == name));
    }
}

#[test]
fn row48_outputs_that_nobody_makes_are_refused() {
    let target = |index| {
        let mut client = Client::default();
        let base = client.source("local://a");
        read(&client.end(&base, index))
    };
    assert!(target(0).is_ok());
    for index in [-1, i64::MIN] {
        let text = target(index).unwrap_err().to_string();
        assert!(
            text.starts_with(&format!("invalid input 0 output index {index}")),
            "{text}"
        );
    }
    for index in [1, i64::from(u32::MAX), i64::MAX] {
        assert!(
            matches!(target(index), Err(LlbError::OutputIndex { input: 0, index: at, .. }) if at == index),
            "{index}"
        );
    }
}

#[test]
fn row48_the_last_operation_names_the_target_and_does_nothing_else() {
    let mut client = Client::default();
    let base = client.source("local://a");
    client.add(&op(&[&base], file(vec![mkdir("/x", 0, 0)])));
    assert!(matches!(
        read(&client.definition),
        Err(LlbError::NotTerminal { .. })
    ));

    let mut client = Client::default();
    client.source("local://a");
    client.add(&wire::Op::default());
    assert!(matches!(read(&client.definition), Err(LlbError::NoTarget { .. })));

    let mut client = Client::default();
    client.source("local://a");
    assert_eq!(read(&client.definition), Err(LlbError::TooFew { count: 1 }));
    let twice = wire::Definition {
        def: vec![client.definition.def[0].clone(); 2],
        ..wire::Definition::default()
    };
    assert_eq!(
        read(&twice),
        Err(LlbError::TooFew { count: 1 }),
        "the same twice is one"
    );
}

#[test]
fn row48_what_is_no_message_is_refused_with_its_digest() {
    let definition = wire::Definition {
        def: vec![vec![0x0a, 0xff]],
        ..wire::Definition::default()
    };
    let digest = Digest::sha256(&[0x0a, 0xff]);
    assert!(matches!(read(&definition), Err(LlbError::Parse { digest: found, .. }) if found == digest));
}

#[test]
fn row48_a_definition_has_a_size() {
    let mut client = Client::default();
    let mut last = client.source("local://a");
    for at in 0..10 {
        last = client.add(&op(&[&last], file(vec![mkdir(&format!("/{at}"), 0, 0)])));
    }
    let definition = client.end(&last, 0);
    let with = |change: &dyn Fn(&mut Limits)| {
        let mut limits = Limits::default();
        change(&mut limits);
        decode(&definition, &limits)
    };
    assert!(with(&|limits| (limits.ops, limits.depth) = (12, 11)).is_ok());
    assert!(matches!(with(&|limits| limits.ops = 11), Err(LlbError::Limit(_))));
    assert!(matches!(
        with(&|limits| limits.bytes = 100),
        Err(LlbError::Limit(_))
    ));
    assert!(matches!(
        with(&|limits| limits.parts = 20),
        Err(LlbError::Limit(_))
    ));
    assert!(matches!(
        with(&|limits| limits.depth = 10),
        Err(LlbError::TooDeep { limit: 10, .. })
    ));
}

#[test]
fn row48_millions_of_empty_actions_are_counted_before_they_are_made() {
    let mut payload = Vec::new();
    for _ in 0..600_000 {
        payload.extend([0x12, 0]);
    }
    let mut bytes = vec![0x22];
    prost::encode_length_delimiter(payload.len(), &mut bytes).unwrap();
    bytes.extend(payload);
    let definition = wire::Definition {
        def: vec![bytes],
        ..wire::Definition::default()
    };
    assert!(
        matches!(read(&definition), Err(LlbError::Limit(LimitExceeded { what, .. })) if what == "parts of operations")
    );
}

#[test]
fn row48_names_of_merges_of_merges_do_not_grow_without_end() {
    let mut client = Client::default();
    let mut last = client.source("local://a-name-of-some-length");
    for _ in 0..60 {
        let merge = pb::MergeOp {
            inputs: vec![pb::MergeInput { input: 0 }, pb::MergeInput { input: 1 }],
        };
        last = client.add(&op(&[&last, &last], OpKind::Merge(merge)));
    }
    let decoded = read(&client.end(&last, 0)).unwrap();
    assert_eq!(decoded.graph.len(), 61);
    for vertex in decoded.graph.vertices() {
        assert!(vertex.meta.name.len() < 4096, "{}", vertex.meta.name.len());
    }
}

#[test]
fn row48_operations_refer_to_inputs_they_have() {
    let mount = |change: &dyn Fn(&mut pb::Mount)| {
        let mut exec = exec(&["true"]);
        change(&mut exec.mounts[0]);
        OpKind::Exec(exec)
    };
    assert!(one(mount(&|_| {})).is_ok());
    assert!(one(mount(&|mount| mount.input = -1)).is_ok());
    for bad in [1, -2, i64::MAX, i64::MIN] {
        let refused = |kind| matches!(op_error(kind), OpError::InputIndex { index, .. } if index == bad);
        assert!(refused(mount(&|mount| mount.input = bad)), "{bad}");
        assert!(refused(OpKind::Merge(pb::MergeOp {
            inputs: vec![pb::MergeInput { input: bad }]
        })));
        assert!(refused(OpKind::Diff(pb::DiffOp {
            lower: Some(pb::LowerDiffInput { input: 0 }),
            upper: Some(pb::UpperDiffInput { input: bad }),
        })));
        assert!(refused(OpKind::Build(wire::BuildOp {
            builder: bad,
            ..wire::BuildOp::default()
        })));
        assert_eq!(
            op_error(mount(&|mount| mount.output = bad)),
            OpError::MountOutput {
                dest: "/".into(),
                index: bad
            }
        );
    }
    for bad in [-1, 1, i64::MAX] {
        let passthrough = wire::PassthroughOp {
            id: "p".into(),
            outputs: vec![0, bad],
        };
        assert_eq!(
            op_error(OpKind::Passthrough(passthrough)),
            OpError::PassthroughInput { index: bad }
        );
    }
}

#[test]
fn row48_file_actions_make_each_output_once_and_no_loop() {
    let actions = |actions: &[(i64, i64)]| {
        let actions = actions.iter().map(|(input, output)| mkdir("/x", *input, *output));
        file(actions.collect())
    };
    assert!(one(actions(&[(0, -1), (1, 0)])).is_ok());
    assert!(
        one(actions(&[(2, 0), (0, -1)])).is_ok(),
        "an action may need a later one"
    );
    assert!(one(actions(&[(0, 1), (0, 0)])).is_ok());
    assert_eq!(op_error(actions(&[])), OpError::FileActions);
    assert_eq!(op_error(actions(&[(0, -1)])), OpError::FileNoOutput);
    assert_eq!(
        op_error(actions(&[(0, 0), (1, 0)])),
        OpError::FileOutputTwice { index: 0 }
    );
    assert_eq!(
        op_error(actions(&[(0, 1), (1, -1)])),
        OpError::FileOutputMissing { index: 0 }
    );
    assert_eq!(
        op_error(actions(&[(0, 0), (1, i64::MAX)])),
        OpError::FileOutputMissing { index: 1 }
    );
    assert_eq!(op_error(actions(&[(1, 0)])), OpError::FileLoop { index: 1 });
    assert!(matches!(
        op_error(actions(&[(3, 0), (1, -1), (2, -1)])),
        OpError::FileLoop { .. }
    ));
    assert!(matches!(
        op_error(actions(&[(3, 0), (0, -1)])),
        OpError::InputIndex { index: 3, .. }
    ));
    let nothing = pb::FileAction {
        action: None,
        ..mkdir("/x", 0, 0)
    };
    assert_eq!(op_error(file(vec![nothing])), OpError::FileAction);
}

#[test]
fn row48_owners_are_looked_up_in_inputs_that_are_there() {
    let owned = |input| {
        let mut action = mkdir("/x", 0, 0);
        if let Some(pb::file_action::Action::Mkdir(dir)) = &mut action.action {
            let named = pb::NamedUserOpt {
                name: "bob".into(),
                input,
            };
            let user = pb::UserOpt {
                user: Some(pb::user_opt::User::ByName(named)),
            };
            dir.owner = Some(pb::ChownOpt {
                user: Some(user),
                group: None,
            });
        }
        file(vec![action])
    };
    assert!(one(owned(0)).is_ok());
    assert_eq!(op_error(owned(2)), OpError::UserIndex { index: 2 });
    assert_eq!(op_error(owned(-2)), OpError::UserIndex { index: -2 });
    assert_eq!(op_error(owned(1)), OpError::FileLoop { index: 1 });
}

#[test]
fn row48_execs_have_a_command_a_root_and_sane_mounts() {
    let with = |change: &dyn Fn(&mut pb::ExecOp)| {
        let mut exec = exec(&["true"]);
        change(&mut exec);
        OpKind::Exec(exec)
    };
    assert_eq!(op_error(with(&|exec| exec.meta = None)), OpError::ExecMeta);
    assert_eq!(
        op_error(with(&|exec| exec.meta = Some(pb::Meta::default()))),
        OpError::ExecArgs
    );
    assert_eq!(op_error(with(&|exec| exec.mounts.clear())), OpError::ExecMounts);
    assert_eq!(
        op_error(with(&|exec| exec.mounts[0].dest = "/x".into())),
        OpError::ExecRoot
    );
    let kind = |mount_type: pb::MountType| {
        op_error(with(&|exec| exec.mounts[0].mount_type = mount_type.into())).to_string()
    };
    assert_eq!(kind(pb::MountType::Cache), "missing cache mount options");
    assert_eq!(kind(pb::MountType::Secret), "invalid secret mount options");
    assert_eq!(kind(pb::MountType::Ssh), "invalid ssh mount options");
    let unsafe_cache = with(&|exec| {
        exec.mounts[0].content_cache = pb::MountContentCache::On.into();
        exec.mounts[0].selector = "part".into();
    });
    assert_eq!(
        op_error(unsafe_cache),
        OpError::MountContentCache { dest: "/".into() }
    );
    let tmpfs = with(&|exec| {
        exec.mounts[0].mount_type = pb::MountType::Tmpfs.into();
        exec.mounts[0].tmpfs_opt = Some(pb::TmpfsOpt { size: -5 });
    });
    assert_eq!(
        op_error(tmpfs),
        OpError::TmpfsSize {
            dest: "/".into(),
            size: -5
        }
    );
    for (what, change) in [
        (
            "network mode",
            Box::new(|exec: &mut pb::ExecOp| exec.network = 9) as Box<dyn Fn(&mut pb::ExecOp)>,
        ),
        ("security mode", Box::new(|exec| exec.security = 9)),
        ("mount type", Box::new(|exec| exec.mounts[0].mount_type = 9)),
        (
            "mount content cache",
            Box::new(|exec| exec.mounts[0].content_cache = 9),
        ),
        (
            "cache sharing option",
            Box::new(|exec| {
                exec.mounts[0].mount_type = pb::MountType::Cache.into();
                exec.mounts[0].cache_opt = Some(pb::CacheOpt {
                    id: String::new(),
                    sharing: 9,
                });
            }),
        ),
    ] {
        assert_eq!(op_error(with(&*change)), OpError::Value { what, value: 9 });
    }
}

#[test]
fn row48_operations_that_say_nothing_are_refused_by_name() {
    let mut client = Client::default();
    let base = client.source("local://a");
    let nothing = client.add(&wire::Op {
        inputs: vec![input(&base, 0)],
        ..wire::Op::default()
    });
    let error = read(&client.end(&nothing, 0)).unwrap_err();
    assert!(matches!(
        &error,
        LlbError::Op {
            source: OpError::Unknown,
            ..
        }
    ));
    assert_eq!(error.to_string(), format!("vertex {nothing}"));
    assert_eq!(op_error(OpKind::Diff(pb::DiffOp::default())), OpError::DiffSide);
    let passthrough = |id: &str, outputs| {
        op_error(OpKind::Passthrough(wire::PassthroughOp {
            id: id.into(),
            outputs,
        }))
    };
    assert_eq!(passthrough("", vec![0]), OpError::PassthroughId);
    assert_eq!(passthrough("p", vec![]), OpError::PassthroughOutputs);
}

#[test]
fn row48_locations_are_in_texts_that_are_there() {
    let located = |source_index| {
        let mut client = Client::default();
        let base = client.source("local://a");
        let location = pb::Location {
            source_index,
            ranges: vec![],
        };
        client.definition.source = Some(wire::Source {
            locations: [(
                base.clone(),
                pb::Locations {
                    locations: vec![location],
                },
            )]
            .into(),
            infos: vec![wire::SourceInfo::default()],
        });
        read(&client.end(&base, 0))
    };
    assert!(located(0).is_ok());
    for index in [1, -1] {
        assert!(
            matches!(located(index), Err(LlbError::SourceIndex { index: at, count: 1, .. }) if at == index)
        );
    }
}
