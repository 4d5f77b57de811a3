//! A gathering is a queue with an allowance, compared with a plain list.

mod common;

use common::uplink;
use proptest::prelude::*;
use serde_json::Value;
use tb_mqtt_core::gathering::{Allowance, Amount, Gathered, Gathering};
use tb_mqtt_core::uplink::Uplink;

#[derive(Debug, Clone)]
enum Step {
    Push(usize),
    Allow(Allowance),
    Take(Amount),
    TakeAdded,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => (1_usize..5).prop_map(Step::Push),
        2 => (0_usize..6, 0_usize..200).prop_map(|(sends, nbytes)| Step::Allow(Allowance { sends, nbytes })),
        2 => (1_usize..8, 1_usize..120, 1_usize..12)
            .prop_map(|(sends, nbytes, datapoints)| Step::Take(Amount { sends, nbytes, datapoints })),
        1 => Just(Step::TakeAdded),
    ];
    prop::collection::vec(step, 0..60)
}

/// The send with this number, of some datapoints.
fn send(number: usize, datapoints: usize) -> Uplink {
    let point = |index: usize| (0, format!("key {index}"), Value::from(number));
    uplink(None, &(0..datapoints).map(point).collect::<Vec<_>>())
}

fn total(uplinks: &[Uplink]) -> Amount {
    Amount {
        sends: uplinks.len(),
        nbytes: uplinks.iter().map(Uplink::nbytes).sum(),
        datapoints: uplinks.iter().map(Uplink::datapoints).sum(),
    }
}

proptest! {
    #[test]
    fn sends_leave_in_their_order_and_are_counted_once(steps in steps()) {
        let mut queue = Gathering::default();
        let mut queued: Vec<(usize, Uplink)> = Vec::new();
        let mut uncounted: Vec<Uplink> = Vec::new();
        let mut allowance = Allowance::default();
        for (number, step) in steps.into_iter().enumerate() {
            match step {
                Step::Push(datapoints) => {
                    let uplink = send(number, datapoints);
                    let fits = allowance.sends > 0 && uplink.nbytes() <= allowance.nbytes;
                    prop_assert_eq!(queue.push(uplink.clone(), number), fits);
                    if fits {
                        allowance.sends -= 1;
                        allowance.nbytes -= uplink.nbytes();
                        uncounted.push(uplink.clone());
                        queued.push((number, uplink));
                    }
                }
                Step::Allow(new) => {
                    allowance = new;
                    queue.allow(new);
                }
                Step::Take(bounds) => {
                    let Gathered { uplinks, receipts, nbytes } = queue.take(bounds);
                    let left = queued.split_off(uplinks.len());
                    let (expected, gone): (Vec<usize>, Vec<Uplink>) = std::mem::replace(&mut queued, left).into_iter().unzip();
                    prop_assert_eq!(&receipts, &expected);
                    prop_assert_eq!(
                        uplinks.iter().map(|one| one.timeseries.bytes()).collect::<Vec<_>>(),
                        gone.iter().map(|one| one.timeseries.bytes()).collect::<Vec<_>>()
                    );
                    let taken = total(&uplinks);
                    prop_assert_eq!(nbytes, taken.nbytes);
                    let reaches = |amount: Amount| {
                        amount.sends >= bounds.sends || amount.nbytes >= bounds.nbytes || amount.datapoints >= bounds.datapoints
                    };
                    prop_assert!(reaches(taken) || queued.is_empty());
                    prop_assert!(uplinks.len() < 2 || !reaches(total(&uplinks[..uplinks.len() - 1])));
                }
                Step::TakeAdded => {
                    prop_assert_eq!(queue.take_added(), total(&uncounted));
                    uncounted.clear();
                }
            }
            prop_assert_eq!(queue.allowance(), allowance);
            prop_assert_eq!(queue.len(), queued.len());
            prop_assert!(queue.receipts().copied().eq(queued.iter().map(|(number, _)| *number)));
        }
    }
}
