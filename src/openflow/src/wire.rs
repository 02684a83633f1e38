//! Reading and writing big-endian bytes with bounds checked.
//!
//! Neighbours: all codec modules. Threads: none.

use crate::OfError;

/// A cursor over received bytes; running past the end is the error given at the start.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader<'a> {
    b: &'a [u8],
    short: OfError,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(b: &'a [u8], short: OfError) -> Reader<'a> {
        Reader { b, short }
    }
    pub(crate) fn left(&self) -> usize {
        self.b.len()
    }
    pub(crate) fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.b)
    }
    pub(crate) fn peek(&self) -> &'a [u8] {
        self.b
    }
    pub(crate) fn take(&mut self, n: usize) -> Result<&'a [u8], OfError> {
        let (a, b) = self.b.split_at_checked(n).ok_or(self.short)?;
        self.b = b;
        Ok(a)
    }
    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], OfError> {
        let a = self.take(N)?;
        a.try_into().map_err(|_| self.short)
    }
    pub(crate) fn skip(&mut self, n: usize) -> Result<(), OfError> {
        self.take(n).map(drop)
    }
    /// `n` bytes that must be zero.
    pub(crate) fn zeros(&mut self, n: usize, error: OfError) -> Result<(), OfError> {
        if self.take(n)?.iter().any(|&x| x != 0) {
            return Err(error);
        }
        Ok(())
    }
    pub(crate) fn u8(&mut self) -> Result<u8, OfError> {
        Ok(self.array::<1>()?[0])
    }
    pub(crate) fn u16(&mut self) -> Result<u16, OfError> {
        Ok(u16::from_be_bytes(self.array()?))
    }
    pub(crate) fn u32(&mut self) -> Result<u32, OfError> {
        Ok(u32::from_be_bytes(self.array()?))
    }
    pub(crate) fn u64(&mut self) -> Result<u64, OfError> {
        Ok(u64::from_be_bytes(self.array()?))
    }
    /// A big-endian integer of up to 16 bytes.
    pub(crate) fn uint(&mut self, n: usize) -> Result<u128, OfError> {
        Ok(self.take(n)?.iter().fold(0, |v, &x| v << 8 | u128::from(x)))
    }
}

/// Appending big-endian integers.
pub(crate) trait Put {
    fn bytes(&mut self, b: &[u8]);
    fn u8(&mut self, v: u8) {
        self.bytes(&[v]);
    }
    fn u16(&mut self, v: u16) {
        self.bytes(&v.to_be_bytes());
    }
    fn u32(&mut self, v: u32) {
        self.bytes(&v.to_be_bytes());
    }
    fn u64(&mut self, v: u64) {
        self.bytes(&v.to_be_bytes());
    }
    /// The low `n` bytes of `v`.
    fn uint(&mut self, v: u128, n: usize) {
        self.bytes(&v.to_be_bytes()[16 - n.min(16)..]);
    }
    fn zeros(&mut self, n: usize);
    /// Zeros until the bytes since `start` are a multiple of 8.
    fn pad8(&mut self, start: usize);
    /// A name in a field of `n` bytes, cut so that a NUL ends it.
    fn name(&mut self, s: &str, n: usize);
    /// Writes the length since `start` as 16 bits at `at`.
    fn patch_len(&mut self, at: usize, start: usize);
}

impl Put for Vec<u8> {
    fn bytes(&mut self, b: &[u8]) {
        self.extend_from_slice(b);
    }
    fn zeros(&mut self, n: usize) {
        self.resize(self.len() + n, 0);
    }
    fn pad8(&mut self, start: usize) {
        let len = self.len() - start;
        self.zeros(len.next_multiple_of(8) - len);
    }
    fn name(&mut self, s: &str, n: usize) {
        let b = s.as_bytes();
        let b = &b[..b.len().min(n - 1)];
        self.bytes(b);
        self.zeros(n - b.len());
    }
    fn patch_len(&mut self, at: usize, start: usize) {
        let len = (self.len() - start) as u16;
        self[at..at + 2].copy_from_slice(&len.to_be_bytes());
    }
}

/// Rounds up to a multiple of 8.
pub(crate) fn round8(n: usize) -> usize {
    n.next_multiple_of(8)
}
