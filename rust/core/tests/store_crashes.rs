//! A committed send survives every power cut, and every failure of the disk.
#![allow(dead_code, reason = "the modules are shared with other tests")]

#[path = "common/simulated.rs"]
mod simulated;
#[path = "common/world.rs"]
mod world;

use simulated::{Dice, Fault, Simulated, State};
use world::{Model, World, check_image};

/// Run a random history on a disk. Check images of every state that it went through, and return one of them.
fn run(disk: &Simulated, model: Model, dice: &mut Dice, images: &mut u64) -> (State, Model) {
    disk.record();
    let max_segment_bytes = [1, 400, 1500, 1 << 20][usize::try_from(dice.below(4)).expect("small")];
    let mut world = World::new(disk.clone(), model, max_segment_bytes);
    world.open();
    world.adopt();
    for _ in 0..dice.below(14) {
        world.step(dice);
    }
    let steps = std::mem::take(&mut world.steps);
    let states = disk.recorded();
    drop(world);
    let next = dice.below(states.len() as u64);
    let mut chosen = None;
    for (index, (state, step)) in states.iter().enumerate() {
        let model = &steps[*step];
        let image = state.after_power_cut(dice);
        check_image(&image, model);
        *images += 1;
        if index as u64 == next {
            chosen = Some((image, model.clone()));
        }
    }
    chosen.expect("one of them")
}

/// Histories of commits, settles, reads and openings, each cut off at any operation, and continued from there.
#[test]
fn committed_sends_survive_power_cuts() {
    histories(12_000, |_| {});
}

/// Run histories on disks that were prepared by a function, until this many images were checked.
fn histories(count: u64, prepare: impl Fn(&Simulated)) {
    let mut images = 0;
    let mut seed = 0;
    while images < count {
        seed += 1;
        let mut dice = Dice::new(seed);
        let (mut state, mut model) = (State::default(), Model::default());
        for _ in 0..4 {
            let disk = Simulated::new(state);
            prepare(&disk);
            (state, model) = run(&disk, model, &mut dice, &mut images);
        }
    }
}

/// The histories notice a log that does not sync its files.
#[test]
#[should_panic(expected = "assertion")]
fn files_must_be_synced() {
    histories(12_000, |disk| disk.lie(true, false));
}

/// The histories notice a log that does not sync its directory.
#[test]
#[should_panic(expected = "is lost")]
fn directories_must_be_synced() {
    histories(12_000, |disk| disk.lie(false, true));
}

/// The operation with each number fails in each way, and the power is cut at any time.
#[test]
fn committed_sends_survive_failures() {
    let mut images = 0;
    for seed in 1..=2 {
        for fault in [Fault::Full, Fault::Broken, Fault::Short] {
            let mut failing = 0;
            loop {
                let mut dice = Dice::new(seed);
                let disk = Simulated::default();
                disk.fail(failing, fault);
                disk.record();
                let mut world = World::new(disk.clone(), Model::default(), 600);
                world.open();
                world.adopt();
                for _ in 0..12 {
                    world.step(&mut dice);
                }
                let steps = std::mem::take(&mut world.steps);
                drop(world);
                let states = disk.recorded();
                // What the failure left behind matters most right after it.
                for (state, step) in &states {
                    if dice.one_in(10) {
                        check_image(&state.after_power_cut(&mut dice), &steps[*step]);
                        images += 1;
                    }
                }
                if failing > disk.operations() {
                    break;
                }
                failing += 1;
            }
        }
    }
    assert!(images > 500, "{images}");
}
