;; Begins with all the memory that there can be.
;; expect: rejected: memory
(memory $memory 65536)
