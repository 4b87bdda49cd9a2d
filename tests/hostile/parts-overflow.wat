;; Returns so many parts that their size overflows 32 bits.
;; expect: plugin_output: out of bounds
(data (i32.const 524) "\ff\ff\ff\7f")
