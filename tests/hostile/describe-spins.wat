;; Never ends describing itself.
;; expect: rejected: its `describe` failed: plugin_timeout: ran longer than its limit of 500ms
(func $describe (result i32)
  (loop (br 0))
  unreachable)
