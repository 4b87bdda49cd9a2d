;; A component whose export has the name of the interface and is a function.
;; expect: rejected: it does not fit the contract
(component
  (core module $m (func (export "f")))
  (core instance $i (instantiate $m))
  (func $f (canon lift (core func $i "f")))
  (export "hookmill:plugin/transformer@1.0.0" (func $f)))
