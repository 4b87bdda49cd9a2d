;; Has a second memory.
;; expect: rejected: memories
(memory $memory 1)
(memory $second 1)
