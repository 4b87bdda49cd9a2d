//! Lifting: what a guest returned, read out of its memory. Nothing there is trusted: addresses, lengths, tags and texts
//! are whatever the guest left.

use super::guest;
use crate::transform::contract::hookmill::plugin::types::{Body, HeaderChange, Outgoing};

/// Sizes of the contract's types in memory, in bytes.
const STRING: u32 = 8;
const PAIR: u32 = 2 * STRING;
const HEADER_CHANGE: u32 = 4 + PAIR;
const OUTGOING: u32 = 72;

/// Reads a guest's memory, and takes in no more than it may.
pub(super) struct Reader<'a> {
    memory: &'a [u8],
    /// Bytes of this side's memory that may still be spent.
    left: usize,
}

impl<'a> Reader<'a> {
    /// A reader that takes in up to `limit` bytes.
    pub(super) fn new(memory: &'a [u8], limit: usize) -> Self {
        Self { memory, left: limit }
    }

    /// `description`: name, version, description, config-schema, capabilities, extensions.
    pub(super) fn description(&mut self, at: u32) -> wasmtime::Result<guest::Description> {
        Ok(guest::Description {
            name: self.string(at)?,
            version: self.string(field(at, 8)?)?,
            description: self.string(field(at, 16)?)?,
            config_schema: self.option(field(at, 24)?)?,
            capabilities: self.list(field(at, 36)?, STRING, Self::string)?,
            extensions: self.list(field(at, 44)?, PAIR, Self::pair)?,
        })
    }

    /// `result<verdict, failure>`.
    pub(super) fn result(
        &mut self,
        at: u32,
    ) -> wasmtime::Result<Result<guest::Verdict, guest::Failure>> {
        let content = field(at, 4)?;
        let payload = field(at, 8)?;
        Ok(match (self.tag(at, 2)?, self.tag(content, 2)?) {
            (0, 0) => Ok(guest::Verdict::Forward(self.list(payload, OUTGOING, Self::outgoing)?)),
            (0, _) => Ok(guest::Verdict::Drop(self.string(payload)?)),
            (_, 0) => Err(guest::Failure::Invalid(self.string(payload)?)),
            (_, _) => Err(guest::Failure::Retry(self.string(payload)?)),
        })
    }

    /// `outgoing`: body, content-type, headers, method, path-suffix, query, extensions.
    fn outgoing(&mut self, at: u32) -> wasmtime::Result<Outgoing> {
        Ok(Outgoing {
            body: match self.tag(at, 2)? {
                0 => Body::Text(self.string(field(at, 4)?)?),
                _ => Body::Bytes(self.blob(field(at, 4)?)?),
            },
            content_type: self.option(field(at, 12)?)?,
            headers: self.list(field(at, 24)?, HEADER_CHANGE, Self::header_change)?,
            method: self.option(field(at, 32)?)?,
            path_suffix: self.option(field(at, 44)?)?,
            query: self.list(field(at, 56)?, PAIR, Self::pair)?,
            extensions: self.list(field(at, 64)?, PAIR, Self::pair)?,
        })
    }

    fn header_change(&mut self, at: u32) -> wasmtime::Result<HeaderChange> {
        let content = field(at, 4)?;
        Ok(match self.tag(at, 2)? {
            0 => HeaderChange::Set(self.pair(content)?),
            _ => HeaderChange::Remove(self.string(content)?),
        })
    }

    fn pair(&mut self, at: u32) -> wasmtime::Result<(String, String)> {
        Ok((self.string(at)?, self.string(field(at, STRING)?)?))
    }

    fn option(&mut self, at: u32) -> wasmtime::Result<Option<String>> {
        match self.tag(at, 2)? {
            0 => Ok(None),
            _ => self.string(field(at, 4)?).map(Some),
        }
    }

    fn list<T>(
        &mut self,
        at: u32,
        size: u32,
        element: impl Fn(&mut Self, u32) -> wasmtime::Result<T>,
    ) -> wasmtime::Result<Vec<T>> {
        let (first, count) = (self.word(at)?, self.word(field(at, 4)?)?);
        let Some(len) = count.checked_mul(size) else {
            wasmtime::bail!("a list of {count} elements does not fit a memory");
        };
        if !first.is_multiple_of(4) {
            wasmtime::bail!("a list's address {first:#x} is not aligned");
        }
        self.bytes(first, len)?;
        self.spend((count as usize).saturating_mul(size_of::<T>()))?;
        let mut elements = Vec::with_capacity(count as usize);
        for number in 0..count {
            elements.push(element(self, first + number * size)?);
        }
        Ok(elements)
    }

    fn string(&mut self, at: u32) -> wasmtime::Result<String> {
        let bytes = self.span(at)?;
        Ok(std::str::from_utf8(bytes)?.to_owned())
    }

    fn blob(&mut self, at: u32) -> wasmtime::Result<Vec<u8>> {
        self.span(at).map(<[u8]>::to_vec)
    }

    /// The bytes of a string or list of bytes, paid for.
    fn span(&mut self, at: u32) -> wasmtime::Result<&'a [u8]> {
        let (first, len) = (self.word(at)?, self.word(field(at, 4)?)?);
        let bytes = self.bytes(first, len)?;
        self.spend(bytes.len())?;
        Ok(bytes)
    }

    fn spend(&mut self, bytes: usize) -> wasmtime::Result<()> {
        self.left = self.left.checked_sub(bytes).ok_or(TooMuch)?;
        Ok(())
    }

    /// A variant's tag, of this many cases.
    fn tag(&self, at: u32, cases: u8) -> wasmtime::Result<u8> {
        match self.bytes(at, 1)? {
            [tag] if *tag < cases => Ok(*tag),
            tag => wasmtime::bail!("there is no case {tag:?} at {at:#x}"),
        }
    }

    fn word(&self, at: u32) -> wasmtime::Result<u32> {
        match self.bytes(at, 4)? {
            [a, b, c, d] if at.is_multiple_of(4) => Ok(u32::from_le_bytes([*a, *b, *c, *d])),
            _ => wasmtime::bail!("the address {at:#x} is not aligned"),
        }
    }

    /// Bytes of the memory.
    ///
    /// # Errors
    /// When they are not in it.
    pub(super) fn bytes(&self, at: u32, len: u32) -> wasmtime::Result<&'a [u8]> {
        let start = at as usize;
        let bytes = start.checked_add(len as usize).and_then(|end| self.memory.get(start..end));
        match bytes {
            Some(bytes) => Ok(bytes),
            None => wasmtime::bail!("{len} bytes at {at:#x} are outside of the memory"),
        }
    }
}

/// The address of a record's field.
fn field(at: u32, offset: u32) -> wasmtime::Result<u32> {
    match at.checked_add(offset) {
        Some(at) => Ok(at),
        None => wasmtime::bail!("a record at {at:#x} is outside of the memory"),
    }
}

/// The guest returned more than it may.
#[derive(Debug)]
pub(in crate::transform) struct TooMuch;

impl std::fmt::Display for TooMuch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the output limit is reached")
    }
}

impl std::error::Error for TooMuch {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn words(words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    #[test]
    fn what_is_outside_of_the_memory_is_refused() {
        let memory = words(&[12, 4, 0, 0x6c_6c_61_74]);
        let refused = |words: &[u32]| {
            let mut memory = memory.clone();
            memory[..words.len() * 4].copy_from_slice(&self::words(words));
            Reader::new(&memory, 100).string(0).is_err()
        };
        assert_eq!(Reader::new(&memory, 100).string(0).unwrap(), "tall");
        assert!(refused(&[12, 5]));
        assert!(refused(&[16, 1]));
        assert!(refused(&[u32::MAX, 4]));
        assert!(refused(&[12, u32::MAX]));
        assert!(!refused(&[16, 0]));
    }

    #[test]
    fn a_long_list_is_refused_before_it_is_made() {
        // A list of a million empty parts, in a memory that holds them.
        let mut memory = vec![0; 72 << 20];
        memory[..8].copy_from_slice(&words(&[8, 1_000_000]));
        let error = Reader::new(&memory, 1 << 20).list(0, OUTGOING, Reader::outgoing).unwrap_err();
        assert!(error.is::<TooMuch>());
        memory[..8].copy_from_slice(&words(&[8, u32::MAX]));
        assert!(Reader::new(&memory, 1 << 20).list(0, OUTGOING, Reader::outgoing).is_err());
    }

    #[test]
    fn text_that_is_not_utf8_is_refused_and_bytes_are_not() {
        let memory = [words(&[8, 2]), vec![0xc3, 0x28]].concat();
        assert!(Reader::new(&memory, 100).string(0).is_err());
        assert_eq!(Reader::new(&memory, 100).blob(0).unwrap(), [0xc3, 0x28]);
        assert!(Reader::new(&memory, 1).blob(0).unwrap_err().is::<TooMuch>());
    }

    proptest! {
        #[test]
        fn no_memory_makes_it_panic_or_spend_too_much(
            memory in proptest::collection::vec(0_u8..8, 0..400),
            at in 0_u32..400,
        ) {
            for at in [at, at & !3] {
                let mut reader = Reader::new(&memory, 10_000);
                drop(reader.result(at));
                prop_assert!(reader.left <= 10_000);
                drop(reader.description(at));
            }
        }
    }
}
