//! Parts of a build by themselves, for `cargo xtask bench --micro`, which counts their instructions: `micro CASE N [DIR]`
//! does one thing to N of something. What N costs beyond half as many is free of what starting costs.
#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, reason = "a program that reports to its caller")]

use std::error::Error;
use std::fmt::Write as _;
use std::io::Write as _;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use rbuild_fileops::{ContentHash, LocalContext, NoStatCache, Selector, SourceTree};
use rbuild_frontend::{
    FrontendOptions, IgnoreFileRequest, ImageRequest, LayoutRequest, MetaResolver, ResolveError,
    ResolvedImage, SourceTimeRequest, lower,
};
use rbuild_layer::{Compressor, LayerFormat, UnpackOptions, WriteOptions, unpack, write_tar};
use rbuild_oci::Timestamp;
use rbuild_sys::RootFd;
use rbuild_sys::overlay::Form;

type Done = Result<u64, Box<dyn Error>>;

/// Bytes of each file of the trees.
const FILE_BYTES: usize = 3000;
/// Bytes compressed for each of N.
const BLOCK_BYTES: usize = 64 << 10;

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [case, count, rest @ ..] = args.as_slice() else {
        return Err("usage: micro CASE N [DIR]".into());
    };
    let count: usize = count.parse()?;
    let dir = rest.first().map_or_else(|| PathBuf::from("."), PathBuf::from);
    let seen = match case.as_str() {
        "fill" => fill(count, &dir),
        "parse" => parse(count),
        "lower" => lowered(count),
        "hash" => hash(&dir),
        "tar" => tar(&dir),
        "unpack" => unpacked(count, &dir),
        "gzip" => compress(count, LayerFormat::Gzip(None)),
        "zstd" => compress(count, LayerFormat::Zstd(None)),
        _ => Err(format!("no case {case}").into()),
    }?;
    println!("{seen}");
    Ok(())
}

/// A Dockerfile of so many stages of four instructions.
fn dockerfile(stages: usize) -> String {
    let mut text = String::new();
    for stage in 0..stages {
        let below = stage
            .checked_sub(1)
            .map_or("scratch".to_owned(), |n| format!("s{n}"));
        let _infallible = writeln!(
            text,
            "FROM {below} AS s{stage}\nARG VERSION=${{OTHER:-{stage}}}\nENV PATH=/opt/$VERSION/bin:$PATH\n\
             RUN --mount=type=cache,target=/cache make \\\n    install && echo \"$VERSION\""
        );
    }
    text
}

fn parse(stages: usize) -> Done {
    let (parsed, errors) = rbuild_dockerfile::parse(dockerfile(stages).as_bytes());
    if errors.is_empty() {
        Ok(parsed.stages.len() as u64)
    } else {
        Err(format!("{errors:?}").into())
    }
}

/// Nobody: stages on `scratch` ask nothing.
struct Nobody;

impl MetaResolver for Nobody {
    async fn image_config(&self, _: &ImageRequest) -> Result<ResolvedImage, ResolveError> {
        Err(ResolveError("no image is known".into()))
    }

    async fn layout_config(&self, _: &LayoutRequest) -> Result<ResolvedImage, ResolveError> {
        Err(ResolveError("no layout is known".into()))
    }

    async fn context_ignore_file(&self, _: &IgnoreFileRequest) -> Result<Option<Vec<u8>>, ResolveError> {
        Ok(None)
    }

    async fn source_time(&self, _: &SourceTimeRequest) -> Result<Option<Timestamp>, ResolveError> {
        Ok(None)
    }
}

/// Parses, and makes a graph with its digests.
fn lowered(stages: usize) -> Done {
    let options = FrontendOptions {
        dockerfile: dockerfile(stages).into_bytes(),
        ..FrontendOptions::default()
    };
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    Ok(runtime.block_on(lower(&options, &Nobody))?.graph.len() as u64)
}

/// Makes the tree that the cases of files work on.
fn fill(files: usize, dir: &Path) -> Done {
    for file in 0..files {
        let below = dir.join(format!("d{}", file / 100));
        if file % 100 == 0 {
            std::fs::create_dir_all(&below)?;
        }
        std::fs::write(below.join(format!("f{file}")), text(FILE_BYTES, file))?;
    }
    Ok(files as u64)
}

/// Walks and reads all of a tree.
fn hash(dir: &Path) -> Done {
    let source = SourceTree::Context(LocalContext::new(RootFd::open(dir)?, dir.to_owned(), None));
    let hashed = ContentHash::of(&source, &Selector::path("/"), &NoStatCache)?;
    Ok(hashed.stats.bytes)
}

fn tar(dir: &Path) -> Done {
    let layer = std::fs::File::open(dir)?;
    let written = write_tar(
        layer.as_fd(),
        Form::Trusted,
        &WriteOptions::default(),
        std::io::sink(),
    )?;
    Ok(written.entries)
}

/// Unpacks an archive of so many files into a directory of its own below `dir`.
fn unpacked(files: usize, dir: &Path) -> Done {
    let mut archive = tar::Builder::new(Vec::new());
    for file in 0..files {
        let mut header = tar::Header::new_ustar();
        header.set_size(FILE_BYTES as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, format!("f{file}"), text(FILE_BYTES, file).as_slice())?;
    }
    let bytes = archive.into_inner()?;
    let target = tempfile::tempdir_in(dir)?;
    let options = UnpackOptions::new(Form::Trusted);
    let done = unpack(
        bytes.as_slice(),
        std::fs::File::open(target.path())?.as_fd(),
        &options,
    )?;
    Ok(done.entries)
}

fn compress(blocks: usize, format: LayerFormat) -> Done {
    let mut compressor = Compressor::new(Vec::new(), format, 1, None)?;
    for block in 0..blocks {
        compressor.write_all(&text(BLOCK_BYTES, block))?;
    }
    Ok(compressor.finish()?.len() as u64)
}

/// So many bytes that compress like source text, others for each `seed`.
fn text(bytes: usize, seed: usize) -> Vec<u8> {
    let mut state = seed as u64 + 1;
    let mut text = Vec::with_capacity(bytes + 8);
    while text.len() < bytes {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        text.extend_from_slice(format!("w{:x} ", (state >> 56) as u8).as_bytes());
    }
    text.truncate(bytes);
    text
}
