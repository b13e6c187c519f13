//! `cargo xtask demo`: the README's first command. From a clean clone to a running image, without any image registry:
//! the base image is made from Debian packages on this machine.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rbuild_testkit::debian::DebianBase;
use rbuild_testkit::image::OciLayout;
use rbuild_testkit::machine;
use rbuild_testkit::run::Bundle;

use crate::{ci, packages, shell};

/// Builds rbuild, builds the Go service with it in two ways, runs the small one.
pub(crate) fn run(args: &[String]) -> Result<()> {
    packages::for_tests()?;
    let rbuild = ci::release()?;
    println!("rbuild is {}", rbuild.display());
    if let Some(dir) = shell::flag(args, "--install") {
        let to = Path::new(&dir).join("rbuild");
        fs::create_dir_all(&dir)?;
        fs::copy(&rbuild, &to).with_context(|| format!("install {}", to.display()))?;
        fs::set_permissions(&to, fs::Permissions::from_mode(0o755))?;
        println!("installed as {}", to.display());
    }
    let base = DebianBase::Go;
    let start = Instant::now();
    let layout = base.make()?;
    println!(
        "base image `golang` made from Debian packages in {:.1?}: {}",
        start.elapsed(),
        layout.display()
    );
    let project = shell::root()?.join("tests/real/go");
    let room = tempfile::Builder::new().prefix("rbuild-demo-").tempdir()?;
    let mut sizes = Vec::new();
    for (file, tag) in [
        ("Dockerfile", "demo/service:multi-stage"),
        ("Dockerfile.single", "demo/service:single-stage"),
    ] {
        let archive = room.path().join(format!("{file}.tar"));
        let mut command = Command::new(&rbuild);
        command
            .args(["build", "--progress=plain", "-t", tag, "-f"])
            .arg(project.join(file));
        command.arg(format!(
            "--build-context=golang=oci-layout://{}:golang",
            layout.display()
        ));
        command
            .args(["-o", "type=image", "-o"])
            .arg(format!("type=oci,dest={}", archive.display()))
            .arg(&project);
        println!("\n$ {}", shown(&command, &rbuild));
        shell::step(&format!("rbuild build {tag}"), &mut command)?;
        sizes.push((tag, OciLayout::open(&archive)?.image()?.size_bytes(), archive));
    }
    println!("\n$ rbuild images");
    print!("{}", shell::output(Command::new(&rbuild).arg("images"))?);
    let answer = answer(&sizes[0].2)?;
    println!("\nthe multi-stage image, run by runc: {}", answer.trim());
    for (tag, bytes, _) in &sizes {
        println!("{tag}: {:.1} MB compressed", megabytes(*bytes));
    }
    ensure!(
        sizes[0].1 < sizes[1].1,
        "the multi-stage image should be the smaller one"
    );
    Ok(())
}

/// Runs the image and asks it.
fn answer(archive: &Path) -> Result<String> {
    if !machine::is_root() {
        return Ok("(not root: umoci and runc are left out)".to_owned());
    }
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

fn shown(command: &Command, rbuild: &Path) -> String {
    let words = command.get_args().map(|word| word.to_string_lossy().into_owned());
    let name = rbuild
        .file_name()
        .map_or_else(|| "rbuild".into(), |name| name.to_string_lossy());
    std::iter::once(name.into_owned())
        .chain(words)
        .collect::<Vec<_>>()
        .join(" ")
}

#[expect(clippy::cast_precision_loss, reason = "one decimal is shown")]
fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}
