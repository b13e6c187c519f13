//! Layers mounted, made, packed and unpacked on the machine's own kernel, as root.

use std::ffi::CString;
use std::io::Write as _;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::{PackLayerOptions, Snapshotter, StackError, UnpackBlobError, Workspace};
use rbuild_layer::{Compression, ExportedXattrs, LayerFormat};
use rbuild_oci::{DiffId, Digest};
use rbuild_store::{FormName, FsckOptions, GcPolicy, LayerId, Lease, OpenOptions, Store};
use rbuild_sys::RootFd;
use rbuild_sys::overlay::Form;
use rustix::fs::{CWD, FileType, Mode};

mod explicit;
mod means;
mod members;

struct Bench {
    _dir: tempfile::TempDir,
    store: Arc<Store>,
    snapshotter: Snapshotter,
    lease: Arc<Lease>,
}

const USUAL: PackLayerOptions = PackLayerOptions {
    format: LayerFormat::Gzip(None),
    workers: 1,
    newest_mtime: None,
    xattrs: ExportedXattrs::Capability,
    any_compression: false,
};

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Arc::new(Store::open(&dir.path().join("store"), &OpenOptions::default()).unwrap());
        let snapshotter = Snapshotter::new(
            Arc::clone(&store),
            Form::Trusted,
            FormName::parse("root").unwrap(),
        );
        let lease = Arc::new(store.lease("test").unwrap());
        Self {
            _dir: dir,
            store,
            snapshotter,
            lease,
        }
    }

    /// A layer made by `work` in a mounted workspace.
    fn step(&self, below: &[LayerId], work: impl FnOnce(&Path)) -> LayerId {
        let mut workspace = self.snapshotter.workspace(&self.lease, below).unwrap();
        let root = workspace.mount().unwrap();
        work(&path_of(&root));
        drop(root);
        workspace.commit().unwrap().id
    }

    /// What is in the lease's scratch directory, but for the file of what it holds.
    fn scratch_entries(&self) -> usize {
        let entries = std::fs::read_dir(self.lease.dir()).unwrap();
        entries
            .filter(|entry| entry.as_ref().unwrap().file_name() != "held")
            .count()
    }

    fn unpack(&self, tar: &[u8], below: &[LayerId]) -> Result<LayerId, UnpackBlobError> {
        let diff_id = DiffId(Digest::sha256(tar));
        let tar = std::io::Cursor::new(tar.to_vec());
        self.snapshotter
            .unpack_blob(&self.lease, tar, Compression::None, &diff_id, below)
    }
}

fn path_of(root: &RootFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", root.as_fd().as_raw_fd()))
}

fn read(root: &RootFd, path: &str) -> Option<String> {
    match root.read_file(Path::new(path), 1 << 20) {
        Ok(bytes) => Some(String::from_utf8(bytes).unwrap()),
        Err(error) if error.is_not_found() => None,
        Err(error) => panic!("{path}: {error}"),
    }
}

#[test]
fn privileged_steps_stack_hide_and_replace() {
    let bench = Bench::new();
    let base = bench.step(&[], |root| {
        std::fs::create_dir(root.join("etc")).unwrap();
        std::fs::write(root.join("etc/a"), "base").unwrap();
        std::fs::write(root.join("etc/b"), "base").unwrap();
    });
    let next = bench.step(std::slice::from_ref(&base), |root| {
        assert_eq!(std::fs::read_to_string(root.join("etc/a")).unwrap(), "base");
        std::fs::remove_file(root.join("etc/a")).unwrap();
        std::fs::write(root.join("etc/b"), "next").unwrap();
    });
    let whiteout = bench
        .store
        .layer_dir(bench.snapshotter.form_name(), &next)
        .unwrap()
        .unwrap()
        .join("etc/a");
    let stat = std::fs::symlink_metadata(whiteout).unwrap();
    assert!(stat.file_type().is_char_device() && stat.rdev() == 0);
    let view = bench
        .snapshotter
        .view(&bench.lease, &[base.clone(), next.clone()])
        .unwrap();
    assert_eq!(read(view.root(), "etc/a"), None);
    assert_eq!(read(view.root(), "etc/b").as_deref(), Some("next"));
    let write = std::fs::write(path_of(view.root()).join("etc/c"), "");
    assert_eq!(write.unwrap_err().raw_os_error(), Some(30), "read-only (EROFS)");
    let only = bench.snapshotter.view(&bench.lease, &[base]).unwrap();
    assert_eq!(read(only.root(), "etc/a").as_deref(), Some("base"));
    let alone = bench.snapshotter.view(&bench.lease, &[next]).unwrap();
    assert_eq!(
        read(alone.root(), "etc/a"),
        None,
        "the mark of a whiteout is not a file of the view"
    );
    assert!(alone.root().lstat(Path::new("etc/a")).unwrap_err().is_not_found());
    let none = bench.snapshotter.view(&bench.lease, &[]).unwrap();
    assert_eq!(std::fs::read_dir(path_of(none.root())).unwrap().count(), 0);
}

#[test]
fn privileged_a_layer_that_a_merge_has_twice_is_stacked_once_on_top() {
    let bench = Bench::new();
    let base = bench.step(&[], |root| std::fs::write(root.join("a"), "base").unwrap());
    let edit = bench.step(std::slice::from_ref(&base), |root| {
        std::fs::write(root.join("a"), "edit").unwrap();
    });
    let remove = bench.step(&[base.clone(), edit.clone()], |root| {
        std::fs::remove_file(root.join("a")).unwrap();
    });
    let shows = |layers: &[&LayerId]| {
        let layers: Vec<LayerId> = layers.iter().map(|id| (*id).clone()).collect();
        let view = bench.snapshotter.view(&bench.lease, &layers).unwrap();
        read(view.root(), "a")
    };
    assert_eq!(shows(&[&base, &edit, &base]).as_deref(), Some("base"));
    assert_eq!(shows(&[&base, &edit, &base, &edit]).as_deref(), Some("edit"));
    assert_eq!(shows(&[&base, &remove, &edit, &remove]), None);
    let workspace = bench
        .snapshotter
        .workspace(&bench.lease, &[edit.clone(), base, edit]);
    let root = workspace.unwrap().mount().unwrap();
    assert_eq!(read(&root, "a").as_deref(), Some("edit"));
}

#[test]
fn privileged_directories_that_are_as_they_were_are_left_out_of_a_layer() {
    let bench = Bench::new();
    let base = bench.step(&[], |root| {
        for dir in ["etc", "etc/deep", "opaque", "changed", "kept"] {
            std::fs::create_dir(root.join(dir)).unwrap();
        }
        std::fs::write(root.join("opaque/hidden"), "").unwrap();
    });
    let below = std::slice::from_ref(&base);
    let mut workspace = bench.snapshotter.workspace(&bench.lease, below).unwrap();
    let root = workspace.mount().unwrap();
    let places = ["/etc/deep", "/opaque", "/changed", "/absent/x"].map(Path::new);
    let before = workspace.before(&root, places).unwrap();
    let path = path_of(&root);
    let touch = |dir: &str| {
        let dir = path.join(dir);
        let before = std::fs::metadata(&dir).unwrap().modified().unwrap();
        std::fs::write(dir.join("stub"), "").unwrap();
        std::fs::remove_file(dir.join("stub")).unwrap();
        let times = std::fs::FileTimes::new().set_modified(before);
        std::fs::File::open(&dir).unwrap().set_times(times).unwrap();
    };
    touch("etc/deep");
    touch("kept");
    std::fs::remove_dir_all(path.join("opaque")).unwrap();
    std::fs::create_dir(path.join("opaque")).unwrap();
    std::fs::set_permissions(path.join("changed"), std::fs::Permissions::from_mode(0o700)).unwrap();
    drop(root);
    workspace.drop_unchanged(&before).unwrap();
    let names = |dir: &Path| -> Vec<String> {
        let entries = std::fs::read_dir(dir).unwrap();
        let mut names: Vec<String> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    };
    assert_eq!(
        names(workspace.upper()),
        ["changed", "kept", "opaque"],
        "kept was not asked about"
    );
    let layer = workspace.commit().unwrap().id;
    let view = bench.snapshotter.view(&bench.lease, &[base, layer]).unwrap();
    assert!(path_of(view.root()).join("etc/deep").is_dir());
    assert!(!path_of(view.root()).join("opaque/hidden").exists());
}

#[test]
fn privileged_a_workspace_that_is_not_committed_leaves_nothing() {
    let bench = Bench::new();
    let mut workspace = bench.snapshotter.workspace(&bench.lease, &[]).unwrap();
    let root = workspace.mount().unwrap();
    std::fs::create_dir_all(path_of(&root).join("deep/er")).unwrap();
    std::fs::set_permissions(path_of(&root).join("deep"), std::fs::Permissions::from_mode(0o0)).unwrap();
    drop(root);
    drop(workspace);
    assert_eq!(bench.scratch_entries(), 0);
    let committed = bench
        .snapshotter
        .workspace(&bench.lease, &[])
        .unwrap()
        .commit()
        .unwrap();
    assert!(committed.empty);
    assert_eq!(bench.scratch_entries(), 0);
    let full = bench.snapshotter.workspace(&bench.lease, &[]).unwrap();
    std::fs::write(full.upper().join("f"), "").unwrap();
    assert!(!full.commit().unwrap().empty);
    let missing = LayerId::random().unwrap();
    let error = bench
        .snapshotter
        .workspace(&bench.lease, std::slice::from_ref(&missing))
        .unwrap_err();
    assert!(matches!(error, StackError::Missing(id) if id == missing));
    assert_eq!(bench.scratch_entries(), 0);
}

#[test]
fn privileged_the_root_keeps_owner_and_mode() {
    let bench = Bench::new();
    let fresh = bench.snapshotter.workspace(&bench.lease, &[]).unwrap();
    let stat = std::fs::metadata(fresh.upper()).unwrap();
    assert_eq!((stat.mode() & 0o7777, stat.uid(), stat.gid()), (0o755, 0, 0));
    let base = bench.step(&[], |root| {
        std::os::unix::fs::chown(root, Some(7), Some(8)).unwrap();
        std::fs::set_permissions(root, std::fs::Permissions::from_mode(0o1751)).unwrap();
    });
    bench.step(&[base], |root| {
        let stat = std::fs::metadata(root).unwrap();
        assert_eq!((stat.mode() & 0o7777, stat.uid(), stat.gid()), (0o1751, 7, 8));
    });
}

#[test]
fn privileged_packing_happens_once_and_unpacking_gives_the_same_files() {
    let bench = Bench::new();
    let base = bench.step(&[], |root| {
        std::fs::create_dir(root.join("dir")).unwrap();
        std::fs::write(root.join("dir/gone"), "x").unwrap();
        std::fs::write(root.join("dir/kept"), "x").unwrap();
    });
    let next = bench.step(std::slice::from_ref(&base), |root| {
        std::fs::remove_file(root.join("dir/gone")).unwrap();
        std::fs::write(root.join("dir/new"), vec![b'n'; 100_000]).unwrap();
        std::os::unix::fs::chown(root.join("dir/new"), Some(1), Some(2)).unwrap();
        std::fs::hard_link(root.join("dir/new"), root.join("link")).unwrap();
    });
    let below = [base.clone()];
    let gzip = bench
        .snapshotter
        .pack_layer(&bench.lease, &below, &next, &USUAL)
        .unwrap();
    let diff_id = gzip.diff_id.clone();
    assert_eq!(gzip.media_type, "application/vnd.oci.image.layer.v1.tar+gzip");
    assert_eq!(bench.store.has_blob(&gzip.digest).unwrap(), Some(gzip.size));
    // Changing the directory shows that it is not read again.
    let dir = bench
        .store
        .layer_dir(bench.snapshotter.form_name(), &next)
        .unwrap()
        .unwrap();
    std::fs::write(dir.join("later"), "").unwrap();
    assert_eq!(
        bench
            .snapshotter
            .pack_layer(&bench.lease, &below, &next, &USUAL)
            .unwrap(),
        gzip
    );
    let zstd = PackLayerOptions {
        format: LayerFormat::Zstd(None),
        any_compression: true,
        ..USUAL
    };
    assert_eq!(
        bench
            .snapshotter
            .pack_layer(&bench.lease, &below, &next, &zstd)
            .unwrap(),
        gzip
    );
    std::fs::remove_file(dir.join("later")).unwrap();
    let zstd = PackLayerOptions {
        any_compression: false,
        ..zstd
    };
    let zstd = bench
        .snapshotter
        .pack_layer(&bench.lease, &below, &next, &zstd)
        .unwrap();
    assert_eq!(zstd.diff_id, diff_id);
    assert_ne!(zstd.digest, gzip.digest);

    for (blob, compression) in [(&gzip, Compression::Gzip), (&zstd, Compression::Zstd)] {
        let other = Bench::new();
        let file = bench.store.open_blob(&blob.digest).unwrap().unwrap();
        let id = other
            .snapshotter
            .unpack_blob(&other.lease, file, compression, &diff_id, &[])
            .unwrap();
        assert_eq!(id, LayerId::of_diff_id(&diff_id));
        assert_eq!(other.scratch_entries(), 0);
        let base = other.step(&[], |root| {
            std::fs::create_dir(root.join("dir")).unwrap();
            std::fs::write(root.join("dir/gone"), "x").unwrap();
        });
        let view = other.snapshotter.view(&other.lease, &[base, id]).unwrap();
        assert_eq!(read(view.root(), "dir/gone"), None);
        let stat = view.root().lstat(Path::new("link")).unwrap();
        assert_eq!(
            (stat.st_uid, stat.st_gid, stat.st_nlink, stat.st_size),
            (1, 2, 2, 100_000)
        );
    }
}

#[test]
fn privileged_rewritten_times_are_another_layer() {
    let bench = Bench::new();
    let id = bench.step(&[], |root| std::fs::write(root.join("f"), "x").unwrap());
    let old = PackLayerOptions {
        newest_mtime: Some(0),
        ..USUAL
    };
    let usual = bench
        .snapshotter
        .pack_layer(&bench.lease, &[], &id, &USUAL)
        .unwrap();
    let first = bench
        .snapshotter
        .pack_layer(&bench.lease, &[], &id, &old)
        .unwrap();
    assert_ne!(first.diff_id, usual.diff_id);
    assert_eq!(
        bench
            .snapshotter
            .pack_layer(&bench.lease, &[], &id, &old)
            .unwrap(),
        first
    );
    let facts = bench
        .store
        .layer_facts(bench.snapshotter.form_name(), &id)
        .unwrap()
        .unwrap();
    assert_eq!(facts.diff_id, Some(usual.diff_id));
}

#[test]
fn privileged_a_pulled_layer_keeps_its_diff_id_when_it_is_compressed_anew() {
    let bench = Bench::new();
    // Another writer's bytes: a second end-of-archive block that ours would not write.
    let mut tar = tar_of(&[("f", "text")]);
    tar.extend_from_slice(&[0; 1024]);
    let diff_id = DiffId(Digest::sha256(&tar));
    let blob = bench.store.put_blob(&bench.lease, &tar).unwrap();
    let found = rbuild_store::DiffBlob {
        digest: blob.digest.clone(),
        size: blob.size,
        media_type: "application/vnd.oci.image.layer.v1.tar".to_owned(),
    };
    bench.store.record_blob(&diff_id, "none", &found).unwrap();
    let id = bench.unpack(&tar, &[]).unwrap();
    let packed = bench
        .snapshotter
        .pack_layer(&bench.lease, &[], &id, &USUAL)
        .unwrap();
    assert_eq!(packed.diff_id, diff_id);
    assert_ne!(packed.digest, blob.digest);
}

#[test]
fn privileged_row31_what_does_not_hash_to_the_diff_id_is_discarded() {
    let bench = Bench::new();
    let tar = tar_of(&[("passwd", "x")]);
    let announced = DiffId(Digest::sha256(b"else"));
    let stream = std::io::Cursor::new(tar.clone());
    let error = bench
        .snapshotter
        .unpack_blob(&bench.lease, stream, Compression::None, &announced, &[])
        .unwrap_err();
    assert!(matches!(error, UnpackBlobError::DiffId { .. }), "{error}");
    let cut = std::io::Cursor::new(tar[..700].to_vec());
    let whole = DiffId(Digest::sha256(&tar));
    assert!(
        bench
            .snapshotter
            .unpack_blob(&bench.lease, cut, Compression::None, &whole, &[])
            .is_err()
    );
    assert_eq!(bench.scratch_entries(), 0);
    for id in [LayerId::of_diff_id(&announced), LayerId::of_diff_id(&whole)] {
        assert_eq!(
            bench.store.layer_dir(bench.snapshotter.form_name(), &id).unwrap(),
            None
        );
    }
    assert_eq!(bench.unpack(&tar, &[]).unwrap(), LayerId::of_diff_id(&whole));
}

#[test]
fn privileged_left_out_parents_take_over_from_the_layers_below() {
    let bench = Bench::new();
    let base = bench.step(&[], |root| {
        std::fs::create_dir(root.join("home")).unwrap();
        std::os::unix::fs::chown(root.join("home"), Some(5), Some(6)).unwrap();
        std::fs::set_permissions(root.join("home"), std::fs::Permissions::from_mode(0o711)).unwrap();
    });
    let tar = tar_of(&[("home/f", "x")]);
    let diff_id = DiffId(Digest::sha256(&tar));
    let alone = bench.unpack(&tar, &[]).unwrap();
    let on_base = bench.unpack(&tar, std::slice::from_ref(&base)).unwrap();
    assert_ne!(on_base, alone);
    let find = |below: &[LayerId]| {
        bench
            .snapshotter
            .find_layer(&bench.lease, &diff_id, below)
            .unwrap()
    };
    assert_eq!(find(std::slice::from_ref(&base)), Some(on_base.clone()));
    assert_eq!(find(&[]), Some(alone));
    assert_eq!(find(&[base.clone(), base.clone()]), None);
    let view = bench.snapshotter.view(&bench.lease, &[base, on_base]).unwrap();
    let stat = view.root().lstat(Path::new("home")).unwrap();
    assert_eq!((stat.st_uid, stat.st_gid, stat.st_mode & 0o7777), (5, 6, 0o711));
    let absent = LayerId::random().unwrap();
    let error = bench.unpack(&tar_of(&[("home/h", "x")]), &[absent]).unwrap_err();
    assert!(
        matches!(error, UnpackBlobError::Stack(StackError::Missing(_))),
        "{error}"
    );
}

#[test]
fn privileged_many_threads_unpack_the_same_layer() {
    let bench = Bench::new();
    let tar = tar_of(&[("a", "1"), ("b", "2")]);
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| bench.unpack(&tar, &[]).unwrap());
        }
    });
    assert_eq!(bench.scratch_entries(), 0);
    assert_eq!(
        bench
            .store
            .fsck(FsckOptions {
                repair: false,
                contents: true
            })
            .unwrap(),
        []
    );
}

#[test]
fn privileged_more_layers_than_the_kernel_stacks_show_the_same() {
    let bench = Bench::new();
    let layer = |n: usize| {
        let workspace: Workspace = bench.snapshotter.workspace(&bench.lease, &[]).unwrap();
        let upper = workspace.upper();
        std::fs::write(upper.join(format!("f{n}")), "").unwrap();
        std::fs::write(upper.join("last"), n.to_string()).unwrap();
        if n > 0 {
            // The name of the layer below is taken away again, whichever of the two ends up in the folded directory.
            let gone = CString::new(upper.join(format!("f{}", n - 1)).as_os_str().as_bytes()).unwrap();
            rustix::fs::mknodat(CWD, &*gone, FileType::CharacterDevice, Mode::empty(), 0).unwrap();
        }
        workspace.commit().unwrap().id
    };
    let all: Vec<LayerId> = (0..1001).map(layer).collect();
    for many in [130, 480, 481, 720, 721, 1001] {
        let layers = &all[..many];
        let view = bench.snapshotter.view(&bench.lease, layers).unwrap();
        let mut names: Vec<_> = std::fs::read_dir(path_of(view.root()))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(
            names,
            [format!("f{}", many - 1), "last".to_owned()],
            "{many} layers"
        );
        assert_eq!(read(view.root(), "last"), Some((many - 1).to_string()));

        let mut workspace = bench.snapshotter.workspace(&bench.lease, layers).unwrap();
        let root = workspace.mount().unwrap();
        std::fs::write(path_of(&root).join("last"), "changed").unwrap();
        std::fs::remove_file(path_of(&root).join(format!("f{}", many - 1))).unwrap();
        drop(root);
        assert_eq!(std::fs::read_dir(workspace.upper()).unwrap().count(), 2);
        assert_eq!(
            read(view.root(), "last"),
            Some((many - 1).to_string()),
            "a layer was written to"
        );
    }
}

#[test]
fn privileged_garbage_collection_leaves_what_is_mounted() {
    let bench = Bench::new();
    let base = bench.step(&[], |root| std::fs::write(root.join("f"), "x").unwrap());
    let view = bench
        .snapshotter
        .view(&bench.lease, std::slice::from_ref(&base))
        .unwrap();
    bench
        .store
        .gc(&GcPolicy {
            all: true,
            ..GcPolicy::default()
        })
        .unwrap();
    assert_eq!(read(view.root(), "f").as_deref(), Some("x"));
    let Bench {
        store,
        lease,
        snapshotter,
        _dir,
    } = bench;
    drop((view, lease));
    store
        .gc(&GcPolicy {
            all: true,
            ..GcPolicy::default()
        })
        .unwrap();
    assert_eq!(store.layer_dir(snapshotter.form_name(), &base).unwrap(), None);
}

/// A tar of regular files without their directories.
fn tar_of(files: &[(&str, &str)]) -> Vec<u8> {
    let mut tar = Vec::new();
    for (name, text) in files {
        let mut header = [0u8; 512];
        header[..name.len()].copy_from_slice(name.as_bytes());
        header[100..108].copy_from_slice(b"0000644\0");
        header[108..116].copy_from_slice(b"0000000\0");
        header[116..124].copy_from_slice(b"0000000\0");
        header[124..136].copy_from_slice(format!("{:011o}\0", text.len()).as_bytes());
        header[136..148].copy_from_slice(b"00000000000\0");
        header[156] = b'0';
        header[257..265].copy_from_slice(b"ustar\x0000");
        header[148..156].fill(b' ');
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        tar.write_all(&header).unwrap();
        tar.write_all(text.as_bytes()).unwrap();
        tar.resize(tar.len().next_multiple_of(512), 0);
    }
    tar.resize(tar.len() + 1024, 0);
    tar
}
