//! The arena as the global allocator of a wasm module.
#![expect(
    unsafe_code,
    reason = "a global allocator is unsafe by nature; the arithmetic is safe code in `arena`"
)]

use std::alloc::{GlobalAlloc, Layout};
use std::arch::wasm32::{memory_grow, memory_size};
use std::cell::UnsafeCell;
use std::ops::Range;
use std::ptr;

use super::{Arena, Memory, PAGE, growth};

/// Tells the gateway that blocks may come in one piece and need not be given back, which spares it calls.
#[used]
#[unsafe(link_section = "hookmill:arena")]
static MARK: [u8; 1] = *b"1";

/// Where the gateway may put what a call begins with, instead of calling for a block. Its size is part of what the
/// name stands for. To the arena it is a block that is not the last one: what is given back of it is lost.
#[unsafe(export_name = "hookmill:inbox")]
static INBOX: Inbox = Inbox(UnsafeCell::new([0; 16 << 10]));

#[repr(C, align(8))]
struct Inbox(UnsafeCell<[u8; 16 << 10]>);

// SAFETY: this file is only compiled without the target feature `atomics`: there is one thread.
unsafe impl Sync for Inbox {}

#[global_allocator]
static GLOBAL: Global =
    Global(UnsafeCell::new(State { arena: Arena::new(), memory: Linear { begun: false } }));

struct Global(UnsafeCell<State>);

struct State {
    arena: Arena,
    memory: Linear,
}

// SAFETY: this file is only compiled without the target feature `atomics`: there is one thread.
unsafe impl Sync for Global {}

impl Global {
    fn with<T>(&self, run: impl FnOnce(&mut Arena, &mut Linear) -> T) -> T {
        // SAFETY: there is one thread, and nothing that runs below allocates: it is the only borrow.
        let State { arena, memory } = unsafe { &mut *self.0.get() };
        run(arena, memory)
    }
}

// SAFETY: the arena hands out blocks of the module's memory that are aligned, do not overlap, and are
// never moved; its tests show it.
unsafe impl GlobalAlloc for Global {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.with(|arena, memory| {
            arena
                .allocate(layout.size(), layout.align(), memory)
                .map_or(ptr::null_mut(), ptr::with_exposed_provenance_mut)
        })
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        self.with(|arena, _| arena.release(block.expose_provenance(), layout.size()));
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        let address = block.expose_provenance();
        let in_place =
            self.with(|arena, memory| arena.resize(address, layout.size(), new_size, memory));
        if in_place {
            return block;
        }
        // SAFETY: the caller promises that `new_size`, rounded up to the alignment, fits an `isize`.
        let new_layout = unsafe { Layout::from_size_align_unchecked(new_size, layout.align()) };
        // SAFETY: the caller promises that `new_size` is not zero.
        let moved = unsafe { self.alloc(new_layout) };
        if !moved.is_null() {
            // SAFETY: both blocks are at least that long, and a new block overlaps no other.
            unsafe { ptr::copy_nonoverlapping(block, moved, layout.size().min(new_size)) };
        }
        moved
    }
}

/// The module's own memory: first what the linker left free behind the data, then what it grows by.
struct Linear {
    begun: bool,
}

impl Memory for Linear {
    fn more(&mut self, size: usize) -> Option<Range<usize>> {
        if !self.begun {
            self.begun = true;
            return Some(initial());
        }
        let before = memory_size::<0>();
        let least = size.div_ceil(PAGE);
        let start = grow(growth(before, size)).or_else(|| grow(least))?;
        // The very end of a memory of 4 GiB cannot be written as an address.
        let end = memory_size::<0>().saturating_mul(PAGE);
        Some(start.saturating_mul(PAGE)..end)
    }
}

/// Grows the memory, and gives its size in pages before that.
fn grow(pages: usize) -> Option<usize> {
    let before = memory_grow::<0>(pages);
    (before != usize::MAX).then_some(before)
}

/// The memory between the module's data and the end of what it starts with.
fn initial() -> Range<usize> {
    unsafe extern "C" {
        static __heap_base: u8;
        static __heap_end: u8;
    }
    // The linker defines both; only their addresses are used.
    let (base, end) = (&raw const __heap_base, &raw const __heap_end);
    base.expose_provenance()..end.expose_provenance()
}
