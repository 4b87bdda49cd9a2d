;; Logs half a megabyte over and over: copying it is part of the running time.
;; expect: plugin_timeout: ran longer than its limit of 50ms
;; manifest: limits.host_calls = 1000000000
(memory $memory 16)
(func $transform (param i32) (result i32)
  (loop
    (call $log (i32.const 2) (i32.const 8192) (i32.const 524288))
    (br 0))
  unreachable)
