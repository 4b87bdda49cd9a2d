//! `random`: a stream of bytes for each run, the same when the run is repeated.

use super::contract::hookmill::plugin::random::Host;
use crate::digest::Digest;
use crate::kv::Run;
use crate::transform::state::State;

/// The most bytes that are given out at once.
const MAX_BYTES: u32 = 64 << 10;

/// Bytes that nobody can foresee without the seed: hashes of the seed, the run and a counter. All parts
/// have fixed lengths, so no hash tells anything about another.
pub(super) struct Stream {
    key: Digest,
    block: u64,
}

impl Stream {
    pub(super) fn new(seed: &[u8; 32], run: Run) -> Self {
        let key = Digest::of_parts(&[
            seed,
            run.delivery.as_bytes(),
            &run.step.to_le_bytes(),
            &run.part.to_le_bytes(),
        ]);
        Self { key, block: 0 }
    }

    fn block(&mut self) -> [u8; 32] {
        let block = Digest::of_parts(&[self.key.as_bytes(), &self.block.to_le_bytes()]);
        self.block += 1;
        *block.as_bytes()
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(len.next_multiple_of(32));
        while bytes.len() < len {
            bytes.extend(self.block());
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
        let [a, b, c, d, e, f, g, h, ..] = self.session()?.random().block();
        Ok(u64::from_le_bytes([a, b, c, d, e, f, g, h]))
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
        let bytes = |seed: u8, run| Stream::new(&[seed; 32], run).bytes(100);
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
