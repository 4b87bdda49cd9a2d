;; Has types that need a garbage collector.
;; expect: rejected: gc
(type $s (struct (field i32)))
