;; Takes memory until there is none, and gives up.
;; expect: plugin_memory: needs more memory than its limit of 16777216 bytes
(func $transform (param i32) (result i32)
  (loop
    (br_if 0 (i32.ne (memory.grow (i32.const 1)) (i32.const -1))))
  unreachable)
