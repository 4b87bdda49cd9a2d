;; A component that exports nothing.
;; expect: rejected: it does not export `hookmill:plugin/transformer@1.0.0`
(component)
