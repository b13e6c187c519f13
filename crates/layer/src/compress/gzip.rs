//! gzip on several threads: blocks of fixed size, each deflated with the 32 KiB before it as dictionary and ended by
//! a sync flush, all in one member. Every gzip reader takes it; the bytes are the same for any number of threads.
//!
//! A block that hardly compresses (archives, pictures, programs packed already) is deflated at level 1: that finds
//! nearly all there is to find, in a fraction of the time. A sample of the block decides, so the bytes still depend on the input
//! alone.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use flate2::{Compress, Compression, Crc, FlushCompress, Status};

/// Bytes of input in one block. Part of the output's identity: changing it changes every blob digest.
const BLOCK_BYTES: usize = 1 << 20;
const DICTIONARY_BYTES: usize = 32 << 10;
/// Pieces of a block that are tried, and bytes of one.
const SAMPLES: usize = 8;
const SAMPLE_BYTES: usize = 4 << 10;
/// A sample that keeps more than this share of its bytes (percent) speaks for a block that hardly compresses.
const HARDLY_PERCENT: usize = 80;
/// Magic, deflate, no flags, no time, no extra flags, unknown system (what Go's compress/gzip writes, too).
const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];

/// One block to deflate.
struct Job {
    input: Vec<u8>,
    dictionary: Vec<u8>,
    last: bool,
    reply: SyncSender<Done>,
}

/// One block deflated, and its input to be used again.
struct Done {
    input: Vec<u8>,
    deflated: io::Result<Vec<u8>>,
    crc: Crc,
}

/// A writer of one gzip member. Threads are started with the first full block, so a stream of a single one needs none:
/// most steps write less than that, and an image has many of them.
pub(super) struct BlockGzip<W> {
    out: W,
    level: u32,
    block: Vec<u8>,
    spare: Vec<Vec<u8>>,
    dictionary: Vec<u8>,
    jobs: Option<SyncSender<Job>>,
    /// The threads' end of `jobs` until they are started; theirs alone then, so that it closes if all of them fail.
    queue: Option<Receiver<Job>>,
    /// Blocks under way, oldest first.
    under_way: VecDeque<Receiver<Done>>,
    under_way_max: usize,
    crc: Crc,
    header_written: bool,
    threads: Vec<JoinHandle<()>>,
    workers: usize,
}

impl<W: Write> BlockGzip<W> {
    pub(super) fn new(out: W, level: u32, workers: usize) -> Self {
        let under_way_max = workers + 1;
        let (jobs, queue) = sync_channel::<Job>(under_way_max);
        Self {
            out,
            level,
            block: Vec::new(),
            spare: Vec::new(),
            dictionary: Vec::new(),
            jobs: Some(jobs),
            queue: Some(queue),
            under_way: VecDeque::new(),
            under_way_max,
            crc: Crc::new(),
            header_written: false,
            threads: Vec::new(),
            workers,
        }
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // A full block waits for one more byte, so that only an empty stream has an empty last block.
        if self.block.len() == BLOCK_BYTES && !bytes.is_empty() {
            self.submit(false)?;
        }
        let take = bytes.len().min(BLOCK_BYTES - self.block.len());
        self.block.extend_from_slice(&bytes[..take]);
        Ok(take)
    }

    pub(super) fn finish(mut self) -> io::Result<W> {
        if self.threads.is_empty() {
            let mut deflate = Deflate::new(self.level);
            let only = deflate_job(&mut deflate, std::mem::take(&mut self.block), &[], true);
            self.put(only)?;
        } else {
            self.submit(true)?;
        }
        while !self.under_way.is_empty() {
            self.take_oldest()?;
        }
        self.jobs = None;
        for thread in self.threads.drain(..) {
            thread
                .join()
                .map_err(|_panic| io::Error::other("gzip thread failed"))?;
        }
        self.out.write_all(&self.crc.sum().to_le_bytes())?;
        self.out.write_all(&self.crc.amount().to_le_bytes())?;
        Ok(self.out)
    }

    fn submit(&mut self, last: bool) -> io::Result<()> {
        if self.under_way.len() >= self.under_way_max {
            self.take_oldest()?;
        }
        if let Some(queue) = self.queue.take() {
            self.start_threads(queue)?;
        }
        let next = if last {
            Vec::new()
        } else {
            self.spare
                .pop()
                .unwrap_or_else(|| Vec::with_capacity(BLOCK_BYTES))
        };
        let input = std::mem::replace(&mut self.block, next);
        let tail = input[input.len().saturating_sub(DICTIONARY_BYTES)..].to_vec();
        let dictionary = std::mem::replace(&mut self.dictionary, tail);
        let (reply, done) = sync_channel(1);
        let jobs = self
            .jobs
            .as_ref()
            .ok_or_else(|| io::Error::other("gzip stream has ended"))?;
        jobs.send(Job {
            input,
            dictionary,
            last,
            reply,
        })
        .map_err(|_gone| io::Error::other("gzip threads failed"))?;
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
            let (queue, level) = (Arc::clone(&queue), self.level);
            let thread = std::thread::Builder::new()
                .name("gzip".into())
                .spawn(move || work(&queue, level))?;
            self.threads.push(thread);
        }
        Ok(())
    }

    fn put(&mut self, mut done: Done) -> io::Result<()> {
        if !self.header_written {
            self.out.write_all(&HEADER)?;
            self.header_written = true;
        }
        self.out.write_all(&done.deflated?)?;
        self.crc.combine(&done.crc);
        done.input.clear();
        self.spare.push(done.input);
        Ok(())
    }
}

/// One thread: takes jobs until there are no more.
fn work(queue: &Mutex<Receiver<Job>>, level: u32) {
    let mut deflate = Deflate::new(level);
    loop {
        let job = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = job else { return };
        let done = deflate_job(&mut deflate, job.input, &job.dictionary, job.last);
        // Nobody waits any more when the writer was dropped.
        job.reply.send(done).ok();
    }
}

/// The two ways to deflate a block.
struct Deflate {
    level: u32,
    wanted: Compress,
    /// Made for the first block that is sampled.
    fast: Option<Compress>,
}

impl Deflate {
    fn new(level: u32) -> Self {
        Self {
            level,
            wanted: Compress::new(Compression::new(level), false),
            fast: None,
        }
    }

    /// The way for this block.
    fn way(&mut self, input: &[u8]) -> io::Result<&mut Compress> {
        if self.level <= 1 || input.len() < SAMPLES * SAMPLE_BYTES {
            return Ok(&mut self.wanted);
        }
        let fast = self
            .fast
            .get_or_insert_with(|| Compress::new(Compression::new(1), false));
        let stride = input.len() / SAMPLES;
        let sample: Vec<u8> = (0..SAMPLES)
            .flat_map(|at| &input[at * stride..at * stride + SAMPLE_BYTES])
            .copied()
            .collect();
        let deflated = deflate_block(fast, &sample, &[], true)?;
        let hardly = deflated.len() * 100 > sample.len() * HARDLY_PERCENT;
        Ok(if hardly { fast } else { &mut self.wanted })
    }
}

fn deflate_job(deflate: &mut Deflate, input: Vec<u8>, dictionary: &[u8], last: bool) -> Done {
    let mut crc = Crc::new();
    crc.update(&input);
    let deflated = deflate
        .way(&input)
        .and_then(|way| deflate_block(way, &input, dictionary, last));
    Done { input, deflated, crc }
}

fn deflate_block(deflate: &mut Compress, input: &[u8], dictionary: &[u8], last: bool) -> io::Result<Vec<u8>> {
    deflate.reset();
    if !dictionary.is_empty() {
        deflate.set_dictionary(dictionary)?;
    }
    let flush = if last {
        FlushCompress::Finish
    } else {
        FlushCompress::Sync
    };
    // Room for input that does not compress: one call then takes it all.
    let mut out = Vec::with_capacity(input.len() + input.len() / 64 + 1024);
    loop {
        let consumed = usize::try_from(deflate.total_in()).unwrap_or(usize::MAX);
        let status = deflate.compress_vec(&input[consumed..], &mut out, flush)?;
        let all_in = deflate.total_in() == input.len() as u64;
        let ended = if last {
            status == Status::StreamEnd
        } else {
            all_in && out.len() < out.capacity()
        };
        if ended {
            return Ok(out);
        }
        out.reserve(BLOCK_BYTES / 4);
    }
}
