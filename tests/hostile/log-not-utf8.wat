;; Logs what is not UTF-8.
;; expect: plugin_trap: invalid utf-8
(data (i32.const 2048) "\ff\fe")
(func $transform (param i32) (result i32)
  (call $log (i32.const 2) (i32.const 2048) (i32.const 2))
  (i32.const 512))
