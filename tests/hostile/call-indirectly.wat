;; A storm of calls through a table.
;; expect: plugin_timeout: ran longer than its limit of 50ms
(type $f (func (param i32) (result i32)))
(table 1 funcref)
(elem (i32.const 0) $callee)
(func $callee (type $f) (local.get 0))
(func $transform (param i32) (result i32)
  (loop
    (drop (call_indirect (type $f) (local.get 0) (i32.const 0)))
    (br 0))
  unreachable)
