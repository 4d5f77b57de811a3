//! Frames: the unit that is written to a segment and checked when it is read.
//!
//! A frame is a header, a payload that may be empty, and a table. The header's checksum depends on the segment and on the place in
//! it, so a frame that was copied to another place is not accepted there.

use crc32fast::Hasher;

use super::chunk::Lane;

/// Bytes of a header.
pub const HEADER: usize = 28;

/// How a frame begins. These bytes do not occur in UTF-8, so no datapoint has them.
pub const MARKER: [u8; 3] = [0xff, 0xf5, 0xc0];

/// What a frame has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The first frame of a segment.
    Head = 1,
    /// Sends of [`Lane::Normal`].
    Normal = 2,
    /// Sends of [`Lane::Attributes`].
    Attributes = 3,
    /// Numbers of settled sends.
    Settled = 4,
    /// The last frame of a segment to which nothing is appended any more.
    Footer = 5,
    /// Sends of [`Lane::High`].
    High = 6,
    /// Sends of [`Lane::Low`].
    Low = 7,
}

impl Kind {
    const ALL: [Self; 7] =
        [Self::Head, Self::Normal, Self::Attributes, Self::Settled, Self::Footer, Self::High, Self::Low];

    fn from_byte(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u8 == byte)
    }

    /// Return the kind of the frames with sends of a lane.
    #[must_use]
    pub fn of(lane: Lane) -> Self {
        match lane {
            Lane::Normal => Self::Normal,
            Lane::Attributes => Self::Attributes,
            Lane::High => Self::High,
            Lane::Low => Self::Low,
        }
    }

    /// Return the lane of the sends in such a frame; `None` if it has no sends.
    #[must_use]
    pub fn lane(self) -> Option<Lane> {
        Lane::ALL.into_iter().find(|lane| Self::of(*lane) == self)
    }
}

/// The header of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// What the frame has.
    pub kind: Kind,
    /// Bytes of the payload.
    pub payload: u32,
    /// Bytes of the table.
    pub table: u32,
    /// Checksum of the payload.
    pub payload_checksum: u32,
    /// Checksum of the table.
    pub table_checksum: u32,
    /// Bytes of the segment that were on disk for certain when the frame was written.
    pub durable: u32,
}

impl Header {
    /// Return the bytes of the whole frame.
    #[must_use]
    pub fn frame_length(&self) -> u64 {
        HEADER as u64 + u64::from(self.payload) + u64::from(self.table)
    }

    /// Return the bytes of the header of a frame at `offset` of the segment.
    #[must_use]
    pub fn to_bytes(&self, segment: u64, offset: u64) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        bytes[..3].copy_from_slice(&MARKER);
        bytes[3] = self.kind as u8;
        let fields = [self.payload, self.table, self.payload_checksum, self.table_checksum, self.durable];
        for (place, field) in bytes[4..].chunks_exact_mut(4).zip(fields) {
            place.copy_from_slice(&field.to_le_bytes());
        }
        let check = check_of(&bytes[..HEADER - 4], segment, offset);
        bytes[HEADER - 4..].copy_from_slice(&check.to_le_bytes());
        bytes
    }

    /// Read a header at `offset` of the segment. `None` if there is none.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; HEADER], segment: u64, offset: u64) -> Option<Self> {
        if bytes[..3] != MARKER {
            return None;
        }
        let fields = bytes[4..].as_chunks().0;
        let field = |index: usize| u32::from_le_bytes(fields[index]);
        (field(5) == check_of(&bytes[..HEADER - 4], segment, offset)).then_some(())?;
        Some(Self {
            kind: Kind::from_byte(bytes[3])?,
            payload: field(0),
            table: field(1),
            payload_checksum: field(2),
            table_checksum: field(3),
            durable: field(4),
        })
    }
}

fn check_of(bytes: &[u8], segment: u64, offset: u64) -> u32 {
    let mut hasher = Hasher::new();
    hasher.update(&segment.to_le_bytes());
    hasher.update(&offset.to_le_bytes());
    hasher.update(bytes);
    hasher.finalize()
}

/// Return the checksum of a payload or a table.
#[must_use]
pub fn checksum(bytes: &[u8]) -> u32 {
    crc32fast::hash(bytes)
}

/// Frames that are written with one write.
#[derive(Debug, Default)]
pub struct Frames {
    /// The bytes to write.
    pub bytes: Vec<u8>,
    segment: u64,
    /// Where the bytes begin in the segment.
    offset: u64,
    durable: u32,
    /// Where the open frame, its payload's end and its table begin.
    open: usize,
    table: usize,
}

impl Frames {
    /// Begin with frames for this place.
    pub fn begin(&mut self, segment: u64, offset: u64, durable: u64) {
        self.bytes.clear();
        (self.segment, self.offset) = (segment, offset);
        self.durable = u32::try_from(durable).unwrap_or(u32::MAX);
    }

    /// Begin a frame; append its payload to the result.
    pub fn open(&mut self) -> &mut Vec<u8> {
        self.open = self.bytes.len();
        self.bytes.extend_from_slice(&[0; HEADER]);
        &mut self.bytes
    }

    /// Begin the table of the open frame; append it to the result.
    pub fn table(&mut self) -> &mut Vec<u8> {
        self.table = self.bytes.len();
        &mut self.bytes
    }

    /// Return the payload's bytes in the open frame.
    #[must_use]
    pub fn payload_length(&self) -> usize {
        self.bytes.len() - self.open - HEADER
    }

    /// End the open frame. Return its offset in the segment.
    ///
    /// # Panics
    /// When the frame has 4 GiB or more, which the log does not write.
    pub fn close(&mut self, kind: Kind) -> u64 {
        let (payload, table) = (&self.bytes[self.open + HEADER..self.table], &self.bytes[self.table..]);
        let header = Header {
            kind,
            payload: u32::try_from(payload.len()).expect("less than 4 GiB"),
            table: u32::try_from(table.len()).expect("less than 4 GiB"),
            payload_checksum: checksum(payload),
            table_checksum: checksum(table),
            durable: self.durable,
        };
        let offset = self.offset + self.open as u64;
        let (open, bytes) = (self.open, header.to_bytes(self.segment, offset));
        self.bytes[open..open + HEADER].copy_from_slice(&bytes);
        offset
    }
}
