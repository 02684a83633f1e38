//! Makes new inputs of old ones: single bytes, pieces moved, repeated and cut out, words of the format, parts of two
//! inputs joined. The same seed gives the same inputs.

/// The longest input that is made.
const MAX_LEN: usize = 1 << 16;
/// Now and then one is made long by repetition, as an endless line would be.
const LONG: usize = 1 << 20;

/// See the module's header.
pub struct Mutator {
    state: u64,
    words: &'static [&'static str],
}

impl Mutator {
    /// A source of inputs with words of the format.
    pub fn new(seed: u64, words: &'static [&'static str]) -> Self {
        Mutator { state: seed, words }
    }

    /// SplitMix64.
    fn random(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.state ^ (self.state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.random() % n.max(1) as u64) as usize
    }

    fn range(&mut self, len: usize) -> std::ops::Range<usize> {
        let at = self.below(len + 1);
        let most = if self.below(4) == 0 { len - at } else { (len - at).min(32) };
        at..at + self.below(most + 1)
    }

    /// A new input.
    pub fn next(&mut self, corpus: &[Vec<u8>]) -> Vec<u8> {
        let mut input = corpus[self.below(corpus.len())].clone();
        for _ in 0..=self.below(6) {
            self.change(&mut input, corpus);
        }
        input.truncate(if input.len() > MAX_LEN && self.below(100) > 0 { MAX_LEN } else { LONG });
        input
    }

    fn change(&mut self, input: &mut Vec<u8>, corpus: &[Vec<u8>]) {
        let at = self.below(input.len() + 1);
        match self.below(9) {
            0 => {
                if let Some(byte) = input.get_mut(at) {
                    *byte ^= 1 << (self.state % 8);
                }
            }
            1 => input.insert(at, self.random() as u8),
            2 => drop(input.drain(self.range(input.len()))),
            3 => {
                let piece = input[self.range(input.len())].to_vec();
                input.splice(at..at, piece);
            }
            4 | 5 => {
                let word = self.words[self.below(self.words.len())].as_bytes();
                let end = (at + self.below(2) * word.len()).min(input.len());
                input.splice(at..end, word.iter().copied());
            }
            6 => {
                let other = &corpus[self.below(corpus.len())];
                let piece = other[self.range(other.len())].to_vec();
                input.splice(at..at, piece);
            }
            7 => self.number(input, at),
            _ => {
                let word = self.words[self.below(self.words.len())].as_bytes();
                let times = if self.below(200) == 0 { LONG / word.len().max(1) } else { self.below(64) };
                input.splice(at..at, word.repeat(times));
            }
        }
    }

    /// Puts an extreme in the place of the next number.
    fn number(&mut self, input: &mut Vec<u8>, at: usize) {
        const EXTREMES: [&str; 8] = [
            "0",
            "-1",
            "4294967295",
            "4294967296",
            "9223372036854775807",
            "-9223372036854775809",
            "1e400",
            "65536",
        ];
        let Some(start) = input[at..].iter().position(u8::is_ascii_digit).map(|n| n + at) else { return };
        let end = input[start..].iter().position(|b| !b.is_ascii_digit()).map_or(input.len(), |n| n + start);
        let extreme = EXTREMES[self.below(EXTREMES.len())];
        input.splice(start..end, extreme.bytes());
    }
}
