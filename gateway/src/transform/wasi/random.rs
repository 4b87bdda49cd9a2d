//! Random bytes that are the same whenever a run is repeated.

use wasmtime::component::HasData;
use wasmtime_wasi::p2::bindings::random::{insecure, insecure_seed, random};

use crate::digest::Digest;

/// The most bytes that are given at once: what programs want are seeds and keys.
const MAX_BYTES: u64 = 64 << 10;

/// Blocks of hashes of a seed and a counter. Who does not know the seed cannot tell them from chance.
#[derive(Debug)]
pub(super) struct Random {
    seed: Digest,
    blocks: u64,
    /// The last block, and how much of it is spent.
    block: Digest,
    spent: usize,
}

impl Random {
    pub(super) fn new(seed: Digest) -> Self {
        Self { seed, blocks: 0, block: seed, spent: seed.as_bytes().len() }
    }

    fn byte(&mut self) -> u8 {
        if let Some(&byte) = self.block.as_bytes().get(self.spent) {
            self.spent += 1;
            return byte;
        }
        self.block = Digest::of_parts(&[self.seed.as_bytes(), &self.blocks.to_le_bytes()]);
        self.blocks += 1;
        self.spent = 1;
        let [byte, ..] = self.block.as_bytes();
        *byte
    }

    fn number(&mut self) -> u64 {
        u64::from_le_bytes(std::array::from_fn(|_| self.byte()))
    }

    fn bytes(&mut self, count: u64) -> wasmtime::Result<Vec<u8>> {
        if count > MAX_BYTES {
            wasmtime::bail!("wants {count} random bytes at once; there are at most {MAX_BYTES}");
        }
        Ok((0..count).map(|_| self.byte()).collect())
    }
}

impl HasData for Random {
    type Data<'a> = &'a mut Self;
}

impl random::Host for Random {
    fn get_random_bytes(&mut self, count: u64) -> wasmtime::Result<Vec<u8>> {
        self.bytes(count)
    }

    fn get_random_u64(&mut self) -> wasmtime::Result<u64> {
        Ok(self.number())
    }
}

impl insecure::Host for Random {
    fn get_insecure_random_bytes(&mut self, count: u64) -> wasmtime::Result<Vec<u8>> {
        self.bytes(count)
    }

    fn get_insecure_random_u64(&mut self) -> wasmtime::Result<u64> {
        Ok(self.number())
    }
}

impl insecure_seed::Host for Random {
    fn insecure_seed(&mut self) -> wasmtime::Result<(u64, u64)> {
        Ok((self.number(), self.number()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seed_alone_decides() {
        let of = |seed: &[u8]| Random::new(Digest::of(seed)).bytes(100).unwrap();
        assert_eq!(of(b"a"), of(b"a"));
        assert_ne!(of(b"a"), of(b"b"));
    }

    #[test]
    fn bytes_do_not_repeat_and_are_bounded() {
        let mut random = Random::new(Digest::of(b"a"));
        let bytes = random.bytes(96).unwrap();
        let blocks: std::collections::BTreeSet<_> = bytes.chunks(32).collect();
        assert_eq!(blocks.len(), 3);
        assert!(!blocks.contains(Digest::of(b"a").as_bytes().as_slice()), "the seed stays unknown");
        assert!(random.bytes(MAX_BYTES + 1).is_err());
    }
}
