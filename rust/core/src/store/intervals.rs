//! Sets of numbers that mostly follow each other.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

/// A set of numbers, as intervals that neither touch nor overlap.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IntervalSet(BTreeMap<u64, u64>);

impl IntervalSet {
    /// Return the number of intervals.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether no number is in the set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Return the largest number.
    #[must_use]
    pub fn last(&self) -> Option<u64> {
        self.0.last_key_value().map(|(_, &end)| end)
    }

    /// Return the intervals, in order.
    pub fn iter(&self) -> impl Iterator<Item = RangeInclusive<u64>> + '_ {
        self.0.iter().map(|(&start, &end)| start..=end)
    }

    /// Whether the number is in the set.
    #[must_use]
    pub fn contains(&self, number: u64) -> bool {
        self.containing(number).is_some()
    }

    /// Return the interval that has the number.
    #[must_use]
    pub fn containing(&self, number: u64) -> Option<RangeInclusive<u64>> {
        let (&start, &end) = self.0.range(..=number).next_back()?;
        (number <= end).then_some(start..=end)
    }

    /// Return the first interval that ends at the number or after it.
    #[must_use]
    pub fn from(&self, number: u64) -> Option<RangeInclusive<u64>> {
        self.containing(number).or_else(|| self.0.range(number..).next().map(|(&start, &end)| start..=end))
    }

    /// Whether all numbers of an interval are in the set.
    #[must_use]
    pub fn covers(&self, range: &RangeInclusive<u64>) -> bool {
        self.containing(*range.start()).is_some_and(|found| found.end() >= range.end())
    }

    /// Whether a number of an interval is in the set.
    #[must_use]
    pub fn meets(&self, range: &RangeInclusive<u64>) -> bool {
        self.from(*range.start()).is_some_and(|found| found.start() <= range.end())
    }

    /// Return how many numbers of an interval are in the set.
    #[must_use]
    pub fn count_in(&self, range: &RangeInclusive<u64>) -> u64 {
        let (start, end) = (*range.start(), *range.end());
        let mut count = 0_u64;
        let mut at = start;
        while let Some(found) = self.from(at).filter(|found| at <= end && *found.start() <= end) {
            let last = end.min(*found.end());
            count = count.saturating_add((last - at.max(*found.start())).saturating_add(1));
            let Some(next) = last.checked_add(1) else { break };
            at = next;
        }
        count
    }

    /// Add an interval.
    pub fn insert(&mut self, range: RangeInclusive<u64>) {
        let (mut start, mut end) = range.into_inner();
        if start > end {
            return;
        }
        // Usually the numbers follow the largest one.
        if let Some(mut last) = self.0.last_entry()
            && *last.key() <= start
            && start <= last.get().saturating_add(1)
        {
            let joined = end.max(*last.get());
            last.insert(joined);
            return;
        }
        if let Some((&before, &before_end)) = self.0.range(..=start).next_back()
            && before_end.saturating_add(1) >= start
        {
            start = before;
            end = end.max(before_end);
        }
        while let Some((&next, &next_end)) = self.0.range(start..=end.saturating_add(1)).next() {
            self.0.remove(&next);
            end = end.max(next_end);
        }
        self.0.insert(start, end);
    }

    /// Remove an interval.
    pub fn remove(&mut self, range: RangeInclusive<u64>) {
        let (start, end) = range.into_inner();
        if start > end {
            return;
        }
        while let Some((&found, &found_end)) = self.0.range(..=end).next_back() {
            if found_end < start {
                return;
            }
            self.0.remove(&found);
            if found_end > end {
                self.0.insert(end + 1, found_end);
            }
            if found < start {
                self.0.insert(found, start - 1);
                return;
            }
        }
    }

    /// Remove the first interval.
    pub fn remove_first(&mut self) {
        self.0.pop_first();
    }
}

impl FromIterator<RangeInclusive<u64>> for IntervalSet {
    fn from_iter<I: IntoIterator<Item = RangeInclusive<u64>>>(ranges: I) -> Self {
        let mut set = Self::default();
        ranges.into_iter().for_each(|range| set.insert(range));
        set
    }
}

/// Return sorted numbers as intervals.
pub fn runs_of(sorted: &[u64]) -> impl Iterator<Item = RangeInclusive<u64>> + '_ {
    sorted.chunk_by(|a, b| *b <= a.saturating_add(1)).map(|run| run[0]..=run[run.len() - 1])
}
