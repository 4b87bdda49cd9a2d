;; Reads beyond its memory.
;; expect: plugin_trap: out of bounds memory access
(func $transform (param i32) (result i32)
  (i32.load offset=4294967292 (i32.const -1)))
