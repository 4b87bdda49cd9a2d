;; Gives the gateway memory at an odd address.
;; expect: plugin_output: not aligned
(func $realloc (param i32 i32 i32 i32) (result i32)
  (i32.const 8193))
