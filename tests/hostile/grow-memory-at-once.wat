;; Asks for 4 GiB at once and gives up.
;; expect: plugin_memory: needs more memory than its limit of 16777216 bytes
(func $transform (param i32) (result i32)
  (drop (memory.grow (i32.const 65535)))
  unreachable)
