;; Answers well and traps while cleaning up.
;; expect: plugin_trap: unreachable
(func $post-return (param i32)
  unreachable)
