//! What can be wrong with one operation (BuildKit's `opsutils/validate.go`, and what its operations check when they
//! run: here it is checked once, before anything runs).

/// Why an operation is refused. Sentences are BuildKit's where it has one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "index and count of the sentence above them")]
pub enum OpError {
    /// It does nothing, or what it does has no name yet.
    #[error("unknown operation")]
    Unknown,
    /// No such input.
    #[error("invalid {what} input index {index}, {count} provided")]
    InputIndex {
        what: &'static str,
        index: i64,
        count: usize,
    },
    /// No command.
    #[error("invalid exec op with no meta")]
    ExecMeta,
    /// An empty command.
    #[error("invalid exec op with no args")]
    ExecArgs,
    /// No mounts.
    #[error("invalid exec op with no mounts")]
    ExecMounts,
    /// No mount at `/`.
    #[error("invalid exec op with no rootfs")]
    ExecRoot,
    /// A mount becomes an output that cannot be.
    #[error("invalid output index {index} of mount {dest}")]
    MountOutput { dest: String, index: i64 },
    /// A mount must count by content, and might give a wrong result.
    #[error("invalid mount cache content of mount {dest}")]
    MountContentCache { dest: String },
    /// A mount lacks what its kind needs.
    #[error("{0}")]
    MountOptions(&'static str),
    /// A mount of memory of less than nothing.
    #[error("invalid tmpfs size {size} of mount {dest}")]
    TmpfsSize { dest: String, size: i64 },
    /// A number that stands for nothing.
    #[error("invalid {what} {value}")]
    Value { what: &'static str, value: i32 },
    /// No action.
    #[error("invalid file op with no actions")]
    FileActions,
    /// An action does nothing, or what it does has no name yet.
    #[error("invalid action type <nil>")]
    FileAction,
    /// Two actions make one output.
    #[error("duplicate output {index}")]
    FileOutputTwice { index: i64 },
    /// No action makes an output.
    #[error("no outputs specified")]
    FileNoOutput,
    /// Outputs with a hole.
    #[error("missing output index {index}")]
    FileOutputMissing { index: usize },
    /// Actions that work on each other's results.
    #[error("loop from index {index}")]
    FileLoop { index: usize },
    /// A name to be looked up nowhere.
    #[error("invalid user index {index}")]
    UserIndex { index: i64 },
    /// A side of a diff is not said.
    #[error("invalid diff op with nil lower or upper input")]
    DiffSide,
    /// A passthrough without a name.
    #[error("invalid passthrough op with no id")]
    PassthroughId,
    /// A passthrough of nothing.
    #[error("invalid passthrough op with no outputs")]
    PassthroughOutputs,
    /// A passthrough of an input it does not have.
    #[error("invalid passthrough output input index {index}")]
    PassthroughInput { index: i64 },
}
