;; Never comes back from allocating.
;; expect: plugin_timeout: ran longer than its limit of 50ms
(func $realloc (param i32 i32 i32 i32) (result i32)
  (loop (br 0))
  unreachable)
