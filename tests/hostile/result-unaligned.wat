;; Returns a result at an odd address.
;; expect: plugin_output: not aligned
(func $transform (param i32) (result i32)
  (i32.const 513))
