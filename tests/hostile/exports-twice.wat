;; Exports the same name twice.
;; expect: rejected: duplicate export
(export "memory" (memory $memory))
