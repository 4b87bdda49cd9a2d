;; Asks for memory for ever, whatever the answer.
;; expect: plugin_timeout: ran longer than its limit of 50ms
(func $transform (param i32) (result i32)
  (loop
    (drop (memory.grow (i32.const 1)))
    (br 0))
  unreachable)
