//! Where native's bitmap puts values: consecutive blocks, found from a moving start, with native's
//! blind spots.

#[derive(Clone, Debug)]
pub(crate) struct Blocks {
    /// Taken or not; padding in the last byte counts as taken.
    bits: Vec<bool>,
    count: usize,
    start: usize,
}

impl Blocks {
    pub(crate) fn new(count: u64) -> Self {
        let count = usize::try_from(count).expect("few blocks");
        let mut bits = vec![false; count.next_multiple_of(8)];
        bits[count..].fill(true);
        Self { bits, count, start: 0 }
    }

    /// Takes the first run of `need` free blocks: from the start to the end, then from the
    /// beginning through the start's byte. A run across both ranges is not found.
    pub(crate) fn take(&mut self, need: usize) -> Option<usize> {
        let again = self.start.next_multiple_of(8);
        let found = self.run(self.start..self.bits.len(), need).or_else(|| self.run(0..again, need))?;
        self.bits[found..found + need].fill(true);
        self.start = if found + need >= self.count { 0 } else { found + need };
        Some(found)
    }

    fn run(&self, within: std::ops::Range<usize>, need: usize) -> Option<usize> {
        let mut free = 0;
        for at in within {
            free = if self.bits[at] { 0 } else { free + 1 };
            if free == need {
                return Some(at + 1 - need);
            }
        }
        None
    }

    pub(crate) fn give(&mut self, at: usize, need: usize) {
        self.bits[at..at + need].fill(false);
    }
}
