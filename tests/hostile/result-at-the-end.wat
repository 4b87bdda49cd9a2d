;; Returns a result of which only half lies in its memory.
;; expect: plugin_output: out of bounds
(func $transform (param i32) (result i32)
  (i32.const 65528))
