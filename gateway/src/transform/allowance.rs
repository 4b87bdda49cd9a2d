//! What a guest has taken of what is limited, and what it was refused.

use wasmtime::ResourceLimiter;

use super::Limits;
use super::pool::Shape;

/// Linear memories and tables, each kind counted together.
pub(super) struct Memory {
    bytes: Counted,
    elements: Counted,
    /// What the pool has room for, where it has no slots that would tell.
    shape: &'static Shape,
    /// What was asked for last beyond the limit.
    pub(super) refused: Option<Refused>,
}

/// What a guest did not get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    Memory,
    Table,
}

struct Counted {
    limit: usize,
    used: usize,
}

impl Counted {
    /// Counts a growth if there is room for it.
    fn grow(&mut self, current: usize, desired: usize) -> bool {
        let total = self.used.saturating_sub(current).saturating_add(desired);
        let fits = total <= self.limit;
        if fits {
            self.used = total;
        }
        fits
    }
}

impl Memory {
    pub(super) fn new(limits: &Limits, shape: &'static Shape) -> Self {
        Self {
            bytes: Counted { limit: limits.memory_bytes, used: 0 },
            elements: Counted { limit: limits.table_elements, used: 0 },
            shape,
            refused: None,
        }
    }
}

impl Memory {
    /// The bytes of all memories together.
    pub(super) fn bytes(&self) -> usize {
        self.bytes.used
    }

    /// The elements of all tables together.
    pub(super) fn elements(&self) -> usize {
        self.elements.used
    }
}

impl ResourceLimiter for Memory {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let granted = self.bytes.grow(current, desired);
        // An allocator that was refused a large step may go on with a smaller one.
        self.refused = (!granted).then_some(Refused::Memory);
        Ok(granted)
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let granted = self.elements.grow(current, desired);
        self.refused = (!granted).then_some(Refused::Table);
        Ok(granted)
    }

    fn instances(&self) -> usize {
        self.shape.core_instances as usize
    }

    fn tables(&self) -> usize {
        self.shape.tables as usize
    }

    fn memories(&self) -> usize {
        self.shape.memories as usize
    }
}

/// Calls of the gateway's functions: none of them is free.
pub(super) struct HostCalls {
    left: u64,
    pub(super) exceeded: bool,
}

impl HostCalls {
    pub(super) fn new(limits: &Limits) -> Self {
        Self { left: limits.host_calls, exceeded: false }
    }

    /// How many of so many calls were made.
    pub(super) fn made(&self, limits: &Limits) -> usize {
        usize::try_from(limits.host_calls.saturating_sub(self.left)).unwrap_or(usize::MAX)
    }

    pub(super) fn count(&mut self) -> wasmtime::Result<()> {
        match self.left.checked_sub(1) {
            Some(left) => {
                self.left = left;
                Ok(())
            }
            None => {
                self.exceeded = true;
                Err(wasmtime::Error::msg("too many calls of the gateway's functions"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::pool::LIGHT;
    use super::*;

    #[test]
    fn memories_and_tables_are_each_counted_together() {
        let limits = Limits { memory_bytes: 100, table_elements: 10, ..Limits::default() };
        let mut memory = Memory::new(&limits, &LIGHT);
        assert!(memory.memory_growing(0, 60, None).unwrap());
        assert!(memory.memory_growing(0, 40, None).unwrap());
        assert!(!memory.memory_growing(60, 61, None).unwrap());
        assert_eq!(memory.refused, Some(Refused::Memory));
        assert!(memory.table_growing(0, 6, None).unwrap());
        assert_eq!(memory.refused, None);
        assert!(!memory.table_growing(0, 5, None).unwrap());
        assert_eq!(memory.refused, Some(Refused::Table));
    }

    #[test]
    fn host_calls_are_counted() {
        let mut calls = HostCalls::new(&Limits { host_calls: 2, ..Limits::default() });
        assert!(calls.count().is_ok() && calls.count().is_ok());
        assert!(!calls.exceeded);
        assert!(calls.count().is_err());
        assert!(calls.exceeded);
    }
}
