;; Starts well when it is loaded, and never ends starting by the time of `transform`: there is no such
;; time, as every instance is fresh and knows nothing of the one before.
;; expect: delivered
(global $started (mut i32) (i32.const 0))
(func $start
  (if (global.get $started) (then (loop (br 0))))
  (global.set $started (i32.const 1)))
(start $start)
