//! `random`: a stream of bytes for each run, the same when the run is repeated.

use std::fmt;

use super::contract::hookmill::plugin::random::Host;
use crate::digest::Digest;
use crate::kv::Run;
use crate::transform::state::State;

/// The most bytes that are given out at once.
const MAX_BYTES: u32 = 64 << 10;

/// What random numbers grow from.
#[derive(Clone, Copy)]
pub enum Randomness {
    /// A seed that nobody else knows: each run has numbers of its own.
    Seed([u8; 32]),
    /// Nothing: every run has the numbers that the SDK gives to native tests.
    OfTests,
}

impl fmt::Debug for Randomness {
    /// Without the seed.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Seed(_) => "Seed",
            Self::OfTests => "OfTests",
        })
    }
}

/// The random bytes of a run.
pub(super) enum Stream {
    Hashed(Hashed),
    /// The state of `SplitMix64`.
    Mixed(u64),
}

/// Bytes that nobody can foresee without the seed: hashes of the seed, the run and a counter. All parts
/// have fixed lengths, so no hash tells anything about another.
pub(super) struct Hashed {
    key: Digest,
    block: u64,
}

impl Hashed {
    fn block(&mut self) -> [u8; 32] {
        let block = Digest::of_parts(&[self.key.as_bytes(), &self.block.to_le_bytes()]);
        self.block += 1;
        *block.as_bytes()
    }
}

impl Stream {
    pub(super) fn new(randomness: Randomness, run: Run) -> Self {
        let Randomness::Seed(seed) = randomness else { return Self::Mixed(0) };
        let key = Digest::of_parts(&[
            &seed,
            run.delivery.as_bytes(),
            &run.step.to_le_bytes(),
            &run.part.to_le_bytes(),
        ]);
        Self::Hashed(Hashed { key, block: 0 })
    }

    fn number(&mut self) -> u64 {
        match self {
            Self::Hashed(hashed) => {
                let [a, b, c, d, e, f, g, h, ..] = hashed.block();
                u64::from_le_bytes([a, b, c, d, e, f, g, h])
            }
            Self::Mixed(state) => {
                *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
                let mixed = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
                let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
                mixed ^ (mixed >> 31)
            }
        }
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(len.next_multiple_of(32));
        while bytes.len() < len {
            match self {
                Self::Hashed(hashed) => bytes.extend(hashed.block()),
                Self::Mixed(_) => bytes.extend(self.number().to_le_bytes()),
            }
        }
        bytes.truncate(len);
        bytes
    }
}

impl Host for State {
    fn get_bytes(&mut self, len: u32) -> wasmtime::Result<Vec<u8>> {
        let session = self.session()?;
        if len > MAX_BYTES {
            return session.stop(format!(
                "asked for {len} random bytes; at most {MAX_BYTES} are given at once"
            ));
        }
        Ok(session.random().bytes(usize::try_from(len)?))
    }

    fn get_u64(&mut self) -> wasmtime::Result<u64> {
        Ok(self.session()?.random().number())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::delivery::DeliveryId;

    #[test]
    fn a_run_has_its_own_bytes_and_always_the_same() {
        let delivery = DeliveryId::generate();
        let run = Run { delivery, step: 0, part: 0 };
        let bytes = |seed: u8, run| Stream::new(Randomness::Seed([seed; 32]), run).bytes(100);
        assert_eq!(bytes(1, run), bytes(1, run));
        let others = [
            bytes(1, run),
            bytes(2, run),
            bytes(1, Run { step: 1, ..run }),
            bytes(1, Run { part: 1, ..run }),
            bytes(1, Run { delivery: DeliveryId::generate(), ..run }),
        ];
        assert_eq!(others.iter().collect::<HashSet<_>>().len(), others.len());
        assert!(others.iter().all(|bytes| bytes.len() == 100));
    }
}
