;; Begins by writing beyond its memory.
;; expect: rejected: out of bounds memory access
(data (i32.const 65536) "x")
