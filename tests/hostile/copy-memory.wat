;; Moves all of its memory over and over.
;; expect: plugin_timeout: ran longer than its limit of 50ms
(memory $memory 256)
(func $transform (param i32) (result i32)
  (loop
    (memory.copy (i32.const 8193) (i32.const 8192) (i32.const 16769023))
    (br 0))
  unreachable)
