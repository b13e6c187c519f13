//! Rows 1 to 7 on whole builds, on each rung: an image whose layers attack, and an archive for ADD that does. Each case says
//! what must come of it: where the entry lands below the root, or for which reason the layer is refused.

use rbuild_testkit::facts::Kind;
use rbuild_testkit::image::Files;
use rbuild_testkit::layout::{Attributes, EPOCH, LayerBuilder};
use serde_json::json;

use crate::e2e::hostile::canary::{Canary, Rung, Site};

const FILE: Attributes = Attributes {
    mode: 0o666,
    uid: 0,
    gid: 0,
    mtime: EPOCH,
};

/// A build from it that runs a step where there are some.
const fn from_evil(rung: Rung) -> &'static str {
    match rung {
        Rung::Files => "FROM evil\nCOPY Dockerfile /ran\n",
        _ => "FROM evil\nRUN echo ran > /ran\n",
    }
}

/// On each rung, an image with these layers over busybox: the tree that a build from it gives.
#[track_caller]
fn lands(layers: impl Fn(&Canary) -> Vec<LayerBuilder>, check: impl Fn(&Canary, &Files)) {
    for rung in Rung::unpacking() {
        let site = Site::on(rung, from_evil(rung));
        let evil = site.evil(json!({"Env": ["PATH=/bin"]}), layers(&site.canary));
        let files = site.works(&[evil]);
        let ran = files
            .text("ran")
            .is_some_and(|text| text == "ran\n" || rung == Rung::Files);
        assert!(ran, "{rung:?}: it was built upon");
        check(&site.canary, &files);
    }
}

/// On each rung, an image with these layers over busybox: it is refused, and nothing of the layer is in the store.
#[track_caller]
fn refused(layers: impl Fn(&Canary) -> Vec<LayerBuilder>, because: &str) {
    for rung in Rung::unpacking() {
        let site = Site::on(rung, from_evil(rung));
        let evil = site.evil(json!({"Env": ["PATH=/bin"]}), layers(&site.canary));
        site.refused(&[evil], because);
    }
}

/// On each rung, an archive that ADD unpacks into `/d` behind what `before` made: the tree.
#[track_caller]
fn added(before: &str, archive: impl Fn(&Canary) -> LayerBuilder, check: impl Fn(&Canary, &Files)) {
    for rung in Rung::unpacking() {
        if rung == Rung::Files && before.contains("RUN") {
            continue;
        }
        let site = Site::on(rung, "");
        let before = before.replace("CANARY", &site.canary.absolute());
        site.fixture
            .context
            .file("evil.tar", archive(&site.canary).finish())
            .dockerfile(&format!("FROM busybox\n{before}ADD evil.tar /d/\n"));
        check(&site.canary, &site.works(&[]));
    }
}

#[test]
fn row01_entries_that_climb_land_below_the_root() {
    let cases: [fn(&Canary) -> String; 4] = [
        |canary| format!("{}/pwned", canary.climbing()),
        |canary| format!("tmp/{}/pwned", canary.climbing()),
        |canary| format!("{}/pwned", canary.absolute()),
        |canary| format!(".//..//{}/pwned", canary.inside()),
    ];
    for name in cases {
        lands(
            |canary| vec![LayerBuilder::new().file(&name(canary), FILE, b"attack")],
            |canary, files| {
                let below = format!("{}/pwned", canary.inside());
                assert_eq!(files.text(&below), Some("attack"), "{}", name(canary));
            },
        );
    }
}

#[test]
fn row01_an_entry_with_the_name_of_a_file_of_the_host_is_a_file_of_the_image() {
    lands(
        |canary| vec![LayerBuilder::new().file(&format!("{}/victim", canary.absolute()), FILE, b"attack")],
        |canary, files| {
            assert_eq!(files.text(&format!("{}/victim", canary.inside())), Some("attack"));
        },
    );
}

#[test]
fn row01_what_add_unpacks_stays_in_its_destination() {
    added(
        "",
        |canary| {
            LayerBuilder::new()
                .file("../e1", FILE, b"1")
                .file("a/../../e2", FILE, b"2")
                .file("/e3", FILE, b"3")
                .file(&format!("{}/e4", canary.climbing()), FILE, b"4")
        },
        |canary, files| {
            for (name, text) in [("e1", "1"), ("e2", "2"), ("e3", "3")] {
                assert_eq!(files.text(&format!("d/{name}")), Some(text));
                assert!(files.get(name).is_none(), "{name} is beside the destination");
            }
            assert_eq!(files.text(&format!("d/{}/e4", canary.inside())), Some("4"));
        },
    );
}

#[test]
fn row01_legal_twin_names_with_dots_are_names() {
    lands(
        |_| {
            vec![
                LayerBuilder::new()
                    .file("./tmp/..hidden", FILE, b"x")
                    .file("tmp/a..b", FILE, b"y")
                    .file("./tmp/./c", FILE, b"z"),
            ]
        },
        |_, files| {
            let texts = ["tmp/..hidden", "tmp/a..b", "tmp/c"].map(|name| files.text(name));
            assert_eq!(texts, [Some("x"), Some("y"), Some("z")]);
        },
    );
}

#[test]
fn row02_a_link_of_the_archive_leads_below_the_root() {
    let links: [fn(&Canary) -> String; 2] = [Canary::absolute, Canary::climbing];
    for link in links {
        lands(
            |canary| {
                vec![
                    LayerBuilder::new()
                        .symlink("door", &link(canary))
                        .file("door/victim", FILE, b"attack")
                        .dir("door/newdir", Attributes::mode(0o755)),
                ]
            },
            |canary, files| {
                assert_eq!(files.get("door").unwrap().kind, Kind::Symlink(link(canary)));
                let below = canary.inside();
                assert_eq!(files.text(&format!("{below}/victim")), Some("attack"));
                assert_eq!(files.get(&format!("{below}/newdir")).unwrap().kind, Kind::Dir);
            },
        );
    }
}

#[test]
fn row02_a_file_takes_the_place_of_a_link() {
    lands(
        |canary| {
            let to = format!("{}/victim", canary.absolute());
            vec![
                LayerBuilder::new()
                    .symlink("same", &to)
                    .file("same", FILE, b"attack")
                    .symlink("below", &to),
                LayerBuilder::new().file("below", FILE, b"attack"),
            ]
        },
        |canary, files| {
            assert_eq!(files.text("same"), Some("attack"));
            assert_eq!(files.text("below"), Some("attack"));
            assert!(
                files.get(&canary.inside()).is_none(),
                "nothing was made where the link led"
            );
        },
    );
}

#[test]
fn row02_a_link_of_one_layer_does_not_lead_the_next_outside() {
    lands(
        |canary| {
            vec![
                LayerBuilder::new()
                    .symlink("door", &canary.absolute())
                    .symlink("up", &canary.climbing()),
                LayerBuilder::new()
                    .file("door/pwned", FILE, b"one")
                    .file("up/pwned", FILE, b"two"),
            ]
        },
        |canary, files| {
            // Where containerd unpacks into the layers below, the links are followed inside; a layer by itself has
            // directories of these names. Both stay in the image.
            let written: Vec<&str> = files.paths().filter(|path| path.ends_with("/pwned")).collect();
            let inside = format!("{}/pwned", canary.inside());
            assert!(
                written == ["door/pwned", "up/pwned"] || written == [inside.as_str()],
                "{written:?}"
            );
        },
    );
}

#[test]
fn row02_a_loop_of_links_is_refused_by_its_entry() {
    refused(
        |_| {
            vec![
                LayerBuilder::new()
                    .symlink("a", "b")
                    .symlink("b", "a")
                    .file("a/x", FILE, b""),
            ]
        },
        "entry \"a/x\"",
    );
}

#[test]
fn row02_a_link_of_a_step_does_not_lead_add_outside() {
    added(
        "RUN mkdir -p CANARY && ln -s CANARY /d && ln -s CANARY/dir /in\n",
        |_| LayerBuilder::new().file("pwned", FILE, b"attack"),
        |canary, files| {
            assert_eq!(files.text(&format!("{}/pwned", canary.inside())), Some("attack"));
            assert_eq!(files.get("d").unwrap().kind, Kind::Symlink(canary.absolute()));
        },
    );
}

#[test]
fn row02_legal_twin_a_link_inside_the_root_may_lie_on_the_way() {
    lands(
        |_| {
            vec![
                LayerBuilder::new()
                    .dir("run2", Attributes::mode(0o755))
                    .symlink("var/run2", "../run2")
                    .file("var/run2/pid", FILE, b"1"),
            ]
        },
        |_, files| assert_eq!(files.text("run2/pid"), Some("1")),
    );
}

#[test]
fn row03_modes_owners_and_times_are_not_applied_through_a_link() {
    let odd = Attributes {
        mode: 0o777,
        uid: 7,
        gid: 8,
        mtime: 1,
    };
    lands(
        |canary| {
            let to = format!("{}/dir", canary.absolute());
            vec![
                LayerBuilder::new()
                    .symlink("d", &to)
                    .dir("d", odd)
                    .dir("e", odd)
                    .file("e/f", FILE, b"")
                    .symlink("e", &to),
            ]
        },
        |canary, files| {
            let made = files.get("d").unwrap();
            assert_eq!(
                (&made.kind, made.mode, made.uid, made.gid, made.mtime),
                (&Kind::Dir, 0o777, 7, 8, 1)
            );
            let link = Kind::Symlink(format!("{}/dir", canary.absolute()));
            assert_eq!(files.get("e").unwrap().kind, link);
            assert!(
                files.get(&canary.inside()).is_none(),
                "nothing was made where the link led"
            );
        },
    );
}

#[test]
fn row04_a_hard_link_to_the_host_is_refused() {
    let targets: [fn(&Canary) -> String; 4] = [
        |canary| format!("{}/secret", canary.absolute()),
        |canary| format!("{}/secret", canary.climbing()),
        |_| "link/secret".to_owned(),
        |_| "secret".to_owned(),
    ];
    for target in targets {
        refused(
            |canary| {
                vec![
                    LayerBuilder::new()
                        .symlink("link", &canary.absolute())
                        .hard_link("tmp/stolen", &target(canary))
                        .file("tmp/stolen", FILE, b"overwritten"),
                ]
            },
            "entry \"tmp/stolen\": hard link target",
        );
    }
}

#[test]
fn row04_a_hard_link_to_a_link_is_that_link() {
    let targets: [fn(&Canary) -> String; 2] = [Canary::absolute, Canary::climbing];
    for target in targets {
        let to = |canary: &Canary| format!("{}/secret", target(canary));
        lands(
            |canary| {
                vec![
                    LayerBuilder::new()
                        .symlink("tmp/point", &to(canary))
                        .hard_link("tmp/stolen", "tmp/point"),
                ]
            },
            |canary, files| {
                let stolen = &files.get("tmp/stolen").unwrap().kind;
                assert_eq!(*stolen, Kind::Symlink(to(canary)));
            },
        );
    }
}

#[test]
fn row04_legal_twin_a_hard_link_inside_the_root_is_one() {
    lands(
        |_| {
            vec![
                LayerBuilder::new()
                    .file("tmp/own", FILE, b"own")
                    .hard_link("tmp/again", "/tmp/own"),
            ]
        },
        |_, files| {
            let linked = files.hard_links();
            let names = ["tmp/again", "tmp/own"].map(str::to_owned);
            assert!(
                linked.iter().any(|group| group.iter().eq(names.iter())),
                "{linked:?}"
            );
        },
    );
}

/// A whiteout in a directory that leads to the canary in three ways: of the image's own files there those are gone.
fn whiteout_deletes(whiteout: &str, gone: &[&str]) {
    let ways: [fn(&Canary) -> String; 3] = [
        |_| "link".to_owned(),
        |canary| canary.climbing(),
        |canary| canary.absolute(),
    ];
    for way in ways {
        lands(
            |canary| {
                let own = |name: &str| format!("{}/{name}", canary.inside());
                let whiteout = format!("{}/{whiteout}", way(canary));
                vec![
                    LayerBuilder::new()
                        .file(&own("victim"), FILE, b"own")
                        .file(&own("secret"), FILE, b"own"),
                    LayerBuilder::new().symlink("link", &canary.absolute()).file(
                        &whiteout,
                        Attributes::mode(0),
                        b"",
                    ),
                ]
            },
            |canary, files| {
                for name in ["victim", "secret"] {
                    let own = files.text(&format!("{}/{name}", canary.inside()));
                    let expected = if gone.contains(&name) { None } else { Some("own") };
                    assert_eq!(own, expected, "{name} after {whiteout} in {}", way(canary));
                }
            },
        );
    }
}

#[test]
fn row05_whiteouts_delete_the_image_s_own_files_only() {
    whiteout_deletes(".wh.victim", &["victim"]);
}

#[test]
fn row05_opaque_directories_hide_the_image_s_own_files_only() {
    whiteout_deletes(".wh..wh..opq", &["victim", "secret"]);
}

#[test]
fn row05_whiteouts_of_nothing_and_of_directories_themselves_are_refused() {
    for name in ["tmp/.wh.", "tmp/.wh..", "tmp/.wh...", ".wh..", ".wh..."] {
        refused(
            |_| vec![LayerBuilder::new().file(name, Attributes::mode(0), b"")],
            &format!("entry {name:?} is not a valid whiteout"),
        );
    }
    refused(
        |_| vec![LayerBuilder::new().file("tmp/.wh.a/b", Attributes::mode(0), b"")],
        "entry \"tmp/.wh.a/b\" lies below a whiteout",
    );
}

#[test]
fn row06_the_root_itself_is_not_replaced() {
    for name in [".", "/", "./", "tmp/.."] {
        refused(
            |canary| {
                vec![
                    LayerBuilder::new().symlink(name, &canary.absolute()),
                    LayerBuilder::new().file("pwned", FILE, b"attack"),
                ]
            },
            &format!("entry {name:?} would replace the root directory"),
        );
    }
}

#[test]
fn row06_legal_twin_a_directory_may_name_the_root() {
    lands(
        |_| {
            vec![
                LayerBuilder::new()
                    .dir("./", Attributes::mode(0o755))
                    .file("legal", FILE, b"1"),
            ]
        },
        |_, files| assert_eq!(files.text("legal"), Some("1")),
    );
}

#[test]
fn row07_overlay_attributes_of_an_archive_are_not_believed() {
    lands(
        |canary| {
            let target = canary.absolute();
            let forged: [(&str, &[u8]); 8] = [
                ("trusted.overlay.redirect", target.as_bytes()),
                ("trusted.overlay.opaque", b"y"),
                ("trusted.overlay.metacopy", b""),
                ("user.overlay.redirect", target.as_bytes()),
                ("user.overlay.opaque", b"y"),
                ("user.overlay.whiteout", b""),
                ("user.overlay.metacopy", b""),
                ("user.legal", b"kept"),
            ];
            vec![
                LayerBuilder::new()
                    .dir("shown", Attributes::mode(0o755))
                    .file("shown/below", FILE, b"below")
                    .file("shown/whole", FILE, b"whole"),
                LayerBuilder::new()
                    .raw(
                        "shown/",
                        tar::EntryType::Directory,
                        Attributes::mode(0o755),
                        "",
                        b"",
                        (0, 0),
                        &forged,
                    )
                    .file_with_xattrs("shown/marked", FILE, b"x", &forged),
            ]
        },
        |_, files| {
            let texts = ["below", "whole", "marked"].map(|name| files.text(&format!("shown/{name}")));
            assert_eq!(
                texts,
                [Some("below"), Some("whole"), Some("x")],
                "each file is shown as it is"
            );
            for name in ["shown", "shown/marked"] {
                let attributes: Vec<&String> = files.get(name).unwrap().xattrs.keys().collect();
                assert_eq!(attributes, ["user.legal"], "of {name}");
            }
        },
    );
}

#[test]
fn row07_a_device_that_means_a_whiteout_is_refused() {
    refused(
        |_| vec![LayerBuilder::new().char_device("etc/passwd", 0, (0, 0))],
        "entry \"etc/passwd\" is a character device 0:0",
    );
}
