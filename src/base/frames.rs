//! Finds the frames in a stream of HTTP/2 bytes: their kinds, and nothing else.
//!
//! Pure; how the bytes are cut into reads makes no difference (RFC 9113 section 4.1: nine bytes of
//! header, of which three are the length of what follows and one the kind).
#![deny(clippy::indexing_slicing)]

/// Frame kinds that mean something here.
pub mod kind {
    /// Bytes of a body.
    pub const DATA: u8 = 0;
    /// The head of a request or of an answer, or trailers.
    pub const HEADERS: u8 = 1;
    /// The end of a stream.
    pub const RST_STREAM: u8 = 3;
    /// Room for more bytes of bodies.
    pub const WINDOW_UPDATE: u8 = 8;
    /// More of a head.
    pub const CONTINUATION: u8 = 9;
}

/// Where a reader stands in a stream of frames.
#[derive(Debug, Default)]
pub struct Frames {
    /// Bytes of the frame under way that are still to come.
    skip: usize,
    /// The beginning of a frame's header.
    header: [u8; 9],
    have: usize,
}

impl Frames {
    /// Begins behind `bytes` that are no frame, such as a client's preface.
    pub fn behind(bytes: usize) -> Self {
        Self {
            skip: bytes,
            ..Self::default()
        }
    }

    /// Takes the next bytes in; calls `each` with the kind of every frame whose header ends in them.
    pub fn feed(&mut self, mut bytes: &[u8], mut each: impl FnMut(u8)) {
        while !bytes.is_empty() {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = bytes.get(skipped..).unwrap_or_default();
            let missing = self.header.get_mut(self.have..).unwrap_or_default();
            let (now, later) = bytes.split_at(missing.len().min(bytes.len()));
            for (place, byte) in missing.iter_mut().zip(now) {
                *place = *byte;
            }
            self.have += now.len();
            bytes = later;
            if self.have == self.header.len() {
                let [a, b, c, kind, ..] = self.header;
                self.have = 0;
                self.skip = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
                each(kind);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_found_however_the_bytes_are_cut() {
        let mut bytes = b"preface".to_vec();
        for (kind, length) in [(4, 0), (1, 300), (0, 9), (6, 8)] {
            let [.., high, low] = usize::to_be_bytes(length);
            bytes.extend([0, high, low, kind, 0, 0, 0, 0, 1]);
            bytes.resize(bytes.len() + length, 0xff);
        }
        for step in [1, 2, 8, 9, 10, 100, 1000] {
            let mut frames = Frames::behind(7);
            let mut kinds = Vec::new();
            for part in bytes.chunks(step) {
                frames.feed(part, |kind| kinds.push(kind));
            }
            assert_eq!(kinds, [4, 1, 0, 6], "in reads of {step}");
        }
    }
}
