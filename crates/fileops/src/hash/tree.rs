//! The digest of one match: the walk's visitor that asks the stat cache, sends what it does not know to other
//! threads, and folds each directory into one digest as soon as all in it is known. Memory is that of the
//! directories on the way down, not of the tree.

use std::ffi::{CString, OsStr};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{FileType, Stat};

use super::leaf::{self, ReadFailure};
use super::node::{Header, Node, header};
use super::stat_cache::{StatCache, StatKey};
use super::{ContextStats, HashError};
use crate::select::{Required, Watched};
use crate::source::{Located, SourceTree};
use crate::walk::{self, Dir, Filter, Leaf, Visitor, WalkError};
use crate::workers::Workers;
use crate::xattr;

const BATCH_FILES: usize = 64;
const BATCH_BYTES: u64 = 1 << 20;
/// Most batches under way at once; each holds a directory and reads one file.
const BATCHES_MAX: usize = 16;

/// What all threads of one match share.
struct Engine<'a> {
    source: &'a SourceTree,
    base: PathBuf,
    cache: &'a dyn StatCache,
    trusted_before_ns: i64,
    files_read: AtomicU64,
    bytes_read: AtomicU64,
    bytes: AtomicU64,
    failed: AtomicBool,
    failure: Mutex<Option<HashError>>,
}

struct Batch {
    dir: Arc<OwnedFd>,
    node: Arc<Node>,
    relative: Vec<u8>,
    entries: Vec<(usize, CString, Stat)>,
    bytes: u64,
}

/// Hashes a match: its header, its digest, and what it holds.
pub(super) fn hash(
    source: &SourceTree,
    located: &Located,
    filter: &Filter,
    cache: &dyn StatCache,
    required: &mut Required<'_>,
) -> Result<(Header, [u8; 32], ContextStats), HashError> {
    let engine = Engine {
        source,
        base: located.real.clone(),
        cache,
        trusted_before_ns: leaf::trusted_before_ns(),
        files_read: AtomicU64::new(0),
        bytes_read: AtomicU64::new(0),
        bytes: AtomicU64::new(0),
        failed: AtomicBool::new(false),
        failure: Mutex::new(None),
    };
    let holder = Node::new([0; 32], None);
    let mut stats = ContextStats::default();
    let run = |batch: Batch| engine.run(&batch);
    let walked = std::thread::scope(|scope| {
        let mut visitor = TreeHash {
            engine: &engine,
            workers: Workers::new(scope, BATCHES_MAX, &run),
            nodes: vec![Arc::clone(&holder)],
            batch: None,
            stats: &mut stats,
        };
        let walked = walk::walk(
            source,
            located,
            filter,
            &mut Watched {
                inner: &mut visitor,
                required,
            },
        );
        visitor.flush();
        walked
    });
    let failure = engine
        .failure
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .take();
    if let Some(error) = failure {
        return Err(error);
    }
    walked?;
    stats.files_read = engine.files_read.into_inner();
    stats.bytes_read = engine.bytes_read.into_inner();
    stats.bytes = engine.bytes.into_inner();
    let top = holder.slots.lock().unwrap_or_else(PoisonError::into_inner).pop();
    let top = top.ok_or_else(|| WalkError::Changed(located.real.clone()))?;
    Ok((top.header, top.digest, stats))
}

impl Engine<'_> {
    fn path(&self, dir: &[u8], name: &CString) -> PathBuf {
        let mut path = self.base.clone();
        if !dir.is_empty() {
            path.push(OsStr::from_bytes(dir));
        }
        path.join(OsStr::from_bytes(name.as_bytes()))
    }

    fn run(&self, batch: &Batch) {
        let mut learned = Vec::new();
        for (at, name, stat) in &batch.entries {
            if self.failed.load(Ordering::Relaxed) {
                break;
            }
            match leaf::read(&batch.dir, name, stat, self.source.origin()) {
                Ok(read) => {
                    let key = StatKey::of(&read.stat);
                    if read.is_stable && leaf::is_trusted(&key, self.trusted_before_ns) {
                        learned.push((key, read.leaf));
                    }
                    self.files_read.fetch_add(1, Ordering::Relaxed);
                    self.bytes_read.fetch_add(read.bytes, Ordering::Relaxed);
                    self.bytes.fetch_add(read.bytes, Ordering::Relaxed);
                    let seen = self.source.seen(read.stat, false);
                    batch.node.fill(*at, Some(header(&seen, false)), read.leaf);
                }
                Err(ReadFailure::Errno(verb, errno)) => self.fail(HashError::Read {
                    verb,
                    path: self.path(&batch.relative, name),
                    source: errno.into(),
                }),
                Err(ReadFailure::Changed) => {
                    self.fail(WalkError::Changed(self.path(&batch.relative, name)).into());
                }
            }
        }
        if !learned.is_empty() {
            self.cache.put(learned);
        }
        batch.node.done(batch.entries.len());
    }

    fn fail(&self, error: HashError) {
        self.failure
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get_or_insert(error);
        self.failed.store(true, Ordering::Relaxed);
    }
}

struct TreeHash<'scope, 'env, 'a, 'n> {
    engine: &'scope Engine<'a>,
    workers: Workers<'scope, 'env, Batch>,
    /// The holder, then the directories on the way down.
    nodes: Vec<Arc<Node>>,
    batch: Option<Batch>,
    stats: &'n mut ContextStats,
}

impl TreeHash<'_, '_, '_, '_> {
    fn flush(&mut self) {
        let Some(batch) = self.batch.take() else {
            return;
        };
        let bytes = batch.bytes;
        self.workers.give(batch, bytes);
    }

    /// Digest of a directory's attributes.
    fn dir_leaf(&mut self, dir: &Dir<'_>) -> [u8; 32] {
        let key = StatKey::of(dir.stat);
        if let Some(known) = self.engine.cache.get(&key) {
            return known;
        }
        let leaf = leaf::digest(b"", &xattr::read(dir.fd, self.engine.source.origin()));
        if leaf::is_trusted(&key, self.engine.trusted_before_ns) {
            self.engine.cache.put(vec![(key, leaf)]);
        }
        leaf
    }
}

impl Visitor for TreeHash<'_, '_, '_, '_> {
    type Error = HashError;

    fn enter(&mut self, _relative: &[u8], dir: &Dir<'_>) -> Result<(), HashError> {
        self.flush();
        self.stats.dirs += 1;
        let leaf = self.dir_leaf(dir);
        let parent = Arc::clone(&self.nodes[self.nodes.len() - 1]);
        // The start's own name is not part of it: what it is called is the action's business.
        let name = if dir.is_top {
            CString::default()
        } else {
            dir.name.clone()
        };
        let at = parent.add(name, header(dir.stat, dir.as_parent), [0; 32]);
        parent.unknown.fetch_add(1, Ordering::AcqRel);
        self.nodes.push(Node::new(leaf, Some((parent, at))));
        Ok(())
    }

    fn leaf(&mut self, relative: &[u8], leaf: &Leaf<'_>) -> Result<(), HashError> {
        if self.engine.failed.load(Ordering::Relaxed) {
            return Err(WalkError::Changed(self.engine.base.clone()).into());
        }
        self.stats.files += 1;
        let node = &self.nodes[self.nodes.len() - 1];
        let name = if relative.is_empty() {
            CString::default()
        } else {
            leaf.name.clone()
        };
        let head = header(leaf.stat, false);
        let size = if leaf.kind == FileType::RegularFile {
            u64::try_from(leaf.stat.st_size).unwrap_or(0)
        } else {
            0
        };
        if let Some(known) = self.engine.cache.get(&StatKey::of(leaf.stat)) {
            node.add(name, head, known);
            self.engine.bytes.fetch_add(size, Ordering::Relaxed);
            return Ok(());
        }
        let at = node.add(name, head, [0; 32]);
        node.unknown.fetch_add(1, Ordering::AcqRel);
        let batch = self.batch.get_or_insert_with(|| Batch {
            dir: Arc::clone(leaf.parent),
            node: Arc::clone(node),
            relative: relative[..relative.iter().rposition(|b| *b == b'/').unwrap_or(0)].to_vec(),
            entries: Vec::with_capacity(BATCH_FILES),
            bytes: 0,
        });
        batch.entries.push((at, leaf.name.clone(), *leaf.stat));
        batch.bytes += size;
        if batch.entries.len() >= BATCH_FILES || batch.bytes >= BATCH_BYTES {
            self.flush();
        }
        Ok(())
    }

    fn leave(&mut self, _relative: &[u8]) -> Result<(), HashError> {
        self.flush();
        if let Some(node) = self.nodes.pop() {
            node.done(1);
        }
        Ok(())
    }
}
