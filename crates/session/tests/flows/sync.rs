//! Directories of an honest client: first, again, and after every kind of change.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use rbuild_session::fake::{FakeClient, SentNames};
use rbuild_session::wire::{Packet, PacketType, Stat};
use rbuild_session::{Differ, METADATA_FILE, MetadataOnly, SyncRequest};
use rbuild_sys::RootFd;
use rustix::fs::{CWD, FileType, Mode, XattrFlags, mknodat};
use tokio_util::sync::CancellationToken;

use crate::setting::{connect, look, names, sync, sync_as};

struct Dirs {
    _all: tempfile::TempDir,
    src: PathBuf,
    dest: PathBuf,
    sent: SentNames,
}

fn dirs() -> Dirs {
    let all = tempfile::tempdir().unwrap();
    let (src, dest) = (all.path().join("src"), all.path().join("dest"));
    fs::create_dir(&src).unwrap();
    fs::create_dir(&dest).unwrap();
    Dirs {
        _all: all,
        src,
        dest,
        sent: SentNames::default(),
    }
}

fn client(dirs: &Dirs) -> FakeClient {
    FakeClient::new("one").directory("context", &dirs.src, &dirs.sent)
}

fn date_back(path: &Path) {
    let file = fs::File::open(path).unwrap();
    file.set_modified(SystemTime::now() - Duration::from_secs(1000))
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_files_come_once() {
    let dirs = dirs();
    for n in 0..1000 {
        let dir = dirs.src.join(format!("d{}", n % 40));
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join(format!("f{n}")), vec![b'x'; n * 37]).unwrap();
    }
    let (_sessions, client) = connect(client(&dirs)).await;

    let first = sync(client.session(), &dirs.dest).await.unwrap();
    assert_eq!((first.entries, first.requested, first.unchanged), (1040, 1000, 0));
    assert_eq!(dirs.sent.take().len(), 1000);
    assert_eq!(look(&dirs.src), look(&dirs.dest));

    let again = sync(client.session(), &dirs.dest).await.unwrap();
    assert_eq!((again.entries, again.requested, again.unchanged), (1040, 0, 1040));
    assert_eq!(again.bytes, 0);
    assert!(
        dirs.sent.take().is_empty(),
        "nothing is asked for when nothing changed"
    );

    fs::write(dirs.src.join("d7/f7"), "changed").unwrap();
    let changed = sync(client.session(), &dirs.dest).await.unwrap();
    assert_eq!((changed.requested, changed.unchanged), (1, 1039));
    assert_eq!(dirs.sent.take(), [Path::new("d7/f7")]);
    assert_eq!(look(&dirs.src), look(&dirs.dest));
}

/// Everything a tree can hold that a sync keeps.
fn furnish(src: &Path) {
    fs::create_dir_all(src.join("a/b/c")).unwrap();
    fs::write(src.join("a/one"), "one").unwrap();
    fs::hard_link(src.join("a/one"), src.join("a/b/same")).unwrap();
    fs::hard_link(src.join("a/one"), src.join("z")).unwrap();
    fs::write(src.join("empty"), "").unwrap();
    fs::write(src.join("suid"), "#!").unwrap();
    fs::set_permissions(src.join("suid"), fs::Permissions::from_mode(0o4751)).unwrap();
    fs::create_dir(src.join("tmp")).unwrap();
    fs::set_permissions(src.join("tmp"), fs::Permissions::from_mode(0o1777)).unwrap();
    symlink("/etc/passwd", src.join("abs")).unwrap();
    symlink("../..", src.join("a/up")).unwrap();
    symlink("nowhere", src.join("dangling")).unwrap();
    mknodat(
        CWD,
        src.join("fifo"),
        FileType::Fifo,
        Mode::from_raw_mode(0o640),
        0,
    )
    .unwrap();
    fs::write(src.join("a-"), "sorts after a/b").unwrap();
    let odd = <std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(b"not\xffutf8");
    fs::write(src.join(odd), "bytes").unwrap();
    fs::write(src.join("with space \u{e4}"), "x").unwrap();
    date_back(&src.join("a"));
    date_back(&src.join("a/b/c"));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_entry_is_kept() {
    let dirs = dirs();
    furnish(&dirs.src);
    let (_sessions, client) = connect(client(&dirs)).await;
    sync(client.session(), &dirs.dest).await.unwrap();
    assert_eq!(look(&dirs.src), look(&dirs.dest));
    let again = sync(client.session(), &dirs.dest).await.unwrap();
    assert_eq!((again.requested, again.unchanged), (0, again.entries));
    assert_eq!(again.removed, 0);
    assert_eq!(look(&dirs.src), look(&dirs.dest));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_change_is_followed() {
    type Change = (&'static str, fn(&Path));
    let changes: [Change; 14] = [
        ("file removed", |src| fs::remove_file(src.join("empty")).unwrap()),
        ("tree removed", |src| fs::remove_dir_all(src.join("a")).unwrap()),
        ("file to directory", |src| {
            fs::remove_file(src.join("suid")).unwrap();
            fs::create_dir_all(src.join("suid/x")).unwrap();
        }),
        ("directory to file", |src| {
            fs::remove_dir_all(src.join("a")).unwrap();
            fs::write(src.join("a"), "file").unwrap();
        }),
        ("directory to link", |src| {
            fs::remove_dir_all(src.join("a")).unwrap();
            symlink("/", src.join("a")).unwrap();
        }),
        ("link to directory", |src| {
            fs::remove_file(src.join("abs")).unwrap();
            fs::create_dir(src.join("abs")).unwrap();
            fs::write(src.join("abs/passwd"), "mine").unwrap();
        }),
        ("link changed", |src| {
            fs::remove_file(src.join("abs")).unwrap();
            symlink("/etc/shadow", src.join("abs")).unwrap();
        }),
        ("mode of a file", |src| {
            fs::set_permissions(src.join("suid"), fs::Permissions::from_mode(0o600)).unwrap();
        }),
        ("mode of a directory", |src| {
            fs::set_permissions(src.join("a/b"), fs::Permissions::from_mode(0o500)).unwrap();
        }),
        ("one name of a file split off", |src| {
            let times = fs::metadata(src.join("z")).unwrap().modified().unwrap();
            fs::remove_file(src.join("z")).unwrap();
            fs::write(src.join("z"), "two").unwrap();
            fs::File::open(src.join("z"))
                .unwrap()
                .set_modified(times)
                .unwrap();
        }),
        ("all names of a file changed", |src| {
            fs::write(src.join("z"), "longer").unwrap();
        }),
        ("two files made one", |src| {
            fs::remove_file(src.join("empty")).unwrap();
            fs::hard_link(src.join("suid"), src.join("empty")).unwrap();
        }),
        ("fifo to file", |src| {
            fs::remove_file(src.join("fifo")).unwrap();
            fs::write(src.join("fifo"), "").unwrap();
        }),
        ("same size, another time", |src| {
            fs::write(src.join("a/one"), "two").unwrap();
            date_back(&src.join("a/one"));
        }),
    ];
    for (what, change) in changes {
        let dirs = dirs();
        furnish(&dirs.src);
        let (_sessions, client) = connect(client(&dirs)).await;
        sync(client.session(), &dirs.dest).await.unwrap();
        change(&dirs.src);
        sync(client.session(), &dirs.dest).await.unwrap();
        assert_eq!(look(&dirs.src), look(&dirs.dest), "{what}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_file_is_another_file() {
    let dirs = dirs();
    fs::write(dirs.src.join("f"), "old").unwrap();
    let (_sessions, client) = connect(client(&dirs)).await;
    sync(client.session(), &dirs.dest).await.unwrap();
    let kept = dirs.dest.with_file_name("kept");
    fs::hard_link(dirs.dest.join("f"), &kept).unwrap();
    fs::write(dirs.src.join("f"), "new").unwrap();
    sync(client.session(), &dirs.dest).await.unwrap();
    assert_eq!(
        fs::read_to_string(&kept).unwrap(),
        "old",
        "hard links made elsewhere keep their content"
    );
    assert_eq!(fs::read_to_string(dirs.dest.join("f")).unwrap(), "new");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_broken_transfer_left_is_put_right() {
    let dirs = dirs();
    furnish(&dirs.src);
    fs::create_dir_all(dirs.dest.join("a/b/left/over")).unwrap();
    fs::write(dirs.dest.join("a/b/left/over/file"), "x").unwrap();
    fs::write(dirs.dest.join("0"), "sorts before everything").unwrap();
    fs::write(dirs.dest.join("zz"), "sorts after everything").unwrap();
    fs::write(dirs.dest.join("suid"), "#?").unwrap();
    let (_sessions, client) = connect(client(&dirs)).await;
    sync(client.session(), &dirs.dest).await.unwrap();
    assert_eq!(look(&dirs.src), look(&dirs.dest));
}

#[tokio::test(flavor = "multi_thread")]
async fn patterns_and_names_arrive_as_they_were_given() {
    let asked = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let log = std::sync::Arc::clone(&asked);
    let client = FakeClient::new("one").file_sync(move |mut talk| {
        let log = std::sync::Arc::clone(&log);
        async move {
            for key in ["dir-name", "include-patterns", "exclude-patterns", "followpaths"] {
                log.lock().unwrap().push(talk.headers(key));
            }
            talk.say(Packet::bare(PacketType::Stat)).await?;
            while let Some(packet) = talk.next().await? {
                if packet.kind == i32::from(PacketType::Fin) {
                    talk.say(Packet::bare(PacketType::Fin)).await?;
                }
            }
            Ok(())
        }
    });
    let (_sessions, client) = connect(client).await;
    let dest = tempfile::tempdir().unwrap();
    let request = SyncRequest {
        include_patterns: vec!["*.rs".into(), "sr\u{e4} 100%".into()],
        exclude_patterns: vec![" leading".into(), "tab\there".into()],
        follow_paths: vec!["plain".into()],
        ..SyncRequest::new("n\u{e4}me")
    };
    sync_as(client.session(), &request, dest.path()).await.unwrap();
    let asked = asked.lock().unwrap().clone();
    assert_eq!(asked[0], ["n\u{e4}me"]);
    assert_eq!(asked[1], ["*.rs", "sr\u{e4} 100%"]);
    assert_eq!(asked[2], [" leading", "tab\there"]);
    assert_eq!(asked[3], ["plain"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn differ_none_asks_for_everything_again() {
    let dirs = dirs();
    furnish(&dirs.src);
    let (_sessions, client) = connect(client(&dirs)).await;
    let first = sync(client.session(), &dirs.dest).await.unwrap();
    let request = SyncRequest {
        differ: Differ::None,
        ..SyncRequest::new("context")
    };
    let again = sync_as(client.session(), &request, &dirs.dest).await.unwrap();
    assert_eq!(again.requested, first.requested);
    assert_eq!(look(&dirs.src), look(&dirs.dest));
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_list_and_what_is_wanted_of_it() {
    let dirs = dirs();
    furnish(&dirs.src);
    let (_sessions, client) = connect(client(&dirs)).await;
    let request = SyncRequest {
        metadata_only: Some(MetadataOnly::except(|path| {
            path == Path::new("a/b/same") || path == Path::new("suid")
        })),
        ..SyncRequest::new("context")
    };
    // The wanted file is listed as a further name of one that is not wanted.
    fs::remove_file(dirs.src.join("a/b/same")).unwrap();
    fs::write(dirs.src.join("a/b/same"), "own").unwrap();
    for _ in 0..2 {
        let report = sync_as(client.session(), &request, &dirs.dest).await.unwrap();
        assert_eq!(report.entries, 16);
        assert_eq!(names(&dirs.dest), [METADATA_FILE, "a", "a/b", "a/b/same", "suid"]);
    }
    let list = fs::read(dirs.dest.join(METADATA_FILE)).unwrap();
    let mut rest = list.as_slice();
    let mut paths = Vec::new();
    while let Some((length, after)) = rest.split_first_chunk::<4>() {
        let (stat, after) = after.split_at(usize::try_from(u32::from_le_bytes(*length)).unwrap());
        let stat = <Stat as prost::Message>::decode(stat).unwrap();
        paths.push(String::from_utf8_lossy(&stat.path).into_owned());
        rest = after;
    }
    assert_eq!(paths.len(), 16);
    assert!(paths.contains(&"a/up".to_owned()) && paths.contains(&"fifo".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn progress_counts_what_came() {
    let dirs = dirs();
    fs::write(dirs.src.join("f"), vec![1; 1 << 20]).unwrap();
    let (_sessions, client) = connect(client(&dirs)).await;
    let seen = AtomicU64::new(0);
    let report = client
        .session()
        .sync(
            &SyncRequest::new("context"),
            RootFd::open(&dirs.dest).unwrap(),
            |bytes| {
                assert!(seen.swap(bytes, Ordering::Relaxed) <= bytes, "it only grows");
            },
            &CancellationToken::new(),
        )
        .await
        .unwrap();
    assert_eq!(report.bytes, 1 << 20);
    assert!(seen.load(Ordering::Relaxed) > 1 << 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_may_grow_or_shrink_or_vanish_while_it_is_sent() {
    let client = FakeClient::new("one").file_sync(|mut talk| async move {
        for name in ["grows", "shrinks", "vanishes"] {
            let stat = Stat {
                path: name.into(),
                mode: 0o644,
                size: 10,
                ..Stat::default()
            };
            talk.say(Packet::entry(stat)).await?;
        }
        talk.say(Packet::bare(PacketType::Stat)).await?;
        while let Some(packet) = talk.next().await? {
            if packet.kind == i32::from(PacketType::Fin) {
                return talk.say(Packet::bare(PacketType::Fin)).await;
            }
            let content: &'static [u8] = [&[b'x'; 20][..], b"short", b""][packet.id as usize];
            if !content.is_empty() {
                talk.say(Packet::data(packet.id, content.into())).await?;
            }
            talk.say(Packet::data(packet.id, Vec::new().into())).await?;
        }
        Ok(())
    });
    let (_sessions, client) = connect(client).await;
    let dest = tempfile::tempdir().unwrap();
    sync(client.session(), dest.path()).await.unwrap();
    let length = |name| fs::metadata(dest.path().join(name)).unwrap().len();
    assert_eq!(
        (length("grows"), length("shrinks"), length("vanishes")),
        (20, 5, 0)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn attributes_and_owners_are_those_of_the_request() {
    let dirs = dirs();
    fs::write(dirs.src.join("f"), "x").unwrap();
    let named = |name| rustix::fs::setxattr(dirs.src.join("f"), name, b"v", XattrFlags::empty()).is_ok();
    let can_note = named("user.note");
    named("user.overlay.opaque");
    let (_sessions, client) = connect(client(&dirs)).await;
    sync(client.session(), &dirs.dest).await.unwrap();
    let mut value = [0_u8; 8];
    if can_note {
        let length = rustix::fs::getxattr(dirs.dest.join("f"), "user.note", &mut value[..]).unwrap();
        assert_eq!(&value[..length], b"v");
    }
    assert!(rustix::fs::getxattr(dirs.dest.join("f"), "user.overlay.opaque", &mut value[..]).is_err());
    if rustix::process::geteuid().is_root() {
        let request = SyncRequest {
            owner: Some((12, 34)),
            ..SyncRequest::new("context")
        };
        let report = sync_as(client.session(), &request, &dirs.dest).await.unwrap();
        assert_eq!(report.requested, 1, "an owner is part of what is compared");
        let meta = fs::metadata(dirs.dest.join("f")).unwrap();
        assert_eq!((meta.uid(), meta.gid()), (12, 34));
    }
}
