//! Lowering: the event and the context as one block of the guest's memory.
//!
//! The block begins with the record of the parameters, in which each string and each list is an address and a length.
//! The lists' elements follow, and then the texts.

use super::guest;

/// The alignment of the block, in bytes.
pub(super) const ALIGN: u32 = 4;

/// What a string or a list is in a record: an address and a length, in bytes.
const SPAN: u32 = 8;

/// What a pair of strings is in a list, in bytes.
const PAIR: u32 = 2 * SPAN;

/// Strings and lists of the event and the context.
const FIELDS: usize = 13;

/// The record of the parameters, in bytes.
const RECORD: u32 = 13 * SPAN;

#[derive(Clone, Copy)]
enum Field<'a> {
    Text(&'a str),
    Pairs(&'a [(&'a str, &'a str)]),
}

/// What `transform` is called with.
pub(in crate::transform) struct Arguments<'a> {
    /// In the contract's order.
    fields: [Field<'a>; FIELDS],
    /// Where the texts begin, and where they end, counted from the block's beginning.
    texts: u32,
    len: u32,
}

impl<'a> Arguments<'a> {
    /// # Errors
    /// When they are larger than a guest's memory can be.
    pub(in crate::transform) fn new(
        event: &guest::Event<'a>,
        context: &guest::Context<'a>,
    ) -> wasmtime::Result<Self> {
        use Field::{Pairs, Text};
        let fields = [
            Text(event.id),
            Text(event.type_),
            Text(event.tenant),
            Text(event.timestamp),
            Text(event.payload),
            Pairs(event.attributes),
            Pairs(event.extensions),
            Text(context.webhook_id),
            Text(context.webhook_name),
            Pairs(context.webhook_metadata),
            Text(context.delivery_id),
            Text(context.config),
            Pairs(context.extensions),
        ];
        let (mut pairs, mut bytes) = (0_u64, 0_u64);
        for field in fields {
            match field {
                Text(text) => bytes += wide(text.len()),
                Pairs(list) => {
                    pairs += wide(list.len());
                    bytes += list.iter().map(|(a, b)| wide(a.len() + b.len())).sum::<u64>();
                }
            }
        }
        let texts = u64::from(RECORD) + pairs * u64::from(PAIR);
        let fits = u32::try_from(texts).ok().zip(u32::try_from(texts + bytes).ok());
        match fits {
            Some((texts, len)) => Ok(Self { fields, texts, len }),
            None => wasmtime::bail!("the event does not fit a plugin's memory"),
        }
    }

    /// The length of the block, in bytes.
    pub(super) fn len(&self) -> u32 {
        self.len
    }

    /// Writes the block to this address of the memory.
    ///
    /// # Errors
    /// When the address is none that an allocator may give.
    pub(super) fn write(&self, memory: &mut [u8], at: u32) -> wasmtime::Result<()> {
        let end = at.checked_add(self.len).filter(|_| at.is_multiple_of(ALIGN));
        let Some(block) = end.and_then(|end| memory.get_mut(at as usize..end as usize)) else {
            wasmtime::bail!("`cabi_realloc` gave the address {at:#x}, where no block can be");
        };
        let mut writer = Writer { block, at, next: self.texts };
        let mut list = RECORD;
        for (field, slot) in self.fields.iter().zip((0..).step_by(SPAN as usize)) {
            match field {
                Field::Text(text) => writer.text(slot, text),
                Field::Pairs(pairs) => {
                    writer.span(slot, list, pairs.len());
                    for (name, value) in *pairs {
                        writer.text(list, name);
                        writer.text(list + SPAN, value);
                        list += PAIR;
                    }
                }
            }
        }
        Ok(())
    }
}

/// Fills a block whose size is right: what would be outside of it is left out.
struct Writer<'a> {
    block: &'a mut [u8],
    /// The block's address.
    at: u32,
    /// Where the next text goes, counted from the block's beginning.
    next: u32,
}

impl Writer<'_> {
    fn text(&mut self, slot: u32, text: &str) {
        self.span(slot, self.next, text.len());
        let target = self.block.get_mut(self.next as usize..).and_then(|b| b.get_mut(..text.len()));
        if let Some(target) = target {
            target.copy_from_slice(text.as_bytes());
        }
        self.next += narrow(text.len());
    }

    fn span(&mut self, slot: u32, place: u32, len: usize) {
        let slot = self.block.get_mut(slot as usize..).and_then(<[u8]>::first_chunk_mut::<8>);
        if let Some([a, b, c, d, e, f, g, h]) = slot {
            [*a, *b, *c, *d] = (self.at + place).to_le_bytes();
            [*e, *f, *g, *h] = narrow(len).to_le_bytes();
        }
    }
}

fn wide(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}

/// A length of something that was found to fit.
fn narrow(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments<'a>(pairs: &'a [(&'a str, &'a str)]) -> Arguments<'a> {
        let event = guest::Event {
            id: "evt_1",
            type_: "a.b",
            tenant: "acme",
            timestamp: "",
            payload: "{}",
            attributes: pairs,
            extensions: &[],
        };
        let context = guest::Context {
            webhook_id: "wh_1",
            webhook_name: "it",
            webhook_metadata: pairs,
            delivery_id: "dlv_1",
            config: "null",
            extensions: &[],
        };
        Arguments::new(&event, &context).unwrap()
    }

    fn span(memory: &[u8], at: usize) -> (usize, usize) {
        let word = |at: usize| u32::from_le_bytes(memory[at..at + 4].try_into().unwrap()) as usize;
        (word(at), word(at + 4))
    }

    fn text(memory: &[u8], at: usize) -> &str {
        let (first, len) = span(memory, at);
        std::str::from_utf8(&memory[first..first + len]).unwrap()
    }

    #[test]
    fn a_block_holds_every_text_where_the_contract_has_it() {
        let pairs = [("region", "eu"), ("", "ü")];
        let arguments = arguments(&pairs);
        let mut memory = vec![0xee; 64 + arguments.len() as usize + 16];
        arguments.write(&mut memory, 64).unwrap();
        let fields = [0, 1, 2, 3, 4, 7, 8, 10, 11];
        let texts: Vec<_> = fields.iter().map(|field| text(&memory, 64 + field * 8)).collect();
        assert_eq!(texts, ["evt_1", "a.b", "acme", "", "{}", "wh_1", "it", "dlv_1", "null"]);
        for list in [5, 9] {
            let (first, count) = span(&memory, 64 + list * 8);
            assert_eq!((first % 4, count), (0, 2));
            let pairs: Vec<_> = (0..4).map(|n| text(&memory, first + n * 8)).collect();
            assert_eq!(pairs, ["region", "eu", "", "ü"]);
        }
        assert_eq!(span(&memory, 64 + 6 * 8).1, 0);
        let (before, rest) = memory.split_at(64);
        assert!(before.iter().chain(&rest[arguments.len() as usize..]).all(|byte| *byte == 0xee));
    }

    #[test]
    fn an_address_where_no_block_can_be_is_refused() {
        let arguments = arguments(&[]);
        let mut memory = vec![0; arguments.len() as usize];
        for at in [1, 4, u32::MAX - 3] {
            assert!(arguments.write(&mut memory, at).is_err(), "{at}");
        }
        arguments.write(&mut memory, 0).unwrap();
    }
}
