//! A client's way in: RFC 1951 in its shortest form. It knows how large its window was agreed to be, and refuses to look further
//! back.

/// A client's inflater.
#[derive(Debug)]
pub(crate) struct StrictInflater {
    window: usize,
    takes_over: bool,
    /// Everything that was inflated, or may be referred to.
    text: Vec<u8>,
    /// The furthest reference so far.
    pub(crate) distance_max: usize,
}

/// Bits, lowest first (RFC 1951 section 3.1.1).
struct Bits<'b> {
    bytes: &'b [u8],
    at: usize,
}

/// A Huffman code: for each length how many symbols have it, and all symbols in their order (RFC 1951 section 3.2.2).
struct Code {
    counts: [u16; 16],
    symbols: Vec<u16>,
}

type Result<T> = std::result::Result<T, &'static str>;

impl StrictInflater {
    pub(crate) fn new(window_bits: u8, takes_over: bool) -> Self {
        Self { window: 1 << window_bits, takes_over, text: Vec::new(), distance_max: 0 }
    }

    /// The plain text of a message (RFC 7692 section 7.2.2).
    pub(crate) fn message(&mut self, payload: &[u8]) -> Result<Vec<u8>> {
        if !self.takes_over {
            self.text.clear();
        }
        let start = self.text.len();
        let bytes = [payload, &[0, 0, 0xff, 0xff]].concat();
        let mut bits = Bits { bytes: &bytes, at: 0 };
        // A final block is followed by the next at the next byte (RFC 7692 section 7.2.3.4).
        while bits.at < 8 * bytes.len() {
            if self.block(&mut bits)? {
                bits.align();
            }
        }
        let message = self.text[start..].to_vec();
        let surplus = self.text.len().saturating_sub(self.window);
        self.text.drain(..surplus);
        Ok(message)
    }

    /// Whether it was the final one.
    fn block(&mut self, bits: &mut Bits<'_>) -> Result<bool> {
        let is_final = bits.take(1)? == 1;
        match bits.take(2)? {
            0 => self.stored(bits)?,
            1 => {
                let lengths: Vec<u8> = (0..288)
                    .map(|symbol| match symbol {
                        0..144 => 8,
                        144..256 => 9,
                        256..280 => 7,
                        _ => 8,
                    })
                    .collect();
                self.compressed(bits, &Code::new(&lengths), &Code::new(&[5; 30]))?;
            }
            2 => {
                let (literals, distances) = codes(bits)?;
                self.compressed(bits, &literals, &distances)?;
            }
            _ => return Err("block of type 3"),
        }
        Ok(is_final)
    }

    fn stored(&mut self, bits: &mut Bits<'_>) -> Result<()> {
        bits.align();
        let length = bits.take(16)?;
        if bits.take(16)? != length ^ 0xffff {
            return Err("length and its complement differ");
        }
        for _ in 0..length {
            self.text.push(bits.take(8)? as u8);
        }
        Ok(())
    }

    fn compressed(&mut self, bits: &mut Bits<'_>, literals: &Code, distances: &Code) -> Result<()> {
        loop {
            let symbol = literals.symbol(bits)?;
            let length = match symbol {
                0..256 => {
                    self.text.push(symbol as u8);
                    continue;
                }
                256 => return Ok(()),
                257..265 => usize::from(symbol) - 254,
                265..285 => {
                    let extra = (u32::from(symbol) - 261) / 4;
                    let base = (4 + (usize::from(symbol) - 265) % 4) << extra;
                    3 + base + bits.take(extra)?
                }
                285 => 258,
                _ => return Err("length that is not defined"),
            };
            let symbol = usize::from(distances.symbol(bits)?);
            let distance = match symbol {
                0..4 => symbol + 1,
                4..30 => {
                    let extra = symbol / 2 - 1;
                    1 + ((2 + symbol % 2) << extra) + bits.take(extra as u32)?
                }
                _ => return Err("distance that is not defined"),
            };
            if distance > self.text.len() {
                return Err("reference to before the beginning");
            }
            if distance > self.window {
                return Err("reference to outside of the window");
            }
            self.distance_max = self.distance_max.max(distance);
            for _ in 0..length {
                self.text.push(self.text[self.text.len() - distance]);
            }
        }
    }
}

/// The codes of a block that brings its own (RFC 1951 section 3.2.7).
fn codes(bits: &mut Bits<'_>) -> Result<(Code, Code)> {
    let (literals, distances) = (257 + bits.take(5)?, 1 + bits.take(5)?);
    let mut lengths = [0; 19];
    for at in
        [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15].iter().take(4 + bits.take(4)?)
    {
        lengths[*at] = bits.take(3)? as u8;
    }
    let code = Code::new(&lengths);
    let mut lengths: Vec<u8> = Vec::new();
    while lengths.len() < literals + distances {
        let (length, times) = match code.symbol(bits)? {
            length @ 0..16 => (length as u8, 1),
            16 => (*lengths.last().ok_or("nothing to repeat")?, 3 + bits.take(2)?),
            17 => (0, 3 + bits.take(3)?),
            _ => (0, 11 + bits.take(7)?),
        };
        lengths.extend(std::iter::repeat_n(length, times));
    }
    Ok((Code::new(&lengths[..literals]), Code::new(&lengths[literals..])))
}

impl Code {
    fn new(lengths: &[u8]) -> Self {
        let mut counts = [0; 16];
        for length in lengths {
            counts[usize::from(*length)] += 1;
        }
        let mut symbols: Vec<u16> = (0..lengths.len() as u16).collect();
        symbols.retain(|symbol| lengths[usize::from(*symbol)] > 0);
        symbols.sort_by_key(|symbol| lengths[usize::from(*symbol)]);
        counts[0] = 0;
        Self { counts, symbols }
    }

    fn symbol(&self, bits: &mut Bits<'_>) -> Result<u16> {
        let (mut code, mut first, mut index) = (0, 0, 0);
        for count in self.counts[1..].iter().map(|count| usize::from(*count)) {
            code |= bits.take(1)?;
            if code < first + count {
                return Ok(self.symbols[index + code - first]);
            }
            index += count;
            first = (first + count) << 1;
            code <<= 1;
        }
        Err("code that is not defined")
    }
}

impl Bits<'_> {
    fn take(&mut self, count: u32) -> Result<usize> {
        let mut number = 0;
        for place in 0..count {
            let byte = self.bytes.get(self.at / 8).ok_or("data ends inside a block")?;
            number |= usize::from(byte >> (self.at % 8) & 1) << place;
            self.at += 1;
        }
        Ok(number)
    }

    fn align(&mut self) {
        self.at = self.at.next_multiple_of(8);
    }
}
