;; Two functions call each other through a table without end.
;; expect: plugin_trap: went deeper than the limit of 524288 bytes on its stack
(type $f (func (param i32) (result i32)))
(table 2 funcref)
(elem (i32.const 0) $even $odd)
(func $even (type $f)
  (i32.add (call_indirect (type $f) (local.get 0) (i32.const 1)) (i32.const 1)))
(func $odd (type $f)
  (i32.add (call_indirect (type $f) (local.get 0) (i32.const 0)) (i32.const 1)))
(func $transform (param i32) (result i32)
  (call $even (local.get 0)))
