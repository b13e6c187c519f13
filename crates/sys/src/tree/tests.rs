//! Trees that break naive walkers.

use super::*;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

fn open(path: &Path) -> OwnedFd {
    rustix::fs::open(
        path,
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .unwrap()
}

fn deep(top: &Path, levels: usize, name: &CStr) {
    let mut at = open(top);
    for _ in 0..levels {
        rustix::fs::mkdirat(&at, name, Mode::from_raw_mode(0o755)).unwrap();
        at = rustix::fs::openat(&at, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).unwrap();
    }
}

/// Runs on a small stack, as row 13 asks.
fn on_small_stack(work: impl FnOnce() + Send) {
    std::thread::scope(|scope| {
        std::thread::Builder::new()
            .stack_size(256 * 1024)
            .spawn_scoped(scope, work)
            .unwrap()
            .join()
            .unwrap();
    });
}

fn open_descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

#[test]
fn row13_deep_tree_of_long_names_is_visited_and_removed_with_few_descriptors() {
    let dir = tempfile::tempdir().unwrap();
    let top = dir.path().join("top");
    std::fs::create_dir(&top).unwrap();
    let name = CString::new("n".repeat(255)).unwrap();
    deep(&top, 6000, &name);
    on_small_stack(|| {
        let before = open_descriptors();
        let mut most = 0;
        let mut seen = 0;
        walk_tree::<usize, TreeError>(open(&top).as_fd(), 0, |depth, entry| {
            assert_eq!(entry.name.len(), 255);
            seen += 1;
            if seen % 500 == 0 {
                most = most.max(open_descriptors() - before);
            }
            Ok(depth + 1)
        })
        .unwrap();
        assert_eq!(seen, 6000);
        assert!(most <= OPEN_MAX + 8, "{most} descriptors");
        let removed = remove_tree(open(dir.path()).as_fd(), OsStr::new("top"), None).unwrap();
        assert_eq!(
            removed,
            Removed {
                entries: 6001,
                finished: true
            }
        );
    });
    assert!(!top.exists());
}

#[test]
fn row13_links_are_removed_not_followed() {
    let dir = tempfile::tempdir().unwrap();
    let canary = dir.path().join("canary");
    std::fs::create_dir(&canary).unwrap();
    std::fs::write(canary.join("kept"), "x").unwrap();
    let top = dir.path().join("top");
    std::fs::create_dir_all(top.join("a")).unwrap();
    symlink(&canary, top.join("a/link")).unwrap();
    symlink(&canary, dir.path().join("itself")).unwrap();
    let parent = open(dir.path());
    assert!(
        remove_tree(parent.as_fd(), OsStr::new("top"), None)
            .unwrap()
            .finished
    );
    assert!(
        remove_tree(parent.as_fd(), OsStr::new("itself"), None)
            .unwrap()
            .finished
    );
    assert!(canary.join("kept").exists());
    assert!(!top.exists() && !dir.path().join("itself").is_symlink());
}

#[test]
fn row13_swapping_a_directory_with_a_link_during_removal_never_leaves_the_tree() {
    let dir = tempfile::tempdir().unwrap();
    let canary = dir.path().join("canary");
    std::fs::create_dir(&canary).unwrap();
    for n in 0..50 {
        std::fs::write(canary.join(format!("f{n}")), "x").unwrap();
    }
    let stop = std::sync::atomic::AtomicBool::new(false);
    let top = dir.path().join("top");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                drop(symlink(&canary, top.join("swap")));
                drop(std::fs::rename(top.join("d3"), top.join("d3-away")));
                drop(symlink(&canary, top.join("d3")));
            }
        });
        let remover = scope.spawn(|| {
            for _ in 0..40 {
                for n in 0..8 {
                    drop(std::fs::create_dir_all(top.join(format!("d{n}/x/y"))));
                }
                match remove_tree(open(dir.path()).as_fd(), OsStr::new("top"), None) {
                    Ok(_) => {}
                    // It is being filled faster than it is emptied.
                    Err(error) => assert_eq!(error.errno(), Some(Errno::NOTEMPTY), "{error}"),
                }
            }
        });
        let outcome = remover.join();
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        outcome.unwrap();
    });
    // The test's own `create_dir_all` may have followed the link and made something there; nothing may be gone.
    assert!((0..50).all(|n| canary.join(format!("f{n}")).exists()));
}

#[test]
fn names_of_any_bytes_and_directories_without_rights_go_too() {
    let dir = tempfile::tempdir().unwrap();
    let top = dir.path().join("top");
    std::fs::create_dir(&top).unwrap();
    for name in [&b"\xff\xfe"[..], b"a\nb", b" ", b"-rf"] {
        let inner = top.join(OsStr::from_bytes(name));
        std::fs::create_dir(&inner).unwrap();
        std::fs::write(inner.join("f"), "").unwrap();
        std::fs::set_permissions(&inner, std::fs::Permissions::from_mode(0o0)).unwrap();
    }
    let removed = remove_tree(open(dir.path()).as_fd(), OsStr::new("top"), None).unwrap();
    assert_eq!(removed.entries, 9);
    assert!(!top.exists());
}

#[test]
fn a_budget_stops_and_the_next_call_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let top = dir.path().join("top");
    for n in 0..10 {
        std::fs::create_dir_all(top.join(format!("d{n}"))).unwrap();
        std::fs::write(top.join(format!("d{n}/f")), "").unwrap();
    }
    let parent = open(dir.path());
    let mut rounds = 0;
    let mut total = 0;
    loop {
        let removed = remove_tree(parent.as_fd(), OsStr::new("top"), Some(5)).unwrap();
        rounds += 1;
        total += removed.entries;
        if removed.finished {
            break;
        }
        assert!(removed.entries <= 6, "{removed:?}");
    }
    assert_eq!(total, 21);
    assert!(rounds >= 4, "{rounds}");
    let absent = remove_tree(parent.as_fd(), OsStr::new("top"), None).unwrap();
    assert_eq!(
        absent,
        Removed {
            entries: 0,
            finished: true
        }
    );
}

#[test]
fn many_directories_side_by_side_are_all_visited_once() {
    let dir = tempfile::tempdir().unwrap();
    for a in 0..30 {
        for b in 0..30 {
            std::fs::create_dir_all(dir.path().join(format!("{a}/{b}"))).unwrap();
            std::fs::write(dir.path().join(format!("{a}/{b}/f")), "").unwrap();
        }
    }
    let mut paths = std::collections::BTreeSet::new();
    walk_tree::<String, TreeError>(open(dir.path()).as_fd(), String::new(), |above, entry| {
        let path = format!("{above}/{}", entry.name.to_str().unwrap());
        assert!(paths.insert(path.clone()), "{path} twice");
        Ok(path)
    })
    .unwrap();
    assert_eq!(paths.len(), 30 + 900 + 900);
    for path in paths {
        assert!(dir.path().join(&path[1..]).exists(), "{path}");
    }
}

#[test]
fn privileged_row13_immutable_files_are_removed() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("top/f");
    std::fs::create_dir(dir.path().join("top")).unwrap();
    std::fs::write(&file, "").unwrap();
    let fd = std::fs::File::open(&file).unwrap();
    if let Err(error) = rustix::fs::ioctl_setflags(&fd, IFlags::IMMUTABLE) {
        println!("SKIP: this file system has no immutable flag for us: {error}");
        return;
    }
    assert!(std::fs::remove_file(&file).is_err(), "the flag holds");
    assert!(
        remove_tree(open(dir.path()).as_fd(), OsStr::new("top"), None)
            .unwrap()
            .finished
    );
    assert!(!file.exists());
}

#[test]
fn privileged_row13_what_is_mounted_inside_is_neither_visited_nor_removed() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIP: mounting needs root");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mounted = dir.path().join("tree/d/m");
    std::fs::create_dir_all(&mounted).unwrap();
    let place = open(dir.path());
    // The mounts go with the thread.
    std::thread::scope(|scope| {
        scope.spawn(|| {
            use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};
            crate::namespace::unshare_mounts_of_this_thread().unwrap();
            let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
            rustix::mount::mount_change("/", private).unwrap();
            rustix::mount::mount("none", &mounted, "tmpfs", MountFlags::empty(), None).unwrap();
            std::fs::write(mounted.join("theirs"), "kept").unwrap();
            let place = open(dir.path());
            let is_mount =
                |error: TreeError| matches!(error, TreeError::MountPoint { name, .. } if name == "m");
            let tree = open(&dir.path().join("tree"));
            let mut seen = Vec::new();
            let walked = walk_tree::<(), TreeError>(tree.as_fd(), (), |(), entry| {
                seen.push(entry.name.to_owned());
                Ok(())
            });
            assert!(is_mount(walked.unwrap_err()));
            assert_eq!(seen, ["d", "m"]);
            let removed = remove_tree(place.as_fd(), OsStr::new("tree"), None);
            assert!(is_mount(removed.unwrap_err()));
            assert_eq!(std::fs::read(mounted.join("theirs")).unwrap(), b"kept");
            rustix::mount::unmount(&mounted, UnmountFlags::DETACH).unwrap();
        });
    });
    // The legal twin: nothing is mounted there any more.
    assert!(
        remove_tree(place.as_fd(), OsStr::new("tree"), None)
            .unwrap()
            .finished
    );
    assert!(!dir.path().join("tree").exists());
}
