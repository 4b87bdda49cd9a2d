;; Returns 50 parts that share one body of 1 MiB: little memory here, much on the other side.
;; expect: plugin_output: handed over more at once
(memory $memory 32)
(func $transform (param i32) (result i32)
  (local $part i32)
  (local.set $part (i32.const 8192))
  (loop
    (i32.store offset=4 (local.get $part) (i32.const 65536))
    (i32.store offset=8 (local.get $part) (i32.const 1048576))
    (local.set $part (i32.add (local.get $part) (i32.const 72)))
    (br_if 0 (i32.lt_u (local.get $part) (i32.const 11792))))
  (i32.store (i32.const 520) (i32.const 8192))
  (i32.store (i32.const 524) (i32.const 50))
  (i32.const 512))
