;; Calls through a table what has another type.
;; expect: plugin_trap: indirect call type mismatch
(type $f (func (param i64) (result i64)))
(table 1 funcref)
(elem (i32.const 0) $callee)
(func $callee (param i32))
(func $transform (param i32) (result i32)
  (drop (call_indirect (type $f) (i64.const 0) (i32.const 0)))
  unreachable)
