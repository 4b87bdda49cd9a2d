;; Logs a message of the largest length that there is.
;; expect: plugin_trap: out of bounds
(func $transform (param i32) (result i32)
  (call $log (i32.const 2) (i32.const 8192) (i32.const -1))
  (i32.const 512))
