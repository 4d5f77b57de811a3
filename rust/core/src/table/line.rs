//! Writes the datapoints of a row side by side into memory of a fixed size, and appends them with one copy.

use super::column::{Column, LONGER};

/// Longest `,"key":` that is copied with a fixed size.
const LONGEST_PREFIX: usize = 32;

/// Room for one datapoint.
const ROOM: usize = LONGEST_PREFIX + LONGER;

/// The key of a column with values.
#[derive(Debug)]
pub(super) struct Key {
    column: usize,
    /// `,"key":`
    prefix: Vec<u8>,
    /// The same with a fixed size, if it is not longer.
    fixed: [u8; LONGEST_PREFIX],
}

impl Key {
    /// `json`: the encoded key with a colon.
    pub fn new(column: usize, json: &[u8]) -> Self {
        let prefix = [b",", json].concat();
        let mut fixed = [0; LONGEST_PREFIX];
        if let Some(start) = fixed.get_mut(..prefix.len()) {
            start.copy_from_slice(&prefix);
        }
        Self { column, prefix, fixed }
    }

    /// Return the index of the column.
    pub fn column(&self) -> usize {
        self.column
    }

    /// Append `"key":`.
    pub fn append_to(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.prefix[1..]);
    }
}

/// Datapoints of a row. Each one here begins with the comma that ends the one before it, so that the comma is copied with the key.
#[derive(Debug)]
pub(super) struct Line {
    room: Vec<u8>,
    length: usize,
}

impl Line {
    /// Make a line for rows of this many columns.
    pub fn new(columns: usize) -> Self {
        Self { room: vec![0; (columns + 1) * ROOM], length: 0 }
    }

    /// Put the datapoint of a column in a row into the line, unless it is one that is long or takes more work.
    #[expect(clippy::inline_always, reason = "measured: it is called for every datapoint")]
    #[inline(always)]
    pub fn put(&mut self, key: &Key, column: &Column<'_>, row: usize) -> bool {
        let prefix = key.prefix.len();
        let Some(room) = self.room.get_mut(self.length..).and_then(<[u8]>::first_chunk_mut::<ROOM>) else {
            return false;
        };
        room[..LONGEST_PREFIX].copy_from_slice(&key.fixed);
        // There is none for a longer key.
        let Some(room) = room.get_mut(prefix..).and_then(<[u8]>::first_chunk_mut::<LONGER>) else { return false };
        let mut length = room.first_chunk_mut().map_or(0, |room| column.place(row, room));
        if length == 0 {
            length = column.place_longer(row, room);
            if length == 0 {
                return false;
            }
        }
        self.length += prefix + length;
        true
    }

    /// Append what is in the line, with the last comma in place of the first one.
    #[inline]
    pub fn append_to(&mut self, out: &mut Vec<u8>) {
        if self.length > 0 {
            self.room[self.length] = b',';
            out.extend_from_slice(&self.room[1..=self.length]);
            self.length = 0;
        }
    }
}
