;; Gives the gateway memory that it does not have.
;; expect: plugin_output: beyond end of memory
(func $realloc (param i32 i32 i32 i32) (result i32)
  (i32.const 0x7ffffff0))
