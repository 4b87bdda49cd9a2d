;; A module that exports nothing.
;; expect: rejected: it is a core module that cannot be made a component
(module)
