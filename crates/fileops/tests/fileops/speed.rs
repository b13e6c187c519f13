//! Linear time, and the numbers of the design page printed for a release build.

use std::time::Instant;

use rbuild_fileops::{ContentHash, Selector, StatTable};

use crate::support::{World, cp};

/// Processor time of this process so far: what a busy machine does not blur.
fn cpu() -> std::time::Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    std::time::Duration::new(
        u64::try_from(now.tv_sec).unwrap(),
        u32::try_from(now.tv_nsec).unwrap(),
    )
}

fn fill(w: &World, files: usize, bytes: usize) {
    let mut seed = 1_u64;
    for i in 0..files {
        let dir = w.path(&format!("src/t/{}/{}", i % 30, i % 300));
        std::fs::create_dir_all(&dir).unwrap();
        let content: Vec<u8> = (0..bytes)
            .map(|_| {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (seed >> 56) as u8
            })
            .collect();
        std::fs::write(dir.join(format!("file{i}")), content).unwrap();
    }
}

#[test]
fn row50_many_patterns_and_files_take_linear_time() {
    let w = World::new();
    fill(&w, 2000, 1);
    let time = |patterns: usize| {
        let ignore: String = (0..patterns).map(|i| format!("**/never{i}\nx{i}/*\n")).collect();
        let start = cpu();
        w.hash_context(&ignore, &cp("t", "/"));
        cpu() - start
    };
    // Twice as long for twice as many; four times would be quadratic. The least of some runs is what it takes.
    let (mut few, mut many) = (time(2000), time(4000));
    for _ in 0..4 {
        if many < few * 3 {
            return;
        }
        (few, many) = (few.min(time(2000)), many.min(time(4000)));
    }
    panic!("{few:?} for 2000, {many:?} for 4000");
}

/// Run with `cargo test --release -- --ignored --nocapture numbers`.
#[test]
#[ignore = "takes half a minute, prints numbers, asserts nothing about time"]
fn numbers_of_thirty_thousand_files() {
    let w = World::new();
    fill(&w, 30_000, 3270);
    let start = Instant::now();
    let copied = std::process::Command::new("cp")
        .arg("-a")
        .arg(w.path("src/t"))
        .arg(w.path("cp"))
        .status()
        .unwrap();
    assert!(copied.success());
    println!("cp -a                {:?}", start.elapsed());
    for round in 0..3 {
        w.clear_dst();
        let (start, before) = (Instant::now(), cpu());
        let report = w
            .copy_context("node_modules\n**/*.o\n!keep\n", &cp(".", "/"))
            .unwrap();
        println!(
            "copy {round}               {:?} ({:?} cpu) {report:?}",
            start.elapsed(),
            cpu() - before
        );
    }
    std::thread::sleep(std::time::Duration::from_millis(2500));
    let table = StatTable::default();
    let tree = w.context("node_modules\n**/*.o\n!keep\n");
    let (start, before) = (Instant::now(), cpu());
    let cold = ContentHash::of(&tree, &Selector::path("/"), &table).unwrap();
    println!(
        "hash, nothing known  {:?} ({:?} cpu) {:?}",
        start.elapsed(),
        cpu() - before,
        cold.stats
    );
    let blob = table.save().unwrap();
    for _ in 0..3 {
        let (start, before) = (Instant::now(), cpu());
        let table = StatTable::load(&blob);
        let warm = ContentHash::of(&tree, &Selector::path("/"), &table).unwrap();
        assert_eq!((&warm.digest, warm.stats.files_read), (&cold.digest, 0));
        assert_eq!(table.save(), None);
        let spent = (start.elapsed(), cpu() - before);
        println!("hash, all known      {spent:?} ({} bytes of table)", blob.len());
    }
}
