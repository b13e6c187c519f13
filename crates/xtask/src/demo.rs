//! `cargo xtask demo`: the README's first command. From a clean clone to a running image, without any image registry:
//! the base image is made from Debian packages on this machine.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rbuild_testkit::debian::DebianBase;
use rbuild_testkit::image::OciLayout;
use rbuild_testkit::machine;
use rbuild_testkit::run::Bundle;

use crate::{packages, shell};

/// The project that is built: a Go service, with the toolchain and without.
const PROJECT: &str = "tests/real/go";
/// Its two Dockerfiles, and the names their images get.
const BUILDS: [(&str, &str); 2] = [
    ("Dockerfile", "demo/service:multi-stage"),
    ("Dockerfile.single", "demo/service:single-stage"),
];

/// An image that was built.
struct Built {
    name: &'static str,
    bytes: u64,
    archive: PathBuf,
    took: Duration,
}

/// Builds rbuild, builds the Go service with it in two ways, runs the small one.
pub(crate) fn run(args: &[String]) -> Result<()> {
    let start = Instant::now();
    ensure!(
        machine::is_root(),
        "the demonstration needs root to install Debian packages and to make a base image of them (rbuild itself does not)"
    );
    packages::for_demo()?;
    let (rbuild, layout) = prepare(shell::flag(args, "--rbuild"))?;
    let rbuild = match shell::flag(args, "--install") {
        Some(dir) => install(&rbuild, Path::new(&dir))?,
        None => rbuild,
    };
    let room = tempfile::Builder::new().prefix("rbuild-demo-").tempdir()?;
    let mut images = Vec::new();
    for (file, name) in BUILDS {
        images.push(build(&rbuild, &layout, file, name, room.path())?);
    }
    println!("\n$ rbuild images");
    print!("{}", shell::output(Command::new(&rbuild).arg("images"))?);
    let answer = answer(&images[0].archive)?;
    let (small, large) = (&images[0], &images[1]);
    ensure!(
        small.bytes < large.bytes,
        "the multi-stage image should be the smaller one"
    );
    println!(
        "\nThe same service, built by rbuild without a daemon and without a registry, layers compressed:\n"
    );
    for image in [small, large] {
        println!(
            "  {:<26} {:>7.1} MB   built in {:.1?}",
            image.name,
            megabytes(image.bytes),
            image.took
        );
    }
    println!(
        "\nThe multi-stage image is {} times smaller. Run by runc, it says: {}",
        large.bytes / small.bytes.max(1),
        answer.trim()
    );
    println!(
        "rbuild is {} (everything took {:.0?})",
        rbuild.display(),
        start.elapsed()
    );
    Ok(())
}

/// The program, and the base image as a layout: one is made by the processor, the other mostly by the network, so both
/// at once.
fn prepare(given: Option<String>) -> Result<(PathBuf, PathBuf)> {
    std::thread::scope(|scope| {
        let base = scope.spawn(|| {
            let start = Instant::now();
            DebianBase::Go.make().map(|layout| (layout, start.elapsed()))
        });
        let rbuild = given.map_or_else(crate::ci::release, |path| Ok(fs::canonicalize(path)?));
        let made = base.join().ok().context("making the base image panicked")?;
        let (layout, took) = made.context("base image `golang`")?;
        println!("== base image `golang`, made of Debian packages: done in {took:.1?}");
        Ok((rbuild?, layout))
    })
}

fn install(rbuild: &Path, dir: &Path) -> Result<PathBuf> {
    let to = dir.join("rbuild");
    fs::create_dir_all(dir)?;
    // Beside it first: a program that runs cannot be written to.
    let aside = dir.join(".rbuild.new");
    fs::copy(rbuild, &aside).with_context(|| format!("install {}", to.display()))?;
    fs::set_permissions(&aside, fs::Permissions::from_mode(0o755))?;
    fs::rename(&aside, &to).with_context(|| format!("install {}", to.display()))?;
    println!("== installed {}", to.display());
    Ok(to)
}

fn build(rbuild: &Path, layout: &Path, file: &str, name: &'static str, room: &Path) -> Result<Built> {
    let archive = room.join(format!("{file}.tar"));
    let mut command = Command::new(rbuild);
    command
        .current_dir(shell::root()?)
        .args(["build", "-t", name, "-f"])
        .arg(Path::new(PROJECT).join(file))
        .arg(format!(
            "--build-context=golang=oci-layout://{}:golang",
            layout.display()
        ))
        .args(["-o", "type=image", "-o"])
        .arg(format!("type=oci,dest={}", archive.display()))
        .arg(PROJECT);
    println!("\n$ {}", shown(&command));
    let start = Instant::now();
    let status = command.status().context("start rbuild")?;
    ensure!(status.success(), "rbuild build failed ({status})");
    Ok(Built {
        name,
        bytes: OciLayout::open(&archive)?.image()?.size_bytes(),
        archive,
        took: start.elapsed(),
    })
}

/// Runs the image and asks it.
fn answer(archive: &Path) -> Result<String> {
    let bundle = Bundle::unpack(&OciLayout::open(archive)?)?;
    let port = machine::free_port()?;
    let running = bundle.command(&[], &[("PORT", &port.to_string())])?.spawn();
    let deadline = Instant::now() + Duration::from_secs(20);
    let heard = loop {
        let mut text = String::new();
        let asked = TcpStream::connect(("127.0.0.1", port)).and_then(|mut stream| {
            stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
            stream.read_to_string(&mut text)
        });
        if asked.is_ok() || Instant::now() > deadline {
            break text;
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    drop(bundle);
    drop(running.wait());
    let body = heard.rsplit("\r\n\r\n").next().unwrap_or_default().to_owned();
    ensure!(!body.is_empty(), "the image does not answer");
    Ok(body)
}

fn shown(command: &Command) -> String {
    let words = command.get_args().map(|word| word.to_string_lossy().into_owned());
    std::iter::once("rbuild".to_owned())
        .chain(words)
        .collect::<Vec<_>>()
        .join(" ")
}

#[expect(clippy::cast_precision_loss, reason = "one decimal is shown")]
fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}
