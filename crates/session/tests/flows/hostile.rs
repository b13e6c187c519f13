//! Clients that mean harm: each gets an error, in time, and nothing appears outside the directory.

use std::fs;
use std::path::Path;

use rbuild_session::fake::{Dialogue, FakeClient};
use rbuild_session::wire::{Packet, PacketType, Stat};
use rbuild_session::{PathFault, SyncError, SyncLimits, SyncRequest};
use tonic::Status;

use crate::setting::{connect, names, sync_as};

const DIR: u32 = 1 << 31 | 0o755;
const LINK: u32 = 1 << 27 | 0o777;
const DEVICE: u32 = 1 << 26 | 0o600;
const CHAR: u32 = 1 << 26 | 1 << 21 | 0o600;
const FILE: u32 = 0o644;

fn entry(path: &str, mode: u32) -> Packet {
    linked(path, mode, "")
}

fn linked(path: &str, mode: u32, linkname: &str) -> Packet {
    Packet::entry(Stat {
        path: path.into(),
        mode,
        linkname: linkname.into(),
        size: 4,
        ..Stat::default()
    })
}

fn data(id: u32, text: &'static str) -> Packet {
    Packet::data(id, text.as_bytes().into())
}

fn bare(kind: PacketType) -> Packet {
    Packet::bare(kind)
}

/// Says these packets, whatever the server answers, and then waits for its end.
async fn recite(mut talk: Dialogue<Packet, Packet>, packets: Vec<Packet>) -> Result<(), Status> {
    for packet in packets {
        talk.say(packet).await?;
    }
    while talk.next().await?.is_some() {}
    Ok(())
}

struct Scene {
    all: tempfile::TempDir,
}

impl Scene {
    /// A directory to sync to, beside things that nobody may touch.
    fn new() -> Self {
        let all = tempfile::tempdir().unwrap();
        fs::create_dir(all.path().join("dest")).unwrap();
        fs::create_dir(all.path().join("canary")).unwrap();
        fs::write(all.path().join("canary/file"), "untouched").unwrap();
        Self { all }
    }

    async fn run(&self, packets: Vec<Packet>, limits: SyncLimits) -> SyncError {
        let client = FakeClient::new("one").file_sync(move |talk| recite(talk, packets.clone()));
        let (_sessions, client) = connect(client).await;
        let request = SyncRequest {
            limits,
            ..SyncRequest::new("context")
        };
        let dest = self.all.path().join("dest");
        let outcome = sync_as(client.session(), &request, &dest).await;
        let mut outside = names(self.all.path());
        outside.retain(|name| !name.starts_with("dest/"));
        assert_eq!(outside, ["canary", "canary/file", "dest"]);
        let canary = fs::read_to_string(self.all.path().join("canary/file")).unwrap();
        assert_eq!(canary, "untouched");
        outcome.expect_err("a hostile transfer fails")
    }
}

async fn refused(packets: Vec<Packet>) -> SyncError {
    Scene::new().run(packets, SyncLimits::default()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn row48_a_client_cannot_name_a_path_outside() {
    for (path, fault) in [
        ("../canary/file", PathFault::Escapes),
        ("a/../../canary/new", PathFault::Escapes),
        ("/tmp/absolute", PathFault::Absolute),
        ("a//b", PathFault::Unclean),
        ("", PathFault::Unclean),
        ("a\0", PathFault::Nul),
    ] {
        match refused(vec![entry("a", DIR), entry(path, FILE)]).await {
            SyncError::Path { fault: found, .. } => assert_eq!(found, fault, "{path:?}"),
            other => panic!("{path:?}: {other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn row48_a_link_of_the_client_is_not_followed() {
    let error = refused(vec![
        linked("a", LINK, "../canary"),
        entry("a/file", FILE),
        bare(PacketType::Stat),
    ])
    .await;
    assert!(matches!(error, SyncError::OutOfOrder { .. }), "{error:?}");

    // A link from last time stands where the list now has a directory.
    let scene = Scene::new();
    let canary = scene.all.path().join("canary");
    std::os::unix::fs::symlink(&canary, scene.all.path().join("dest/a")).unwrap();
    let packets = vec![
        entry("a", DIR),
        entry("a/file", FILE),
        data(1, "evil"),
        data(1, ""),
        bare(PacketType::Fin),
    ];
    let error = scene.run(packets, SyncLimits::default()).await;
    assert!(matches!(error, SyncError::Unexpected("FIN")), "{error:?}");
    let file = fs::read_to_string(scene.all.path().join("dest/a/file")).unwrap();
    assert_eq!(file, "evil", "the link was replaced by a directory");
}

#[tokio::test(flavor = "multi_thread")]
async fn row48_a_hard_link_leads_to_a_file_of_the_list_only() {
    for (target, before) in [
        ("../canary/file", None),
        ("/etc/passwd", None),
        ("missing", None),
        ("dir", Some(entry("dir", DIR))),
        ("abs", Some(linked("abs", LINK, "/etc/passwd"))),
        ("self", None),
        ("zlater", None),
        ("abs/file", Some(linked("abs", LINK, "../canary"))),
    ] {
        let mut packets: Vec<Packet> = before.into_iter().collect();
        packets.push(linked("self", FILE, target));
        let error = refused(packets).await;
        assert!(matches!(error, SyncError::Link { .. }), "{target}: {error:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn row48_a_hard_link_does_not_reach_what_was_there_before() {
    let scene = Scene::new();
    fs::write(scene.all.path().join("dest/secret"), "of an earlier build").unwrap();
    let packets = vec![linked("self", FILE, "secret"), bare(PacketType::Stat)];
    let error = scene.run(packets, SyncLimits::default()).await;
    assert!(matches!(error, SyncError::Link { .. }), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn row48_lists_out_of_order_are_refused() {
    for packets in [
        vec![entry("b", FILE), entry("a", FILE)],
        vec![entry("a", FILE), entry("a", FILE)],
        vec![entry("a", FILE), entry("a/b", FILE)],
        vec![entry("x/y", FILE)],
        vec![entry("a", DIR), entry("b", DIR), entry("a/late", FILE)],
    ] {
        let error = refused(packets).await;
        assert!(matches!(error, SyncError::OutOfOrder { .. }), "{error:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn row48_content_nobody_asked_for_is_refused() {
    let not_listed = refused(vec![data(7, "x")]).await;
    assert!(matches!(not_listed, SyncError::UnknownId(7)), "{not_listed:?}");
    let of_a_directory = refused(vec![entry("a", DIR), data(0, "x")]).await;
    assert!(
        matches!(of_a_directory, SyncError::UnknownId(0)),
        "{of_a_directory:?}"
    );
    let twice = refused(vec![entry("a", FILE), data(0, "x"), data(0, ""), data(0, "x")]).await;
    assert!(matches!(twice, SyncError::UnknownId(0)), "{twice:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn row48_budgets_hold() {
    let small = SyncLimits {
        entries_max: 3,
        bytes_max: 100,
        surplus_bytes_max: 2,
        list_bytes_max: 1 << 20,
    };
    let what = |error: SyncError| match error {
        SyncError::TooMuch { what, .. } => what,
        other => panic!("{other:?}"),
    };
    let endless = (0..10).map(|n| entry(&format!("f{n}"), DIR)).collect();
    assert_eq!(what(Scene::new().run(endless, small).await), "entries");

    let more_than_announced = vec![entry("f", FILE), data(0, "1234"), data(0, "567")];
    assert_eq!(
        what(Scene::new().run(more_than_announced, small).await),
        "bytes beyond the announced sizes"
    );

    let huge = Packet::entry(Stat {
        path: b"f".to_vec(),
        mode: FILE,
        size: i64::MAX,
        ..Stat::default()
    });
    let much = vec![huge, data(0, "0123456789012345678901234567890123456789")];
    let much = much
        .into_iter()
        .chain((0..5).map(|_| data(0, "0123456789012345678901234567890123456789")));
    assert_eq!(what(Scene::new().run(much.collect(), small).await), "bytes");

    let negative = Packet::entry(Stat {
        path: b"f".to_vec(),
        mode: FILE,
        size: -5,
        ..Stat::default()
    });
    let error = Scene::new().run(vec![negative, data(0, "123")], small).await;
    assert_eq!(what(error), "bytes beyond the announced sizes");
}

#[tokio::test(flavor = "multi_thread")]
async fn row48_a_list_without_end_ends() {
    let client = FakeClient::new("one").file_sync(|talk| async move {
        for n in 0_u64.. {
            talk.say(entry(&format!("{n:020}"), DIR)).await?;
        }
        Ok(())
    });
    let (_sessions, client) = connect(client).await;
    let dest = tempfile::tempdir().unwrap();
    let request = SyncRequest {
        limits: SyncLimits {
            entries_max: 2000,
            ..SyncLimits::default()
        },
        ..SyncRequest::new("context")
    };
    let error = sync_as(client.session(), &request, dest.path())
        .await
        .unwrap_err();
    assert!(
        matches!(error, SyncError::TooMuch { what: "entries", .. }),
        "{error:?}"
    );
    assert_eq!(fs::read_dir(dest.path()).unwrap().count(), 2000);
}

#[tokio::test(flavor = "multi_thread")]
async fn row48_modes_and_devices_that_do_harm_are_refused() {
    let whiteout = refused(vec![entry("w", CHAR)]).await;
    assert!(
        matches!(
            whiteout,
            SyncError::Device {
                major: 0,
                minor: 0,
                ..
            }
        ),
        "{whiteout:?}"
    );
    let negative = Packet::entry(Stat {
        path: b"d".to_vec(),
        mode: DEVICE,
        devmajor: -1,
        ..Stat::default()
    });
    let negative = refused(vec![negative]).await;
    assert!(
        matches!(negative, SyncError::Device { major: -1, .. }),
        "{negative:?}"
    );
    for mode in [1 << 24, 1 << 19, DIR | LINK] {
        let error = refused(vec![entry("m", mode)]).await;
        assert!(matches!(error, SyncError::Mode { .. }), "{mode:x}: {error:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn packets_out_of_place_are_refused() {
    let end = || bare(PacketType::Stat);
    for packets in [
        vec![bare(PacketType::Fin)],
        vec![Packet::request(0)],
        vec![entry("a", FILE), end(), entry("b", FILE)],
        vec![entry("a", FILE), end(), end()],
        vec![Packet {
            kind: 99,
            ..Packet::default()
        }],
    ] {
        let error = refused(packets).await;
        assert!(matches!(error, SyncError::Unexpected(_)), "{error:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_clients_own_errors_are_told() {
    let error = refused(vec![entry("a", FILE), Packet::failure("disk on fire")]).await;
    assert_eq!(error.to_string(), "error from sender: disk on fire");
    let client = FakeClient::new("one")
        .file_sync(|_| async { Err(Status::not_found("no access allowed to dir \"x\"")) });
    let (_sessions, client) = connect(client).await;
    let dest = tempfile::tempdir().unwrap();
    let error = sync_as(client.session(), &SyncRequest::new("x"), dest.path())
        .await
        .unwrap_err();
    assert_eq!(error.to_string(), "no access allowed to dir \"x\"");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_is_told_why() {
    let (tell, mut told) = tokio::sync::mpsc::channel(1);
    let client = FakeClient::new("one").file_sync(move |mut talk| {
        let tell = tell.clone();
        async move {
            talk.say(entry("..", DIR)).await?;
            while let Some(packet) = talk.next().await? {
                if packet.kind == i32::from(PacketType::Err) {
                    tell.send(String::from_utf8_lossy(&packet.data).into_owned())
                        .await
                        .ok();
                }
            }
            Ok(())
        }
    });
    let (_sessions, client) = connect(client).await;
    let dest = tempfile::tempdir().unwrap();
    let error = sync_as(client.session(), &SyncRequest::new("context"), dest.path())
        .await
        .unwrap_err();
    assert_eq!(told.recv().await.as_deref(), Some(error.to_string().as_str()));
}

#[tokio::test(flavor = "multi_thread")]
async fn mixed_content_of_many_files_is_put_apart() {
    let many = 200_u32;
    let client = FakeClient::new("one").file_sync(move |mut talk| async move {
        for n in 0..many {
            talk.say(entry(&format!("f{n:03}"), FILE)).await?;
        }
        talk.say(bare(PacketType::Stat)).await?;
        for text in ["ab", "cd", ""] {
            for n in 0..many {
                talk.say(data(n, text)).await?;
            }
        }
        while let Some(packet) = talk.next().await? {
            if packet.kind == i32::from(PacketType::Fin) {
                return talk.say(bare(PacketType::Fin)).await;
            }
        }
        Ok(())
    });
    let (_sessions, client) = connect(client).await;
    let dest = tempfile::tempdir().unwrap();
    let report = sync_as(client.session(), &SyncRequest::new("context"), dest.path())
        .await
        .unwrap();
    assert_eq!(report.requested, many);
    for n in 0..many {
        let path = dest.path().join(format!("f{n:03}"));
        assert_eq!(fs::read_to_string(Path::new(&path)).unwrap(), "abcd");
    }
}
