;; Calls itself without end.
;; expect: plugin_trap: went deeper than the limit of 524288 bytes on its stack (in again
(func $again (param i32) (result i32)
  (i32.add (call $again (local.get 0)) (i32.const 1)))
(func $transform (param i32) (result i32)
  (call $again (local.get 0)))
