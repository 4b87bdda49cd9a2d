;; A component that imports what nobody granted.
;; expect: rejected: it does not export `hookmill:plugin/transformer@1.0.0`
(component
  (import "acme:spy/network@1.0.0" (instance (export "send" (func (param "bytes" (list u8)))))))
