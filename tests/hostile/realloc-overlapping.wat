;; Gives the gateway the same memory for everything.
;; expect: delivered
(func $realloc (param i32 i32 i32 i32) (result i32)
  (i32.const 8192))
