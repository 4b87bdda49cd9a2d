;; Imports the old interface to the system.
;; expect: rejected: wasi_snapshot_preview1
(import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
