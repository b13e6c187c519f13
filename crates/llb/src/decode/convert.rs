//! One operation, with its references into its inputs.

use bollard_buildkit_proto::pb;
use rbuild_graph::{BuildOp, DiffOp, InputIndex, MergeOp, Op, PassthroughOp, SourceOp};

use super::OpError;
use crate::wire::{self, OpKind};

pub(super) fn convert(op: &wire::Op) -> Result<Op, OpError> {
    let inputs = op.inputs.len();
    Ok(match op.op.as_ref().ok_or(OpError::Unknown)? {
        OpKind::Source(source) => Op::Source(SourceOp {
            identifier: source.identifier.clone(),
            attrs: source.attrs.clone(),
        }),
        OpKind::Exec(exec) => Op::Exec(Box::new(super::exec::exec(exec, inputs)?)),
        OpKind::File(file) => Op::File(super::file::file(file, inputs)?),
        OpKind::Build(build) => Op::Build(build_op(build, inputs)?),
        OpKind::Merge(merge) => Op::Merge(MergeOp {
            inputs: merge
                .inputs
                .iter()
                .map(|merged| index("merge", merged.input, inputs))
                .collect::<Result<_, _>>()?,
        }),
        OpKind::Diff(diff) => Op::Diff(diff_op(*diff, inputs)?),
        OpKind::Passthrough(passthrough) => Op::Passthrough(passthrough_op(passthrough, inputs)?),
    })
}

fn build_op(build: &wire::BuildOp, inputs: usize) -> Result<BuildOp, OpError> {
    let named =
        |(name, input): (&String, &pb::BuildInput)| Ok((name.clone(), index("build", input.input, inputs)?));
    Ok(BuildOp {
        builder: index("builder", build.builder, inputs)?,
        inputs: build.inputs.iter().map(named).collect::<Result<_, _>>()?,
        definition: build.def.clone(),
        attrs: build.attrs.clone(),
    })
}

fn diff_op(diff: pb::DiffOp, inputs: usize) -> Result<DiffOp, OpError> {
    let (Some(lower), Some(upper)) = (diff.lower, diff.upper) else {
        return Err(OpError::DiffSide);
    };
    Ok(DiffOp {
        lower: index("lower diff", lower.input, inputs)?,
        upper: index("upper diff", upper.input, inputs)?,
    })
}

fn passthrough_op(passthrough: &wire::PassthroughOp, inputs: usize) -> Result<PassthroughOp, OpError> {
    if passthrough.id.is_empty() {
        return Err(OpError::PassthroughId);
    }
    if passthrough.outputs.is_empty() {
        return Err(OpError::PassthroughOutputs);
    }
    let input = |input: &i64| {
        let found = u32::try_from(*input)
            .ok()
            .filter(|index| (*index as usize) < inputs);
        found.ok_or(OpError::PassthroughInput { index: *input })
    };
    Ok(PassthroughOp {
        id: passthrough.id.clone(),
        outputs: passthrough.outputs.iter().map(input).collect::<Result<_, _>>()?,
    })
}

/// An index into `count` inputs; -1 is none.
pub(super) fn index(what: &'static str, index: i64, count: usize) -> Result<InputIndex, OpError> {
    if index == -1 {
        return Ok(None);
    }
    match u32::try_from(index) {
        Ok(found) if (found as usize) < count => Ok(Some(found)),
        _ => Err(OpError::InputIndex { what, index, count }),
    }
}
