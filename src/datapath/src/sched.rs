//! Which PMD polls a receive queue.
//!
//! Round robin: the PMD with the fewest queues, of the device's NUMA node if it has any. Neighbours: `control`
//! asks. Threads: pure functions.

use crate::api::PmdId;
use infra::cpu::NumaId;

/// Picks among PMDs, given as (id, node, queues so far).
pub(crate) fn pick(pmds: &[(PmdId, NumaId, usize)], numa: Option<NumaId>) -> Option<PmdId> {
    let local = pmds.iter().any(|p| Some(p.1) == numa);
    pmds.iter().filter(|p| !local || Some(p.1) == numa).min_by_key(|p| (p.2, p.0)).map(|p| p.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fewest_queues_on_the_same_node() {
        let pmds = [(PmdId(1), NumaId(0), 2), (PmdId(2), NumaId(0), 1), (PmdId(9), NumaId(1), 0)];
        assert_eq!(pick(&pmds, Some(NumaId(0))), Some(PmdId(2)));
        assert_eq!(pick(&pmds, Some(NumaId(1))), Some(PmdId(9)));
        assert_eq!(pick(&pmds, Some(NumaId(7))), Some(PmdId(9)));
        assert_eq!(pick(&pmds, None), Some(PmdId(9)));
        assert_eq!(pick(&[], None), None);
    }
}
