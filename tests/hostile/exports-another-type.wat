;; Exports a `transform` of another type.
;; expect: rejected: transform
(func $transform (param i64) (result i64)
  (i64.const 0))
