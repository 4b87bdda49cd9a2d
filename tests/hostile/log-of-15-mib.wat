;; Logs one message of 15 MiB.
;; expect: plugin_output: handed over more at once
(memory $memory 256)
(func $transform (param i32) (result i32)
  (call $log (i32.const 2) (i32.const 8192) (i32.const 15728640))
  (i32.const 512))
