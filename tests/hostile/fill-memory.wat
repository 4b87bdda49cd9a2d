;; Fills all of its memory over and over: one instruction that works on 16 MiB meets no tick within.
;; expect: plugin_timeout: ran longer than its limit of 50ms
(memory $memory 256)
(func $transform (param i32) (result i32)
  (loop
    (memory.fill (i32.const 8192) (i32.const 7) (i32.const 16769024))
    (br 0))
  unreachable)
