;; Logs at a level that there is not.
;; expect: plugin_trap: discriminant
(func $transform (param i32) (result i32)
  (call $log (i32.const 99) (i32.const 1024) (i32.const 5))
  (i32.const 512))
