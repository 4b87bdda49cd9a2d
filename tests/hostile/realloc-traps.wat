;; Has no memory to give.
;; expect: plugin_trap: unreachable
(func $realloc (param i32 i32 i32 i32) (result i32)
  unreachable)
