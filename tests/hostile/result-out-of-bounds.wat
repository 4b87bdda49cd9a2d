;; Returns a result that would lie beyond its memory.
;; expect: plugin_output: out of bounds
(func $transform (param i32) (result i32)
  (i32.const 0x7ffffff0))
