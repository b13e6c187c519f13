//! What a client finds in the bytes of an error.

use super::*;
use bollard_buildkit_proto::pb;

/// Type name and JSON of the only detail.
fn detail(detail: Detail) -> (String, Value) {
    let bytes = status_details(Code::Unknown, "m", &[detail]);
    let status = Status::decode(bytes.as_slice()).unwrap();
    assert_eq!((status.code, status.message.as_str()), (2, "m"));
    let [any] = status.details.as_slice() else {
        panic!("{status:?}");
    };
    let name = any.type_url.strip_prefix("github.com/moby/buildkit/").unwrap();
    (name.to_owned(), serde_json::from_slice(&any.value).unwrap())
}

#[test]
fn details_have_the_names_and_keys_of_go() {
    let digest = Digest::sha256(b"v");
    for (of, name, value) in [
        (
            Detail::Vertex(digest.clone()),
            "errdefs.Vertex+json",
            json!({ "digest": digest.as_str() }),
        ),
        (
            Detail::Frontend {
                name: "gateway.v0".into(),
                source: "image".into(),
            },
            "errdefs.Frontend+json",
            json!({ "name": "gateway.v0", "source": "image" }),
        ),
        (
            Detail::ProvenanceMaterialsIncomplete(vec![
                IncompleteMaterial {
                    name: "context".into(),
                    reason: "local_source".into(),
                    ..IncompleteMaterial::default()
                },
                IncompleteMaterial {
                    name: "curl".into(),
                    method: "POST".into(),
                    uri: "https://e.example/".into(),
                    reason: "unsupported_method".into(),
                },
            ]),
            "errdefs.ProvenanceMaterialsIncomplete+json",
            json!({"incomplete": [
                {"name": "context", "reason": "local_source"},
                {"name": "curl", "method": "POST", "uri": "https://e.example/", "reason": "unsupported_method"},
            ]}),
        ),
        (
            Detail::FrontendCap("c".into()),
            "errdefs.FrontendCap+json",
            json!({ "name": "c" }),
        ),
        (
            Detail::CompatibilityFeature {
                version: 10,
                feature: "f".into(),
            },
            "errdefs.CompatibilityFeature+json",
            json!({ "version": 10, "feature": "f" }),
        ),
        (
            Detail::Subrequest("s".into()),
            "errdefs.Subrequest+json",
            json!({ "name": "s" }),
        ),
        (
            Detail::Exit(42),
            "gatewayapi.ExitMessage+json",
            json!({ "Code": 42 }),
        ),
    ] {
        assert_eq!(detail(of), (name.to_owned(), value));
    }
}

fn lines() -> Detail {
    Detail::Source {
        text: SourceText {
            filename: "Dockerfile".into(),
            text: b"FROM a\nRUN \xff\n".to_vec(),
            language: "Dockerfile".into(),
            definition: Some(vec![1]),
        },
        ranges: rbuild_graph::SourceLocation::lines(0, 2, 2).ranges,
    }
}

#[test]
fn a_text_is_base64_and_numbers_of_its_lines_are_numbers() {
    let (name, value) = detail(lines());
    assert_eq!(name, "errdefs.Source+json");
    let at = json!({ "line": 2, "character": 0 });
    let info = json!({ "filename": "Dockerfile", "data": "RlJPTSBhClJVTiD/Cg==", "language": "Dockerfile" });
    assert_eq!(
        value,
        json!({ "info": info, "ranges": [{ "start": at, "end": at }] })
    );
}

fn solve() -> Detail {
    let mount = pb::Mount {
        dest: "/".into(),
        output: -1,
        secret_opt: Some(pb::SecretOpt {
            id: "s".into(),
            uid: 1,
            ..pb::SecretOpt::default()
        }),
        mount_type: pb::MountType::Secret.into(),
        ..pb::Mount::default()
    };
    let exec = pb::ExecOp {
        meta: Some(pb::Meta {
            args: vec!["true".into()],
            ..pb::Meta::default()
        }),
        mounts: vec![mount],
        network: pb::NetMode::Host.into(),
        ..pb::ExecOp::default()
    };
    Detail::Solve(Box::new(SolveDetail {
        input_ids: vec!["in".into()],
        mount_ids: vec!["m1".into(), String::new()],
        op: Some(wire::Op {
            inputs: vec![pb::Input {
                digest: "sha256:x".into(),
                index: 3,
            }],
            op: Some(wire::OpKind::Exec(exec)),
            ..wire::Op::default()
        }),
        subject: Some(SolveSubject::FileAction(7)),
        description: [("k".to_owned(), "v".to_owned())].into(),
    }))
}

#[test]
fn an_operation_is_protobufs_json() {
    let (name, value) = detail(solve());
    assert_eq!(name, "errdefs.Solve+json");
    assert_eq!(value["inputIDs"], json!(["in"]));
    assert_eq!(value["mountIDs"], json!(["m1", ""]));
    assert_eq!(value["file"], json!({ "index": "7" }));
    assert_eq!(value["description"], json!({ "k": "v" }));
    assert_eq!(
        value["op"]["inputs"],
        json!([{ "digest": "sha256:x", "index": "3" }])
    );
    let mount = &value["op"]["exec"]["mounts"][0];
    assert_eq!(
        (&mount["output"], &mount["secretOpt"]["uid"]),
        (&json!("-1"), &json!(1))
    );
    assert_eq!(value["op"]["exec"]["network"], json!("HOST"));
    assert_eq!(mount["mountType"], json!("SECRET"));
}

#[test]
fn causes_follow_in_one_line() {
    let error = crate::attrs::AttrError::ShmSize(crate::go::int("x").unwrap_err());
    assert_eq!(
        sentence(&error),
        "failed to parse shm size: strconv.ParseInt: parsing \"x\": invalid syntax"
    );
}
