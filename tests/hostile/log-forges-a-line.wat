;; Logs what would look like a message of the gateway's own.
;; expect: delivered
(data (i32.const 2048) "well\0aFORGED ERROR the disk is on fire")
(func $transform (param i32) (result i32)
  (call $log (i32.const 2) (i32.const 2048) (i32.const 38))
  (i32.const 512))
