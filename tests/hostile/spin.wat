;; Never returns.
;; expect: plugin_timeout: ran longer than its limit of 50ms
(func $transform (param i32) (result i32)
  (loop (br 0))
  unreachable)
