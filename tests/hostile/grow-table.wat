;; Grows a table until it may not, and gives up.
;; expect: plugin_memory: needs larger tables than its limit of 1000 elements
;; manifest: limits.table_elements = 1000
(table $t 0 funcref)
(func $transform (param i32) (result i32)
  (loop
    (br_if 0 (i32.ne (table.grow $t (ref.null func) (i32.const 100)) (i32.const -1))))
  unreachable)
