;; Logs a million times.
;; expect: plugin_calls: called the gateway's functions more often than its limit of 10000
(func $transform (param i32) (result i32)
  (local $left i32)
  (local.set $left (i32.const 1000000))
  (loop
    (call $log (i32.const 2) (i32.const 1024) (i32.const 5))
    (br_if 0 (local.tee $left (i32.sub (local.get $left) (i32.const 1)))))
  (i32.const 512))
