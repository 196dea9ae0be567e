//! Reads a file's lines from its end, with the memory of one line and one block.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

/// Bytes that are read at once.
const BLOCK_BYTES: usize = 65_536;

/// A line, or one that is too long to be looked at.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    Whole(Vec<u8>),
    TooLong,
}

/// The lines of a file, the last first, as far as there are any when this is made. Empty ones are left out; one that
/// has no end yet is there as it is.
pub(super) struct Backwards {
    file: File,
    /// Bytes before what is in `block`.
    at: u64,
    /// What was read and not given out.
    block: Vec<u8>,
    /// The end of a line whose beginning is further ahead: its pieces, the last first.
    tail: Vec<Vec<u8>>,
    tail_bytes: usize,
    line_bytes_max: usize,
}

impl Backwards {
    /// # Errors
    /// The operating system could not say how long the file is.
    pub(super) fn new(file: File, line_bytes_max: usize) -> io::Result<Self> {
        let at = file.metadata()?.len();
        Ok(Backwards { file, at, block: Vec::new(), tail: Vec::new(), tail_bytes: 0, line_bytes_max })
    }

    /// The line before the one given last; none at the file's beginning.
    ///
    /// # Errors
    /// The operating system could not read.
    pub(super) fn next(&mut self) -> io::Result<Option<Line>> {
        loop {
            if let Some(end) = self.block.iter().rposition(|byte| *byte == b'\n') {
                let piece = self.block.split_off(end + 1);
                self.block.truncate(end);
                self.keep(piece);
                if let Some(line) = self.line() {
                    return Ok(Some(line));
                }
                continue;
            }
            let piece = std::mem::take(&mut self.block);
            self.keep(piece);
            if self.at == 0 {
                return Ok(self.line());
            }
            self.read()?;
        }
    }

    fn keep(&mut self, piece: Vec<u8>) {
        self.tail_bytes += piece.len();
        if self.tail_bytes > self.line_bytes_max {
            self.tail.clear();
        } else if !piece.is_empty() {
            self.tail.push(piece);
        }
    }

    fn line(&mut self) -> Option<Line> {
        let bytes = std::mem::take(&mut self.tail_bytes);
        let mut pieces = std::mem::take(&mut self.tail);
        if bytes > self.line_bytes_max {
            return Some(Line::TooLong);
        }
        pieces.reverse();
        (bytes > 0).then(|| Line::Whole(pieces.concat()))
    }

    fn read(&mut self) -> io::Result<()> {
        let bytes = usize::try_from(self.at).unwrap_or(usize::MAX).min(BLOCK_BYTES);
        self.at -= u64::try_from(bytes).expect("no more than it was");
        self.file.seek(SeekFrom::Start(self.at))?;
        self.block.resize(bytes, 0);
        self.file.read_exact(&mut self.block)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random;

    const LINE_BYTES_MAX: usize = 3 * BLOCK_BYTES;

    fn backwards(text: &[u8]) -> Vec<Line> {
        let path = std::env::temp_dir().join(format!("bennu-lines-{:016x}", u64::from_be_bytes(random::bytes())));
        std::fs::write(&path, text).expect("written");
        let mut lines = Backwards::new(File::open(&path).expect("opened"), LINE_BYTES_MAX).expect("a file");
        let read = std::iter::from_fn(|| lines.next().expect("read")).collect();
        std::fs::remove_file(&path).expect("removed");
        read
    }

    #[test]
    fn lines_come_whole_wherever_blocks_end() {
        for length in [1, 7, BLOCK_BYTES - 2, BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1, LINE_BYTES_MAX] {
            let line = |n: usize| (0..length).map(|at| b'a' + u8::try_from((n + at) % 23).expect("small")).collect();
            let lines: Vec<Vec<u8>> = (0..5).map(line).collect();
            let text = lines.join(&b'\n');
            let expected: Vec<_> = lines.into_iter().rev().map(Line::Whole).collect();

            assert_eq!(backwards(&text), expected, "{length}");
            assert_eq!(backwards(&[&text[..], b"\n\n"].concat()), expected, "{length}");
        }
        assert_eq!(backwards(b""), []);
        assert_eq!(backwards(b"\n"), []);
    }

    #[test]
    fn a_line_that_is_too_long_is_passed_over_alone() {
        let long = vec![b'x'; LINE_BYTES_MAX + 1];

        let lines = backwards(&[b"first\n", &long[..], b"\nlast\n"].concat());

        assert_eq!(lines, [Line::Whole(b"last".to_vec()), Line::TooLong, Line::Whole(b"first".to_vec())]);
    }
}
