;; Asks for table elements for ever, whatever the answer.
;; expect: plugin_timeout: ran longer than its limit of 50ms
(table $t 0 funcref)
(func $transform (param i32) (result i32)
  (loop
    (drop (table.grow $t (ref.null func) (i32.const 100)))
    (br 0))
  unreachable)
