;; Traps instead of describing itself.
;; expect: rejected: its `describe` failed: plugin_trap
(func $describe (result i32)
  unreachable)
