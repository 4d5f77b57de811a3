//! Sends that wait to be packed, side by side with their receipts: no object is made for a send before it leaves.

use std::collections::VecDeque;

use crate::uplink::Uplink;

/// A number of sends, with their encoded bytes and datapoints.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Amount {
    /// Sends.
    pub sends: usize,
    /// Encoded bytes.
    pub nbytes: usize,
    /// Datapoints.
    pub datapoints: usize,
}

impl Amount {
    fn add(&mut self, uplink: &Uplink) {
        self.sends += 1;
        self.nbytes += uplink.nbytes();
        self.datapoints += uplink.datapoints();
    }

    fn reaches(self, bound: Self) -> bool {
        self.sends >= bound.sends || self.nbytes >= bound.nbytes || self.datapoints >= bound.datapoints
    }
}

/// How much may be added to a [`Gathering`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Allowance {
    /// Sends.
    pub sends: usize,
    /// Encoded bytes.
    pub nbytes: usize,
}

/// Sends that were taken together.
#[derive(Debug)]
pub struct Gathered<R> {
    /// The datapoints of each send.
    pub uplinks: Vec<Uplink>,
    /// The receipt of each send.
    pub receipts: Vec<R>,
    /// Encoded bytes of all of them.
    pub nbytes: usize,
}

/// A queue of sends. It accepts them while its allowance lasts, and counts them until its owner asks for the counts.
#[derive(Debug)]
pub struct Gathering<R> {
    uplinks: VecDeque<Uplink>,
    receipts: VecDeque<R>,
    allowance: Allowance,
    added: Amount,
}

impl<R> Default for Gathering<R> {
    fn default() -> Self {
        Self {
            uplinks: VecDeque::new(),
            receipts: VecDeque::new(),
            allowance: Allowance::default(),
            added: Amount::default(),
        }
    }
}

impl<R> Gathering<R> {
    /// Return the number of queued sends.
    #[must_use]
    pub fn len(&self) -> usize {
        self.uplinks.len()
    }

    /// Whether no send is queued.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.uplinks.is_empty()
    }

    /// Return how much may still be added.
    #[must_use]
    pub fn allowance(&self) -> Allowance {
        self.allowance
    }

    /// Replace the allowance.
    pub fn allow(&mut self, allowance: Allowance) {
        self.allowance = allowance;
    }

    /// Whether no send may be added, however small it is.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.allowance.sends == 0
    }

    /// Add a send at the end if the allowance covers it. Returns whether it did; the allowance is unchanged if not.
    #[must_use]
    pub fn push(&mut self, uplink: Uplink, receipt: R) -> bool {
        let nbytes = uplink.nbytes();
        if self.is_closed() || nbytes > self.allowance.nbytes {
            return false;
        }
        self.allowance.sends -= 1;
        self.allowance.nbytes -= nbytes;
        self.added.add(&uplink);
        self.uplinks.push_back(uplink);
        self.receipts.push_back(receipt);
        true
    }

    /// Return what was added since the last call of this method, whether it has left or not.
    pub fn take_added(&mut self) -> Amount {
        std::mem::take(&mut self.added)
    }

    /// Remove the oldest sends: as many as reach one of the bounds, and at least one, if there is one.
    pub fn take(&mut self, bounds: Amount) -> Gathered<R> {
        let mut taken = Amount::default();
        for uplink in &self.uplinks {
            taken.add(uplink);
            if taken.reaches(bounds) {
                break;
            }
        }
        Gathered {
            uplinks: first(&mut self.uplinks, taken.sends),
            receipts: first(&mut self.receipts, taken.sends),
            nbytes: taken.nbytes,
        }
    }

    /// Return the receipts, the oldest first.
    pub fn receipts(&self) -> impl Iterator<Item = &R> {
        self.receipts.iter()
    }
}

/// Remove the first items. If these are all, their memory goes with them.
fn first<T>(items: &mut VecDeque<T>, count: usize) -> Vec<T> {
    if count == items.len() { std::mem::take(items).into() } else { items.drain(..count).collect() }
}
