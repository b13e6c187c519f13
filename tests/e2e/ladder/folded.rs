//! A stack of more than 128 layers, of which the lower ones are stacked as directories of links (`snapshotter/src/fold.rs`): the same
//! layers and the same tree from every rung, and what the steps do is what they do on a low stack, of which nothing is folded.

use std::collections::BTreeMap;

use super::images::built_with;
use crate::e2e::ordinary_user;

/// Copies after each step. With the image's three layers two groups of 64 are folded: the lower one has the first two steps, the
/// upper one the next two, whose marks hide what is in the lower. The last two steps see both, below what lies above them.
const COPIES: [usize; 6] = [25, 60, 4, 98, 0, 0];

/// What is made, for all that comes afterwards to change.
const MADE: &str = "RUN mkdir -p /o/deep /dir/below /twice /moved && echo 1 >/o/x && echo 2 >/o/deep/y && echo 3 >/dir/f && echo 4 >/file && \
 echo 5 >/twice/gone && echo 6 >/a && ln /a /b && ln /a /dir/c && chown 33:44 /a && chown -R 5:6 /dir /moved && chmod 2750 /dir && \
 ln -s /o /link && chown -h 7:8 /link && echo 7 >/moved/f && mkfifo /pipe && echo 8 >/again";

/// Within the group: a file and an opaque directory, a directory that becomes a file and a file that becomes one.
const WITHIN: &str = "RUN rm /again /twice/gone && rm -r /o && mkdir /o && echo new >/o/z && rm -r /dir && echo file >/dir && rm /file && \
 mkdir /file && echo in >/file/f && mv /moved /elsewhere && rm /odd/null && chmod 4711 /odd/capable-too";

/// In the second group: what is hidden there by a mark.
const HIDDEN: &str = "RUN rm -r /dir /o /file && rm /b /link && ln /a /d && mkdir /dir && chown 9:10 /dir && echo back >/dir/f && mv /elsewhere /moved && \
 chown 11 /odd/large-numbers && rm /odd/disk";

/// In the same group: what takes the place of something hidden, and hides it too.
const REPLACED: &str = "RUN echo back >/file && mkdir -p /o/deep && echo later >/o/deep/w && echo once more >/again && mkdir /link && echo in >/link/f";

/// Above the groups.
const ABOVE: &str = "RUN rm -rf /o/deep /copied/7 && rm /dir/f && mv /dir /dir-2 && echo more >>/a && chown 12:13 /d && ln /odd/capable-too /odd/third && \
 rm -r /moved && mkdir /moved && rm -r /link && ln -s /again /link && rm -r /hidden && mv /odd/pipe /pipe-2";

/// What is seen of all of it, at the end; of devices a step with subordinate ids sees a file.
const SEEN: &str = "RUN set -- / -xdev \\( -path /dev -o -path /etc -o -path /proc -o -path /sys -o -path /tmp -o -path /odd/large-numbers \\) -prune -o && \
 find \"$@\" -exec stat -c '%n %F %a %u:%g' {} + >/tmp/all && find \"$@\" -type f -exec md5sum {} + >>/tmp/all && sort /tmp/all >/seen";

fn steps(copies: [usize; 6]) -> String {
    let mut text = "FROM evil\n".to_owned();
    let mut numbers = 0..;
    for (step, copies) in [MADE, WITHIN, HIDDEN, REPLACED, ABOVE, SEEN].iter().zip(copies) {
        text += step;
        text.push('\n');
        for number in numbers.by_ref().take(copies) {
            text += &match number % 8 {
                3 => format!("COPY --chown={number} Dockerfile /o/kept-{number}\n"),
                5 => format!("COPY --chmod=6{}11 Dockerfile /copied/same\n", number % 7),
                _ => format!("COPY Dockerfile /copied/{number}\n"),
            };
        }
    }
    text
}

/// Those of the paths that come of the copies, with what the step that looks says of them, or the others.
fn part(table: &BTreeMap<String, String>, of_copies: bool) -> BTreeMap<String, String> {
    let is_copied = |path: &str| {
        path == "seen" || path == "tmp/all" || path.starts_with("copied") || path.starts_with("o/kept")
    };
    let mut table = table.clone();
    table.retain(|path, _| is_copied(path) == of_copies);
    table
}

/// Nothing of the two differs.
#[track_caller]
fn assert_same(about: &str, one: &BTreeMap<String, String>, other: &BTreeMap<String, String>) {
    let names = one
        .keys()
        .chain(other.keys().filter(|name| !one.contains_key(*name)));
    let differing: Vec<_> = names
        .filter(|name| one.get(*name) != other.get(*name))
        .map(|name| (name, one.get(name), other.get(name)))
        .collect();
    assert!(differing.is_empty(), "{about}: {differing:#?}");
}

#[test]
fn rootless_a_folded_stack_is_the_same_from_every_rung_and_what_a_low_one_is() {
    if ordinary_user().is_none() {
        return;
    }
    let (low, low_tree) = built_with(("root", "overlayfs"), &steps([0; 6]));
    let low = [low.files().unwrap().table(), low_tree.table()];
    for name in [
        "o/z", "o/x", "b", "moved/f", "dir", "link/f", "odd/null", "odd/disk", "hidden",
    ] {
        assert!(!low[0].contains_key(name), "{name} is gone");
    }
    for (name, is) in [
        ("d", "f 0644 12:13"),
        ("dir-2", "d 0755 9:10"),
        ("file", "f 0644 0:0 \"back\\n\""),
        ("odd/large-numbers", "c 0600 11:0"),
        ("odd/third", "f 4711 5:6"),
    ] {
        assert!(low[0][name].starts_with(is), "{name}: {}", low[0][name]);
    }
    let capable = &low[0]["odd/third"];
    assert!(capable.contains("security.capability"), "{capable}");

    let steps = steps(COPIES);
    let mut first = None;
    let builds = std::thread::scope(|scope| {
        let build = |rung| (rung, built_with((rung, "overlayfs"), &steps));
        let builds = ["root", "subids", "one-id"].map(|rung| scope.spawn(move || build(rung)));
        builds.map(|build| build.join().unwrap())
    });
    for (rung, (image, tree)) in builds {
        let stacked = image.config["rootfs"]["diff_ids"].as_array().unwrap().len();
        assert!(stacked > 3 * 64 + 2, "{stacked} layers");
        let tables = [image.files().unwrap().table(), tree.table()];
        for (table, low) in tables.iter().zip(&low) {
            let about = format!("{rung}: this stack and a low one");
            assert_same(&about, &part(table, false), &part(low, false));
        }
        let about = format!("{rung}: copies in the tree and in its layers");
        assert_same(&about, &part(&tables[1], true), &part(&tables[0], true));
        let (first_tables, config) = first.get_or_insert((tables.clone(), image.config.clone()));
        for (first, table) in first_tables.iter().zip(&tables) {
            assert_same(&format!("root and {rung}"), first, table);
        }
        assert_eq!(*config, image.config, "config and layers of {rung}");
    }
}
