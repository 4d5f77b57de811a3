//! Writes the datapoints of some rows: first the short values of one column after the other, then the rows.
//!
//! The loop over the rows of a column has no decision that depends on its type. A row is put together with copies of a fixed size,
//! which overlap, because each key is beside the place of its value already.

use super::column::{Column, LONGER, Placing};
use crate::numbers::Numbers;
use crate::small::{ROOM, Room};

/// Longest `,"key":` that is copied with a fixed size.
const LONGEST_PREFIX: usize = 32;

/// Bytes of a datapoint with a short value.
const SHORT: usize = LONGEST_PREFIX + ROOM;

/// Bytes of the longest datapoint that is put into the text.
const LONGEST: usize = LONGEST_PREFIX + LONGER;

/// Most bytes of the datapoints, so that they stay in the fastest cache of a processor, together with their text.
const MEMORY: usize = 16_384;

/// Most rows of a block.
const MOST_ROWS: usize = 32;

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

    /// Return the memory after the prefix, if the prefix has a fixed size, and the length of the prefix.
    #[expect(clippy::inline_always, reason = "called for every datapoint, where a call takes as long as the work")]
    #[inline(always)]
    fn room_after<'r, const N: usize>(&self, bytes: &'r mut [u8]) -> Option<(&'r mut [u8; N], usize)> {
        let prefix = self.prefix.len();
        if prefix > LONGEST_PREFIX {
            return None;
        }
        Some((bytes.get_mut(prefix..)?.first_chunk_mut()?, prefix))
    }
}

/// A datapoint: one line of the processor's cache.
#[derive(Debug, Clone, Copy)]
#[repr(align(64))]
struct Cell {
    /// `,"key":value`
    bytes: [u8; SHORT],
    /// The length of the datapoint, [`NULL`] or [`OTHER`].
    length: usize,
}

/// The length of a datapoint that a row does not have.
const NULL: usize = 0;

/// The length of a datapoint whose value is not a short one.
const OTHER: usize = usize::MAX;

/// The cells of one column, and the rows whose values belong there.
struct Cells<'c> {
    key: &'c Key,
    column: &'c Column<'c>,
    /// Lines of all columns from this one on. The first cell of each is that of the column.
    lines: std::slice::ChunksMut<'c, Cell>,
    rows: &'c [usize],
}

impl Placing for Cells<'_> {
    type Placed = ();

    #[expect(clippy::inline_always, reason = "measured: so the loop of each type has its own code")]
    #[inline(always)]
    fn with(self, place: impl Fn(usize, &mut Room) -> usize) {
        for (line, &row) in self.lines.zip(self.rows) {
            let cell = &mut line[0];
            cell.length = if self.column.is_null(row) {
                NULL
            } else if let Some((room, prefix)) = self.key.room_after(&mut cell.bytes) {
                let length = place(row, room);
                if length == 0 { OTHER } else { prefix + length }
            } else {
                OTHER
            };
        }
    }
}

/// Whether a row was put into the text.
pub(super) enum Row {
    /// It was, with this number of datapoints.
    Complete(usize),
    /// It was up to this column, whose value has to be written in another way, with this number of datapoints.
    Until(usize, usize),
}

/// Rows that are written together.
#[derive(Debug)]
pub(super) struct Block {
    columns: usize,
    /// The datapoints of one row after the other.
    cells: Vec<Cell>,
    text: Vec<u8>,
    /// Bytes of the text. Each datapoint begins with the comma that ends the one before it, so that the comma is copied with the
    /// key.
    length: usize,
}

impl Block {
    /// Make a block for rows of these columns, and at most for so many.
    pub fn new(columns: &[(&Key, Column<'_>)], rows: usize) -> Self {
        let line = columns.iter().map(|(key, _)| {
            let mut bytes = [0; SHORT];
            bytes[..LONGEST_PREFIX].copy_from_slice(&key.fixed);
            Cell { bytes, length: NULL }
        });
        let line: Vec<_> = line.collect();
        let rows = (MEMORY / size_of_val(line.as_slice()).max(1)).min(MOST_ROWS).min(rows).max(1);
        Self {
            columns: columns.len(),
            cells: line.repeat(rows),
            text: vec![0; rows * columns.len() * LONGEST + 1],
            length: 0,
        }
    }

    /// Return the most rows that the block can have.
    pub fn rows(&self) -> usize {
        self.cells.len() / self.columns
    }

    /// Place the short values of these rows.
    pub fn place(&mut self, columns: &[(&Key, Column<'_>)], rows: &[usize]) {
        for (first, (key, column)) in columns.iter().enumerate() {
            let lines = self.cells[first..].chunks_mut(self.columns);
            column.with_place(Cells { key, column, lines, rows });
        }
    }

    /// Put the datapoints of a row into the text, from a column on. `line` is its number in the block.
    pub fn put(
        &mut self,
        columns: &[(&Key, Column<'_>)],
        line: usize,
        row: usize,
        from: usize,
        numbers: &mut Numbers,
    ) -> Row {
        let mut length = self.length;
        let mut count = 0;
        let cells = &self.cells[line * self.columns..][..self.columns];
        for (index, cell) in cells.iter().enumerate().skip(from) {
            let mut size = cell.length;
            if size == NULL {
                continue;
            }
            let room: &mut [u8; LONGEST] =
                self.text[length..].first_chunk_mut().expect("the text has room for all datapoints of a block");
            room[..SHORT].copy_from_slice(&cell.bytes);
            if size == OTHER {
                let (key, column) = &columns[index];
                let placed = key
                    .room_after(room)
                    .map_or((0, 0), |(room, prefix)| (column.place_longer(row, room, numbers), prefix));
                if placed.0 == 0 {
                    self.length = length;
                    return Row::Until(index, count);
                }
                size = placed.0 + placed.1;
            }
            length += size;
            count += 1;
        }
        self.length = length;
        Row::Complete(count)
    }

    /// Return the number of bytes that [`Block::append_to`] would append.
    pub fn pending(&self) -> usize {
        self.length
    }

    /// Append the text, with the last comma in place of the first one.
    pub fn append_to(&mut self, out: &mut Vec<u8>) {
        if self.length > 0 {
            self.text[self.length] = b',';
            out.extend_from_slice(&self.text[1..=self.length]);
            self.length = 0;
        }
    }
}
