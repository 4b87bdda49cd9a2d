;; Calls the gateway while the gateway is writing its arguments.
;; expect: plugin_trap: cannot leave component instance
(func $realloc (param i32 i32 i32 i32) (result i32)
  (call $log (i32.const 2) (i32.const 1024) (i32.const 5))
  (i32.const 8192))
