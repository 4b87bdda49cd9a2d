;; Calls itself without end to allocate.
;; expect: plugin_trap: went deeper than the limit of 524288 bytes on its stack
(func $realloc (param i32 i32 i32 i32) (result i32)
  (i32.add
    (call $realloc (local.get 0) (local.get 1) (local.get 2) (local.get 3))
    (i32.const 1)))
