;; Answers well and never ends cleaning up.
;; expect: plugin_timeout: ran longer than its limit of 50ms
(func $post-return (param i32)
  (loop (br 0)))
