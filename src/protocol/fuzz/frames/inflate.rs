//! Inflates by the letter of RFC 1951, a bit at a time: what zlib is held against.
//!
//! Where the RFC leaves faults open, this has zlib's view of them, down to how many bits it takes to see one: a message
//! may end anywhere, and what is no fault yet is none.

/// How inflating ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum End {
    /// The input ran out, between two symbols or within one.
    RanOut,
    /// A final block ended at this bit of the input.
    Final(usize),
    /// The input can't go on like that.
    Invalid,
    /// There is more output than may be.
    TooBig,
}

/// Inflates `input`, which may refer back to `history`. At most `output_bytes_max` bytes come out.
pub(super) fn inflate(history: &[u8], input: &[u8], output_bytes_max: usize) -> (Vec<u8>, End) {
    let output_end = history.len() + output_bytes_max;
    let mut inflater = Inflater { input, at: 0, output: history.to_vec(), output_end };
    let end = loop {
        match inflater.block() {
            Ok(false) => {}
            Ok(true) => break End::Final(inflater.at),
            Err(end) => break end,
        }
    };
    (inflater.output.split_off(history.len()), end)
}

struct Inflater<'a> {
    input: &'a [u8],
    /// The next bit.
    at: usize,
    /// The history and what came out.
    output: Vec<u8>,
    output_end: usize,
}

impl Inflater<'_> {
    fn bits(&mut self, count: usize) -> Result<usize, End> {
        if self.at + count > self.input.len() * 8 {
            return Err(End::RanOut);
        }
        let mut value = 0;
        for place in 0..count {
            value |= usize::from(self.input[self.at / 8] >> (self.at % 8) & 1) << place;
            self.at += 1;
        }
        Ok(value)
    }

    fn push(&mut self, byte: u8) -> Result<(), End> {
        if self.output.len() == self.output_end {
            return Err(End::TooBig);
        }
        self.output.push(byte);
        Ok(())
    }

    /// Section 3.2.3. Whether the block was the last.
    fn block(&mut self) -> Result<bool, End> {
        let head = self.bits(3)?;
        match head >> 1 {
            0 => self.stored()?,
            1 => {
                let literals = [8; 144].into_iter().chain([9; 112]).chain([7; 24]).chain([8; 8]);
                let literals = Code::new(&literals.collect::<Vec<_>>());
                self.compressed(&literals, &Code::new(&[5; 32]))?;
            }
            2 => {
                let (literals, distances) = self.codes()?;
                self.compressed(&literals, &distances)?;
            }
            _ => return Err(End::Invalid),
        }
        Ok(head & 1 == 1)
    }

    /// Section 3.2.4.
    fn stored(&mut self) -> Result<(), End> {
        self.at = self.at.next_multiple_of(8);
        let lengths = self.bits(32)?;
        if lengths >> 16 != !lengths & 0xffff {
            return Err(End::Invalid);
        }
        for _ in 0..lengths & 0xffff {
            let byte = self.bits(8)?;
            self.push(byte as u8)?;
        }
        Ok(())
    }

    /// Section 3.2.5.
    fn compressed(&mut self, literals: &Code, distances: &Code) -> Result<(), End> {
        const LENGTHS: [usize; 29] = [
            3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 15, 17, 19, 23, 27, 31, 35, 43, 51, 59, 67, 83, 99, 115, 131, 163, 195,
            227, 258,
        ];
        const LENGTH_BITS: [usize; 29] =
            [0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0];
        const DISTANCES: [usize; 30] = [
            1, 2, 3, 4, 5, 7, 9, 13, 17, 25, 33, 49, 65, 97, 129, 193, 257, 385, 513, 769, 1025, 1537, 2049, 3073,
            4097, 6145, 8193, 12289, 16385, 24577,
        ];
        loop {
            let symbol = self.symbol(literals)?;
            match symbol {
                0..256 => self.push(symbol as u8)?,
                256 => return Ok(()),
                _ => {
                    let symbol = symbol - 257;
                    let length = LENGTHS.get(symbol).ok_or(End::Invalid)? + self.bits(LENGTH_BITS[symbol])?;
                    let symbol = self.symbol(distances)?;
                    let distance = DISTANCES.get(symbol).ok_or(End::Invalid)?;
                    let distance = distance + self.bits((symbol / 2).saturating_sub(1))?;
                    for _ in 0..length {
                        let from = self.output.len().checked_sub(distance).ok_or(End::Invalid)?;
                        self.push(self.output[from])?;
                    }
                }
            }
        }
    }

    /// Section 3.2.7: the codes of literals and of distances.
    fn codes(&mut self) -> Result<(Code, Code), End> {
        const ORDER: [usize; 19] = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];
        let counts = self.bits(14)?;
        let literals = (counts & 31) + 257;
        let distances = (counts >> 5 & 31) + 1;
        if literals > 286 || distances > 30 {
            return Err(End::Invalid);
        }
        let mut lengths = [0; 19];
        for place in &ORDER[..(counts >> 10) + 4] {
            lengths[*place] = self.bits(3)?;
        }
        let code = Code::new(&lengths);
        if !code.is_empty() && !code.is_complete() {
            return Err(End::Invalid);
        }

        let mut lengths = Vec::new();
        while lengths.len() < literals + distances {
            // zlib reads a code without symbols as one whose only symbol is 0.
            let symbol = if code.is_empty() { self.bits(1).map(|_| 0)? } else { self.symbol(&code)? };
            let (length, times) = match symbol {
                16 => {
                    let times = 3 + self.bits(2)?;
                    (*lengths.last().ok_or(End::Invalid)?, times)
                }
                17 => (0, 3 + self.bits(3)?),
                18 => (0, 11 + self.bits(7)?),
                length => (length, 1),
            };
            lengths.extend(std::iter::repeat_n(length, times));
        }
        if lengths.len() > literals + distances || lengths[256] == 0 {
            return Err(End::Invalid);
        }
        let (literals, distances) = lengths.split_at(literals);
        let (literals, distances) = (Code::new(literals), Code::new(distances));
        if literals.is_usable() && distances.is_usable() { Ok((literals, distances)) } else { Err(End::Invalid) }
    }

    fn symbol(&mut self, code: &Code) -> Result<usize, End> {
        let mut node = 0;
        loop {
            match code.tree[node][self.bits(1)?] {
                Branch::None => return Err(End::Invalid),
                Branch::Node(next) => node = next,
                Branch::Symbol(symbol) => return Ok(symbol),
            }
        }
    }
}

/// Section 3.2.2: a canonical Huffman code.
struct Code {
    /// Where each bit leads, from the node at 0 on. Of a crowded code it has what there is room for.
    tree: Vec<[Branch; 2]>,
    bits_max: usize,
    /// How many of all words of 15 bits begin with a word of the code.
    share: usize,
}

#[derive(Clone, Copy)]
enum Branch {
    None,
    Node(usize),
    Symbol(usize),
}

impl Code {
    /// From the length of each symbol's word, 0 for none.
    fn new(lengths: &[usize]) -> Self {
        let mut code = Code { tree: vec![[Branch::None; 2]], bits_max: 0, share: 0 };
        // The word that comes next, as the first bits of 15.
        let mut word = 0;
        for length in 1..=15 {
            for (symbol, _) in lengths.iter().enumerate().filter(|(_, symbols)| **symbols == length) {
                code.bits_max = length;
                code.share += 1 << (15 - length);
                if !code.is_crowded() {
                    code.insert(symbol, word >> (15 - length), length);
                }
                word += 1 << (15 - length);
            }
        }
        code
    }

    fn insert(&mut self, symbol: usize, word: usize, length: usize) {
        let mut node = 0;
        for place in (1..length).rev() {
            let bit = word >> place & 1;
            node = match self.tree[node][bit] {
                Branch::Node(next) => next,
                _ => {
                    self.tree.push([Branch::None; 2]);
                    let next = self.tree.len() - 1;
                    self.tree[node][bit] = Branch::Node(next);
                    next
                }
            };
        }
        self.tree[node][word & 1] = Branch::Symbol(symbol);
    }

    fn is_empty(&self) -> bool {
        self.bits_max == 0
    }

    fn is_crowded(&self) -> bool {
        self.share > 1 << 15
    }

    fn is_complete(&self) -> bool {
        self.share == 1 << 15
    }

    /// zlib takes an incomplete code where it is of at most one word, of one bit.
    fn is_usable(&self) -> bool {
        self.is_complete() || (!self.is_crowded() && self.bits_max <= 1)
    }
}
