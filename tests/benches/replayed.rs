//! The histories of the footprint, and the replies of contenders.

use super::histories::{History, KEY, Reply, key};

#[test]
fn no_history_holds_more_than_its_cache_has_room_for() {
    for history in History::ALL {
        let plan = history.plan(4000);
        assert!(plan.most <= 4000 && plan.most > 0, "{history:?}: {} items", plan.most);
        let largest = plan.steps.iter().filter_map(|step| step.length).max();
        assert_eq!(largest, Some(history.largest()), "{history:?}");
        assert!(!plan.live.is_empty() && plan.live.iter().all(|&at| plan.steps[at].length.is_some()));
        let left: u64 =
            plan.live.iter().map(|&at| u64::from(KEY + plan.steps[at].length.expect("a store"))).sum();
        assert!(left <= plan.peak, "{history:?}: {left} of {}", plan.peak);
    }
}

#[test]
fn replies_tell_refused_from_evicted() {
    let plan = History::Bimodal.plan(8);
    assert_eq!((plan.steps.len(), plan.live.len(), plan.peak), (4, 4, 2 * (56 + 916)));
    let reply = Reply {
        refused: vec![false, true, false, false],
        lengths: vec![Some(40), None, None, Some(900)],
        resident: 4096,
        disk: 512,
    };
    assert_eq!((reply.refusals(), reply.evicted(&plan), reply.payload()), (1, 1, 56 + 916));
    assert_eq!(Reply::decoded(&plan, &reply.encoded()), Some(reply.clone()));
    assert_eq!(Reply::decoded(&plan, &reply.encoded()[1..]), None);
    let encoded = plan.encoded();
    assert_eq!(encoded.len(), 16 + 4 * 20 + 4 * 16);
    assert_eq!(encoded[16..32], key(0));
}
