;; Logs for ever where calls are as good as unlimited: it is part of the running time.
;; expect: plugin_timeout: ran longer than its limit of 50ms
;; manifest: limits.host_calls = 1000000000
(func $transform (param i32) (result i32)
  (loop
    (call $log (i32.const 2) (i32.const 1024) (i32.const 5))
    (br 0))
  unreachable)
