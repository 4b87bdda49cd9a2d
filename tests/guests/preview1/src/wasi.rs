//! The functions of `wasi_snapshot_preview1` that the guest calls; natively there are none.

#![expect(unsafe_code, reason = "functions of the host, and memory that they write to")]

pub(crate) const STDOUT: u32 = 1;
pub(crate) const STDERR: u32 = 2;

#[cfg(target_arch = "wasm32")]
mod host {
    #[link(wasm_import_module = "wasi_snapshot_preview1")]
    unsafe extern "C" {
        pub(super) fn fd_write(
            fd: u32,
            slices: *const [usize; 2],
            count: u32,
            written: *mut u32,
        ) -> u32;
        pub(super) fn clock_time_get(clock: u32, precision: u64, time: *mut u64) -> u32;
        pub(super) fn random_get(bytes: *mut u8, count: u32) -> u32;
        pub(super) fn poll_oneoff(
            subscription: *const u64,
            event: *mut u64,
            count: u32,
            events: *mut u32,
        ) -> u32;
        pub(super) fn args_sizes_get(count: *mut u32, bytes: *mut u32) -> u32;
        pub(super) fn environ_sizes_get(count: *mut u32, bytes: *mut u32) -> u32;
        pub(super) fn fd_prestat_get(fd: u32, prestat: *mut u64) -> u32;
        pub(super) fn proc_exit(code: u32) -> !;
    }
}

#[cfg(not(target_arch = "wasm32"))]
mod host {
    pub(super) unsafe fn fd_write(_: u32, _: *const [usize; 2], _: u32, _: *mut u32) -> u32 {
        52
    }
    pub(super) unsafe fn clock_time_get(_: u32, _: u64, _: *mut u64) -> u32 {
        52
    }
    pub(super) unsafe fn random_get(_: *mut u8, _: u32) -> u32 {
        52
    }
    pub(super) unsafe fn poll_oneoff(_: *const u64, _: *mut u64, _: u32, _: *mut u32) -> u32 {
        52
    }
    pub(super) unsafe fn args_sizes_get(_: *mut u32, _: *mut u32) -> u32 {
        52
    }
    pub(super) unsafe fn environ_sizes_get(_: *mut u32, _: *mut u32) -> u32 {
        52
    }
    pub(super) unsafe fn fd_prestat_get(_: u32, _: *mut u64) -> u32 {
        52
    }
    pub(super) unsafe fn proc_exit(_: u32) -> ! {
        std::process::abort()
    }
}

pub(crate) fn print(stream: u32, text: &str) {
    let slice = [text.as_ptr() as usize, text.len()];
    let mut written = 0;
    // SAFETY: the slice and the number outlive the call.
    unsafe { host::fd_write(stream, &raw const slice, 1, &raw mut written) };
}

pub(crate) fn time() -> u64 {
    clock(0)
}

pub(crate) fn monotonic() -> u64 {
    clock(1)
}

fn clock(clock: u32) -> u64 {
    let mut time = 0;
    // SAFETY: the number outlives the call.
    unsafe { host::clock_time_get(clock, 0, &raw mut time) };
    time
}

pub(crate) fn random() -> [u8; 16] {
    let mut bytes = [0; 16];
    // SAFETY: the array has as many bytes as are asked for.
    unsafe { host::random_get(bytes.as_mut_ptr(), 16) };
    bytes
}

pub(crate) fn sleep(nanoseconds: u64) {
    // A subscription: user data, the kind (0, a clock), the clock (1, monotonic), the time, the precision
    // and flags (0, from now).
    let subscription = [0, 0, 1, nanoseconds, 0, 0];
    let mut event = [0; 4];
    let mut events = 0;
    // SAFETY: both arrays have the size that the interface gives them, and outlive the call.
    unsafe {
        host::poll_oneoff(subscription.as_ptr(), event.as_mut_ptr(), 1, &raw mut events);
    }
}

pub(crate) fn arguments() -> u32 {
    let (mut count, mut bytes) = (0, 0);
    // SAFETY: the numbers outlive the call.
    unsafe { host::args_sizes_get(&raw mut count, &raw mut bytes) };
    count
}

pub(crate) fn variables() -> u32 {
    let (mut count, mut bytes) = (0, 0);
    // SAFETY: the numbers outlive the call.
    unsafe { host::environ_sizes_get(&raw mut count, &raw mut bytes) };
    count
}

/// Where the first preopened folder would be.
pub(crate) fn folder() -> u32 {
    let mut prestat = 0;
    // SAFETY: the number is as large as the structure, and outlives the call.
    unsafe { host::fd_prestat_get(3, &raw mut prestat) }
}

pub(crate) fn exit(code: u32) -> ! {
    // SAFETY: it does not come back.
    unsafe { host::proc_exit(code) }
}
