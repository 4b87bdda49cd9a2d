;; Imports a function that the old interface to the system never had.
;; expect: rejected: wasi_snapshot_preview1
(import "wasi_snapshot_preview1" "fd_everything" (func $write (param i32 i32 i32 i32) (result i32)))
