;; Has a memory of 64 bits.
;; expect: rejected: module was not valid
(memory $memory i64 1)
