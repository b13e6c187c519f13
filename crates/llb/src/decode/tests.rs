//! Definitions built by hand, one operation at a time.

use super::*;
use crate::caps;
use crate::wire::OpKind;
use rbuild_graph::{BuildOp, DiffOp, InputIndex, MergeOp, Op, PassthroughOp, SourceOp};

mod hostile;
mod recorded;
mod round_trip;
mod shapes;

/// Operations as a client encodes them, with their digests.
#[derive(Default)]
struct Client {
    definition: wire::Definition,
}

impl Client {
    fn add(&mut self, op: &wire::Op) -> String {
        let bytes = op.encode_to_vec();
        let digest = Digest::sha256(&bytes).to_string();
        self.definition.def.push(bytes);
        digest
    }

    fn source(&mut self, identifier: &str) -> String {
        self.add(&op(&[], source(identifier)))
    }

    fn end(mut self, target: &str, index: i64) -> wire::Definition {
        self.add(&wire::Op {
            inputs: vec![input(target, index)],
            ..wire::Op::default()
        });
        self.definition
    }
}

fn input(digest: &str, index: i64) -> pb::Input {
    pb::Input {
        digest: digest.to_owned(),
        index,
    }
}

fn op(inputs: &[&str], kind: OpKind) -> wire::Op {
    wire::Op {
        inputs: inputs.iter().map(|digest| input(digest, 0)).collect(),
        op: Some(kind),
        ..wire::Op::default()
    }
}

fn source(identifier: &str) -> OpKind {
    OpKind::Source(pb::SourceOp {
        identifier: identifier.to_owned(),
        ..pb::SourceOp::default()
    })
}

fn root_mount() -> pb::Mount {
    pb::Mount {
        dest: "/".into(),
        ..pb::Mount::default()
    }
}

fn exec(args: &[&str]) -> pb::ExecOp {
    pb::ExecOp {
        meta: Some(pb::Meta {
            args: args.iter().map(|arg| (*arg).to_owned()).collect(),
            cwd: "/".into(),
            ..pb::Meta::default()
        }),
        mounts: vec![root_mount()],
        ..pb::ExecOp::default()
    }
}

fn mkdir(path: &str, input: i64, output: i64) -> pb::FileAction {
    pb::FileAction {
        input,
        secondary_input: -1,
        output,
        action: Some(pb::file_action::Action::Mkdir(pb::FileActionMkDir {
            path: path.to_owned(),
            mode: 0o755,
            make_parents: true,
            owner: None,
            timestamp: -1,
        })),
    }
}

fn file(actions: Vec<pb::FileAction>) -> OpKind {
    OpKind::File(pb::FileOp { actions })
}

fn read(definition: &wire::Definition) -> Result<Decoded, LlbError> {
    decode(definition, &Limits::default())
}

/// What decoding one operation on one source says.
fn one(kind: OpKind) -> Result<Decoded, LlbError> {
    let mut client = Client::default();
    let base = client.source("docker-image://docker.io/library/busybox:latest");
    let digest = client.add(&op(&[&base], kind));
    read(&client.end(&digest, 0))
}
