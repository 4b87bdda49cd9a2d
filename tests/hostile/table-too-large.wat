;; Begins with a table of ten million elements.
;; expect: rejected: table
(table 10000000 funcref)
