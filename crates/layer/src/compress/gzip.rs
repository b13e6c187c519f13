//! gzip on several threads: the stream is cut into pieces, and each becomes a member of its own (RFC 1952, section 2.2),
//! as in eStargz layers. Every gzip reader takes several; the bytes are the same for any number of threads. Where a piece ends
//! says its content ([`PieceGzip::write`]) or whoever writes ([`PieceGzip::cut`]).
//!
//! A piece that hardly compresses (archives, pictures, programs packed already) is not searched for what is not there
//! ([`super::sparse`]): a sample of it decides, so the bytes still depend on the input alone.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use libdeflater::{CompressionLvl, Compressor};
use rbuild_oci::Digest;

use super::members::{Members, is_member_of};
use super::pieces::Cutter;
use super::sparse;

/// What a member begins with: the magic number and deflate (RFC 1952, section 2.3.1).
pub(super) const MAGIC: [u8; 3] = [0x1f, 0x8b, 8];
/// Parts of a piece that are tried, and bytes of one.
const SAMPLES: usize = 8;
const SAMPLE_BYTES: usize = 4 << 10;
/// Of a sample's bytes, percent, that are left where level 1 finds nearly all there is to find.
const HARDLY_PERCENT: usize = 80;
/// What hardly looking may leave of a sample, percent of what level 1 leaves, to be enough.
const ENOUGH_PERCENT: usize = 102;
/// Bytes of members that end where the writer says, and are compressed by one thread one after the other.
const BATCH_BYTES: usize = 1 << 20;
/// libdeflate's level that is tried with, and taken where not looking is not enough.
const LEVEL_FAST: u32 = 1;
/// Of a gzip member that says nothing of a file: no flags, no time, no system (RFC 1952, section 2.3.1).
const HEADER: [u8; 10] = [MAGIC[0], MAGIC[1], MAGIC[2], 0, 0, 0, 0, 0, 0, 255];

/// How a piece is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// By libdeflate at this level.
    Level(u32),
    /// With no more than a glance.
    Sparse,
}

/// One piece to compress.
struct Job {
    input: Vec<u8>,
    /// Where members end within it.
    cuts: Vec<usize>,
    reply: SyncSender<Done>,
}

/// One piece compressed, and its input to be used again.
struct Done {
    input: Vec<u8>,
    content: Option<Digest>,
    packed: io::Result<Packed>,
}

/// The members of a piece, and what each takes.
struct Packed {
    bytes: Vec<u8>,
    sizes: Vec<usize>,
}

impl From<Vec<u8>> for Packed {
    fn from(bytes: Vec<u8>) -> Self {
        let sizes = vec![bytes.len()];
        Self { bytes, sizes }
    }
}

/// A writer of gzip members. Threads are started when there is more than one piece: most steps write less than that, and
/// an image has many of them.
pub(super) struct PieceGzip<W> {
    out: W,
    packer: Packer,
    cutter: Cutter,
    piece: Vec<u8>,
    /// Where members end within the piece.
    cuts: Vec<usize>,
    /// Members that have an end.
    ended: usize,
    /// The piece is whole, but the stream may end with it.
    is_whole: bool,
    spare: Vec<Vec<u8>>,
    jobs: Option<SyncSender<Job>>,
    /// Pieces under way, oldest first.
    under_way: VecDeque<Receiver<Done>>,
    threads: Vec<JoinHandle<()>>,
    workers: usize,
    written: u64,
    /// Where the members begin that are written.
    starts: Vec<u64>,
}

impl<W: Write> PieceGzip<W> {
    pub(super) fn new(out: W, level: u32, workers: usize, members: Option<Arc<dyn Members>>) -> Self {
        Self {
            out,
            packer: Packer::new(level, members),
            cutter: Cutter::default(),
            piece: Vec::new(),
            cuts: Vec::new(),
            ended: 0,
            is_whole: false,
            spare: Vec::new(),
            jobs: None,
            under_way: VecDeque::new(),
            threads: Vec::new(),
            workers,
            written: 0,
            starts: Vec::new(),
        }
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // A whole piece waits for one more byte, so that only an empty stream has an empty member.
        if self.is_whole && !bytes.is_empty() {
            self.submit()?;
        }
        let (taken, ends) = self.cutter.take(bytes);
        self.piece.extend_from_slice(&bytes[..taken]);
        self.is_whole = ends;
        Ok(taken)
    }

    /// Writes into the member under way, whatever the content says.
    pub(super) fn add(&mut self, bytes: &[u8]) {
        self.piece.extend_from_slice(bytes);
    }

    /// Bytes of the member under way.
    pub(super) fn open_len(&self) -> usize {
        self.piece.len() - self.cuts.last().copied().unwrap_or(0)
    }

    /// Ends the member under way, unless nothing is in it, and gives the number of the one that begins.
    pub(super) fn cut(&mut self) -> io::Result<usize> {
        if self.open_len() > 0 {
            self.ended += 1;
            if self.piece.len() >= BATCH_BYTES {
                self.submit()?;
            } else {
                self.cuts.push(self.piece.len());
            }
        }
        Ok(self.ended)
    }

    /// Writes all members, and gives where each begins and where the next would.
    pub(super) fn flush_members(&mut self) -> io::Result<(&[u64], u64)> {
        let is_all_written = self.piece.is_empty() && self.ended > 0;
        self.ended += usize::from(self.open_len() > 0);
        if self.threads.is_empty() && !is_all_written {
            let (piece, cuts) = (std::mem::take(&mut self.piece), std::mem::take(&mut self.cuts));
            let only = self.packer.pack_only(piece, &cuts);
            self.put(only)?;
        } else if !is_all_written {
            self.submit()?;
        }
        while !self.under_way.is_empty() {
            self.take_oldest()?;
        }
        Ok((&self.starts, self.written))
    }

    pub(super) fn finish(mut self) -> io::Result<W> {
        self.flush_members()?;
        self.jobs = None;
        for thread in self.threads.drain(..) {
            thread
                .join()
                .map_err(|_panic| io::Error::other("gzip thread failed"))?;
        }
        Ok(self.out)
    }

    fn submit(&mut self) -> io::Result<()> {
        let under_way_max = self.workers + 1;
        if self.under_way.len() >= under_way_max {
            self.take_oldest()?;
        }
        if self.jobs.is_none() {
            let (jobs, queue) = sync_channel::<Job>(under_way_max);
            self.start_threads(queue)?;
            self.jobs = Some(jobs);
        }
        let next = self.spare.pop().unwrap_or_default();
        let input = std::mem::replace(&mut self.piece, next);
        let cuts = std::mem::take(&mut self.cuts);
        self.is_whole = false;
        let (reply, done) = sync_channel(1);
        let job = Job { input, cuts, reply };
        let sent = self.jobs.as_ref().map(|jobs| jobs.send(job));
        if !matches!(sent, Some(Ok(()))) {
            return Err(io::Error::other("gzip threads failed"));
        }
        self.under_way.push_back(done);
        Ok(())
    }

    fn take_oldest(&mut self) -> io::Result<()> {
        let Some(done) = self.under_way.pop_front() else {
            return Ok(());
        };
        let done = done
            .recv()
            .map_err(|_gone| io::Error::other("gzip thread failed"))?;
        self.put(done)
    }

    fn start_threads(&mut self, queue: Receiver<Job>) -> io::Result<()> {
        let queue = Arc::new(Mutex::new(queue));
        for _ in 0..self.workers {
            let (queue, mut packer) = (Arc::clone(&queue), self.packer.another());
            let thread = std::thread::Builder::new()
                .name("gzip".into())
                .spawn(move || work(&queue, &mut packer))?;
            self.threads.push(thread);
        }
        Ok(())
    }

    fn put(&mut self, mut done: Done) -> io::Result<()> {
        let Packed { bytes, sizes } = done.packed?;
        self.out.write_all(&bytes)?;
        if let (Some(members), Some(content)) = (&self.packer.members, done.content) {
            members.placed(content, self.packer.level, self.written, bytes.len() as u64);
        }
        for size in sizes {
            self.starts.push(self.written);
            self.written += size as u64;
        }
        done.input.clear();
        self.spare.push(done.input);
        Ok(())
    }
}

/// One thread: takes jobs until there are no more.
fn work(queue: &Mutex<Receiver<Job>>, packer: &mut Packer) {
    loop {
        let job = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = job else { return };
        let done = packer.pack(job.input, &job.cuts);
        // Nobody waits any more when the writer was dropped.
        job.reply.send(done).ok();
    }
}

/// Makes members of pieces, one thread's.
struct Packer {
    level: u32,
    members: Option<Arc<dyn Members>>,
    /// One for each level in use.
    compressors: Vec<(u32, Compressor)>,
    out: Vec<u8>,
}

impl Packer {
    const fn new(level: u32, members: Option<Arc<dyn Members>>) -> Self {
        Self {
            level,
            members,
            compressors: Vec::new(),
            out: Vec::new(),
        }
    }

    fn another(&self) -> Self {
        Self::new(self.level, self.members.clone())
    }

    /// The member of a piece, made now or before, or its members.
    fn pack(&mut self, input: Vec<u8>, cuts: &[usize]) -> Done {
        if !cuts.is_empty() {
            return self.pack_only(input, cuts);
        }
        let content = self.members.as_ref().map(|_| Digest::sha256(&input));
        let known = self.members.as_ref().zip(content.as_ref());
        let known = known
            .and_then(|(members, content)| members.find(content, self.level))
            .filter(|member| is_member_of(member, &input));
        let member = match known {
            Some(member) => Ok(member),
            None => self.compress(&input),
        };
        Done {
            input,
            content,
            packed: member.map(Packed::from),
        }
    }

    /// The members of the only piece of a stream, or of one that is many. To look them up would cost about what it saves.
    fn pack_only(&mut self, input: Vec<u8>, cuts: &[usize]) -> Done {
        let packed = self.compress_all(&input, cuts);
        Done {
            input,
            content: None,
            packed,
        }
    }

    fn compress_all(&mut self, input: &[u8], cuts: &[usize]) -> io::Result<Packed> {
        let mut packed = Packed {
            bytes: Vec::new(),
            sizes: Vec::new(),
        };
        let mut start = 0;
        let ends = cuts.iter().copied().filter(|end| *end < input.len());
        for end in ends.chain([input.len()]) {
            let member = self.compress(&input[start..end])?;
            packed.sizes.push(member.len());
            packed.bytes.extend(member);
            start = end;
        }
        Ok(packed)
    }

    fn compress(&mut self, input: &[u8]) -> io::Result<Vec<u8>> {
        match self.way_for(input)? {
            Way::Level(level) => {
                let size = self.compress_at(level, input)?;
                Ok(self.out[..size].to_vec())
            }
            Way::Sparse => {
                let mut member = Vec::with_capacity(input.len() + input.len() / 64);
                member.extend(HEADER);
                sparse::deflate(input, &mut member);
                member.extend(libdeflater::crc32(input).to_le_bytes());
                // Modulo 2^32, says the format; a piece is shorter.
                member.extend((input.len() as u32).to_le_bytes());
                Ok(member)
            }
        }
    }

    /// The way that is worth its time for this piece.
    fn way_for(&mut self, input: &[u8]) -> io::Result<Way> {
        if self.level <= LEVEL_FAST || input.len() < SAMPLES * SAMPLE_BYTES {
            return Ok(Way::Level(self.level));
        }
        let stride = input.len() / SAMPLES;
        let sample: Vec<u8> = (0..SAMPLES)
            .flat_map(|at| &input[at * stride..at * stride + SAMPLE_BYTES])
            .copied()
            .collect();
        let fast = self.compress_at(LEVEL_FAST, &sample)?;
        if fast * 100 < sample.len() * HARDLY_PERCENT {
            return Ok(Way::Level(self.level));
        }
        let mut glanced = Vec::with_capacity(sample.len() + HEADER.len());
        sparse::deflate(&sample, &mut glanced);
        if glanced.len() * 100 <= fast * ENOUGH_PERCENT {
            Ok(Way::Sparse)
        } else {
            Ok(Way::Level(LEVEL_FAST))
        }
    }

    /// Compresses into `out`, and gives the bytes that it takes there.
    fn compress_at(&mut self, level: u32, input: &[u8]) -> io::Result<usize> {
        let at = match self.compressors.iter().position(|(made, _)| *made == level) {
            Some(at) => at,
            None => {
                let lvl = i32::try_from(level)
                    .ok()
                    .and_then(|level| CompressionLvl::new(level).ok());
                let lvl = lvl.ok_or_else(|| io::Error::other("gzip level is out of range"))?;
                self.compressors.push((level, Compressor::new(lvl)));
                self.compressors.len() - 1
            }
        };
        let compressor = &mut self.compressors[at].1;
        let bound = compressor.gzip_compress_bound(input.len());
        if self.out.len() < bound {
            self.out.resize(bound, 0);
        }
        compressor
            .gzip_compress(input, &mut self.out)
            .map_err(|error| io::Error::other(format!("compress a piece: {error}")))
    }
}
