//! Names of operations that were given none, as `llbOpName` of BuildKit's `solver/llbsolver/vertex.go` makes them.

use rbuild_graph::{FileActionKind, Graph, InputIndex, Op, Vertex};

/// Longest name made of other names, bytes. Names of merges of merges double with each.
const COMPOUND_BYTES_MAX: usize = 2048;

/// The name of `vertex`, whose inputs are in `graph`.
pub(crate) fn default_name(graph: &Graph, vertex: &Vertex) -> String {
    let input = |index: usize| {
        vertex
            .inputs
            .get(index)
            .and_then(|edge| graph.get(&edge.vertex))
            .map_or("", |input| input.meta.name.as_str())
    };
    match &vertex.op {
        Op::Source(source) => source.identifier.clone(),
        Op::Exec(exec) => exec.meta.args.join(" "),
        Op::File(file) => {
            let names: Vec<String> = file
                .actions
                .iter()
                .map(|action| action_name(&action.kind))
                .collect();
            names.join(", ")
        }
        Op::Build(_) => "build".to_owned(),
        Op::Merge(_) => {
            let mut name = "merge (".to_owned();
            for index in 0..vertex.inputs.len() {
                if name.len() > COMPOUND_BYTES_MAX {
                    break;
                }
                if index > 0 {
                    name.push_str(", ");
                }
                name.push_str(input(index));
            }
            cut(name + ")")
        }
        Op::Diff(diff) => {
            let side = |index: InputIndex| match index {
                None => "scratch".to_owned(),
                Some(index) => format!("({})", input(index as usize)),
            };
            cut(format!("diff {} -> {}", side(diff.lower), side(diff.upper)))
        }
        Op::Passthrough(passthrough) => format!("passthrough {}", passthrough.id),
    }
}

fn action_name(kind: &FileActionKind) -> String {
    match kind {
        FileActionKind::MkDir(action) => format!("mkdir {}", action.path),
        FileActionKind::MkFile(action) => format!("mkfile {}", action.path),
        FileActionKind::Symlink(action) => format!("symlink {} -> {}", action.path, action.target),
        FileActionKind::Rm(action) => format!("rm {}", action.path),
        FileActionKind::Copy(action) => format!("copy {} {}", action.src, action.dest),
    }
}

fn cut(mut name: String) -> String {
    if name.len() > COMPOUND_BYTES_MAX {
        let end = (0..=COMPOUND_BYTES_MAX)
            .rev()
            .find(|at| name.is_char_boundary(*at));
        name.truncate(end.unwrap_or_default());
        name.push('…');
    }
    name
}
